"""
The adapters against the providers' real sandboxes, with keys from the environment: `make contract`, never `make test`.

A test that has no keys is skipped and says which are missing. At the end stands what was settled of what nobody
official says (`tests/support/beliefs.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.support.beliefs import BELIEFS

ASKED = bool(os.environ.get("CAISSE_CONTRACT"))
collect_ignore_glob = [] if ASKED else ["test_*.py"]

ENVIRONMENT = {name: value for name, value in os.environ.items() if name.startswith("CAISSE_CONTRACT_") and value}
"""Read here, before every test is given a clean environment."""

SETTLED = pytest.StashKey[dict[tuple[str, str], tuple[bool, str]]]()
Settle = Callable[[str, str, bool, object], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SETTLED] = {}


@pytest.fixture
def settle(request: pytest.FixtureRequest) -> Settle:
    """`settle(provider, setting, holds, seen)`: a sandbox has spoken; the test fails where the belief does not hold."""

    def said(provider: str, setting: str, holds: bool, seen: object) -> None:
        assert setting in {belief.setting for belief in BELIEFS[provider]}, setting
        before = request.config.stash[SETTLED].get((provider, setting), (True, ""))[0]
        request.config.stash[SETTLED][provider, setting] = (holds and before, str(seen)[:80])
        assert holds, f"{provider}: {setting} is not as believed: {seen}"

    return said


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Each belief, and what became of it."""
    settled = config.stash[SETTLED]
    if not ASKED:
        return
    terminalreporter.section("what nobody official says")
    for provider, beliefs in BELIEFS.items():
        for belief in beliefs:
            holds, seen = settled.get((provider, belief.setting), (None, ""))
            word = {None: "open", True: "holds", False: "DIFFERS"}[holds]
            line = f"{word:8} {provider}.{belief.setting} [{belief.weight}] {belief.says}"
            terminalreporter.write_line(f"{line}; seen: {seen}" if seen else line)
