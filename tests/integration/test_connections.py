"""Does the provider answer, does it take the key? Asked of the sandbox's six: `doctor --network` and `init`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli import init
from service.commands import connections
from service.commands import run as command
from service.providers import PROVIDERS
from service.sandbox.desk import Account
from service.sandbox.teller import Sandbox
from tests.support.paying import KEYS, SIX, Counter, counter

ROOT = Path(__file__).parents[2]
CALLING = {
    "stripe": "secret_key",
    "paystack": "secret_keys",
    "fedapay": "secret_key",
    "moneroo": "secret_key",
    "ebilling": "shared_key",
}
"""The credential that proves who asks. Monetbil's question needs none."""


def at_the_counter(tmp_path: Path, story: Callable[[Counter], Awaitable[None]], *names: str, **more: Any) -> None:
    async def run() -> None:
        async with counter(tmp_path, *names, **more) as c:
            await story(c)

    asyncio.run(run())


async def doctor(c: Counter) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What came of each provider, and all that doctor says."""
    found = await command(c.till.app, "doctor", {"network": True})
    assert isinstance(found, dict)
    return {one["provider"]: one for one in found["connections"]}, found


def test_the_right_keys_are_taken_by_all_six(tmp_path: Path) -> None:
    """Each is asked, nothing is made, no key is told, and the clocks are compared."""

    async def story(c: Counter) -> None:
        tried, found = await doctor(c)
        assert {name: one["result"] for name, one in tried.items()} == {
            **dict.fromkeys(CALLING, "works"),
            "monetbil": "reached",
        }
        assert {one["state"] for one in tried.values()} == {"ok"}
        assert all(abs(one["clock_offset_ms"]) < 5_000 for one in tried.values())
        assert not any(c.sandbox.bank.of(name) for name in SIX)
        assert sum(c.sandbox.asked.values()) == len(SIX), "one question is enough where its answer is plain"
        said = json.dumps({**found, "addresses": []})
        assert not any(secret in said for value in KEYS.values() for secret in value.split(","))
        clock = next(check for check in found["checks"] if check["check"] == "clock")
        assert clock["state"] == "ok" and "providers' clocks" in clock["sentence"]

    at_the_counter(tmp_path, story)


def test_wrong_keys_are_refused_by_those_who_look_at_them(tmp_path: Path) -> None:
    """A failure each, with what to do; Monetbil tells anybody, and we do not say that its key is right."""

    async def story(c: Counter) -> None:
        tried, found = await doctor(c)
        assert {name: one["result"] for name, one in tried.items()} == {
            **dict.fromkeys(CALLING, "refused"),
            "monetbil": "reached",
        }
        for name, credential in CALLING.items():
            assert (tried[name]["state"], tried[name]["http_status"]) == ("fail", 401)
            assert credential in tried[name]["sentence"]
            assert {"check": name, "state": "fail", "sentence": tried[name]["sentence"]} in found["checks"]
        assert "whether the key is right shows" in tried["monetbil"]["sentence"]

    wrong = {f"{name}_{credential}": "sk_test_wrong" for name, credential in CALLING.items()}
    at_the_counter(tmp_path, story, *SIX, **wrong)


@pytest.mark.parametrize("provider", SIX)
def test_what_goes_wrong_on_the_way_is_told_apart(tmp_path: Path, provider: str) -> None:
    """Refused, dropped, too often, broken there, not understood: a word each, and what to do."""
    troubles = {
        "refuse": ("unreachable", "fail", "connection is refused"),
        "rate_limited": ("limited", "warn", "wait a minute"),
        "error_5xx_before": ("trouble", "fail", "HTTP 500"),
        "maintenance": ("trouble", "fail", "HTTP 503"),
        "unauthorized": ("refused", "fail", "refuses the key"),
    }
    if provider == "stripe":  # of the others at least one answer is a plain no, which these do not touch
        troubles |= {
            "reset": ("unreachable", "fail", "broke"),
            "garbage_2xx": ("odd", "warn", "do not understand"),
        }

    async def story(c: Counter) -> None:
        for kind, (result, state, words) in troubles.items():
            c.sandbox.trouble.on(provider, kind, "" if kind == "refuse" else "*")
            (one,) = (await doctor(c))[0].values()
            assert (one["result"], one["state"]) == (result, state), (kind, one)
            assert words in one["sentence"]
            c.sandbox.trouble.off()

    at_the_counter(tmp_path, story, provider)


def test_a_provider_that_is_silent_costs_one_limit_and_holds_up_nobody(tmp_path: Path) -> None:
    """Stripe has three ways to be asked: after the limit no other is tried. Paystack beside it is answered."""

    async def story(c: Counter) -> None:
        c.sandbox.trouble.on("stripe", "timeout_before", "*")
        tried, left = await connections.tried(c.till.app, limit_ms=300)
        assert {one.provider: one.word for one in tried} == {"stripe": "unreachable", "paystack": "works"}
        assert left == 0
        assert "no answer within" in tried[1].sentence or "no answer within" in tried[0].sentence
        assert sum(count for (name, _, _), count in c.sandbox.asked.items() if name == "stripe") <= 1

    at_the_counter(tmp_path, story, "stripe", "paystack")


def test_only_so_many_accounts_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are counted."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 2)

    async def story(c: Counter) -> None:
        _, found = await doctor(c)
        assert len(found["connections"]) == 2
        assert any("1 more accounts were not asked" in check["sentence"] for check in found["checks"])

    at_the_counter(tmp_path, story, "stripe", "paystack", "fedapay")


def test_accounts_without_a_key_listen_and_say_so(tmp_path: Path) -> None:
    """No call is made, and doctor says what is missing for payments."""

    async def story(c: Counter) -> None:
        tried, found = await doctor(c)
        assert (tried["stripe"]["result"], tried["stripe"]["state"]) == ("no_key", "warn")
        assert tried["stripe"]["http_status"] is None
        assert any("only listens" in check["sentence"] for check in found["checks"])

    at_the_counter(tmp_path, story, "stripe", stripe_secret_key="")


def test_a_key_of_the_other_money_is_told(tmp_path: Path) -> None:
    """A test key behind real money fails; nothing of the key is shown."""

    async def story(c: Counter) -> None:
        tried, _ = await doctor(c)
        assert (tried["stripe"]["result"], tried["stripe"]["state"]) == ("test_key", "fail")

    at_the_counter(tmp_path, story, "stripe", mode="production")


def test_a_made_up_secret_is_for_polling_and_fails_when_callbacks_could_come(tmp_path: Path) -> None:
    """Payments are found by asking; once there is an address, doctor asks for the real one."""

    async def story(c: Counter) -> None:
        _, found = await doctor(c)
        (check,) = [check for check in found["checks"] if "made up" in check["sentence"]]
        assert check["state"] == ("fail" if c.till.app.settings.public_url else "ok")
        kept = await c.till.app.desk.create(c.usual("stripe"))
        c.sandbox.visit(json.loads((await c.attempts(kept))[0].action)["url"], "pay")
        await c.settle()
        assert (await c.payment(kept)).status == "pending" or (await c.payment(kept)).status == "requires_action"
        await c.go_on(31_000)
        assert (await c.payment(kept)).status == "succeeded"

    for public in ("", "https://pay.example"):
        directory = tmp_path / (public[8:] or "none")
        directory.mkdir()
        at_the_counter(
            directory, story, "stripe", public_url=public, stripe_webhook_secrets=f"{connections.POLLING_ONLY}abc"
        )


# --- init -----------------------------------------------------------------------------------------------


def caisse(directory: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """The command line, as a person uses it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments], input=typed, text=True, capture_output=True, check=False,
        cwd=directory, env={**clean, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip


def first_day(directory: Path, provider: str, credentials: dict[str, list[str]], *more: str, shut: bool = False) -> Any:
    """`init` in front of a sandbox that knows these keys."""

    async def run() -> Any:
        known = {
            "stripe": {"secret_key": ["sk_test_right"], "webhook_secrets": ["whsec_right"]},
            "moneroo": {"secret_key": ["pvk_sandbox_right"], "webhook_secrets": ["right"]},
        }[provider]
        async with Sandbox([Account(provider, known, "", live=False)], ports="each") as sandbox:
            if shut:
                sandbox.trouble.on(provider, "refuse")
            sets = [f"--set={name}={value}" for name, values in credentials.items() for value in values]
            base = f"--base-url={sandbox.base_urls[provider]}"
            return await asyncio.to_thread(caisse, directory, "init", f"--provider={provider}", base, *sets, *more)

    return asyncio.run(run())


def test_init_with_one_key_and_no_address_polls_and_ends_with_a_real_test(tmp_path: Path) -> None:
    """Everything by default but provider and key: written, explained in words, tried; and the key is nowhere shown."""
    done = first_day(tmp_path, "stripe", {"secret_key": ["sk_test_right"]}, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answers and takes the key" in done.stdout
    assert "found by asking" in done.stdout and "Does not: payments made past caisse" in done.stdout
    assert "it stays unknown" not in done.stdout  # Stripe can be asked by our own reference
    assert "sk_test_right" not in done.stdout + done.stderr
    written = (tmp_path / "caisse.toml").read_text()
    assert f'webhook_secrets = ["{connections.POLLING_ONLY}' in written and "# Made up" in written
    looked = caisse(tmp_path, "doctor", "--json")
    assert looked.returncode == 0, looked.stdout
    assert any("Polling only" in check["sentence"] for check in json.loads(looked.stdout)["checks"])


def test_init_says_what_cannot_be_asked(tmp_path: Path) -> None:
    """Moneroo cannot be asked by our reference: a lost answer stays unknown, and that is said on the first day."""
    done = first_day(tmp_path, "moneroo", {"secret_key": ["pvk_sandbox_right"]}, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it stays unknown" in done.stdout and "takes the key" in done.stdout
    assert "<public_url>/webhooks/moneroo" in done.stdout and "http://127.0.0.1:8080" not in done.stdout


def test_init_with_a_wrong_key_is_written_and_says_what_to_do(tmp_path: Path) -> None:
    """Exit status 1: it is not done yet. The file is there to be put right, and doctor tries again."""
    done = first_day(tmp_path, "stripe", {"secret_key": ["sk_test_wrong"]}, "--yes")
    assert done.returncode == 1
    assert "refuses the key" in done.stdout and "caisse doctor --network" in done.stdout
    assert "API key          ck_test_" in done.stdout and (tmp_path / "caisse.toml").exists()
    assert "sk_test_wrong" not in done.stdout + done.stderr
    again = caisse(tmp_path, "doctor", "--network", "--json")  # the sandbox is gone by now
    said = json.loads(again.stdout)
    assert (again.returncode, said["ok"], said["connections"][0]["result"]) == (1, False, "unreachable")


def test_init_where_nothing_listens(tmp_path: Path) -> None:
    """The same for a refused connection, as JSON."""
    done = first_day(tmp_path, "stripe", {"secret_key": ["sk_test_right"]}, "--yes", "--json", shut=True)
    assert done.returncode == 1
    test = json.loads(done.stdout)["test"]
    assert (test["result"], test["state"], test["http_status"]) == ("unreachable", "fail", None)


def test_init_with_an_address_gives_it_to_paste_and_makes_nothing_up(tmp_path: Path) -> None:
    """The signing secret only exists once the address was pasted: it is asked for, and told of as long as it lacks."""
    options = ("--yes", "--public-url", "https://pay.example")
    done = first_day(tmp_path, "stripe", {"secret_key": ["sk_test_right"]}, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Paste at stripe: https://pay.example/webhooks/stripe" in done.stdout
    assert "Still wrong: stripe: webhook_secrets is missing" in done.stdout
    assert "found by asking" not in done.stdout
    assert connections.POLLING_ONLY not in (tmp_path / "caisse.toml").read_text()


def test_init_asks_few_questions(tmp_path: Path) -> None:
    """A person at a terminal: six answers, all but the key empty."""
    typed = "\n\nsk_test_typed\n\n\n\n"
    done = caisse(tmp_path, "init", "--no-test", typed=typed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'secret_key = "sk_test_typed"' in (tmp_path / "caisse.toml").read_text()
    assert "Not tried" in done.stdout and "sk_test_typed" not in done.stdout + done.stderr


@pytest.mark.parametrize("public", ["", "https://pay.example"])
def test_what_a_key_alone_leaves_open(public: str) -> None:
    """With no address all but Monetbil are complete: its secret also signs its page, so it is never made up."""
    left: dict[str, tuple[str, ...]] = {}
    for name, provider in PROVIDERS.items():
        found = {credential.name: ["key"] for credential in provider.credentials if credential.calls}
        init._ask_secret(provider, found, public, yes=True)
        left[name] = provider.missing({name: tuple(values) for name, values in found.items()})
    webhooks = ("webhook_secrets",) if public else ()
    assert left == {
        "stripe": webhooks, "paystack": (), "fedapay": webhooks, "monetbil": ("service_secrets",),
        "moneroo": webhooks, "ebilling": (),
    }  # fmt: skip
