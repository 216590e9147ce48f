"""A seller who wants to be forgotten: where they were paid is emptied, once nothing is on its way to them."""

from __future__ import annotations

from pathlib import Path

from service.commands import run as command
from service.escrow.tables import payees_personal, payouts
from tests.integration.test_api_escrow import SELLER, Market, play
from tests.integration.test_erasure import NAME, PERSON, names_in_tables


def test_where_a_seller_was_paid_is_forgotten_when_nothing_goes_there_any_more(tmp_path: Path) -> None:
    """While a payout has no end both it and its payee stay, and are told of; afterwards the name is nowhere."""

    async def story(m: Market) -> None:
        moved = await m.api("POST", f"/beneficiaries/{m.seller}/payee", SELLER | {"name": NAME})
        assert moved.status == 200
        assert (
            await m.second(
                "POST",
                f"/beneficiaries/{m.seller}/payee/approve",
                {"payee": moved.said["payee"]["id"], "reason": "hers"},
            )
        ).status == 200
        await m.released()
        payout = (await m.payout(500, description=f"for {NAME}")).said["id"]
        kept = await command(m.c.till.app, "erase", {**PERSON})
        assert {one["id"] for one in kept["kept"]} >= {payout}, kept
        assert {"payees_personal", "payouts"} <= await names_in_tables(m.c.till)
        assert (await m.api("POST", f"/payouts/{payout}/cancel", {})).status == 200
        await m.c.settle()
        gone = await command(m.c.till.app, "erase", {**PERSON})
        assert (gone["erased"]["payees"], gone["erased"]["payouts"], gone["kept"]) == (1, 1, []), gone
        assert await names_in_tables(m.c.till) == set()
        assert await m.c.till.count(payees_personal) == 1, "the payee before, of another name, is still there"
        (row,) = await m.c.till.rows(payouts)
        assert (row.description, row.amount_minor) == ("", 500)
        nowhere = await m.payout(500)
        assert (nowhere.status, nowhere.code) == (409, "payee_erased")

    play(tmp_path, story)
