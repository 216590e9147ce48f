"""erase: forget one person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from service import erasure
from service.commands.shape import by
from service.errors import Refusal
from service.person import Person

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]


async def erase(
    app: Application,
    *,
    phones: Sequence[str] = (),
    emails: Sequence[str] = (),
    names: Sequence[str] = (),
    reason: str = "",
    dry_run: bool = False,
    progress: Progress | None = None,
    actor: str = "cli",
) -> dict[str, Any]:
    """Erase one person from everything that is kept; what is still owed stays, and is told of."""
    person = Person.read(phones, emails, names)
    if person.named_in(reason.encode(errors="replace")):
        raise Refusal("reason_names", "The reason names the person, and is kept: give the request's number instead.")
    result = await erasure.erase(app.db, app.seal, person, app.clock, dry_run, progress)
    if not dry_run:
        subject = f"person:{person.digest(app.installation)}"
        hand = by(app, actor)
        # Last, so that the write-ahead file that is emptied after it holds all of the erasure.
        await app.db.write(lambda tx: hand.write_down(tx, "person.erased", subject, reason))
        result.emptied = await erasure.wal_emptied(app.db)
    return {
        "dry_run": dry_run,
        "looked": result.looked,
        "erased": {place: count for place, count in result.erased.items() if place != "references"},
        "kept": [{"id": kept.id, "why": kept.why} for kept in result.kept],
        "kept_count": result.kept_count,
        "write_ahead_emptied": result.emptied,
    }
