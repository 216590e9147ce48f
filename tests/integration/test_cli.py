"""The command line beside the running service, and alone: the same commands, the same answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "whsec_planted_stripe_secret"


class Caisse:
    """An installation in a directory of its own, used through its command line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
        self.environment = {
            **clean,
            "PYTHONPATH": str(ROOT),
            "CAISSE_PORT": str(self.port),
            "CAISSE_STRIPE_WEBHOOK_SECRETS": SECRET,
        }

    def run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stdout + done.stderr

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status))

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        log = (self.directory / "log").open("a+")
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve"],
            cwd=self.directory, env=self.environment, stderr=log, stdout=log, text=True,
        )  # fmt: skip
        try:
            _until(lambda: process.poll() is None and _answers(self.port))
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            log.close()


class Shop:
    """A merchant's endpoint: remembers what it got, answers what it is told to."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[dict[str, Any]] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                shop.got.append(json.loads(body))
                self.send_response(shop.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _until(true: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def test_the_first_day(tmp_path: Path, shop: Shop) -> None:
    """Merchant before the first start, service, a real callback, a webhook; then every look at what happened."""
    caisse = Caisse(tmp_path)
    made = caisse.json("merchant", "create", "Awa", "--webhook-url", shop.url)
    assert set(made) >= {"id", "api_key", "endpoint"}
    with caisse.serving():
        sent = caisse.json("callback", "send", "stripe", "payment_intent.succeeded", "--set", "amount=1500",
                           "--set", "reference=CMD-7", "--repeat", "3")  # fmt: skip
        assert sent["answers"] == {"200": 3}
        _until(lambda: any(event["type"] == "payment.succeeded" for event in shop.got))
        assert sum(event["type"] == "payment.succeeded" for event in shop.got) == 1

        (payment,) = caisse.json("payments", "list")
        assert (payment["status"], payment["amount"]) == ("succeeded", 1500)
        whole = caisse.json("payments", "show", payment["id"])
        assert {moment["what"] for moment in whole["timeline"]} >= {"fact", "event"}
        (callback,) = caisse.json("callbacks", "list")
        assert (callback["status"], callback["seen_count"]) == ("processed", 3)
        assert "payment_intent" in caisse.json("callbacks", "show", callback["id"])["body"]
        event = next(e for e in caisse.json("events", "list") if e["type"] == "payment.succeeded")
        _until(lambda: caisse.json("events", "show", event["id"])["deliveries"][0]["status"] == "succeeded")
        assert caisse.json("events", "show", event["id"])["body"]["data"]["payment"]["id"] == payment["id"]

        (delivery,) = caisse.json("deliveries", "list", "--event", event["id"])
        assert (delivery["status"], delivery["http_status"], delivery["tries"]) == ("succeeded", 204, 1)
        again = caisse.json("deliveries", "retry", delivery["id"])
        assert again["id"].endswith(":1")
        _until(lambda: sum(e["id"] == event["id"] for e in shop.got) == 2)
        tried = caisse.json("deliveries", "show", again["id"])
        assert [one["http_status"] for one in tried["tried"]] == [204]

        for command in ("payments", "callbacks", "events", "deliveries", "merchant", "endpoint", "account", "keys"):
            assert caisse.run(command, "list").strip()
        doctor = caisse.run("doctor")
        assert f"http://127.0.0.1:{caisse.port}/webhooks/stripe" in doctor
        assert SECRET not in doctor
    planted = [SECRET, made["api_key"], made["endpoint"]["secret"]]
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in planted), path


def test_commands_beside_the_running_service_change_it_at_once(tmp_path: Path, shop: Shop) -> None:
    """They are handed over; what they change holds for the very next request, and refusals come back as sentences."""
    caisse = Caisse(tmp_path)
    with caisse.serving():
        made = caisse.json("merchant", "create", "Awa")
        endpoint = caisse.json("endpoint", "add", made["id"], shop.url, "--schedule", "short")
        test = caisse.json("endpoint", "test", endpoint["id"])
        assert (test["status"], test["http_status"]) == ("succeeded", 204)
        assert shop.got[-1]["type"] == "endpoint.test"

        account = caisse.json("account", "add", made["id"], "paystack", "--set", "secret_keys=sk_test_planted")
        assert account["address"].endswith(f"/webhooks/paystack/{account['id']}")
        assert _post(account["address"]) == 401  # there at once, and it verifies

        caisse.run("endpoint", "disable", endpoint["id"], "--reason", "closed")
        caisse.run("callback", "send", "stripe", "payment_intent.succeeded")
        _until(lambda: [d["status"] for d in caisse.json("deliveries", "list")][:1] == ["held"])
        before = len(shop.got)
        assert caisse.json("endpoint", "enable", endpoint["id"], "--send-held")["sent"] >= 1
        _until(lambda: len(shop.got) > before)

        assert "caisse endpoint list" in caisse.run("endpoint", "disable", "ep_nobody", status=1)
        assert "caisse merchant list" in caisse.run("endpoint", "add", "mer_nobody", shop.url, status=1)
        assert "caisse callbacks list" in caisse.run("callbacks", "replay", "cb_nobody", "--reason", "x", status=1)
        assert "may not be sent" in caisse.run("endpoint", "add", made["id"], "http://169.254.169.254/", status=1)
        assert "may not be sent" in caisse.run(
            "endpoint", "add", made["id"], f"http://127.0.0.1:{caisse.port}/x", status=1
        )

        key = caisse.json("keys", "create", made["id"], "--scope", "payments:read")
        assert caisse.json("keys", "revoke", key["id"])["changed"]
        rotated = caisse.json("endpoint", "rotate-secret", endpoint["id"])
        assert rotated["secret"] != endpoint["secret"]
        before_keys = (tmp_path / "caisse.db.key").read_bytes()
        assert caisse.json("keys", "rotate-master")["resealed"] >= 3
        assert (tmp_path / "caisse.db.key").read_bytes() != before_keys
        assert caisse.json("endpoint", "test", endpoint["id"])["status"] == "succeeded"
    assert caisse.json("account", "list")[0]["missing"] == []  # and a fresh start opens all of it with the new key
    assert caisse.json("doctor")["ok"]


def test_a_wrong_secret_is_put_right_and_its_callbacks_replayed(tmp_path: Path) -> None:
    """Quarantined while the secret is wrong, taken after it was fixed."""
    caisse = Caisse(tmp_path)
    caisse.json("merchant", "create", "Awa")
    caisse.environment["CAISSE_STRIPE_WEBHOOK_SECRETS"] = "whsec_wrong"
    with caisse.serving():
        caisse.environment["CAISSE_STRIPE_WEBHOOK_SECRETS"] = SECRET
        said = caisse.run("callback", "send", "stripe", "payment_intent.succeeded", status=1)
        assert "It was not verified" in said
        (kept,) = caisse.json("callbacks", "list", "--status", "quarantined")
        assert kept["reason"] == "bad_signature"
        refused = caisse.run("callbacks", "replay", kept["id"], "--reason", "fixed", status=1)
        assert "still does not verify" in refused
        assert caisse.json("callbacks", "show", kept["id"])["headers"]
    with caisse.serving():
        caisse.run("callbacks", "replay", kept["id"], "--reason", "fixed")
        assert caisse.json("callbacks", "list", "--status", "quarantined") == []
        _until(lambda: [p["status"] for p in caisse.json("payments", "list")] == ["succeeded"])


def test_callbacks_from_before_the_first_merchant_are_told_to_it(tmp_path: Path, shop: Shop) -> None:
    """They wait, and the transaction that makes the merchant brings them back."""
    caisse = Caisse(tmp_path)
    with caisse.serving():
        caisse.run("callback", "send", "stripe", "payment_intent.succeeded")
        _until(lambda: [c["status"] for c in caisse.json("callbacks", "list")] == ["deferred"])
        caisse.run("merchant", "create", "Awa", "--webhook-url", shop.url)
        _until(lambda: any(event["type"] == "payment.succeeded" for event in shop.got))


def test_nobody_listens(tmp_path: Path) -> None:
    """Sending to a service that does not run says so; a test of an endpoint is kept for its start."""
    caisse = Caisse(tmp_path)
    assert "is `caisse serve` running?" in caisse.run("callback", "send", "stripe", "charge.succeeded", status=1)
    made = caisse.json("merchant", "create", "Awa", "--webhook-url", "http://127.0.0.1:9999/x")
    assert "as soon as the service runs" in caisse.run("endpoint", "test", made["endpoint"]["id"], status=1)
    assert caisse.json("migrate")["revision"] == caisse.json("migrate")["newest"]


def _post(url: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"{}", method="POST"), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
