"""
The service, watched: BENCH_COUNT=<file> counts SQL calls, BENCH_IDLE=1 leaves the work waiting (mission A3).

The counting listens to SQLAlchemy, so it sees what every part of the program asks of the database; an executemany is
one call. It is not free, so the runs that measure time go without it.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from outbox.dispatcher import Dispatcher
from service import logs
from service.application import run, serve
from service.config import Settings


def count_into(path: Path) -> None:
    """Count every statement by its first words; written when the process ends."""
    calls: Counter[str] = Counter()

    @event.listens_for(Engine, "before_cursor_execute")
    def counted(_1: Any, _2: Any, statement: str, *_: Any) -> None:
        calls[" ".join(statement.split()[:3])] += 1

    atexit.register(lambda: path.write_text(json.dumps(calls), encoding="utf-8"))


def leave_work_waiting() -> None:
    """The dispatcher never starts: callbacks are kept and answered, and nothing else happens."""

    def stay(_dispatcher: Any) -> None:
        return None

    setattr(Dispatcher, "start", stay)  # noqa: B010 - a method replaced on purpose, which mypy rightly forbids


if __name__ == "__main__":
    if os.environ.get("BENCH_COUNT"):
        count_into(Path(os.environ["BENCH_COUNT"]))
    if os.environ.get("BENCH_IDLE"):
        leave_work_waiting()
    settings = Settings.read()
    logs.configure(settings.log_level, human=False)
    sys.exit(run(serve(settings)))
