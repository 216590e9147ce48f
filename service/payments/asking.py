"""Questions that are owed: the messages by which an attempt of ours is asked about, whoever wants it asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from outbox.message import Promise

SYNC: Final = "sync"
AGAIN: Final = "again"
"""The payload of a question that is asked once, also about an attempt that has ended."""
FIRST_LOOK_MS: Final = 30_000


def watch(attempt_id: str, account_id: str, now_ms: int) -> Promise:
    """From now on somebody asks what becomes of it: at 30 s, 2 and 10 minutes, an hour, six, and daily."""
    return Promise(f"{SYNC}:{attempt_id}:{now_ms}", SYNC, account_id, attempt_id, "", now_ms + FIRST_LOOK_MS)


def question(attempt: Mapping[str, Any], because: str, now_ms: int) -> Promise:
    """One question, now, because of what this callback said."""
    return Promise(f"{SYNC}:{attempt['id']}:{because}", SYNC, attempt["account_id"], attempt["id"], AGAIN, now_ms)
