"""`verify` and `settlements` on a running service, by command and API; what a fault of the ledger does to payouts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from service import commands
from service.errors import Refusal
from service.escrow import beneficiaries
from service.escrow.beneficiaries import To
from service.escrow.payouts import PAYOUT, Draft
from service.escrow.tables import payouts
from service.escrow.terms import Terms, set_terms
from service.orders.owner import Whose
from service.schema import outbox_tables
from tests.support.api import another, api_of
from tests.support.paying import Counter, counter
from tests.support.service import till

WALLET = To("mobile_money", "+2250700000001", "Awa Koné", "CI", "mtn")
TOP_UP = {"account": "acc_paystack", "amount": -50_000, "currency": "XOF", "reference": "S-1"}


async def fault(c: Counter, minor: int) -> None:
    """An account's sum, changed behind everybody's back."""
    change = "UPDATE ledger_accounts SET debits_minor = debits_minor + :minor WHERE kind = 'float'"
    await c.till.app.db.write(lambda tx: tx.execute(text(change), {"minor": minor}).rowcount)


async def paid_out(c: Counter) -> str:
    """A payout of 2,000 F is asked for."""
    app, merchant = c.till.app, c.till.merchant
    assert merchant is not None
    mine = Whose(merchant.id, False)

    def work(tx: Connection) -> str:
        set_terms(tx, merchant.id, Terms(enabled=True, approve_above={"XOF": 10**9}), c.by)
        payee = beneficiaries.create(tx, mine, "XOF", WALLET, c.by)
        return str(app.payouts.request(tx, mine, Draft(payee, 2_000, "XOF", source="merchant"), c.by)["id"])

    made = await app.db.write(work)
    app.nudge()
    return made


def test_an_unsound_ledger_stops_payouts_and_a_sound_one_lets_them_go(tmp_path: Path) -> None:
    """What was asked for waits, also when it is tried again; the check that finds all well sends it at once."""

    async def play() -> None:
        async with counter(tmp_path, "paystack") as c:
            app = c.till.app
            messages = outbox_tables.messages

            async def row(id_: str) -> Any:
                return (await c.till.rows(payouts, payouts.c.id == id_))[0]

            await commands.run(app, "settlements.add", TOP_UP)
            await fault(c, 7)
            steps: list[int] = []
            answer = await commands.run(app, "verify", {}, lambda done, _: steps.append(done))
            assert not answer["sound"] and steps
            assert "has debits of 50007" in answer["problems"][0]
            async with c.till.client.get(c.till.url + "/metrics") as metrics:
                assert "ledger_sound 0.0" in await metrics.text()
            payout = await paid_out(c)
            await c.settle()
            await c.go_on(3 * 60_000)
            waits = await row(payout)
            assert (waits.state, waits.waits_for) == ("queued", "ledger")
            assert c.sandbox.treasury.paid_out(waits.reference) == []
            await fault(c, -7)
            due = (await c.till.rows(messages, messages.c.id == f"{PAYOUT}:{payout}"))[0].due_at_ms
            assert due > app.clock() + 60_000, "by itself it would be tried later"
            assert (await commands.run(app, "verify", {}))["sound"]
            await c.settle()
            assert (await row(payout)).state in ("in_transit", "paid")
            assert len(c.sandbox.treasury.paid_out(waits.reference)) == 1
            assert (await commands.run(app, "verify", {}))["problems"] == []
            with pytest.raises(Refusal, match="all, ledger, statuses"):
                await commands.run(app, "verify", {"what": "sums"})

    asyncio.run(play())


def test_settlements_and_the_check_by_api_and_command_line(tmp_path: Path) -> None:
    """Recorded once with a key of its scope; listed by both; the command line asks the running service and exits 1."""

    async def play() -> None:
        async with till(tmp_path) as t:
            api = api_of(t)
            body = {**TOP_UP, "settled_at": "2026-11-20", "fee": 10}
            made = await api("POST", "/settlements", body)
            assert (made.status, made.said["amount"], made.said["settled_at"]) == (
                201,
                -50_000,
                "2026-11-20T00:00:00.000Z",
            )
            assert (await api("POST", "/settlements", body)).said == made.said
            assert (await api("POST", "/settlements", {**body, "fee": 11})).code == "reference_taken"
            assert (await api("POST", "/settlements", {**body, "account": "acc_none"})).status == 404
            bad = await api("POST", "/settlements", {**body, "settled_at": "yesterday"})
            assert (bad.status, bad.said["field"]) == (400, "settled_at")
            live = await another(t, live=True)
            assert (await live("POST", "/settlements", body)).status == 404
            assert (await live("GET", "/settlements")).said["data"] == []
            poor = await another(t, scopes=("payments:read",))
            assert (await poor("GET", "/settlements")).code == "missing_scope"
            assert [one["id"] for one in (await api("GET", "/settlements")).said["data"]] == [made.said["id"]]

            async def caisse(*arguments: str) -> tuple[int, str]:
                environment = os.environ | {"CAISSE_DATABASE_URL": t.app.settings.database_url}
                run = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "service.cli", *arguments), env=environment, stdout=asyncio.subprocess.PIPE
                )
                said, _ = await run.communicate()
                return run.returncode or 0, said.decode()

            status, said = await caisse("verify", "--json")
            assert (status, json.loads(said)["sound"], json.loads(said)["looked"]["settlements"]) == (0, True, 1)
            await t.app.db.write(lambda tx: tx.execute(text("UPDATE settlements SET fee_minor = 11")).rowcount)
            status, said = await caisse("verify", "--what", "ledger")
            assert status == 1 and f"The settlement {made.said['id']} should have posted 11 as fee" in said
            status, said = await caisse("settlements", "list", "--account", "acc_paystack")
            assert status == 0 and "S-1" in said

    asyncio.run(play())
