"""The command line by itself: quick help, wrong usage, sentences in place of tracebacks."""

from __future__ import annotations

import importlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from service.cli import _COMMANDS, caisse, show
from service.commands import COMMANDS
from service.escrow.states import MACHINES as OF_ESCROW
from service.orders.states import MACHINES as OF_ORDERS
from service.payments.states import MACHINES as OF_PAYMENTS
from service.sandbox.builder import events

ROOT = Path(__file__).parents[2]


def caisse_(*arguments: str, directory: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real thing in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        cwd=directory,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(caisse, list(arguments))


def test_help_is_quick_because_it_imports_nothing(tmp_path: Path) -> None:
    """`caisse --help` knows every command's sentence without its module; nothing heavy is imported."""
    code = "import sys; from service.cli import caisse; caisse(['--help'], standalone_mode=False)\n"
    code += "print(sorted(set(sys.modules) & {'sqlalchemy', 'litestar', 'aiohttp', 'rich', 'structlog', 'httpx'}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
    for name, (_, sentence) in _COMMANDS.items():
        assert name in done.stdout
        assert sentence.split()[0] in done.stdout


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_has_help(name: str) -> None:
    """Each module is there, its command has the name it is listed under, and every subcommand says what it does."""
    command = getattr(importlib.import_module(f"service.cli.{_COMMANDS[name][0]}"), name)
    assert command.name == name
    assert invoke(name, "--help").exit_code == 0
    if isinstance(command, click.Group):
        for one in command.commands.values():
            assert (one.help or "").strip(), one.name


def _prints_data() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in _COMMANDS:
        command = getattr(importlib.import_module(f"service.cli.{_COMMANDS[name][0]}"), name)
        members = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        found += [(f"{name} {inner}".strip(), one) for inner, one in members]
    # A statement is a CSV file and nothing else.
    return [(name, one) for name, one in found if name not in ("serve", "dev", "sandbox", "balances statement")]


@pytest.mark.parametrize(("name", "command"), _prints_data())
def test_what_prints_data_prints_json(name: str, command: click.Command) -> None:
    """`--json` wherever data is printed."""
    assert any("--json" in parameter.opts for parameter in command.params)


def test_every_named_command_says_what_it_does() -> None:
    """The one table serves the command line and the running process."""
    assert all(command.sentence.endswith(".") for command in COMMANDS.values())


@pytest.mark.parametrize(
    "arguments",
    [
        ("merchant", "create"), ("merchants",), ("deliveries", "list", "--limit", "0"),
        ("deliveries", "list", "--limit", "501"),
        ("callbacks", "replay", "cb_1"), ("states", "--machine", "nobody"), ("--nonsense",), ("init", "--mode", "prod"),
        ("callback", "send", "stripe", "charge.succeeded", "--set", "amount"),
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Nothing is opened or written."""
    monkeypatch.chdir(tmp_path)
    assert invoke(*arguments).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_command_is_told_its_neighbour() -> None:
    """`caisse merchants` is a likely slip."""
    assert "Did you mean merchant?" in invoke("merchants").output


def test_a_bad_setting_is_one_sentence_and_exit_status_1(tmp_path: Path) -> None:
    """No traceback, nothing on stdout, nothing made."""
    done = caisse_("merchant", "list", directory=tmp_path, CAISSE_PORT="x")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "caisse: CAISSE_PORT must be a whole number from 0 to 65535, not 'x'.\n"
    assert list(tmp_path.iterdir()) == []


def test_states_are_drawn_from_the_tables() -> None:
    """Every machine, as diagrams and as rows."""
    drawn = invoke("states", "--mermaid")
    machines = {**OF_PAYMENTS, **OF_ORDERS, **OF_ESCROW}
    assert drawn.output.count("stateDiagram-v2") == len(machines)
    rows = json.loads(invoke("states", "--json").stdout)
    assert {row["machine"] for row in rows} == set(machines)
    assert {"machine": "attempt", "from": "failed", "what": "captured", "to": "succeeded"}.items() <= next(
        row for row in rows if (row["machine"], row["from"], row["what"]) == ("attempt", "failed", "captured")
    ).items()


def test_what_a_provider_sent_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in stored text are shown, not obeyed; rich markup is text."""
    rows: list[dict[str, Any]] = [{"id": "cb_1", "kind": "\x1b]0;owned\x07", "reason": "[red]x[/red]"}]
    show.rows(rows, False, ("id", "kind", "reason"), "")
    show.fields({"kind": "\x1b[2J"}, False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[red]x[/red]" in shown


def test_events_that_can_be_sent_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`help` in place of an event."""
    monkeypatch.chdir(tmp_path)
    found = json.loads(invoke("callback", "send", "stripe", "help", "--json").stdout)
    assert found["events"] == list(events("stripe"))
    assert "amount" in found["fields"]


def test_init_writes_settings_for_its_owner_alone_and_never_overwrites(tmp_path: Path) -> None:
    """One provider and one key are enough: merchant, key, endpoint and the address to paste come out."""
    options = (
        "--provider",
        "stripe",
        "--set",
        "webhook_secrets=whsec_planted",
        "--webhook-url",
        "http://127.0.0.1:9999/x",
    )
    done = caisse_("init", "--yes", *options, "--json", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["api_key"].startswith("ck_test_")
    assert made["endpoint"]["secret"].startswith("whsec_")
    assert [entry["address"] for entry in made["addresses"]] == ["http://127.0.0.1:8080/webhooks/stripe"]
    assert made["accounts"] == ["acc_stripe"]
    config = tmp_path / "caisse.toml"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert not (tmp_path / "caisse.db.key").exists()
    before = config.read_bytes()
    again = caisse_("init", "--yes", *options, directory=tmp_path)
    assert again.returncode == 1
    assert "is there already and stays as it is" in again.stderr
    assert config.read_bytes() == before
    doctor = caisse_("doctor", directory=tmp_path)
    assert doctor.returncode == 0, doctor.stdout
    assert "whsec_planted" not in doctor.stdout + doctor.stderr + done.stdout + done.stderr


def test_init_makes_the_secret_address_of_ebilling(tmp_path: Path) -> None:
    """Its token is ours to choose: unguessable, written to the settings, and part of the address to paste."""
    done = caisse_(
        "init", "--yes", "--provider", "ebilling", "--set", "username=u", "--set", "shared_key=k", "--public-url",
        "https://pay.example", "--no-test", "--json", directory=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["addresses"]
    token = entry["address"].removeprefix("https://pay.example/webhooks/ebilling/")
    assert len(token) >= 32
    assert token in (tmp_path / "caisse.toml").read_text()


def test_init_that_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    """A wrong answer is a sentence, and the next try starts from nothing."""
    done = caisse_("init", "--yes", "--provider", "stripe", "--public-url", "pay.example", directory=tmp_path)
    assert done.returncode == 1
    assert "public_url in" in done.stderr
    assert list(tmp_path.iterdir()) == []
