"""
A shop on a bad day: payers, sellers, buyers, operators and providers' banks who all do what they like, at once.

Everything is real but the people: caisse with its outbox and its jobs, the sandbox of six providers, HTTP between them.
`rounds` plays; each begins a few payments over trouble that is switched on anew, and lets everybody do something about
what is there already. `quieten` ends all trouble and lets time go by until everything that can end has ended.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter as Count
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import yarl
from sqlalchemy import Connection, select

from service import commands
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
from service.orders.orders import Draft, Line
from service.orders.owner import Whose
from service.orders.tables import orders
from service.payments.facts import Reason
from service.payments.tables import attempts, payments, refunds
from service.sandbox.api.paystack_payouts import OTP
from service.sandbox.bank import Charge, Payer, Refund
from service.sandbox.builder import build
from service.sandbox.stories import Story, Teller
from service.sandbox.truths import Book
from tests.support.paying import BUYER, SIX, USUAL, Counter

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
AT_A_TIME = 20
RECENT = 400
"""Payments that people still do something about; older ones only their providers and the clock."""
ABOVE_MINOR = 8_000
"""A payout of more waits for a second person."""

ON_CREATE = (
    "timeout_after", "timeout_before", "reset", "error_5xx_before", "error_5xx_after", "garbage_2xx", "rate_limited",
    "unauthorized", "maintenance",
)  # fmt: skip
LATER = (
    *[(kind, operation) for operation in ("otp", "cancel", "fetch", "refund") for kind in ("reset", "garbage_2xx")],
    ("timeout_after", "otp"), ("timeout_before", "cancel"), ("timeout_after", "refund"), ("error_5xx_before", "refund"),
    ("error_5xx_before", "fetch"), ("rate_limited", "fetch"), ("otp_wrong", "otp"), ("wrong_amount", "capture"),
    ("wrong_amount", "capture"), ("duplicate", "callback"), ("reordered", "callback"), ("late", "callback"),
    ("silence", "callback"), ("refund_fails_later", "refund"), ("refund_fails_later", "refund"),
    ("timeout_after", "payout"), ("error_5xx_before", "payout"), ("error_5xx_after", "payout"), ("reset", "payout"),
    ("garbage_2xx", "payout"), ("payout_fails", "payout"), ("payout_fails", "payout"),
    ("payout_returned_later", "payout"), ("payout_returned_later", "payout"), ("payout_slow", "payout"),
    ("payout_otp", "payout"), ("insufficient_float", "payout"), ("error_5xx_before", "prepare"),
)  # fmt: skip
CI = {"currency": "XOF", "country": "CI", "operator": "mtn", "payer_phone": "+2250545000001"}
CHAINS: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = (
    *(((name,), usual) for name, usual in USUAL.items()),
    (("paystack", "fedapay"), CI),
    (("fedapay", "paystack", "moneroo"), CI),
    (("moneroo", "paystack"), CI),
)
PAYERS = (
    Payer(), Payer(), Payer(), Payer(), Payer("declines", Reason.INSUFFICIENT_FUNDS), Payer("declines"),
    Payer("waits"), Payer(wrong_otps=1), Payer(wrong_otps=9), Payer(after_ms=90_000),
)  # fmt: skip
SELLERS: tuple[tuple[str, str, To], ...] = (
    ("stripe", "XOF", To("account", "acct_1Seller", "Moussa")),
    ("paystack", "XOF", To("mobile_money", "+2250700000001", "Awa Koné", "CI", "mtn")),
    ("paystack", "GHS", To("mobile_money", "+233551234987", "Kofi", "GH", "mtn")),
    ("fedapay", "XOF", To("mobile_money", "+22997000001", "Awa Koné", "BJ", "mtn")),
    ("monetbil", "XAF", To("mobile_money", "+237670000001", "Awa Koné", "CM", "mtn")),
    ("moneroo", "XOF", To("mobile_money", "+2250700000002", "Awa Koné", "CI", "mtn")),
    ("ebilling", "XAF", To("mobile_money", "+24177000001", "Awa Koné", "GA", "airtel")),
)
JOBS = ("expire-stale-orders", "release-escrow", "ask-about-stuck-attempts", "cleanup-stale-payment-intents")
BY_PERSONS = ("monetbil", "moneroo", "ebilling")
"""Whose refunds are payouts."""


@dataclass(slots=True)
class Chaos:
    """`did` and `refused` count what was tried; `seen` has the ids that were ever in a state, which later states hide."""

    c: Counter
    seed: int
    dice: Random = field(init=False)
    sellers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))
    begun: int = 0
    told: int = 0
    did: Count[str] = field(default_factory=Count)
    refused: Count[str] = field(default_factory=Count)
    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    elsewhere: Count[tuple[str, str]] = field(default_factory=Count)
    """By provider and currency, what callbacks alone have moved: told of strangers' payments, lost, clawed back."""
    trusted: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Payments that a person has called paid: provider, currency, and what came in beyond what is recorded."""
    hit: set[str] = field(default_factory=set)
    teller: Teller = field(init=False)
    book: Book = field(init=False)

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.teller = Teller(Random(self.seed + 1), self.c.clock)
        self.book = Book(self.c.sandbox)

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
        return self.dice.sample(list(among), min(most, len(among)))

    # --- a round

    async def round(self, count: int) -> None:
        """So many payments, and everybody's turn once; some minutes go by."""
        self.trouble()
        await asyncio.gather(
            *(self.pays(Random(f"{self.seed}:{self.begun + n}"), self.begun + n) for n in range(count))
        )
        self.begun += count
        for _ in range(count // 8):
            await self.tells(self.teller.tell())
        await self.everybody()
        await self.later(self.dice.randint(2, 12) * MINUTE_MS)
        for name in SIX:
            self.c.till.app.circuits.ended(f"acc_{name}", well=True)

    def trouble(self) -> None:
        """What was on is off, and something else goes wrong at each provider."""
        dice, trouble = self.dice, self.c.sandbox.trouble
        trouble.off()
        for name in SIX:
            for kind in self.some(ON_CREATE, 2):
                trouble.on(name, kind, times=1)
            for kind, operation in self.some(LATER, 7):
                delay_ms = dice.choice((1, 4, 40)) * MINUTE_MS
                trouble.on(name, kind, operation, times=1, delay_ms=delay_ms, minor=dice.choice((-100, 100)))
        if dice.random() < 0.3:
            trouble.on(dice.choice(SIX), "refuse")

    async def later(self, ahead_ms: int) -> None:
        """Time goes by, jobs run, and what is seen in passing is kept in mind."""
        await self.look()
        await self.c.go_on(ahead_ms)
        for job in JOBS:
            await self.ask(f"job {job}", commands.run(self.c.till.app, "jobs.run", {"job": job}))
        await self.c.settle(1)
        await self.look()

    async def look(self) -> None:
        """States that do not last."""
        for name, table, states in (
            ("attempt", attempts, ("unknown", "canceling", "requires_action", "not_sent")),
            ("hold", holds, ("frozen", "release_scheduled")),
            ("payout", payouts, ("unknown", "in_transit", "awaiting_approval", "paid")),
            ("order", orders, ("expiring",)),
        ):
            for row in await self.rows(table, table.c.state.in_(states)):
                self.seen[f"{name} {row.state}"].add(row.id)
        for row in await self.rows(holds, holds.c.frozen_minor > 0):
            self.seen["hold frozen"].add(row.id)

    # --- payers

    async def pays(self, rng: Random, number: int) -> None:
        """One payment from its beginning to whatever its payer does with it; half are for an order."""
        app, (chain, usual) = self.c.till.app, rng.choice(CHAINS)
        wish = {"amount_minor": rng.choice((500, 5_000, 12_500)), "customer": BUYER, "providers": chain,
                "return_url": "https://shop.example/back", **usual}  # fmt: skip
        wish["amount_minor"] = rng.choice((500, 5_000, 12_500))
        if "payer_phone" in wish:
            wish["payer_phone"] = wish["payer_phone"][:-5] + f"{number % 100_000:05}"
            self.c.sandbox.bank.set_payer(wish["payer_phone"], rng.choice(PAYERS))
        if rng.random() < 0.7:
            line = Line(1, description="Couture", unit_minor=wish["amount_minor"])
            seller = rng.choice(self.sellers[wish["currency"]]) if rng.random() < 0.7 else ""
            ends_at_ms = self.c.clock() + rng.choice((6, 20, 60)) * MINUTE_MS
            draft = Draft((line,), wish["currency"], expires_at_ms=ends_at_ms, beneficiary_id=seller,
                          late=rng.choice(("ask", "revive", "refund")), restock=rng.random() < 0.5)  # fmt: skip
            wish["order_id"] = await self.hand("order", order_steps.create, app.queue, self.owner, draft, self.by())
        begun = order_steps.admit if wish.get("order_id") else None
        for _ in range(2):  # who was refused at once tries again
            id_ = await self.ask("pay", app.desk.create(self.c.wish(**wish), begun))
            if id_ is None:
                return
            self.recent.append(id_)
            await self.goes_on(id_, rng)
            if (await self.c.payment(id_)).status != "failed":
                return

    async def goes_on(self, id_: str, rng: Random) -> None:
        """The payer, and an impatient merchant."""
        desk = self.c.till.app.desk
        for _ in range(rng.randint(0, 4)):
            live = [one for one in await self.c.attempts(id_) if one.state == "requires_action"]
            action = json.loads(live[-1].action or "{}") if live else {}
            match rng.choice(("pay", "pay", "pay", "pay", "fail", "cancel", "ask", "wait")), action:
                case "pay", {"type": "otp"}:
                    await self.ask("otp", desk.otp(id_, rng.choice(("123456", "123456", "000000"))))
                case ("pay" | "fail") as choice, {"type": "redirect", "url": url}:
                    self.c.sandbox.visit(url, choice)
                case "cancel", _:
                    await self.ask("cancel", desk.cancel(id_, self.by()))
                case "ask", _:
                    await self.ask("sync", desk.sync(id_))
                case _:
                    await self.c.sandbox.tick()

    # --- strangers' payments, and what banks do

    async def tells(self, story: Story) -> None:
        """A payment that somebody else began: signed callbacks, some twice, some in another order."""
        self.told += 1
        steps = list(story.steps)
        if self.dice.random() < 0.3:
            self.dice.shuffle(steps)
        for step in [*steps, *self.some(steps, 1)]:
            if step.truth is not None:
                self.book.write(story.provider, *step.truth)
            await self.calls(story.provider, step.event, step.fields)
        said = story.steps[0].fields
        if story.provider not in BY_PERSONS and story.plot not in ("expired", "declined", "canceled"):
            back = max((int(step.fields.get("refunded", 0)) for step in story.steps), default=0)
            lost = any(step.fields.get("status") == "lost" for step in story.steps)
            self.elsewhere[story.provider, said["currency"]] += 0 if lost else int(said["amount"]) - back

    async def calls(self, provider: str, event: str, fields: Mapping[str, Any]) -> None:
        """One signed callback."""
        known = next(one for one in self.c.sandbox.desk.accounts if one.provider == provider).credentials
        built = build(provider, event, known, self.c.clock(), fields)
        url = yarl.URL(self.c.till.url + built.path_suffix, encoded=True)
        call = self.c.till.client.request(built.method, url, data=built.body or None, headers=dict(built.headers))
        async with call as answer:
            assert answer.status < 300, (provider, event, answer.status)

    async def struck(self, charge: Charge) -> None:
        """The payer's bank disputes it, and decides; or the operator takes it back."""
        left, lost = charge.captured_minor - charge.refunded_minor, self.dice.random() < 0.4
        if charge.id in self.hit or left <= 0:
            return
        self.hit.add(charge.id)
        about: dict[str, Any] = {"currency": charge.currency, "live": "false", "time_ms": self.c.clock()}
        if charge.provider == "stripe":
            names = (charge.id, *charge.names.values())
            about |= {"id": next(name for name in names if name.startswith("pi_")), "amount": left}
            about |= {"charge": charge.names["paid_by"], "dispute": f"dp_{charge.id[-12:]}"}
            events = ("charge.dispute.created", {}), ("charge.dispute.closed", {"status": "lost" if lost else "won"})
        else:
            about |= {"id": charge.id, "reference": charge.reference, "amount": charge.captured_minor}
            if self.dice.random() < 0.3:
                await self.calls("paystack", "charge.success", about | {"status": "reversed"})
                self.elsewhere["paystack", charge.currency] -= charge.captured_minor
                self.did["reversed"] += 1
                return
            about |= {"dispute": charge.id, "refunded": left}
            word = "merchant-accepted" if lost else "declined"
            events = ("charge.dispute.create", {}), ("charge.dispute.resolve", {"reason": word})
        decided = self.dice.random() < 0.8
        for event, more in events[: 1 + decided]:
            await self.calls(charge.provider, event, about | more)
            self.did[event] += 1
        if decided and lost:
            self.elsewhere[charge.provider, charge.currency] -= left

    # --- everybody's turn

    async def everybody(self) -> None:
        """Merchants give back, buyers and sellers and operators do what they do, people approve and repair."""
        app, dice = self.c.till.app, self.dice
        known = await self.rows(payments, payments.c.id.in_(list(self.recent)))
        money = [row for row in known if row.captured_minor]
        for row in self.some(money, 3):
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
            if charge is None or last.state not in ("failed", "canceled", "expired"):
                continue
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
            what = self.dice.choice(("confirm", "dispute", "release", "wait", "wait"))
            if hold.state == "frozen":
                await self.hand("unfreeze", app.holds.unfreeze, hold.id, "seen", self.by("operator"))
            elif what == "confirm":
                await self.hand("confirm", self._confirm, hold)
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
            draft = PayoutDraft(dice.choice(self.sellers[currency]), dice.choice((200, 900)), currency, dice.choice(("merchant", "beneficiary")))  # fmt: skip
            await self.hand("payout", app.payouts.request, self.owner, draft, self.by())
        for row in await self.rows(payouts, payouts.c.state == "awaiting_approval"):
            if calm or dice.random() < 0.7:
                await self.hand("approve", app.payouts.approve, row.id, "", self.by("second"))
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
                word = "paid" if there is not None and there.paid_minor else "failed"
                await self.hand(
                    f"payout decided {word}", app.payouts.decide, row.id, word, "seen in its list", self.by()
                )
        for row in await self.rows(attempts, attempts.c.state.in_(("unknown", "canceling"))):
            charge = sandbox.bank.by_reference(row.provider, "main", row.reference)
            if charge is not None and charge.live:
                continue
            paid = charge is not None and charge.captured_minor
            word = "succeeded" if paid else "not_sent" if charge is None else "failed"
            if (
                await self.ask(f"decided {word}", app.desk.decide(row.payment_id, word, "seen in its list", self.by()))
                is None
            ):
                if paid:
                    continue
            if charge is not None and paid:
                self.trusted[row.payment_id] = row.provider, charge.currency, charge.captured_minor - row.amount_minor

    # --- the end

    async def quieten(self) -> None:
        """No more trouble. Sweeps ask at 30 s, 2 and 10 minutes, an hour, six, and daily; people decide what is left."""
        self.c.sandbox.trouble.off()
        for ahead_ms in (
            MINUTE_MS,
            3 * MINUTE_MS,
            15 * MINUTE_MS,
            90 * MINUTE_MS,
            *[7 * HOUR_MS] * 2,
            *[25 * HOUR_MS] * 4,
        ):
            await self.refunds()
            await self.payouts(calm=True)
            await self.later(ahead_ms)
            for name in SIX:
                self.c.till.app.circuits.ended(f"acc_{name}", well=True)
            if ahead_ms >= 25 * HOUR_MS:
                await self.decide()
