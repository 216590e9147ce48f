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

ROWS_UNASKED = 50

Progress = Callable[[int, int | None], None]


async def erase(
    app: Application,
    *,
    phones: Sequence[str] = (),
    emails: Sequence[str] = (),
    names: Sequence[str] = (),
    reason: str = "",
    also_parked: bool = False,
    dry_run: bool = False,
    sure: bool = False,
    progress: Progress | None = None,
    actor: str = "cli",
) -> dict[str, Any]:
    """
    Erase one person from everything that is kept; what is still owed stays, and is told of.

    `also_parked`: callbacks that are parked, deferred or dead are emptied too, and can never be worked on then. Nothing
    brings it back: more than `ROWS_UNASKED` rows are erased only when somebody is `sure`.
    """
    person = Person.read(phones, emails, names)
    if person.named_in(reason.encode(errors="replace")):
        raise Refusal("reason_names", "The reason names the person, and is kept: give the request's number instead.")
    if not dry_run and not sure:
        would = await erasure.erase(app.db, app.seal, person, app.clock, also_parked=also_parked, dry_run=True)
        count = sum(would.erased.values())
        if count > ROWS_UNASKED:
            detail = f"{count} rows name this person, more than people have: look with --dry-run, then say --yes."
            raise Refusal("not_sure", detail)
    result = await erasure.erase(
        app.db, app.seal, person, app.clock, also_parked=also_parked, dry_run=dry_run, progress=progress
    )
    if not dry_run:
        subject = f"person:{person.digest(app.installation)}"
        hand = by(app, actor)
        # Last, so that the write-ahead file that is emptied after it holds all of the erasure.
        await app.db.write(lambda tx: hand.write_down(tx, "person.erased", subject, reason))
        result.emptied = await erasure.wal_emptied(app.db)
    return {
        "dry_run": dry_run,
        "looked": result.looked,
        "erased": {place: count for place, count in result.erased.items() if place != erasure.NAMES},
        "kept": [{"id": left.id, "why": left.why} for left in result.left],
        "kept_count": result.left_count,
        "unread": result.unread,
        "unread_count": result.unread_count,
        "write_ahead_emptied": result.emptied,
    }
