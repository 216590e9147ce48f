"""verify: whether the ledger adds up, and whether everything has become what its facts say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from service.commands.shape import by
from service.ledger.verify import Check, What
from service.merchants.events import rfc3339

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]


async def verify(
    app: Application, *, what: str = "all", actor: str = "cli", progress: Progress | None = None
) -> dict[str, Any]:
    """Prove that the ledger adds up and that every stored status is what its facts say."""
    check = await app.verifier.check(by(app, actor), progress, cast(What, what))
    app.nudge()  # payouts that waited for it
    return public(check)


def public(check: Check) -> dict[str, Any]:
    """A check, for people and programs."""
    return {
        "id": check.id or None,
        "sound": check.sound,
        "begun_at": rfc3339(check.begun_at_ms),
        "ended_at": rfc3339(check.ended_at_ms),
        "looked": dict(check.looked),
        "found": check.found,
        "problems": list(check.problems),
    }
