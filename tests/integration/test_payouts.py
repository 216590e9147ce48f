"""Payouts at the sandbox's six providers: nobody is paid twice, nothing is lost, and what nobody knows waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from service.errors import Refusal
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To
from service.escrow.payout_rows import one
from service.escrow.payouts import Draft
from service.escrow.tables import payouts
from service.escrow.terms import Terms, set_terms
from service.ledger.tables import ledger_checks
from service.orders.owner import Whose
from service.payments.facts import Fact, Kind, Told
from service.payments.heard import Account
from service.providers import ebilling_payouts, fedapay_calls
from tests.support import paying
from tests.support.escrow_check import problems
from tests.support.paying import SIX, Counter, counter
from tests.support.sandbox_payouts import PAYEES, PURSES

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 24 * 3_600_000
ASKED = ("stripe", "paystack", "fedapay", "ebilling")
"""By our reference; after a time-out the others are a person's."""
A_PERSONS = ("monetbil", "moneroo")
SHAP = {"CAISSE_EBILLING_SHAP_ID": "api-1", "CAISSE_EBILLING_SHAP_SECRET": "api-secret-1"}
TEST_PURSE = str(fedapay_calls.FACTS["sandbox_mode"])
AMOUNT = 1_500
CHEST = 1_000_000


@dataclass(slots=True)
class Cashier:
    """A counter whose merchant has money at every provider, and somebody to be paid through each."""

    c: Counter
    accounts: dict[str, str] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> Whose:
        """The merchant."""
        assert self.c.till.merchant is not None
        return Whose(self.c.till.merchant.id, False)

    async def begin(self) -> None:
        """Terms, money and payees."""
        app, merchant = self.c.till.app, self.owner.merchant_id
        self.accounts = {entry.provider: entry.id for entry in app.registry if not entry.missing}

        def work(tx: Any) -> dict[str, str]:
            free = {payee.currency: 10**9 for payee in PAYEES.values()}
            set_terms(tx, merchant, Terms(enabled=True, approve_above=free), self.c.by)
            book = app.processor.book(tx, app.clock())
            made = {}
            for name, account in self.accounts.items():
                payee = PAYEES[name]
                fact = Fact(Kind.CAPTURED, f"m_{name}", app.clock(), CHEST, CHEST, payee.currency)
                book.hear(Account(account, name, merchant, False), Told((f"chest_{name}",), (fact,)), None)
                to = To(payee.kind, payee.number, payee.name, payee.country, payee.operator, payee.bank_code)
                made[name] = steps.create(tx, self.owner, payee.currency, to, self.c.by, account=account)
            app.processor.close(tx, book, app.clock())
            return made

        self.people = await app.db.write(work)

    async def asked(self, provider: str, begun: bool = False, **more: Any) -> str:
        """A payout of the merchant's own money; the id. `begun`: by a worker that dies before it sends anything."""
        app = self.c.till.app
        draft = Draft(self.people[provider], AMOUNT, PAYEES[provider].currency, "merchant")

        def work(tx: Any) -> str:
            id_ = str(app.payouts.request(tx, self.owner, draft, self.c.by, **more)["id"])
            if begun:
                assert app.payer._begin(tx, id_, app.registry.get(self.accounts[provider]), False) is not None
            return id_

        id_ = await app.db.write(work)
        app.nudge()
        return id_

    async def all_asked(self, *providers: str, **more: Any) -> dict[str, str]:
        """One at each; all have been worked on."""
        made = {name: await self.asked(name, **more) for name in providers or SIX}
        await self.c.settle()
        return made

    async def row(self, id_: str) -> dict[str, Any]:
        """A payout."""
        return await self.c.till.app.db.read(one, id_)

    async def states(self, made: Mapping[str, str]) -> dict[str, str]:
        """Of these payouts."""
        return {name: (await self.row(id_))["state"] for name, id_ in made.items()}

    async def all_are(self, state: str, made: Mapping[str, str]) -> None:
        """And nothing else."""
        assert await self.states(made) == dict.fromkeys(made, state)

    async def paid_once(self, made: Mapping[str, str]) -> None:
        """By the provider's own books: each payee got it, once, under the payout's reference."""
        for name, id_ in made.items():
            row = await self.row(id_)
            got = self.c.sandbox.treasury.paid_out(row["reference"])
            assert [(payout.provider, payout.paid_minor) for payout in got] == [(name, AMOUNT)], (name, row)

    async def nobody_paid(self, made: Mapping[str, str]) -> None:
        """By the same books."""
        for id_ in made.values():
            assert self.c.sandbox.treasury.paid_out((await self.row(id_))["reference"]) == []

    def trouble(self, kind: str, operation: str = "payout", *providers: str, **more: Any) -> None:
        """At each of these, or all."""
        for name in providers or SIX:
            self.c.sandbox.trouble.on(name, kind, operation, **more)

    def floats(self, minor: int) -> None:
        """What every provider holds for us."""
        for name in SIX:
            purse = TEST_PURSE if name == "fedapay" else PURSES.get(name, "")
            self.c.sandbox.treasury.set_float(name, PAYEES[name].currency, minor, purse=purse)

    async def decide(self, id_: str, outcome: str) -> None:
        """A person has looked at the provider."""
        app = self.c.till.app
        await app.db.write(app.payouts.decide, id_, outcome, "seen in its list", self.c.by)

    async def again(self, id_: str) -> str:
        """A person tries it again."""
        app = self.c.till.app
        made = await app.db.write(app.payouts.retry, id_, self.c.by)
        app.nudge()
        await self.c.settle()
        assert made["retry_of"] == id_ and made["reference"] != (await self.row(id_))["reference"]
        return str(made["id"])

    async def later(self, *ahead_ms: int) -> None:
        """Time goes by, in these steps."""
        for ms in ahead_ms:
            await self.c.go_on(ms)

    async def checked(self, *, sound: bool) -> None:
        """The ledger was looked at."""
        app, now_ms = self.c.till.app, self.c.till.app.clock()
        row = {"id": app.ids("chk"), "begun_at_ms": now_ms, "ended_at_ms": now_ms, "sound": sound, "looked": "{}",
               "problems": "[]", "actor": "test"}  # fmt: skip
        await app.db.write(lambda tx: tx.execute(insert(ledger_checks), row) and None)


def play(directory: Path, monkeypatch: pytest.MonkeyPatch, story: Callable[[Cashier], Awaitable[None]]) -> None:
    """One story in front of all six, SHAP's address being the sandbox's; the ledger is sound at the end."""
    monkeypatch.setattr(paying, "KEYS", {**paying.KEYS, **SHAP})

    async def run() -> None:
        async with counter(directory) as c:
            app = c.till.app
            facts = {**ebilling_payouts.FACTS, "test_shap_url": c.sandbox.base_urls["ebilling"]}
            here = replace(
                app.settings.payouts["ebilling"],
                send=lambda paying, channel, keys: ebilling_payouts.send(paying, channel, keys, facts),
                ask=lambda paying, keys: ebilling_payouts.ask(paying, keys, facts),
                float_=lambda payee, live, keys: ebilling_payouts.float_(payee, live, keys, facts),
            )
            monkeypatch.setattr(app.payer, "_providers", {**app.settings.payouts, "ebilling": here})
            cashier = Cashier(c)
            await cashier.begin()
            await story(cashier)
            assert await app.db.read(problems) == []

    asyncio.run(run())


def test_each_provider_pays_once_a_float_is_waited_for_and_what_comes_back_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paid; with too little there nothing is sent until it was filled up; returned, tried again as another payout."""

    async def story(k: Cashier) -> None:
        made = await k.all_asked()
        await k.later(MINUTE_MS)
        await k.all_are("paid", made)
        await k.paid_once(made)

        k.floats(AMOUNT - 1)
        poor = await k.all_asked()
        await k.all_are("queued", poor)
        for id_ in poor.values():
            assert (await k.row(id_))["waits_for"] == "float" and "payout_float_short" in await k.c.reasons(id_)
        await k.nobody_paid(poor)
        k.floats(10 * AMOUNT)
        await k.later(3 * MINUTE_MS, MINUTE_MS)
        await k.all_are("paid", poor)
        await k.paid_once(poor)
        assert not [reason for id_ in poor.values() for reason in await k.c.reasons(id_)]

        told = [name for name in SIX if name != "monetbil"]  # it cannot be asked, and its callbacks prove nothing
        k.trouble("payout_returned_later", "payout", delay_ms=5 * MINUTE_MS, times=1)
        lent = await k.all_asked(*told)
        await k.later(MINUTE_MS)
        await k.all_are("paid", lent)
        await k.later(6 * MINUTE_MS)
        await k.all_are("returned", lent)
        assert all([{"payout_returned"} <= await k.c.reasons(id_) for id_ in lent.values()])
        again = {name: await k.again(id_) for name, id_ in lent.items()}
        await k.later(MINUTE_MS)
        await k.all_are("paid", again)
        await k.paid_once(again)
        with pytest.raises(Refusal, match="tried again"):
            await k.again(lent["paystack"])

        k.trouble("silence", "callback")
        k.trouble("payout_returned_later", "payout", *told, delay_ms=5 * MINUTE_MS, times=1)
        quiet = await k.all_asked(*told)
        await k.later(MINUTE_MS)
        await k.all_are("paid", quiet)
        await k.later(DAY_MS)
        await k.all_are("returned", quiet)

    play(tmp_path, monkeypatch, story)


def test_a_lost_answer_is_asked_about_and_nobody_is_paid_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R6: paid, and no answer came: found by our reference, or left to a person; a retry is refused meanwhile."""

    async def story(k: Cashier) -> None:
        k.c.till.app.client.limit_ms = 700
        k.trouble("silence", "callback")
        k.trouble("timeout_after", times=1)
        made = await k.all_asked()
        await k.all_are("unknown", made)
        for id_ in made.values():
            with pytest.raises(Refusal, match="nothing to try again"):
                await k.again(id_)
        await k.later(MINUTE_MS)
        assert "unknown" not in (await k.states({name: made[name] for name in ASKED})).values()
        left = {name: made[name] for name in A_PERSONS}
        await k.later(HOUR_MS, DAY_MS)
        await k.all_are("unknown", left)
        for id_ in left.values():
            assert "payout_unknown" in await k.c.reasons(id_)
            await k.decide(id_, "paid")
            assert "payout_unknown" not in await k.c.reasons(id_)
        await k.all_are("paid", made)
        await k.paid_once(made)

    play(tmp_path, monkeypatch, story)


def test_what_never_arrived_is_sent_again_under_the_same_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R6: a 5xx proves nothing: asked about, and sent again only once it is surely not there; or a person decides."""

    async def story(k: Cashier) -> None:
        k.trouble("error_5xx_before", times=1)
        made = await k.all_asked()
        references = {name: (await k.row(id_))["reference"] for name, id_ in made.items()}
        await k.all_are("unknown", made)
        await k.nobody_paid(made)
        await k.later(MINUTE_MS, 2 * MINUTE_MS)
        early = {name: made[name] for name in ASKED if name != "stripe"}  # Stripe takes keys
        await k.all_are("unknown", early)
        await k.later(11 * MINUTE_MS, 61 * MINUTE_MS, 6 * HOUR_MS + MINUTE_MS, DAY_MS, MINUTE_MS)
        await k.all_are("paid", {name: made[name] for name in ASKED})
        await k.paid_once({name: made[name] for name in ASKED})
        assert references == {name: (await k.row(id_))["reference"] for name, id_ in made.items()}
        for name in A_PERSONS:
            await k.decide(made[name], "failed")
            again = {name: await k.again(made[name])}
            await k.later(MINUTE_MS)
            await k.all_are("paid", again)
            await k.paid_once(again)
            await k.nobody_paid({name: made[name]})

    play(tmp_path, monkeypatch, story)


def test_a_killed_worker_a_changed_payee_and_an_unsound_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R6: what was being sent is asked about, never sent under another reference; what must not be sent yet waits."""

    async def story(k: Cashier) -> None:
        app = k.c.till.app
        made = await k.all_asked(begun=True)
        await k.all_are("unknown", {name: made[name] for name in SIX if name != "stripe"})
        await k.later(11 * MINUTE_MS, 61 * MINUTE_MS, 6 * HOUR_MS + MINUTE_MS, DAY_MS, MINUTE_MS)
        await k.all_are("paid", {name: made[name] for name in ASKED})
        await k.paid_once({name: made[name] for name in ASKED})
        left = {name: made[name] for name in A_PERSONS}
        await k.all_are("unknown", left)
        await k.nobody_paid(left)
        assert await k.c.till.count(payouts) == len(SIX)

        payee = PAYEES["paystack"]
        new = To(payee.kind, "+2250500000002", payee.name, payee.country, payee.operator)
        await app.db.write(steps.pay_to, k.owner, k.people["paystack"], new, k.c.by)
        with pytest.raises(Refusal, match="waits a day"):
            await k.asked("paystack")
        waiting = {"paystack": await k.asked("paystack", waits=True)}  # as what a hold has released
        await k.later(HOUR_MS)
        await k.all_are("queued", waiting)
        assert (await k.row(waiting["paystack"]))["waits_for"] == "payee"
        await k.later(DAY_MS)
        await k.all_are("paid", waiting)
        await k.paid_once(waiting)

        await k.checked(sound=False)
        stopped = await k.all_asked("fedapay", "stripe")
        await k.all_are("queued", stopped)
        assert {(await k.row(id_))["waits_for"] for id_ in stopped.values()} == {"ledger"}
        await k.nobody_paid(stopped)
        await k.checked(sound=True)
        await k.later(3 * MINUTE_MS, MINUTE_MS)
        await k.all_are("paid", stopped)
        await k.paid_once(stopped)

    play(tmp_path, monkeypatch, story)
