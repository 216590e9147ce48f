"""keys create | list | revoke | rotate-master"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from service.commands.shape import by, told
from service.errors import Refusal
from service.merchants import keys, sealed
from service.merchants.audit import By
from service.seal import SealError, key_file, new_master_key, read_keys, write_keys

if TYPE_CHECKING:
    from service.application import Application

Progress = Callable[[int, int | None], None]


async def create(
    app: Application, *, merchant: str, name: str = "", scopes: Sequence[str] = ("*",), actor: str = "cli"
) -> dict[str, Any]:
    """Make an API key; it is shown this once."""
    hand = by(app, actor)
    made = await app.db.write(lambda tx: keys.create(tx, merchant, app.settings.live, hand, name, scopes))
    return {"id": made.id, "api_key": made.key, "merchant_id": merchant}


async def listed(app: Application, *, merchant: str | None = None) -> list[dict[str, Any]]:
    """API keys by their hints."""
    return [told(row) for row in await app.db.read(keys.listed, merchant)]


async def revoke(app: Application, *, key: str, reason: str = "", actor: str = "cli") -> dict[str, Any]:
    """Refuse an API key from now on."""
    hand = by(app, actor)
    return {"id": key, "changed": await app.db.write(lambda tx: keys.revoke(tx, key, hand, reason))}


async def rotate_master(app: Application, *, progress: Progress | None = None, actor: str = "cli") -> dict[str, Any]:
    """
    Seal every stored secret again with the newest master key.

    Keys from the settings: put the new one first, start again, run this, then drop the old one. Keys from the key file:
    a new one is made, the old one dropped at the end. It may be stopped and run again at any point.
    """
    # Two at once would each drop the other's new key, and with it everything sealed by it.
    if app.rotating.locked():
        raise Refusal("already_rotating", "The master keys are being rotated already; wait until that is done.")
    async with app.rotating:
        return await _rotate_master(app, by(app, actor), progress)


async def _rotate_master(
    app: Application, hand: By, progress: Callable[[int, int | None], None] | None
) -> dict[str, Any]:
    path = key_file(app.db.path)
    own_file = not app.settings.master_keys
    held = app.settings.master_keys
    try:
        if own_file:
            held = read_keys(path)
            # Two keys in the file: an earlier run did not come to its end; go on with its new key.
            held = held if len(held) > 1 else (new_master_key(), *held)
            write_keys(path, held)
            app.seal.adopt(held)
        resealed = 0
        while count := await app.db.write(sealed.reseal, app.seal):
            resealed += count
            if progress is not None:
                progress(resealed, None)
        if own_file:
            # Only now: every value is committed under the new key.
            write_keys(path, held[:1])
            app.seal.adopt(held[:1])
    except SealError as error:
        raise Refusal("seal", str(error)) from None
    await app.db.write(lambda tx: hand.write_down(tx, "keys.master_rotated", "installation"))
    where = f"the key file {path}" if own_file else "CAISSE_MASTER_KEYS: all but the first may be removed now"
    return {"resealed": resealed, "keys": where}
