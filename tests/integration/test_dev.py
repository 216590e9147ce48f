"""`caisse dev`, end to end: six providers, a shop that fails on purpose, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.dev import CannotStart, dev, prepare
from service.config import Settings

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-W", "error", "-c", "from service.cli.dev import dev; dev()"]
TITLES = ("Stripe", "Paystack", "FedaPay", "Monetbil", "Moneroo", "eBilling")


def run(directory: Path, *more: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [*PROGRAM, "--directory", str(directory), "--plain", "--seed", "7", *more]
    return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=90, check=False)


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CAISSE_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in:\n{text}"
    return int(re.sub(r"\D", "", found[1]))


@pytest.mark.slow
def test_a_demonstration_and_its_continuation(tmp_path: Path) -> None:
    """Eight seconds show all six providers and a retry; a second run goes on with the same database."""
    done = run(tmp_path / "demo", "--duration", "8", "--failures", "0.3", "--rate", "12", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    last = [text for text in done.stdout.splitlines() if " | in: " in text][-1]
    for title in TITLES:
        assert number(rf"{title} (\d+)", last) >= 1
    assert "Nothing was lost" in done.stdout
    assert number(r"([\d\u00a0]+) failed on purpose\n", done.stdout) >= 1
    assert number(r"([\d\u00a0]+) got by a retry", done.stdout) >= 1
    assert number(r"([\d\u00a0]+) acknowledged", done.stdout) >= 30
    assert done.stderr == ""

    home = tmp_path / "demo"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "caisse.toml").stat().st_mode) == 0o600
    first = json.loads((home / "dev.json").read_text())
    received = sum(number(rf"{title} (\d+)", last) for title in TITLES)

    again = run(home, "--duration", "3", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    second = json.loads((home / "dev.json").read_text())
    assert second["shop"] == first["shop"], "the merchant and its endpoint are made once"
    assert second["secrets"] == first["secrets"]
    last = [text for text in again.stdout.splitlines() if " | in: " in text][-1]
    assert sum(number(rf"{title} (\d+)", last) for title in TITLES) > received


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly_and_the_port_is_free_again(tmp_path: Path) -> None:
    """One Ctrl-C: the play ends, the summary is said, nothing keeps listening."""
    process = subprocess.Popen(
        [*PROGRAM, "--directory", str(tmp_path / "demo"), "--plain", "--failures", "0"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for text in process.stdout:
            if " | in: " in text:
                break
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, out + errors
    assert time.monotonic() - began < 20
    assert "Nothing was lost" in out
    assert errors == ""
    port = json.loads((tmp_path / "demo" / "dev.json").read_text())["ports"]["service"]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_taken_port_is_stepped_around(tmp_path: Path) -> None:
    """Somebody has 8080, or a port of the last run: another one is taken, each part has its own."""
    home = prepare(tmp_path / "demo")
    home.save()
    with socket.socket() as holder:
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
    result = CliRunner().invoke(dev, ["--directory", str(tmp_path / "demo"), "--duration", "1"])
    assert result.exit_code == 1
    assert "production" in result.output
    assert not (tmp_path / "demo").exists()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAISSE_MODE", "staging")
    result = CliRunner().invoke(dev, ["--directory", str(tmp_path / "demo"), "--duration", "1"])
    assert result.exit_code == 1
    assert not (tmp_path / "demo").exists()


def test_the_environment_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CAISSE_DATABASE_URL of this shell is not the demonstration's."""
    home = prepare(tmp_path / "demo")
    home.save()
    monkeypatch.setenv("CAISSE_DATABASE_URL", "sqlite:////var/lib/caisse/caisse.db")
    assert home.settings().database_path == home.database
    assert Settings.read(home.config).database_path != home.database


def test_a_wrong_option_is_a_wrong_use(tmp_path: Path) -> None:
    """Usage faults end with 2 and make nothing."""
    for words in (["--rate", "0"], ["--failures", "1.5"], ["--duration", "-1"], ["--speed", "3"]):
        assert CliRunner().invoke(dev, ["--directory", str(tmp_path / "demo"), *words]).exit_code == 2
    assert not (tmp_path / "demo").exists()
