"""
Everything at once over random trouble: payments, orders, escrow, refunds, disputes, payouts, jobs. Afterwards `caisse
verify` finds nothing, nobody was charged or paid twice, and what the ledger says of each float is what its provider
has.

CAISSE_CHAOS=n plays that many payments and says how far it is, CAISSE_CHAOS_SEED=n others; a failure prints both.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection, select

from service import commands
from service.escrow.tables import holds, payouts
from service.jobs.jobs import jobs as every_job
from service.ledger.ledger import Kind, balance
from service.ledger.settlements import of_settlement
from service.ledger.tables import ledger_accounts, settlements
from service.orders.tables import orders
from service.payments.tables import attempts, payments, refunds
from service.providers import ebilling_payouts
from service.sandbox.bank import Charge
from tests.support import paying
from tests.support.chaos import AT_A_TIME, Chaos
from tests.support.escrow_check import problems
from tests.support.paying import Counter, counter

SEED = int(os.environ.get("CAISSE_CHAOS_SEED", "20261121"))
PAYMENTS = int(os.environ.get("CAISSE_CHAOS", "60"))
SHAP = {"CAISSE_EBILLING_SHAP_ID": "api-1", "CAISSE_EBILLING_SHAP_SECRET": "api-secret-1"}
EVERY_S = 5.0

REACHED: Mapping[str, int] = {
    "payment succeeded": 10, "payment failed": 3, "payment refunded": 1, "payment external": 5, "wrong amount": 1,
    "failed over": 1, "attempt unknown": 3, "attempt requires_action": 5, "disputed": 1, "refund succeeded": 2,
    "refund failed": 1, "refund by payout": 1, "order delivered": 1, "order expired": 1,
    "order canceled": 1, "late": 1, "hold released": 1, "hold refunded": 1, "hold frozen": 1, "payout paid": 3,
    "payout returned": 1, "payout failed": 1, "payout canceled": 1, "payout unknown": 1, "payout retried": 1,
}  # fmt: skip


@contextmanager
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged of exceptions meanwhile, ours and libraries'; nothing else is kept."""
    found: list[str] = []

    def keep(_: Any, level: str, said: MutableMapping[str, Any]) -> Any:
        word = str(said.get("event"))
        what = str(said.get("what", ""))
        raised = word.endswith((".fault", "raised")) or what.endswith(("_raised", "_failed")) or said.get("exc_info")
        if raised or level in ("critical", "exception"):
            found.append(repr(dict(said)))
        raise structlog.DropEvent

    chain = structlog.get_config()["processors"]
    before = list(chain)
    chain[:] = [keep]
    try:
        yield found
    finally:
        chain[:] = before
        found += [record.getMessage() for record in caplog.get_records("call") if record.exc_info]


@pytest.mark.slow
@pytest.mark.timeout(3600 if PAYMENTS > 500 else 120)
def test_the_ledger_is_sound_after_a_bad_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """See above. Every kind of end must have been reached, or it would prove little."""
    monkeypatch.setattr(paying, "KEYS", {**paying.KEYS, **SHAP})

    async def run() -> None:
        more: dict[str, Any] = {"jobs": every_job}
        async with counter(tmp_path, **more) as c:
            shap_is_here(c, monkeypatch)
            c.till.app.client.limit_ms = 300
            chaos = Chaos(c, SEED)
            await chaos.open()
            began = said = time.monotonic()
            at_a_time = AT_A_TIME if PAYMENTS < 500 else 5 * AT_A_TIME
            while chaos.begun < PAYMENTS:
                await chaos.round(min(at_a_time, PAYMENTS - chaos.begun))
                if PAYMENTS > 500 and time.monotonic() > said + EVERY_S:
                    said = time.monotonic()
                    with capfd.disabled():
                        print(f"{chaos.begun} of {PAYMENTS}, {said - began:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
            for _ in range(3):  # nobody pays any more, and the trouble goes on
                await chaos.round(0)
            await chaos.quieten()
            await judge(chaos)

    with faults(caplog) as found:
        asyncio.run(run())
    assert not found, (f"seed {SEED}, {PAYMENTS} payments", found[:5])


def shap_is_here(c: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """eBilling's payouts have an address of their own."""
    app = c.till.app
    facts = {**ebilling_payouts.FACTS, "test_shap_url": c.sandbox.base_urls["ebilling"]}
    here = replace(
        app.settings.payouts["ebilling"],
        send=lambda paying, channel, keys: ebilling_payouts.send(paying, channel, keys, facts),
        ask=lambda paying, keys: ebilling_payouts.ask(paying, keys, facts),
        float_=lambda payee, live, keys: ebilling_payouts.float_(payee, live, keys, facts),
    )
    monkeypatch.setattr(app.payer, "_providers", {**app.settings.payouts, "ebilling": here})


async def judge(chaos: Chaos) -> None:
    """What must be so at the end."""
    app, told = chaos.c.till.app, f"seed {SEED}, {PAYMENTS} payments: "
    check = await app.verifier.check(chaos.by())
    assert check.sound and not check.problems, (told, check.found, check.problems[:10])
    assert (await commands.run(app, "verify", {}))["sound"], told

    def afresh(tx: Connection) -> list[str]:
        recorded = tx.execute(select(settlements)).mappings()
        return problems(tx, {row["id"]: of_settlement(row) for row in recorded})

    wrong = await app.db.read(afresh, deadline_ms=600_000)
    assert wrong == [], (told, wrong[:10])
    ends, wrong = Count({name: len(ids) for name, ids in chaos.seen.items()}), list[str]()
    wrong += await of_payments(chaos, ends)
    wrong += await of_payouts(chaos, ends)
    wrong += await of_floats(chaos)
    for table, name in ((orders, "order"), (holds, "hold"), (refunds, "refund")):
        for row in await chaos.rows(table):
            ends[f"{name} {row.state}"] += 1
    print(dict(ends), dict(chaos.did), dict(chaos.refused), sep="\n")  # noqa: T201 - what a failure shows
    assert not wrong, "\n".join([told, str(len(wrong)), *wrong[:20]])
    missed = {name: (ends[name], least) for name, least in REACHED.items() if ends[name] < least}
    assert not missed, (told, missed, ends)


async def of_payments(chaos: Chaos, ends: Count[str]) -> list[str]:
    """Nobody was charged twice; what is recorded is what was taken; what is not over is not over there."""
    charges, tries, wrong = defaultdict[str, list[Charge]](list), defaultdict[str, list[Any]](list), list[str]()
    for name in paying.SIX:
        for charge in chaos.c.sandbox.bank.of(name):
            charges[charge.reference].append(charge)
    for attempt in await chaos.rows(attempts):
        tries[attempt.payment_id].append(attempt)
    for row in await chaos.rows(payments):
        ends[f"payment {row.status}"] += 1
        ends["payment external"] += row.origin == "external"
        for word in filter(None, row.exceptions.split(",")):
            ends["wrong amount" if word in ("under", "over") else word] += 1
        if row.origin == "external":
            continue
        mine = tries[row.id]
        there = [charge for attempt in mine for charge in charges[attempt.reference]]
        taken = [charge for charge in there if charge.captured_minor]
        really = sum(map(received, taken))
        if row.id in chaos.trusted and taken and row.captured_minor == row.amount_minor:
            # A person's word is for what was asked, not for what was taken.
            chaos.elsewhere[taken[0].provider, taken[0].currency] -= really - row.amount_minor
            really = row.amount_minor
        said = f"{row.id}: {row.status} {row.exceptions} {row.captured_minor}, really {really}; "
        said += str([(one.provider, one.state, one.reason) for one in mine])
        if len(taken) > 1:
            wrong.append(f"charged twice: {said}")
        if row.captured_minor != really:
            wrong.append(f"the books differ: {said}")
        over = row.status not in ("pending", "requires_action", "unknown", "authorized")
        if over == any(charge.live for charge in there) and not really:
            wrong.append(f"{'it can still be paid there' if over else 'it is over there'}: {said}")
        ends["failed over"] += len(mine) > 1 and bool(really)
    return wrong


def received(charge: Charge) -> int:
    """What reaches the merchant: what Paystack takes beyond what was asked for is the payer's fee."""
    most = charge.amount_minor if charge.provider == "paystack" else charge.captured_minor
    return min(charge.captured_minor, most)


async def of_payouts(chaos: Chaos, ends: Count[str]) -> list[str]:
    """Nobody was paid twice, and who was paid is known. Of what comes back Monetbil tells nothing to be believed."""
    wrong = []
    there = defaultdict[str, list[Any]](list)
    for payout in chaos.c.sandbox.treasury.paid_out():
        there[payout.reference].append(payout)
    for row in await chaos.rows(payouts):
        ends[f"payout {row.state}"] += 1
        ends["payout retried"] += row.retry_of is not None
        ends["refund by payout"] += row.source == "refund" and row.state == "paid"
        paid = there.pop(row.reference, [])
        kept = sum(payout.paid_minor - payout.returned_minor for payout in paid)
        known = {"paid": row.amount_minor}.get(row.state, 0)
        named = row.provider == "monetbil" and row.state == "paid" and kept == 0
        if len(paid) > 1 or (kept != known and not named):
            wrong.append(f"{row.id}: {row.provider} {row.state} {row.failure_reason}, really {len(paid)} × {kept}")
        if row.state not in ("paid", "failed", "canceled", "returned"):
            wrong.append(f"{row.id}: {row.provider} {row.state} {row.waits_for} has no end")
    return wrong + [f"{reference}: paid, and nobody has asked" for reference in there]


async def of_floats(chaos: Chaos) -> list[str]:
    """Each float: captured, less fees, refunds, what was clawed back, payouts and settlements; exceptions by name."""
    there: Count[tuple[str, str]] = Count(chaos.elsewhere)
    sandbox = chaos.c.sandbox
    for name in paying.SIX:
        for charge in sandbox.bank.of(name):
            back = sum(refund.amount_minor for refund in charge.refunds if refund.state == "succeeded")
            there[name, charge.currency] += received(charge) - back
    untold = {
        row.reference for row in await chaos.rows(payouts, payouts.c.provider == "monetbil", payouts.c.state == "paid")
    }
    for payout in sandbox.treasury.paid_out():
        told = 0 if payout.reference in untold else payout.returned_minor  # Monetbil says it to nobody
        there[payout.provider, payout.currency] -= payout.paid_minor - told + payout.fee_minor
    for row in await chaos.rows(payments, payments.c.captured_minor > 0):
        there[row.provider, row.currency] -= row.fee_minor or 0  # as the adapter reads it, rounded to whole units
    for row in await chaos.rows(refunds, refunds.c.state == "succeeded", refunds.c.provider_reference.is_not(None)):
        if row.provider_reference.rpartition(":")[2] in chaos.unheard:  # its bank said no later, to nobody
            (attempt,) = await chaos.rows(attempts, attempts.c.id == row.attempt_id)
            there[attempt.provider, row.currency] -= row.amount_minor
    for row in await chaos.rows(settlements):
        there[row.account_id.removeprefix("acc_"), row.currency] -= row.amount_minor + row.fee_minor

    def look(tx: Connection) -> dict[tuple[str, str], int]:
        kept = tx.execute(select(ledger_accounts).where(ledger_accounts.c.kind == Kind.FLOAT.value)).mappings()
        owners = [(row["owner"], row["currency"]) for row in kept]
        return {(o.removeprefix("acc_"), code): balance(tx, Kind.FLOAT, o, False, code) for o, code in owners}

    here = await chaos.c.till.app.db.read(look)
    return [
        f"the float of {of}: {here.get(of, 0)} here, {there.get(of, 0)} there"
        for of in sorted({*here, *there})
        if here.get(of, 0) != there.get(of, 0)
    ]
