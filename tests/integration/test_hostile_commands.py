"""Naughty strings as arguments of every command, beside a running service: a sentence, a status, never a traceback."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from service.cli import caisse
from service.cli.run import sentence_for
from service.commands import COMMANDS
from service.merchants.tables import endpoints, merchants
from tests.support import corpora
from tests.support.service import Till, till

NOT_NAMED = {"init", "serve", "dev", "sandbox", "doctor", "states", "migrate"}
"""These take no text from strangers, or are no named command."""
ELSEWHERE = {
    "deliveries.recovery.change", "routes.show", "beneficiaries.change", "closing.csv", "backup", "verify",
}  # fmt: skip
"""The words of the terminal are other ones than the name, or there is no place that takes any text."""
EACH = 3
"""Of the published strings, how many each place gets; our own go through all of them."""

Place = tuple[tuple[str, ...], str]


def places() -> list[Place]:
    """Every (command, parameter) of the command line that takes text."""
    found: list[Place] = []

    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and (path or name not in NOT_NAMED):
                    walk(inner, (*path, name))
        else:
            texts = (p for p in command.params if isinstance(p.type, click.types.StringParamType) and p.name)
            found.extend((path, str(p.name)) for p in texts)

    walk(caisse, ())
    return found


def line(path: tuple[str, ...], hostile: str, text: str) -> list[str]:
    """A command line with `text` in one place and something ordinary in the other required ones."""
    command: click.Command | None = caisse
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    options, arguments = [], []
    for parameter in command.params:
        if parameter.name != hostile and not parameter.required:
            continue
        value = text if parameter.name == hostile else "stripe" if parameter.name == "provider" else "x"
        if parameter.param_type_name == "argument":
            arguments.append(value)
        else:
            options.append(f"{parameter.opts[-1]}={value}")
    return [*path, *options, "--", *arguments]


def test_every_named_command_has_its_place_here() -> None:
    """A new command that takes text is tried without anybody thinking of it."""
    tried = {".".join(path) for path, _ in places()}
    named = {
        name
        for name, command in COMMANDS.items()
        for p in inspect.signature(command.does).parameters.values()
        if p.name != "actor" and str(p.annotation).startswith("str")
    }
    assert named - ELSEWHERE <= tried, named - tried
    assert len(places()) >= 35


def test_no_command_ends_in_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place gets our own strings and some of the published ones; 0, 1 or 2, and what is printed only prints."""
    found = places()
    published = [text for text in corpora.strings() if text not in corpora.OWN_STRINGS]
    lines = [line(path, hostile, text) for path, hostile in found for text in corpora.OWN_STRINGS]
    for number in range(max(len(published), EACH * len(found)) if published else 0):
        path, hostile = found[number % len(found)]
        lines.append(line(path, hostile, published[number % len(published)]))
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run_all() -> tuple[Counter[int], list[str]]:
        ended: Counter[int] = Counter()
        wrong = []
        for one in lines:
            done = runner.invoke(caisse, one)
            ended[done.exit_code] += 1
            if why := fault(done):
                wrong.append(f"{ascii(one)[:200]}: {why}")
        return ended, wrong

    async def run() -> None:
        async with till(tmp_path) as t:
            monkeypatch.setenv("CAISSE_DATABASE_URL", f"sqlite:///{tmp_path}/caisse.db")
            monkeypatch.setenv("CAISSE_PORT", str(t.app.port))
            monkeypatch.setenv("CAISSE_STRIPE_WEBHOOK_SECRETS", "whsec_x")
            ended, wrong = await asyncio.to_thread(run_all)
            assert not wrong, "\n".join(wrong[:20])
            assert set(ended) <= {0, 1, 2}
            assert ended[0] > 100
            await check_shown(t, runner)

    asyncio.run(run())


def fault(done: Result) -> str:
    """What is wrong with how a command ended; empty when a person was told what is theirs to put right."""
    error = done.exception
    if isinstance(error, Exception):
        sentence = sentence_for(error)
        if sentence is None or getattr(error, "code", "") == "internal":
            return repr(error)[:200]
    if "Traceback" in done.output:
        return "a traceback"
    return ""


async def check_shown(t: Till, runner: CliRunner) -> None:
    """What was stored is shown again, as text and as JSON, and control characters are not among it."""
    assert await t.count(merchants) > 10
    assert await t.count(endpoints) >= 1
    for command in ("merchant", "endpoint", "keys", "account", "payments", "callbacks", "events", "deliveries"):
        for more in ([], ["--json"]):
            done = await asyncio.to_thread(runner.invoke, caisse, [command, "list", *more])
            assert (done.exit_code, fault(done)) == (0, ""), command
            assert all(c.isprintable() or c == "\n" for c in done.output), command
