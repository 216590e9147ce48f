"""What holds for every test: a clean environment, closed sockets, no thread left behind, one way to draw examples."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

SOCKET_FREE = ("unit", "property", "conformance", "tidy")
"""Folders whose tests need not even loopback; everywhere else only loopback is open (pyproject.toml)."""

THREADS_MAY_END_WITHIN_S = 30.0

# `fast` draws the same examples on every run: a red CI must mean that the change is wrong, not that this run was
# lucky where the last one was not. `long` is for `make proof` and for a night: random, many, and it prints how to
# repeat what it finds. No deadline in either: two shared cores make single examples slow for no fault of theirs.
settings.register_profile("fast", max_examples=50, stateful_step_count=30, derandomize=True, deadline=None)
settings.register_profile(
    "long",
    max_examples=2_000,
    stateful_step_count=100,
    derandomize=False,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Close every socket in the folders that have no business with one."""
    here = Path(__file__).parent
    long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    for item in items:
        if here not in item.path.parents:
            continue
        folder = item.path.relative_to(here).parts[0]
        if folder in SOCKET_FREE and item.get_closest_marker("loopback") is None:
            item.add_marker(pytest.mark.disable_socket)
        if long and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(timedelta(hours=1).total_seconds()))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own CAISSE_* settings and proxies change no test, nor where the last command wrote its log to."""
    structlog.reset_defaults()
    for name in list(os.environ):
        if name.startswith("CAISSE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """
    A thread that outlives its test is a writer or a reader that was not closed.

    Daemon threads are let off: libraries keep pools of them, and they cannot hold the process.
    """
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + THREADS_MAY_END_WITHIN_S
    while (left := _left(before)) and time.monotonic() < until:
        time.sleep(0.01)
    if left:
        names = ", ".join(sorted(thread.name for thread in left))
        pytest.fail(f"threads left running: {names}")


def _left(before: set[threading.Thread]) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and not t.daemon and t.is_alive()]
