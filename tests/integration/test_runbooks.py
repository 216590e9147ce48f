"""
The runbooks, run as they are written: every command line of every section, in its order, against a real service.

Only what a page cannot know is put in: ids for `ep_…`, this test's port, directory and shop, and a start of the service
for `systemctl`. A block of TOML is written into caisse.toml, as the page says. A section that has commands and no test
fails.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.support.service import stripe_event, stripe_signature

ROOT = Path(__file__).parents[2]
ROTATION, FAILED = "key-rotation.md", "failed-work.md"

STAND_INS = {
    # Where a machine has only Python and make, these stand in for the programs that the pages use.
    "curl": "import sys, urllib.request as u\nprint(u.urlopen(sys.argv[-1]).read().decode())",
    "openssl": "import base64, os\nprint(base64.b64encode(os.urandom(32)).decode())",
    "sqlite3": "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\n"
    "if sys.argv[2].startswith('.backup'): db.backup(sqlite3.connect(sys.argv[2].split()[1]))\n"
    "else: print(db.execute(sys.argv[2]).fetchone()[0])",
}


# --- the pages ----------------------------------------------------------------------------------------


def sections(page: str) -> dict[str, list[tuple[str, str]]]:
    """Of each heading its steps, in order: ("toml", text) or ("console", one command line)."""
    found: dict[str, list[tuple[str, str]]] = {}
    heading, language = "", ""
    block: list[str] = []
    for line in (ROOT / "docs/runbooks" / page).read_text("utf-8").splitlines():
        fence = re.match(r"[ \d.]*```(\w*)\s*$", line)
        if fence and not language:
            language, block = fence[1] or "text", []
        elif fence:
            steps = found.setdefault(heading, [])
            if language == "toml":
                steps.append(("toml", "\n".join(block)))
            elif language in ("console", "sh"):
                steps += [("console", one.removeprefix("$ ")) for one in block if one.startswith("$ ")]
            language = ""
        elif language:
            block.append(line.strip())
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert not language, f"{page}: a block is not closed"
    return {name: steps for name, steps in found.items() if steps}


TESTED: set[tuple[str, str]] = set()


def runs(page: str, heading: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test runs this section: it is handed the section's `Steps` and has to take all of them."""
    TESTED.add((page, heading))

    def around(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def wrapped(till: Till) -> None:
            steps = Steps(till, list(sections(page)[heading]))
            test(till, steps)
            assert steps.left == [], "the test did not run the whole section"

        del wrapped.__wrapped__  # type: ignore[attr-defined] # pytest would ask for `steps` as a fixture
        return wrapped

    return around


class Steps:
    """A section's steps, taken one after the other."""

    def __init__(self, till: Till, steps: list[tuple[str, str]]) -> None:
        self.till, self.left = till, steps

    def take(self, begins: str, **names: str) -> str:
        """
        The next step, which begins with these words. A command must end with status 0; its output is returned.
        `names` are put in: `ep="ep_01"` for `ep_…`, capitals for a word of the page.
        """
        kind, text = self.left.pop(0)
        assert text.startswith(begins), f"the page goes on with {text!r}, the test with {begins!r}"
        for name, value in names.items():
            text = text.replace(name if name.isupper() else f"{name}_…", value)
        text = text.replace("webhook:evt_…", names.get("delivery", "webhook:evt_…"))
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.till.port}")
        text = text.replace("https://shop.example.com/hooks", self.till.shop.url)
        text = text.replace("/var/lib/caisse", str(self.till.directory))
        assert "…" not in text, f"nothing is put in for the id in {text!r}"
        if kind == "toml":
            self.till.set(tomllib.loads(text))
            return ""
        if text.startswith("systemctl "):
            return self.till.systemctl(shlex.split(text, comments=True)[1])
        return self.till.shell(text)


# --- an installation ----------------------------------------------------------------------------------


class Shop:
    """A merchant's endpoint: keeps headers and bodies, answers what it is told to."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                shop.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(shop.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def events(self, type_: str) -> list[tuple[dict[str, str], bytes]]:
        return [one for one in list(self.got) if json.loads(one[1])["type"] == type_]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Till:
    """An installation in a directory of its own: caisse.toml, a service, and a shell in which `caisse` is a command."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.shop = directory, Shop()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.server: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, Any] = {"port": self.port, "log_level": "warning"}
        self.set({"stripe": {"secret_key": "sk_test_1", "webhook_secrets": ["whsec_old"]}})
        programs = directory / "bin"
        programs.mkdir()
        self._program(programs / "caisse", f'#!/bin/sh\nexec "{sys.executable}" -m service.cli "$@"\n')
        for name, source in STAND_INS.items():
            if shutil.which(name) is None:
                self._program(programs / name, f"#!{sys.executable}\n{source}\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
        self.environment = {**clean, "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"}

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def set(self, more: Mapping[str, Any]) -> None:
        """Change caisse.toml; nothing is read before the next start."""
        for name, value in more.items():
            self.settings[name] = {**self.settings.get(name, {}), **value} if isinstance(value, dict) else value
        plain = [f"{k} = {json.dumps(v)}" for k, v in self.settings.items() if not isinstance(v, dict)]
        for name, table in self.settings.items():
            if isinstance(table, dict):
                plain += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
        (self.directory / "caisse.toml").write_text("\n".join(plain) + "\n")

    def shell(self, line: str, status: int = 0) -> str:
        done = subprocess.run(
            ["sh", "-c", line], cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == status, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + (done.stderr if status else "")

    def json(self, line: str) -> Any:
        return json.loads(self.shell(f"caisse {line} --json"))

    def systemctl(self, word: str) -> str:
        if word in ("stop", "restart") and self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(30) == 0
            self.server = None
        if word in ("start", "restart"):
            with (self.directory / "log").open("ab") as log:
                self.server = subprocess.Popen(
                    ["caisse", "serve"], cwd=self.directory, env=self.environment, stdout=log, stderr=log
                )
            until(lambda: self.get("/healthz") == 200, "the service did not start")
        return ""

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def stripe(self, id_: str, secret: str, path: str = "/webhooks/stripe", body: bytes = b"", **fields: Any) -> int:
        """A callback of a payment of its own, signed with this secret; the status of the answer."""
        event = stripe_event("payment_intent.succeeded", f"evt_{id_}", intent=f"pi_{id_}", **fields)
        content = body or json.dumps(event).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content)
        request.add_header("Stripe-Signature", stripe_signature(content, secret))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def merchant(self) -> Any:
        return self.json(f"merchant create Awa --webhook-url {self.shop.url}")

    def told(self, intent: str) -> list[tuple[dict[str, str], bytes]]:
        """The webhooks about the payment of `stripe(intent, …)`."""
        return [one for one in list(self.shop.got) if f'"pi_{intent}"'.encode() in one[1]]

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
        self.shop.close()


def until(true: Callable[[], object], sentence: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, sentence
        time.sleep(0.05)


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A service with Stripe's secret `whsec_old`, not started yet."""
    made = Till(tmp_path)
    yield made
    made.close()


def verifies(secret: str, webhook: tuple[dict[str, str], bytes]) -> bool:
    """Whether the official library takes it."""
    headers, body = webhook
    try:
        Webhook(secret).verify(body, headers)
    except Exception:  # noqa: BLE001 - the library's own kinds; any of them is a no
        return False
    return True


# --- key-rotation.md ----------------------------------------------------------------------------------


@runs(ROTATION, "A provider's webhook secret, default account")
def test_provider_secret_of_the_default_account(till: Till, steps: Steps) -> None:
    """Old and new verify at once, in the middle; at the end only the new one does."""
    till.merchant()
    till.systemctl("start")
    assert (till.stripe("a", "whsec_old"), till.stripe("b", "whsec_new")) == (200, 401)
    steps.take("[stripe]")
    steps.take("systemctl restart")
    steps.take("caisse doctor")
    (account,) = json.loads(steps.take("caisse account list"))
    assert account["credentials"]["webhook_secrets"] == 2
    assert (till.stripe("c", "whsec_old"), till.stripe("d", "whsec_new")) == (200, 200)
    steps.take("[stripe]")
    steps.take("systemctl restart")
    steps.take("caisse doctor")
    assert (till.stripe("e", "whsec_old"), till.stripe("f", "whsec_new")) == (401, 200)
    until(lambda: all(till.told(name) for name in "acdf"), "a callback that was taken did not become a webhook")


@runs(ROTATION, "A provider's webhook secret, stored account")
def test_provider_secret_of_a_stored_account(till: Till, steps: Steps) -> None:
    """The same without a start: one process from beginning to end."""
    merchant = till.merchant()["id"]
    till.systemctl("start")
    given = "--set secret_key=sk_test_2 --set webhook_secrets=whsec_old"
    account = till.json(f"account add {merchant} stripe {given}")["id"]
    path = f"/webhooks/stripe/{account}"
    (till.directory / "new-secret").write_text("whsec_new\n")
    assert (till.stripe("a", "whsec_old", path), till.stripe("b", "whsec_new", path)) == (200, 401)
    assert account in steps.take("caisse account list")
    steps.take("caisse account rotate", acc=account)
    assert (till.stripe("c", "whsec_old", path), till.stripe("d", "whsec_new", path)) == (200, 200)
    steps.take("caisse account rotate", acc=account)
    assert (till.stripe("e", "whsec_old", path), till.stripe("f", "whsec_new", path)) == (401, 200)


@runs(ROTATION, "An endpoint's secret")
def test_endpoint_secret(till: Till, steps: Steps) -> None:
    """The webhook carries both signatures; the plain header stays with the old secret."""
    old = till.merchant()["endpoint"]
    till.systemctl("start")
    assert old["id"] in steps.take("caisse endpoint list")
    said = steps.take("caisse endpoint rotate-secret", ep=old["id"])
    new = re.search(r"whsec_\S+", said)
    assert new and new[0] != old["secret"]
    steps.take("caisse endpoint test", ep=old["id"])
    (webhook,) = till.shop.events("endpoint.test")
    assert verifies(old["secret"], webhook) and verifies(new[0], webhook)
    assert len(webhook[0]["webhook-signature"].split()) == 2
    assert webhook[0]["x-caisse-signature"] == plain(webhook[1], old["secret"])


def plain(body: bytes, secret: str) -> str:
    """The plain header, made here once more."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@runs(ROTATION, "An API key")
def test_api_key(till: Till, steps: Steps) -> None:
    """The new one is there beside the old one; the old one is revoked and stays in the list as such."""
    merchant = till.merchant()["id"]
    (old,) = till.json("keys list")
    till.systemctl("start")
    assert "ck_test_" in steps.take("caisse keys create", mer=merchant)
    assert len(till.json("keys list")) == 2
    steps.take("caisse keys list")
    steps.take("caisse keys revoke", key=old["id"])
    assert {key["id"]: key["revoked_at"] is not None for key in till.json("keys list")}[old["id"]] is True
    assert sum(key["revoked_at"] is None for key in till.json("keys list")) == 1


@runs(ROTATION, "In the file beside the database")
def test_master_key_in_the_file(till: Till, steps: Steps) -> None:
    """Beside the running service, which goes on with the new key; a later start needs nothing else."""
    made = till.merchant()["endpoint"]
    key_file = till.directory / "caisse.db.key"
    till.systemctl("start")
    before, process = key_file.read_bytes(), till.server
    steps.take("caisse keys rotate-master")
    assert key_file.read_bytes() != before and not set(before.split()) & set(key_file.read_bytes().split())
    assert process is till.server and process is not None and process.poll() is None
    till.shell(f"caisse endpoint test {made['id']}")
    till.systemctl("restart")
    till.shell(f"caisse endpoint test {made['id']}")
    assert [verifies(made["secret"], one) for one in till.shop.events("endpoint.test")] == [True, True]


@runs(ROTATION, "In the settings")
def test_master_keys_in_the_settings(till: Till, steps: Steps) -> None:
    """Stored secrets still open after the old key is gone; dropped too early, the start is refused with a sentence."""
    old = base64.b64encode(secrets.token_bytes(32)).decode()
    till.set({"master_keys": [old]})
    made = till.merchant()["endpoint"]
    till.systemctl("start")
    new = steps.take("openssl").strip()
    steps.take("master_keys", NEW=new, OLD=old)
    steps.take("systemctl restart")
    till.systemctl("stop")
    both = till.settings["master_keys"]
    till.set({"master_keys": [new]})
    assert "put that key back" in till.shell("caisse serve", status=1)
    till.set({"master_keys": both})
    till.systemctl("start")
    steps.take("caisse keys rotate-master")
    till.shell(f"caisse endpoint test {made['id']}")
    steps.take("master_keys", NEW=new)
    steps.take("systemctl restart")
    steps.take("caisse doctor")
    till.shell(f"caisse endpoint test {made['id']}")
    assert [verifies(made["secret"], one) for one in till.shop.events("endpoint.test")] == [True, True]


@runs(ROTATION, "When a secret has leaked")
def test_a_leaked_secret(till: Till, steps: Steps) -> None:
    """Nothing is signed with the leaked secret again, and nothing is lost meanwhile."""
    old = till.merchant()["endpoint"]
    (key,) = till.json("keys list")
    till.systemctl("start")
    steps.take("caisse endpoint disable", ep=old["id"])
    assert till.stripe("held", "whsec_old") == 200
    until(lambda: till.json("deliveries list --status held"), "nothing is held")
    new = re.search(r"whsec_\S+", steps.take("caisse endpoint rotate-secret", ep=old["id"]))
    assert new and till.shop.got == []
    steps.take("caisse endpoint enable", ep=old["id"])
    until(lambda: till.told("held"), "what was held did not come")
    (webhook,) = till.told("held")
    assert verifies(new[0], webhook) and not verifies(old["secret"], webhook)
    assert webhook[0]["x-caisse-signature"] == plain(webhook[1], new[0])
    steps.take("caisse keys revoke", key=key["id"])
    assert till.json("keys list")[0]["revoked_at"]


# --- failed-work.md -----------------------------------------------------------------------------------


@runs(FAILED, "What is wrong at all?")
def test_what_is_wrong(till: Till, steps: Steps) -> None:
    """Both say that nothing is, and after a secret is missing both say which."""
    till.merchant()
    till.systemctl("start")
    steps.take("caisse doctor")
    assert json.loads(steps.take("curl")) == {"status": "ready", "problems": []}
    till.set({"stripe": {"webhook_secrets": []}})
    till.systemctl("restart")
    assert till.get("/readyz") == 503
    assert "webhook_secrets is missing" in till.shell("caisse doctor", status=1)


@runs(FAILED, "Callbacks")
def test_parked_and_dead_callbacks(till: Till, steps: Steps) -> None:
    """Both are listed; a dead one that is run again ends processed, and its payment is told once."""
    till.merchant()
    till.systemctl("start")
    assert till.stripe("x", "whsec_old", body=b"this is not JSON") == 200
    assert till.stripe("good", "whsec_old") == 200
    until(lambda: till.told("good"), "no webhook came")
    (good,) = [one["id"] for one in till.json("callbacks list") if one["status"] == "processed"]
    till.systemctl("stop")
    with sqlite3.connect(till.directory / "caisse.db") as database:  # what spent retries leave behind
        database.execute("UPDATE callbacks SET status = 'dead', reason = 'retries_spent' WHERE id = ?", [good])
    database.close()
    till.systemctl("start")
    assert "unreadable" in steps.take("caisse callbacks list")
    assert good in steps.take("caisse callbacks list")
    assert "pi_good" in steps.take("caisse callbacks show", cb=good)
    steps.take("caisse callbacks replay", cb=good)
    until(lambda: till.json(f"callbacks show {good}")["status"] == "processed", "the replay did not end well")
    assert len(till.told("good")) == 1


@runs(FAILED, "Deferred for want of a merchant")
def test_deferred_callbacks(till: Till, steps: Steps) -> None:
    """Whoever came before the merchant waits, and is worked on and told as soon as there is one."""
    till.systemctl("start")
    assert till.stripe("early", "whsec_old") == 200
    until(lambda: till.json("callbacks list --status deferred"), "it was not deferred")
    assert "no_merchant" in steps.take("caisse callbacks list")
    steps.take("caisse merchant create")
    until(lambda: till.told("early"), "the merchant was not told")
    assert "payment_intent.succeeded" in steps.take("caisse callbacks list")


@runs(FAILED, "A wrong secret at a provider")
def test_a_wrong_secret(till: Till, steps: Steps) -> None:
    """What was refused is taken after the secret is mended, and becomes a webhook."""
    till.merchant()
    till.systemctl("start")
    assert till.stripe("refused", "whsec_right") == 401
    until(lambda: till.json("callbacks list --status quarantined"), "it is not in quarantine")
    (kept,) = till.json("callbacks list --status quarantined")
    assert kept["id"] in steps.take("caisse callbacks list")
    steps.take("[stripe]")
    steps.take("systemctl restart")
    steps.take("caisse callbacks replay", qua=kept["id"])
    until(lambda: till.told("refused"), "the merchant was not told")
    assert till.json("callbacks list --status quarantined") == []
    assert (till.stripe("old", "whsec_old"), till.stripe("right", "whsec_right")) == (200, 200)


@runs(FAILED, "Webhooks to a merchant")
def test_a_dead_delivery(till: Till, steps: Steps) -> None:
    """Its tries are spent; the retry brings the same event under the same id."""
    merchant = till.json("merchant create Awa")["id"]
    endpoint = till.json(f"endpoint add {merchant} {till.shop.url} --schedule 1")
    till.shop.status = 500
    till.systemctl("start")
    assert till.stripe("lost", "whsec_old") == 200
    until(lambda: till.json("deliveries list --status failed"), "its tries were not spent")
    (dead,) = till.json("deliveries list --status failed")
    till.shop.status = 204
    assert "http_500" in steps.take("caisse deliveries list")
    assert "http_500" in steps.take("caisse deliveries show", delivery=dead["id"])
    steps.take("caisse deliveries retry", delivery=dead["id"])
    until(lambda: till.json("deliveries list --status succeeded"), "the retry was not delivered")
    webhooks = till.told("lost")
    assert len(webhooks) == 3 and len({headers["webhook-id"] for headers, _ in webhooks}) == 1
    assert verifies(endpoint["secret"], webhooks[-1])


@runs(FAILED, "All that was missed, at once")
def test_a_recovery(till: Till, steps: Steps) -> None:
    """The dry run sends nothing; the recovery brings what was given up, once."""
    merchant = till.json("merchant create Awa")["id"]
    till.json(f"endpoint add {merchant} {till.shop.url} --schedule 0")
    till.shop.status = 500
    till.systemctl("start")
    assert till.stripe("a", "whsec_old") == 200
    until(lambda: till.json("deliveries list --status failed"), "its tries were not spent")
    till.shop.status = 204
    till.shop.got.clear()
    assert "would be sent again" in steps.take("caisse deliveries recover")
    assert till.json("deliveries recoveries") == [] and not till.told("a")
    assert "is finished: 1 sent again" in steps.take("caisse deliveries recover")
    assert "finished" in steps.take("caisse deliveries recoveries")
    until(lambda: till.json("deliveries list --status succeeded"), "it was not delivered")
    assert len(till.told("a")) == 1


@runs(FAILED, "An endpoint that is disabled")
def test_a_disabled_endpoint(till: Till, steps: Steps) -> None:
    """After a 410 what is owed is held; enabled, it is sent. The refused one is retried by hand."""
    endpoint = till.merchant()["endpoint"]["id"]
    till.shop.status = 410
    till.systemctl("start")
    assert till.stripe("gone", "whsec_old") == 200
    until(lambda: till.json("endpoint list")[0]["status"] == "disabled", "it was not disabled")
    assert till.stripe("owed", "whsec_old") == 200
    until(lambda: till.json("deliveries list --status held"), "nothing is held")
    till.shop.status = 204
    assert "410" in steps.take("caisse endpoint list")
    assert "410" in steps.take("caisse endpoint show", ep=endpoint)
    assert "held" in steps.take("caisse deliveries list")
    assert not till.told("owed")
    steps.take("caisse endpoint enable", ep=endpoint)
    steps.take("caisse endpoint test", ep=endpoint)
    until(lambda: till.told("owed"), "what was held did not come")
    (refused,) = till.json("deliveries list --status failed")
    till.shell(f"caisse deliveries retry {refused['id']}")
    until(lambda: len(till.told("gone")) == 2, "the refused one did not come again")


@runs(FAILED, "Payments that need a person")
def test_attention(till: Till, steps: Steps) -> None:
    """Less money than was asked for: no success was told, and the payment says why."""
    till.merchant()
    till.systemctl("start")
    assert till.stripe("little", "whsec_old", amount_received=4000) == 200
    until(lambda: till.told("little"), "the merchant was not told")
    assert till.shop.events("payment.succeeded") == []
    (payment,) = till.json("payments list")
    assert payment["id"] in steps.take("caisse events list")
    shown = steps.take("caisse payments show", pay=payment["id"])
    assert "under" in shown and "payment.attention" in shown


@runs(FAILED, "The disk is full")
def test_the_looks_at_a_full_disk(till: Till, steps: Steps) -> None:
    """The commands work; that a full disk loses nothing and heals is proven in tests/unit/test_sqlite_writer.py."""
    till.merchant()
    till.systemctl("start")
    steps.take("df -h")
    assert "MiB free" in steps.take("caisse doctor")


@runs(FAILED, "The process ended with status 70")
def test_after_status_70(till: Till, steps: Steps) -> None:
    """The file is checked before the start, and the backup holds what was kept."""
    till.merchant()
    till.systemctl("start")
    assert till.stripe("kept", "whsec_old") == 200
    steps.take("systemctl stop")
    assert steps.take("sqlite3").strip() == "ok"
    steps.take("systemctl start")
    steps.take("caisse doctor")
    steps.take("sqlite3")
    with sqlite3.connect(till.directory / "copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM callbacks").fetchone() == (1,)
    copy.close()


def test_every_section_with_commands_is_run() -> None:
    """A new section brings its test; both runbooks have nothing that nobody tried."""
    written = {(page, heading) for page in (ROTATION, FAILED) for heading in sections(page)}
    assert written == TESTED
