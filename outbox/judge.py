"""What an outcome makes of a message: values in, the columns to write out. No clock, no database."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from outbox.message import ERROR_CHARACTERS_MAX, HEAD_BYTES_MAX, Done, Drop, Message, Outcome, Retry, Trial
from outbox.policy import Policy

What = Literal["done", "retried", "died"]

_NO_TRIAL = Trial()


def judge(message: Message, outcome: Outcome, policy: Policy, now_ms: int, rng: Random) -> tuple[What, dict[str, Any]]:
    """What an outcome makes of a message: the columns to write."""
    row = unchanged(message)
    row["tried_at_ms"] = message.claimed_at_ms
    row["status"] = _status(outcome.trial)
    match outcome:
        case Done():
            row |= {"state": "done", "finished_at_ms": now_ms}
            return "done", row
        case Drop(error=error):
            row |= {"state": "dead", "finished_at_ms": now_ms, "error": _words(error)}
            return "died", row
        case Retry(error=error):
            row["error"] = _words(error)
            delays_ms = policy.delays_ms if outcome.delays_ms is None else outcome.delays_ms
            retries = message.tries - message.tries_before - 1
            if retries >= len(delays_ms):
                row |= {"state": "dead", "finished_at_ms": now_ms}
                return "died", row
            delay_ms = round(delays_ms[retries] * (1 + policy.jitter * (2 * rng.random() - 1)))
            row["due_at_ms"] = now_ms + max(delay_ms, outcome.after_ms or 0)
            row["tries_max"] = message.tries_before + len(delays_ms) + 1
            return "retried", row


def unchanged(message: Message) -> dict[str, Any]:
    """The parameters with which `SETTLE` notes that it is settled, and changes nothing else."""
    return {
        "id": message.id,
        "claim": message.claim,
        "state": "pending",
        "due_at_ms": None,
        "uncount": 0,
        "tries_max": None,
        "finished_at_ms": None,
        "error": None,
        "status": None,
        "tried_at_ms": None,
    }


def kept(message: Message, trial: Trial | None, error: str | None) -> dict[str, Any]:
    """The parameters of `KEEP_TRY`."""
    trial = trial or _NO_TRIAL
    return {
        "id": message.id,
        "number": message.tries,
        "started_at_ms": message.claimed_at_ms,
        "duration_ms": max(0, trial.duration_ms),
        "status": _status(trial),
        "error": error if trial.error is None else _words(trial.error),
        "head": trial.head[:HEAD_BYTES_MAX],
    }


def _status(trial: Trial | None) -> int | None:
    """A handler's status, if it is one: one value that a column refuses must not undo a whole batch."""
    status = None if trial is None else trial.http_status
    return status if status is None or 100 <= status <= 999 else None


def _words(error: str) -> str:
    """Errors come from anywhere: short enough for a column, and nothing in them that a database refuses."""
    return error[:ERROR_CHARACTERS_MAX].encode("utf-8", "replace").decode().replace("\0", "?")
