"""`caisse dev`, end to end: six providers, a shop that fails on purpose, and nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, insert

from service.application import build
from service.callbacks.tables import callbacks
from service.cli import caisse
from service.commands.merchants import create
from service.config import Settings
from service.merchants.tables import events
from service.sandbox.closing import Closing, Told, check
from service.sandbox.home import CannotStart, prepare
from service.sandbox.look import sentence
from service.sandbox.merchant import Receipt, Shop
from service.sandbox.neighbours import Listener
from service.schema import outbox_tables

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-W", "error", "-c", "from service.cli import main; main()", "dev"]
TITLES = ("Stripe", "Paystack", "FedaPay", "Monetbil", "Moneroo", "eBilling")


def run(directory: Path, *more: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [*PROGRAM, "--directory", str(directory), "--plain", "--seed", "7", *more]
    return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=200, check=False)


def watched(words: list[str], cwd: Path, enough: Callable[[str, list[str]], bool]) -> tuple[list[str], str, str, int]:
    """
    A demonstration that plays until `enough` of what it has said (a line, and all lines), and is stopped by Ctrl-C
    then. The lines until then, the words after it, the errors, the status.
    """
    process = subprocess.Popen(
        words, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kept: list[str] = []
    stop = threading.Timer(240, process.kill)  # so that a demonstration that says nothing is not waited for
    stop.start()
    try:
        assert process.stdout is not None
        for text in process.stdout:
            kept.append(text)
            if enough(text, kept):
                break
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    finally:
        stop.cancel()
        process.kill()
        process.wait()
    return kept, out, errors, process.returncode


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return int(re.sub(r"\D", "", found[1]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_demonstration_and_its_continuation(tmp_path: Path) -> None:
    """It shows all six providers and a retry; a second run goes on with the same database, and ends by itself."""
    words = [*PROGRAM, "--directory", str(tmp_path / "demo"), "--plain", "--seed", "7"]

    def shown(text: str, _: list[str]) -> bool:
        seen = all(re.search(rf"{title} [1-9]", text) for title in TITLES)
        return seen and re.search(r"failed on purpose [1-9]\d*, after a retry [1-9]", text) is not None

    first_lines, rest, errors, status = watched([*words, "--failures", "0.3", "--rate", "12"], tmp_path, shown)
    said = "".join(first_lines) + rest
    assert status == 0, said + errors
    last = [text for text in said.splitlines() if " | in: " in text][-1]
    for title in TITLES:
        assert number(rf"{title} (\d+)", last) >= 1
    assert "Nothing was lost" in rest
    assert number(r"([\d\u00a0]+) failed on purpose\n", rest) >= 1
    assert number(r"([\d\u00a0]+) got by a retry", rest) >= 1
    assert number(r"([\d\u00a0]+) acknowledged", rest) >= 12
    assert errors == ""

    home = tmp_path / "demo"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "caisse.toml").stat().st_mode) == 0o600
    first = json.loads((home / "dev.json").read_text())
    received = sum(number(rf"{title} (\d+)", last) for title in TITLES)

    with contextlib.closing(sqlite3.connect(home / "caisse.db")) as kept:
        stock = first["neighbours"]["stock"]["endpoint"]
        tried = "SELECT t.http_status FROM outbox_tries t JOIN outbox_messages m ON m.id = t.message_id"
        answers = kept.execute(f"{tried} WHERE m.destination = ?", (stock,)).fetchall()
    assert (503,) in answers, "the end does not wait until those who hang time out"

    again = run(home, "--duration", "3", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    second = json.loads((home / "dev.json").read_text())
    assert second["shop"] == first["shop"], "the merchant and its endpoint are made once"
    assert second["secrets"] == first["secrets"]
    assert second["neighbours"] == first["neighbours"]
    assert set(first["neighbours"]) == {"books", "stock", "courier"}
    last = [text for text in again.stdout.splitlines() if " | in: " in text][-1]
    assert sum(number(rf"{title} (\d+)", last) for title in TITLES) > received


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_ctrl_c_ends_it_cleanly_and_the_port_is_free_again(tmp_path: Path) -> None:
    """One Ctrl-C: the play ends, the summary is said, nothing keeps listening."""
    words = [*PROGRAM, "--directory", str(tmp_path / "demo"), "--plain", "--failures", "0"]
    _, out, errors, status = watched(words, tmp_path, lambda text, _: " | in: " in text)
    assert status == 0, out + errors
    assert "Nothing was lost" in out
    assert errors == ""
    port = json.loads((tmp_path / "demo" / "dev.json").read_text())["ports"]["service"]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


SHORT = """
import pathlib, outbox.health, service.cli.dev as dev
from service.sandbox.neighbours import Cycle
class Outage(Cycle):
    def left_s(self, elapsed_s):
        return 60.0 if self.first_s < elapsed_s and not pathlib.Path("repaired").exists() else 0.0
outbox.health.OPEN_MS = 2_000
dev.CYCLE = Outage(first_s=4)
dev.DRAIN_S = 60
from service.cli import main; main()
"""
"""
The demonstration with one outage that ends when the test says so, a breaker that is as impatient as a test, and an end
that waits until all that is well has got everything.
"""


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_one_hangs_one_fails_one_is_well(tmp_path: Path) -> None:
    """The healthy one waits for nobody, the failing one's circuit opens and closes, recovery brings what it missed."""
    home = tmp_path / "demo"
    words = [sys.executable, "-W", "error", "-c", SHORT, "dev", "--directory", str(home), "--plain", "--seed", "7"]
    recovered = False

    def until_repaired(text: str, kept: list[str]) -> bool:
        nonlocal recovered
        if re.search(r"courier \(down\): open, tries again in .*?, failed [1-9]", text):
            (tmp_path / "repaired").touch()
        offered = re.fullmatch(r"caisse (--config \S+ deliveries recover --since \w+ --endpoint \w+)\n", text)
        if offered and not recovered:
            recovered = True
            ran = subprocess.run(
                [*PROGRAM[:-1], *offered[1].split()],
                cwd=tmp_path,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
        brought = re.search(r"courier: closed, .*?, owed 0, failed [1-9]\d* of which missing 0,", text)
        return recovered and brought is not None and well_beside_who_hangs(kept)

    kept, out, errors, status = watched([*words, "--rate", "15", "--failures", "0"], tmp_path, until_repaired)
    said = "".join(kept)
    assert recovered, said
    assert status == 0, said + out + errors
    assert errors == ""
    assert "Nothing was lost" in out
    assert well_beside_who_hangs(kept), said
    last = next(text for text in reversed(out.splitlines()) if " | to: " in text)
    assert number(r"courier: closed, delivered (\d+)", last) >= 1
    books = re.search(r"books: closed, delivered (\d+), owed 0, failed 0", last)
    assert books, last
    stock = re.search(r"stock(?: \(hangs\))?: \S+.*?, delivered 0, owed (\d+)", last)
    assert stock, last
    # Both are promised the same: all that the one still waits for, the other has got.
    assert int(books[1]) == int(stock[1])
    assert re.search(r"  stock +0 delivered, \d+ waiting for their next try\n", out)
    assert re.search(r"  courier +\d+ delivered(, \d+ waiting for their next try)?\n", out)


def well_beside_who_hangs(kept: list[str]) -> bool:
    """Whether at some moment of the play the healthy one was owed nothing of the much that the hanging one was."""
    pattern = r"books: closed, delivered \d+, owed 0, .*?stock \(hangs\): .*?, delivered 0, owed [1-9]\d"
    return any(re.search(pattern, text) for text in kept)


def test_a_taken_port_is_stepped_around(tmp_path: Path) -> None:
    """Somebody has 8080, or a port of the last run: another one is taken, each part has its own."""
    home = prepare(tmp_path / "demo")
    home.save()
    with socket.socket() as holder:
        # A run just before may have left connections behind that are closing: they keep nobody from listening.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", home.ports["service"]))
        holder.listen()
        moved = prepare(tmp_path / "demo")
    assert moved.ports["service"] != home.ports["service"]
    assert len(set(moved.ports.values())) == len(moved.ports)
    assert moved.secrets == home.secrets


def test_the_settings_it_writes_are_complete(tmp_path: Path) -> None:
    """All six providers, none half set, development mode, everything inside the directory."""
    home = prepare(tmp_path / "demo")
    home.save()
    settings = home.settings()
    assert {account.provider: account.missing for account in settings.default_accounts()} == dict.fromkeys(
        ("stripe", "paystack", "fedapay", "monetbil", "moneroo", "ebilling"), ()
    )
    assert settings.mode == "development"
    assert settings.database_path.parent == (tmp_path / "demo").resolve()
    assert all(url.startswith("http://127.0.0.1:") for url in settings.base_urls.values())


def test_production_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real installation's directory, settings file, database or environment: refused with a sentence, unchanged."""
    real = tmp_path / "real"
    real.mkdir()
    written = 'mode = "production"\n'
    (real / "caisse.toml").write_text(written)
    with pytest.raises(CannotStart, match="not written by"):
        prepare(real)
    assert (real / "caisse.toml").read_text() == written

    other = tmp_path / "other"
    other.mkdir()
    (other / "caisse.db").write_bytes(b"")
    with pytest.raises(CannotStart, match="did not make"):
        prepare(other)
    assert [path.name for path in other.iterdir()] == ["caisse.db"]

    monkeypatch.chdir(real)
    result = CliRunner().invoke(caisse, ["dev", "--directory", str(tmp_path / "demo"), "--duration", "1"])
    assert result.exit_code == 1
    assert "production" in result.output
    assert not (tmp_path / "demo").exists()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAISSE_MODE", "staging")
    result = CliRunner().invoke(caisse, ["dev", "--directory", str(tmp_path / "demo"), "--duration", "1"])
    assert result.exit_code == 1
    assert not (tmp_path / "demo").exists()


def test_the_environment_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CAISSE_DATABASE_URL of this shell is not the demonstration's."""
    home = prepare(tmp_path / "demo")
    home.save()
    monkeypatch.setenv("CAISSE_DATABASE_URL", "sqlite:////var/lib/caisse/caisse.db")
    assert home.settings().database_path == home.database
    assert Settings.read(home.config).database_path != home.database


def test_the_closing_check_finds_what_is_lost(tmp_path: Path) -> None:
    """Rows taken away behind its back: each kind of loss is told, and innocent waiting is not."""
    home = prepare(tmp_path / "demo")
    home.save()

    async def go() -> Closing:
        app = build(home.settings())
        await app.open()
        try:
            made = await create(app, name="Awa", webhook_url="http://127.0.0.1:8091/caisse")
            await app.db.write(plant, made["id"])
            names = [("paystack", key) for key in ("kept", "stuck", "dead", "open", "never")]
            listeners = [Listener("shop", Shop(), endpoint="x")]
            listeners += [Listener("courier", Shop(), patient=True, endpoint="y")]
            for listener in listeners:
                listener.shop.ledger.take("evt_got", {})
            return await app.db.read(check, outbox_tables, names, 1, listeners)
        finally:
            await app.close()

    def plant(tx: Connection, merchant: str) -> None:
        body = {"provider": "paystack", "kind": "charge.success", "method": "POST", "query": b"", "body": b"{}"}
        fixed = {"account_id": "acc_paystack", "body_sha256": b"", "received_at_ms": 1, "last_seen_at_ms": 1}
        for key, status in (("kept", "processed"), ("stuck", "received"), ("dead", "dead"), ("open", "processed")):
            tx.execute(insert(callbacks).values(id=f"cb_{key}", key=key, status=status, **body, **fixed))
        for name in ("before", "got", "unheard", "unpromised", "waiting", "dead"):
            row = {"id": f"evt_{name}", "merchant_id": merchant, "type": "payment.succeeded", "sequence": 1}
            tx.execute(insert(events).values(body=b"{}", created_at_ms=1, **row))
        for topic, subject, state, destination in (
            ("webhook", "evt_got", "done", "x"),
            ("webhook", "evt_got", "dead", "y"),
            ("webhook", "evt_got", "done", "y"),  # recovered
            ("webhook", "evt_unheard", "done", "x"),
            ("webhook", "evt_unheard", "dead", "y"),
            ("webhook", "evt_unheard", "pending", "y"),  # being recovered
            ("webhook", "evt_waiting", "pending", "x"),
            ("webhook", "evt_waiting", "dead", "y"),
            ("webhook", "evt_dead", "dead", "x"),
            ("webhook", "evt_dead", "dead", "stranger"),
            ("ask", "cb_open", "pending", "x"),
        ):
            row = {"id": f"{topic}:{subject}:{destination}:{state}", "topic": topic, "subject": subject, "payload": ""}
            times = {"due_at_ms": 1, "created_at_ms": 1, "finished_at_ms": None if state == "pending" else 1}
            tx.execute(insert(outbox_tables.messages).values(destination=destination, state=state, **row, **times))

    closing = asyncio.run(go())
    assert (closing.worked_on, closing.unfinished, closing.events) == (2, 1, 5)
    assert closing.told == {"shop": Told(2, 1, 1), "courier": Told(1, 1, 1), "stranger": Told(0, 0, 1)}
    said = "\n".join(closing.lost)
    for what in ("cb_stuck: kept, and nobody", "cb_dead: given up", "never: acknowledged, not in the database"):
        assert what in said
    assert "evt_unpromised: promised to nobody" in said
    assert "evt_unheard: recorded as delivered, the shop never got it" in said
    assert "evt_dead: given up, though the shop was well" in said
    assert len(closing.lost) == 6, "what failed at one who is down, or at a stranger, is kept and not lost"


def test_what_happened_is_said_in_one_line() -> None:
    """A merchant reads it; it fits a small terminal; what is not worth a line has none."""

    def said(kind: str, tries: int = 1, trouble: str = "", **more: object) -> tuple[str, str] | None:
        payment = {"provider": "paystack", "reference": "CMD-1", "amount": 68_500, "currency": "XOF", **more}
        receipt = Receipt(0.0, "evt_1", f"payment.{kind}", payment, tries, trouble)
        return sentence(receipt, {"CMD-1": "Orange Money"})

    paid = "Paystack · 68 500 XOF paid by Orange Money → "
    expected = {
        ("succeeded", 1, ""): paid + "webhook delivered",
        ("succeeded", 3, ""): paid + "delivered on 3rd try",
        ("succeeded", 12, ""): paid + "delivered on 12th try",
        ("succeeded", 1, "unavailable"): paid + "shop failed, retrying",
        ("succeeded", 1, "lost"): paid + "answer lost, retrying",
    }
    for given, wanted in expected.items():
        found = said(*given)
        assert found is not None
        assert found[1].replace("\u00a0", " ") == wanted
        assert len(f"| 09:12:33  {wanted} |") <= 80
    assert said("pending") is None
    failed = said("failed", failure_reason="insufficient_funds")
    assert failed is not None
    assert "not paid: not enough money" in failed[1]
    part = said("partially_refunded", amount_refunded=500)
    assert part is not None
    assert "500\u00a0XOF of 68\u00a0500\u00a0XOF given back" in part[1]
    assert sentence(Receipt(0.0, "evt_1", "endpoint.test", {}, 1), {}) is None


def test_a_wrong_option_is_a_wrong_use(tmp_path: Path) -> None:
    """Usage faults end with 2 and make nothing."""
    for words in (["--rate", "0"], ["--failures", "1.5"], ["--duration", "-1"], ["--speed", "3"]):
        assert CliRunner().invoke(caisse, ["dev", "--directory", str(tmp_path / "demo"), *words]).exit_code == 2
    assert not (tmp_path / "demo").exists()
