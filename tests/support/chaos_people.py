"""
The people of a bad day: merchants, sellers, buyers, operators, payers' banks, and whoever repairs what nobody can ask
about. `tests.support.chaos` has the payers, the trouble and the clock.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import yarl
from sqlalchemy import Connection, select

from service.errors import NotFound, Refusal
from service.escrow import beneficiaries
from service.escrow.beneficiaries import To
from service.escrow.hold_rows import of_token
from service.escrow.payouts import Draft as PayoutDraft
from service.escrow.states import HoldStep
from service.escrow.tables import holds, payouts
from service.escrow.terms import Terms, set_terms
from service.ledger import settlements
from service.ledger.settlements import Settlement
from service.merchants.audit import By
from service.orders import orders as order_steps
from service.orders.owner import Whose
from service.orders.tables import orders
from service.payments.tables import attempts, payments, refunds
from service.sandbox.api.paystack_payouts import OTP
from service.sandbox.bank import Charge, Refund
from service.sandbox.builder import build
from tests.support.paying import Counter

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
RECENT = 400
"""Payments that people still do something about; older ones only their providers and the clock."""
ABOVE_MINOR = 8_000
"""A payout of more waits for a second person."""
SELLERS: tuple[tuple[str, str, To], ...] = (
    ("stripe", "XOF", To("account", "acct_1Seller", "Moussa")),
    ("paystack", "XOF", To("mobile_money", "+2250700000001", "Awa Koné", "CI", "mtn")),
    ("paystack", "GHS", To("mobile_money", "+233551234987", "Kofi", "GH", "mtn")),
    ("fedapay", "XOF", To("mobile_money", "+22997000001", "Awa Koné", "BJ", "mtn")),
    ("monetbil", "XAF", To("mobile_money", "+237670000001", "Awa Koné", "CM", "mtn")),
    ("moneroo", "XOF", To("mobile_money", "+2250700000002", "Awa Koné", "CI", "mtn")),
    ("ebilling", "XAF", To("mobile_money", "+24177000001", "Awa Koné", "GA", "airtel")),
)
BY_PERSONS = ("monetbil", "moneroo", "ebilling")
"""Whose refunds are payouts."""


@dataclass(slots=True)
class People:
    """
    `did` and `refused` count what was tried; `scale`: how many times as many do something in a round. `elsewhere`: by
    provider and currency, what callbacks alone have moved: told of strangers' payments, lost, clawed back. `trusted`:
    payments that a person has called paid, whatever amount was taken.
    """

    c: Counter
    seed: int
    scale: int = 1
    turn: int = -1
    dice: Random = field(init=False)
    sellers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    did: Count[str] = field(default_factory=Count)
    refused: Count[str] = field(default_factory=Count)
    elsewhere: Count[tuple[str, str]] = field(default_factory=Count)
    trusted: set[str] = field(default_factory=set)
    hit: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)

    @property
    def owner(self) -> Whose:
        """The merchant."""
        assert self.c.till.merchant is not None
        return Whose(self.c.till.merchant.id, False)

    def by(self, who: str = "test") -> By:
        """A hand, now."""
        return By(who, self.c.clock(), self.c.till.app.ids)

    async def open(self) -> None:
        """Terms, and a seller for each provider."""

        def work(tx: Connection) -> None:
            above = dict.fromkeys(("XOF", "XAF", "GHS"), ABOVE_MINOR)
            set_terms(tx, self.owner.merchant_id, Terms(True, 1, 3, approve_above=above), self.by())
            for provider, currency, to in SELLERS:
                made = beneficiaries.create(tx, self.owner, currency, to, self.by(), account=f"acc_{provider}")
                self.sellers[currency].append(made)

        await self.c.till.app.db.write(work)

    async def hand(self, what: str, work: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Somebody does something in one transaction; None where they were told no."""
        return await self.ask(what, self.c.till.app.db.write(partial(work, **more), *args))

    async def ask(self, what: str, doing: Any) -> Any:
        """Likewise, for what takes longer than a transaction."""
        try:
            done = await doing
        except (Refusal, NotFound) as no:
            self.refused[f"{what}: {getattr(no, 'code', 'not_found')}"] += 1
            return None
        self.did[what] += 1
        return done

    async def rows(self, table: Any, *where: Any) -> list[Any]:
        """What is committed now, in the order of ids."""
        return await self.c.till.app.db.read(
            lambda tx: list(tx.execute(select(table).where(*where).order_by(table.c.id)).all())
        )

    def some(self, among: Sequence[Any], most: int = 4) -> list[Any]:
        """A few of them."""
        return self.dice.sample(list(among), min(most * self.scale, len(among)))

    async def calls(self, provider: str, event: str, fields: Mapping[str, Any]) -> None:
        """One signed callback."""
        known = next(one for one in self.c.sandbox.desk.accounts if one.provider == provider).credentials
        built = build(provider, event, known, self.c.clock(), fields)
        url = yarl.URL(self.c.till.url + built.path_suffix, encoded=True)
        call = self.c.till.client.request(built.method, url, data=built.body or None, headers=dict(built.headers))
        async with call as answer:
            assert answer.status < 300, (provider, event, answer.status)

    # --- everybody's turn

    async def everybody(self) -> None:
        """Merchants give back, buyers and sellers and operators do what they do, people approve and repair."""
        app, dice = self.c.till.app, self.dice
        known = await self.rows(payments, payments.c.id.in_(list(self.recent)))
        money = [row for row in known if row.captured_minor]
        for row in self.some(money, 2):
            part = dice.choice((None, None, 100))
            await self.hand("refund", app.refunds.create, row.id, part, "wrong size", self.by())
        by_reference = {
            row.reference: row
            for row in await self.rows(attempts, attempts.c.payment_id.in_([row.id for row in known]))
        }
        charged = [
            one
            for one in self.c.sandbox.bank.of("stripe")[:RECENT] + self.c.sandbox.bank.of("paystack")[:RECENT]
            if one.captured_minor
        ]
        heard = [one for one in charged if (row := by_reference.get(one.reference)) and row.state == "succeeded"]
        for charge in self.some(heard, 2):
            await self.struck(charge)
        await self.too_late([row for row in known if row.order_id and not row.captured_minor])
        await self.orders([row.order_id for row in money if row.order_id])
        await self.refunds()
        await self.payouts()
        account = f"acc_{dice.choice(('paystack', 'fedapay'))}"
        drawn = Settlement(
            account, dice.choice((-2_000, 900, 1_500)), "XOF", f"S-{dice.randrange(10**9)}", None, dice.choice((0, 10))
        )
        await self.hand("settlement", settlements.record, drawn, self.by())
        app.nudge()

    async def too_late(self, unpaid: Sequence[Any]) -> None:
        """Money comes for orders that are over, as happens: the payer said yes to an old prompt."""
        over = {
            row.id
            for row in await self.rows(
                orders, orders.c.id.in_({row.order_id for row in unpaid}), orders.c.state.in_(("expired", "canceled"))
            )
        }
        for row in self.some([row for row in unpaid if row.order_id in over], 2):
            last = (await self.c.attempts(row.id))[-1]
            charge = self.c.sandbox.bank.by_reference(last.provider, "main", last.reference)
            if charge is None or "deleted" in charge.notes or last.state not in ("failed", "canceled", "expired"):
                continue  # what FedaPay has deleted stays pending there for ever, whatever is paid
            self.c.sandbox.trouble.off(last.provider, "silence")  # nobody would ever ask about it again
            self.did["late money"] += self.c.sandbox.bank.pay(charge, late=True)

    async def orders(self, paid: Sequence[str]) -> None:
        """Sellers deliver, buyers confirm or complain, the shop decides; some orders are called off."""
        app = self.c.till.app
        for id_ in self.some(paid, 6):
            await self.hand("deliver", order_steps.deliver, app.queue, self.owner, id_, self.by())
        unpaid = await self.rows(orders, orders.c.state == "awaiting_payment")
        for row in self.some(unpaid, 1):
            await self.hand("cancel order", order_steps.cancel, app.queue, self.owner, row.id, self.by())
        kept = await self.rows(holds, holds.c.state.in_(("held", "release_scheduled", "frozen")))
        for hold in self.some(kept[-RECENT:], 6):
            self.turn += 1
            what = ("dispute", "refund", "confirm", "wait", "release")[self.turn % 5]
            if hold.state == "frozen":
                await self.hand("unfreeze", app.holds.unfreeze, hold.id, "seen", self.by("operator"))
            elif what == "confirm":
                await self.hand("confirm", self._confirm, hold)
            elif what == "refund":
                for row in await self.rows(
                    payments, payments.c.order_id == hold.order_id, payments.c.captured_minor > 0
                ):
                    await self.hand("refund", app.refunds.create, row.id, None, "sold out", self.by())
            elif what == "dispute":
                await self.hand("complain", app.holds.dispute, hold.id, "it is torn", self.by("buyer"))
            elif what == "release":
                await self.hand("release", app.holds.release, hold.id, "the buyer called", self.by("operator"))

    def _confirm(self, tx: Connection, hold: Any) -> None:
        app = self.c.till.app
        token = app.holds.link(tx, hold.id, self.by())
        app.holds.release(tx, of_token(tx, hold.order_id, token)["id"], "", self.by("buyer"), HoldStep.CONFIRMED)

    async def refunds(self) -> None:
        """Where no API gives money back: paid out to the payer, or made on the provider's pages and said to be done."""
        app, bank = self.c.till.app, self.c.sandbox.bank
        for row in self.some(await self.rows(refunds, refunds.c.manual, refunds.c.state == "queued"), 5):
            (attempt,) = await self.rows(attempts, attempts.c.id == row.attempt_id)
            charge = bank.by_reference(attempt.provider, "main", attempt.reference or "")
            if attempt.provider in BY_PERSONS:
                if await self.hand("refund by payout", app.payouts.refund_by_payout, row.id, self.by()) is None:
                    await self.hand("give up", app.refunds.give_up, row.id, "nobody to pay", self.by())
            elif (
                charge is None
                or self.dice.random() < 0.2
                or charge.captured_minor - charge.refunded_minor < row.amount_minor
            ):
                await self.hand("give up", app.refunds.give_up, row.id, "changed our mind", self.by())
            else:
                bank.refund(charge, Refund(f"rf{len(charge.refunds)}", row.amount_minor))
                await self.hand("done by hand", app.refunder.mark_done, row.id, "made on its pages", self.by())

    async def payouts(self, *, calm: bool = False) -> None:
        """The merchant's own, and what people have to do about all: approve, call off, hand in codes, try again."""
        app, dice = self.c.till.app, self.dice
        if not calm:
            currency = dice.choice(list(self.sellers))
            to, minor = dice.choice(self.sellers[currency]), dice.choice((200, 900))
            draft = PayoutDraft(to, minor, currency, dice.choice(("merchant", "beneficiary")))
            await self.hand("payout", app.payouts.request, self.owner, draft, self.by())
        for row in await self.rows(payouts, payouts.c.state == "awaiting_approval"):
            if calm or dice.random() < 0.7:
                if await self.hand("approve", app.payouts.approve, row.id, "", self.by("second")) is None:
                    await self.hand("call off", app.payouts.cancel, row.id, "its refund is over", self.by())
            elif dice.random() < 0.3:
                await self.hand("call off", app.payouts.cancel, row.id, "", self.by())
        for row in self.some(await self.rows(payouts, payouts.c.state == "queued"), 0 if calm else 1):
            await self.hand("call off", app.payouts.cancel, row.id, "", self.by())
        for row in await self.rows(payouts, payouts.c.otp_wanted, payouts.c.state == "in_transit"):
            if dice.random() < 0.7:
                await self.ask("code", app.payer.finalize(row.id, dice.choice((OTP, OTP, "000000")), self.by()))
        gone = await self.rows(
            payouts, payouts.c.state.in_(("failed", "returned")), payouts.c.created_at_ms > self.c.clock() - HOUR_MS
        )
        for row in self.some(gone, 0 if calm else 3):
            await self.hand("try again", app.payouts.retry, row.id, self.by())

    async def decide(self) -> None:
        """A person looks at the provider for what nobody can ask about, and says what is so."""
        app, sandbox = self.c.till.app, self.c.sandbox
        for row in await self.rows(payouts, payouts.c.state == "unknown"):
            there = sandbox.treasury.by_reference(row.provider, "main", row.reference)
            if there is None or there.state in ("paid", "failed", "returned"):
                word = "paid" if there is not None and there.state == "paid" else "failed"
                name = there.id if there is not None else ""
                args = row.id, word, "seen in its list", self.by(), name
                await self.hand(f"payout decided {word}", app.payouts.decide, *args)
        for row in await self.rows(attempts, attempts.c.state.in_(("unknown", "canceling"))):
            charge = sandbox.bank.by_reference(row.provider, "main", row.reference)
            if charge is not None and charge.live:
                continue
            paid = charge is not None and charge.captured_minor
            word = "succeeded" if paid else "not_sent" if charge is None else "failed"
            before = self.did["decided succeeded"]
            await self.ask(f"decided {word}", app.desk.decide(row.payment_id, word, "seen in its list", self.by()))
            if self.did["decided succeeded"] > before:
                self.trusted.add(row.payment_id)

    async def struck(self, charge: Charge) -> None:
        """The payer's bank disputes it, and decides; or the operator takes it back."""
        left, lost = min(charge.captured_minor, charge.amount_minor) - charge.refunded_minor, self.dice.random() < 0.4
        if charge.id in self.hit or left <= 0:
            return
        self.hit.add(charge.id)
        events: list[tuple[str, dict[str, str]]]
        about: dict[str, Any] = {"currency": charge.currency, "live": "false", "time_ms": self.c.clock()}
        if charge.provider == "stripe":
            names = (charge.id, *charge.names.values())
            about |= {"id": next(name for name in names if name.startswith("pi_")), "amount": left}
            about |= {"charge": charge.names["paid_by"], "dispute": f"dp_{charge.id[-12:]}"}
            end = {"status": "lost" if lost else "won"}
            events = [("charge.dispute.created", {}), ("charge.dispute.closed", end)]
        else:
            asked = min(charge.captured_minor, charge.amount_minor)  # what is beyond is the payer's fee
            about |= {"id": charge.id, "reference": charge.reference, "amount": asked}
            if self.dice.random() < 0.3:
                await self.calls("paystack", "charge.success", about | {"status": "reversed"})
                self.elsewhere["paystack", charge.currency] -= asked
                self.did["reversed"] += 1
                return
            about |= {"dispute": charge.id, "refunded": left}
            word = "merchant-accepted" if lost else "declined"
            events = [("charge.dispute.create", {}), ("charge.dispute.resolve", {"reason": word})]
        decided = self.dice.random() < 0.8
        for event, more in events[: 1 + decided]:
            await self.calls(charge.provider, event, about | more)
            self.did[event] += 1
        if decided and lost:
            self.elsewhere[charge.provider, charge.currency] -= left
