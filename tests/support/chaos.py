"""
A shop on a bad day: payers, sellers, buyers, operators and providers' banks who all do what they like, at once.

Everything is real but the people: caisse with its outbox and its jobs, the sandbox of six providers, HTTP between them.
`rounds` plays; each begins a few payments over trouble that is switched on anew, and lets everybody do something about
what is there already. `quieten` ends all trouble and lets time go by until everything that can end has ended.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from service import commands
from service.escrow.tables import holds, payouts
from service.orders import orders as order_steps
from service.orders.orders import Draft, Line
from service.orders.tables import orders
from service.payments.facts import Reason
from service.payments.tables import attempts
from service.sandbox.bank import Payer
from service.sandbox.desk import Account, Letter
from service.sandbox.stories import Story, Teller
from service.sandbox.truths import Book
from tests.support.chaos_people import BY_PERSONS, MINUTE_MS, People
from tests.support.paying import BUYER, SIX, USUAL

HOUR_MS = 60 * MINUTE_MS
AT_A_TIME = 20
ON_CREATE = (
    "timeout_after", "timeout_before", "reset", "error_5xx_before", "error_5xx_after", "garbage_2xx", "rate_limited",
    "unauthorized", "maintenance",
)  # fmt: skip
LATER = (
    *[(kind, operation) for operation in ("otp", "cancel", "fetch", "refund") for kind in ("reset", "garbage_2xx")],
    ("timeout_after", "otp"), ("timeout_before", "cancel"), ("timeout_after", "refund"), ("error_5xx_before", "refund"),
    ("error_5xx_before", "fetch"), ("rate_limited", "fetch"), ("otp_wrong", "otp"), ("wrong_amount", "capture"),
    ("wrong_amount", "capture"), ("duplicate", "callback"), ("reordered", "callback"), ("late", "callback"),
    ("silence", "callback"), ("timeout_after", "payout"), ("error_5xx_before", "payout"), ("reset", "payout"),
    ("error_5xx_after", "payout"), ("garbage_2xx", "payout"), ("payout_slow", "payout"), ("payout_otp", "payout"),
    ("insufficient_float", "payout"), ("error_5xx_before", "prepare"),
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
JOBS = ("expire-stale-orders", "release-escrow", "ask-about-stuck-attempts", "cleanup-stale-payment-intents")


@dataclass(slots=True)
class Chaos(People):
    """
    `begun` payments, `told` of others; `seen` has the ids that were ever in a state, which later states hide.
    `unheard`: refunds of which the bank's no never left the provider.
    """

    begun: int = 0
    told: int = 0
    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unheard: set[str] = field(default_factory=set)
    teller: Teller = field(init=False)
    book: Book = field(init=False)

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.teller = Teller(Random(self.seed + 1), self.c.clock)
        self.book = Book(self.c.sandbox)
        post = self.c.sandbox.post
        put = post.put

        def notice(account: Account, letter: Letter, url: str) -> None:
            before = post.waiting
            put(account, letter, url)
            if letter.event == "refund.failed" and post.waiting == before:
                fields = letter.fields
                self.unheard.add(str(fields["refund"] if "refund" in fields else fields["data.object"]["id"]))

        post.put = notice  # type: ignore[method-assign]

    # --- a round

    async def round(self, count: int) -> None:
        """So many payments, and everybody's turn once; some minutes go by."""
        self.scale = max(1, count // AT_A_TIME)
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
        times = self.scale
        for name in ("paystack", "moneroo"):
            trouble.on(name, "rate_limited", times=times)  # which another provider may be asked after
        for name in ("stripe", "paystack"):
            trouble.on(name, "refund_fails_later", times=times)
        for name in SIX:
            trouble.on(name, dice.choice(ON_CREATE), times=times)
            for kind, operation in dice.sample(LATER, 7):
                delay_ms = dice.choice((1, 4, 40)) * MINUTE_MS
                trouble.on(name, kind, operation, times=times, delay_ms=delay_ms, minor=dice.choice((-100, 100)))
        for name in dice.sample(SIX, 4):
            kind = dice.choice(("payout_fails", "payout_returned_later"))
            trouble.on(name, kind, times=times, delay_ms=4 * MINUTE_MS)
        trouble.off("stripe", "payout_slow")  # a transfer has no status: it is there at once, or never
        if dice.random() < 0.3:
            trouble.on(dice.choice(SIX), "refuse")

    async def later(self, ahead_ms: int) -> None:
        """Time goes by, jobs run, and what is seen in passing is kept in mind."""
        self.c.till.app.nudge()
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
            ("payout", payouts, ("unknown", "in_transit", "awaiting_approval")),
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
        for step in [*steps, self.dice.choice(steps)]:
            if step.truth is not None:
                self.book.write(story.provider, *step.truth)
            await self.calls(story.provider, step.event, step.fields)
        said = story.steps[0].fields
        if story.provider not in BY_PERSONS and story.plot not in ("expired", "declined", "canceled"):
            back = max((int(step.fields.get("refunded", 0)) for step in story.steps), default=0)
            lost = any(step.fields.get("status") == "lost" for step in story.steps)
            self.elsewhere[story.provider, said["currency"]] += 0 if lost else int(said["amount"]) - back

    # --- the end

    async def quieten(self) -> None:
        """No more trouble. Sweeps ask after 30 s, 2 and 10 minutes, an hour, six, and daily; people decide the rest."""
        self.c.sandbox.trouble.off()
        for ahead_ms in (
            MINUTE_MS,
            3 * MINUTE_MS,
            15 * MINUTE_MS,
            90 * MINUTE_MS,
            *[7 * HOUR_MS] * 2,
            *[25 * HOUR_MS] * 5,
        ):
            await self.refunds()
            await self.payouts(calm=True)
            await self.later(ahead_ms)
            for name in SIX:
                self.c.till.app.circuits.ended(f"acc_{name}", well=True)
            if ahead_ms >= 25 * HOUR_MS:
                await self.decide()
