"""The master keys: two rotations at once, a lost key file, a database by another name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service import commands
from service.application import build
from service.errors import Refusal
from service.seal import KeyFileError
from tests.support.service import settings_of, stripe_event, till


def test_two_rotations_at_once_cannot_lose_the_key(tmp_path: Path) -> None:
    """Many started together: one turns at a time, the others are refused, and everything still opens afterwards."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for _ in range(3):
                tries = [commands.run(t.app, "keys.rotate-master", {}) for _ in range(6)]
                results = await asyncio.gather(*tries, return_exceptions=True)
                refused = [r for r in results if isinstance(r, Refusal)]
                assert {r.code for r in refused} <= {"already_rotating"} and len(refused) < 6
            await t.stripe(stripe_event("payment_intent.succeeded"))
            await t.shop.wait_for(1)
        async with till(tmp_path, merchant=False) as again:
            assert len(again.app.registry) == 6

    asyncio.run(run())


def test_a_lost_key_file_is_said_and_no_decoy_is_made(tmp_path: Path) -> None:
    """Beside a database with sealed secrets a new key would open nothing: the start stops and names the file."""

    key = tmp_path / "caisse.db.key"

    async def run() -> None:
        async with till(tmp_path):
            pass
        kept = key.read_bytes()
        key.unlink()
        with pytest.raises(KeyFileError, match="is missing"):
            await build(settings_of(tmp_path)).open()
        assert not key.exists()
        key.write_bytes(kept)
        key.chmod(0o600)
        (tmp_path / "link.db").symlink_to(tmp_path / "caisse.db")
        app = build(settings_of(tmp_path, database_url=f"sqlite:///{tmp_path}/link.db"))
        await app.open()
        await app.close()

    asyncio.run(run())
    assert list(tmp_path.glob("*.key")) == [key]
