"""
Payment stories as they happen in a shop, for the player: who pays what and how, and what its provider says of it.

A `Story` is what happens to one payment, a few `Step`s with pauses between them; `Teller` makes them up from a seeded
generator. What Monetbil, Moneroo and eBilling would answer when asked is part of their steps.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from service.ids import Clock, now_ms
from service.payments.facts import Reason
from service.sandbox.bank import State
from service.sandbox.truths import Entry


@dataclass(frozen=True, slots=True)
class Step:
    """One callback of a story, so long after its beginning; `truth` is what the provider answers from then on."""

    after_ms: int
    event: str
    fields: Mapping[str, Any]
    truth: tuple[str, Entry] | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """What happens to one payment. `names` are what it is called anywhere, `payer` who paid: "Orange Money"."""

    provider: str
    plot: str
    payer: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """One payment before it is written in a provider's own words. `amount_minor` in minor units of `currency`."""

    number: int
    reference: str
    amount_minor: int
    currency: str
    payer: str
    operator: str  # as the provider writes it
    phone: str
    at_ms: int


# Who pays how, with the provider's own word for it, the currency, and how their numbers begin.
_PAYERS: Mapping[str, Sequence[tuple[str, str, str, str]]] = {
    "stripe": (("Visa", "visa", "EUR", ""), ("Mastercard", "mastercard", "EUR", ""), ("Visa", "visa", "XOF", "")),
    "paystack": (
        ("Orange Money", "orange", "XOF", "22507"),
        ("MTN MoMo", "mtn", "XOF", "22505"),
        ("Wave", "wave", "XOF", "22501"),
    ),
    "fedapay": (
        ("MTN MoMo", "mtn_open", "XOF", "22997"),
        ("Moov Money", "moov", "XOF", "22995"),
        ("Togocel", "togocel", "XOF", "22890"),
    ),
    "monetbil": (
        ("MTN MoMo", "CM_MTNMOBILEMONEY", "XAF", "23767"),
        ("Orange Money", "CM_ORANGEMONEY", "XAF", "23769"),
    ),
    "moneroo": (
        ("Wave", "wave_sn", "XOF", "22177"),
        ("Orange Money", "orange_ml", "XOF", "22370"),
        ("Moov Money", "moov_bj", "XOF", "22995"),
    ),
    "ebilling": (("Airtel Money", "airtelmoney", "XAF", "24107"), ("Moov Money", "moovmoney4", "XAF", "24106")),
}
# How often each is heard, in a shop that has all six.
_WEIGHTS = {"stripe": 20, "paystack": 25, "fedapay": 22, "monetbil": 12, "moneroo": 12, "ebilling": 9}
# What happens, and how often; the steps stand in the functions of the same names below.
_PLOTS: Mapping[str, Mapping[str, int]] = {
    "stripe": {"paid": 60, "declined_then_paid": 12, "expired": 8, "refunded": 8, "refunded_in_part": 8, "disputed": 4},
    "paystack": {"paid": 84, "refunded": 8, "refunded_in_part": 4, "disputed": 4},
    "fedapay": {"paid": 70, "declined_then_paid": 14, "declined": 8, "canceled": 8},
    "monetbil": {"paid": 74, "failed": 16, "canceled": 10},
    "moneroo": {"paid": 76, "failed": 14, "canceled": 10},
    "ebilling": {"paid": 100},  # it tells of payments alone; those that fail are never heard of
}
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class Teller:
    """Makes up stories. The generator decides what happens; the clock only keeps the numbers of two runs apart."""

    def __init__(self, rng: random.Random, clock: Clock = now_ms, providers: Sequence[str] = tuple(_PAYERS)) -> None:
        self._rng, self._clock = rng, clock
        self._providers = list(providers)
        self._numbers = itertools.count(clock() // 1000 % 10**9 * 10_000)
        first = list(providers)
        rng.shuffle(first)
        self._first = iter(first)  # everybody is heard once before anybody is heard twice

    def __iter__(self) -> Iterator[Story]:
        while True:
            yield self.tell()

    def tell(self, provider: str = "", plot: str = "") -> Story:
        """The next story; a test may say which."""
        rng = self._rng
        if not provider:
            weights = [_WEIGHTS[name] for name in self._providers]
            provider = next(self._first, "") or rng.choices(self._providers, weights)[0]
        plots = _PLOTS[provider]
        plot = plot or rng.choices(list(plots), list(plots.values()))[0]
        payer, operator, currency, prefix = rng.choice(_PAYERS[provider])
        number = next(self._numbers)
        charge = Charge(
            number=number,
            reference=f"CMD-{number % 10**7:07d}",
            amount_minor=_amount_minor(rng, currency),
            currency=currency,
            payer=payer,
            operator=operator,
            phone=prefix + f"{rng.randrange(10**6):06d}" if prefix else "",
            at_ms=self._clock(),
        )
        names, steps = _TELL[provider](charge, plot, rng)
        return Story(provider, plot, payer, (charge.reference, *names), tuple(steps))


def plots(provider: str) -> tuple[str, ...]:
    """Everything that may happen to a payment of this provider."""
    return tuple(_PLOTS[provider])


def _amount_minor(rng: random.Random, currency: str) -> int:
    """Prices as they are written on a market stall: few odd ones, more small than large."""
    if currency == "EUR":
        return rng.choice((990, 1250, 1490, 1990, 2500, 3900, 4990, 7500, 12_000))
    low, high, step = rng.choices(((500, 5_000, 50), (5_000, 25_000, 500), (25_000, 75_000, 1_000)), (5, 4, 2))[0]
    return rng.randrange(low, high + 1, step)


def _name(charge: Charge, prefix: str, length: int) -> str:
    """An id as providers make them; the same charge and prefix give the same one."""
    rng = random.Random(f"{prefix}{charge.number}")  # noqa: S311 - names in a demonstration
    return prefix + "".join(rng.choices(_LETTERS, k=length))


def _pauses(rng: random.Random, *around_ms: int) -> list[int]:
    """Moments after the beginning, each pause from half to one and a half of what is given."""
    return list(itertools.accumulate(int(ms * rng.uniform(0.5, 1.5)) for ms in around_ms))


# --- what happens to a payment, in each provider's own events -----------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    """What the functions below write their steps with."""

    charge: Charge
    rng: random.Random
    id: str

    def step(self, after_ms: int, event: str, truth: Entry | None = None, /, **more: Any) -> Step:
        """One callback. It happened when it is due; `happened_ms` says otherwise, for one that overtakes another."""
        charge = self.charge
        fields: dict[str, Any] = {
            "id": self.id,
            "reference": charge.reference,
            "amount": charge.amount_minor,
            "currency": charge.currency,
            "operator": charge.operator,
            "live": "false",
            "time_ms": charge.at_ms + int(more.pop("happened_ms", after_ms)),
        }
        if charge.phone:
            fields["phone"] = charge.phone
        return Step(after_ms, event, fields | more, None if truth is None else (self.id, truth))

    def entry(self, state: State, reason: Reason | None = None) -> Entry:
        """The truth for those who are asked; now and then they are unwell."""
        luck, charge = self.rng.random(), self.charge
        return Entry(
            state=state,
            amount=charge.amount_minor,
            currency=charge.currency,
            reference=charge.reference,
            operator=charge.operator,
            phone=charge.phone,
            reason=reason,
            fail_times=1 if luck < 0.04 else 0,
            at_ms=charge.at_ms,
        )

    def part_minor(self) -> int:
        """A part of the money that somebody would give back."""
        return max(25, self.charge.amount_minor * self.rng.choice((20, 25, 50)) // 100 // 25 * 25)


_Told = tuple[Sequence[str], Sequence[Step]]


def _stripe(charge: Charge, plot: str, rng: random.Random) -> _Told:
    end = _name(charge, "", 24)
    case = _Case(charge, rng, f"pi_{end}")
    names = (case.id, f"cs_test_{end}")
    if plot == "expired":
        return names, [case.step(0, "checkout.session.expired")]
    steps = [case.step(0, "payment_intent.created")]
    tried, paid, after, later = _pauses(rng, 900, 1_500, 4_000, 3_000)
    more: dict[str, Any] = {"charge": f"ch_{end}"}
    if plot == "declined_then_paid":
        reason = rng.choice(("insufficient_funds", "do_not_honor", "expired_card"))
        first = {"charge": f"ch_{_name(charge, 'first', 24)}", "reason": reason}
        steps += [case.step(tried + rng.randrange(200), name, **first) for name in _STRIPE_DECLINED]
        paid += 1_500
    # The three tell of one capture and come in any order.
    steps += [case.step(paid + rng.randrange(400), name, **more) for name in _STRIPE_PAID]
    if plot.startswith("refunded"):
        back = charge.amount_minor if plot == "refunded" else case.part_minor()
        more |= {"refund": f"re_{end}", "refunded": back}
        steps += [
            case.step(after + rng.randrange(200), "charge.refunded", **more),
            case.step(after + rng.randrange(200), "refund.created", **more),
            case.step(later, "refund.updated", **more),
        ]
    if plot == "disputed":
        more |= {"dispute": f"dp_{end}"}
        steps += [case.step(after, "charge.dispute.created", **more)]
        if rng.random() < 0.5:
            steps += [case.step(later + 2_000, "charge.dispute.closed", status=rng.choice(("won", "lost")), **more)]
    return names, steps


_STRIPE_PAID = ("checkout.session.completed", "payment_intent.succeeded", "charge.succeeded")
_STRIPE_DECLINED = ("charge.failed", "payment_intent.payment_failed")


def _paystack(charge: Charge, plot: str, rng: random.Random) -> _Told:
    case = _Case(charge, rng, str(charge.number))
    paid, after, later = _pauses(rng, 800, 4_000, 2_500)
    steps = [case.step(paid, "charge.success", fee=charge.amount_minor * 195 // 10_000)]
    if plot.startswith("refunded"):
        back = charge.amount_minor if plot == "refunded" else case.part_minor()
        more = {"refund": f"TRF_{charge.number}", "refunded": back}
        steps += [case.step(after, "refund.pending", **more), case.step(later, "refund.processed", **more)]
    if plot == "disputed":
        steps += [case.step(after, "charge.dispute.create", dispute=charge.number)]
    return (case.id,), steps


def _fedapay(charge: Charge, plot: str, rng: random.Random) -> _Told:
    case = _Case(charge, rng, str(charge.number))
    tried, paid, moved = _pauses(rng, 900, 1_400, 1_200)
    steps = [case.step(0, "transaction.created")]
    if plot == "canceled":
        return (case.id,), [*steps, case.step(tried, "transaction.canceled")]
    if plot.startswith("declined"):
        steps += [case.step(tried, "transaction.declined", reason="INSUFFICIENT_FUND_ERROR")]
    if plot != "declined":
        overtaken = rng.random() < 0.15  # "transferred" is here before "approved"
        steps += [
            case.step(moved if overtaken else paid, "transaction.approved", happened_ms=paid),
            case.step(paid if overtaken else moved, "transaction.transferred", happened_ms=moved),
        ]
    return (case.id,), steps


_MONETBIL_FAILED = (
    ("Insufficient balance.", Reason.INSUFFICIENT_FUNDS),
    ("Wrong pin.", Reason.WRONG_PIN),
    ("Rejected by the payer.", Reason.DECLINED_BY_USER),
)


def _monetbil(charge: Charge, plot: str, rng: random.Random) -> _Told:
    case = _Case(charge, rng, f"2611{charge.number:016d}")
    (told,) = _pauses(rng, 800)
    event, state, (message, reason) = {
        "paid": ("success", "succeeded", ("", None)),
        "failed": ("failed", "failed", rng.choice(_MONETBIL_FAILED)),
        "canceled": ("cancelled", "canceled", ("", None)),
    }[plot]
    method = "GET" if rng.random() < 0.2 else "POST"
    more = {"method": method, "fee": charge.amount_minor // 50} | ({"reason": message} if message else {})
    return (case.id,), [case.step(told, event, case.entry(cast(State, state), reason), **more)]


def _moneroo(charge: Charge, plot: str, rng: random.Random) -> _Told:
    case = _Case(charge, rng, _name(charge, "py_", 12).lower())
    (told,) = _pauses(rng, 2_000)
    event, state, reason = {
        "paid": ("payment.success", "succeeded", None),
        "failed": ("payment.failed", "failed", Reason.INSUFFICIENT_FUNDS),
        "canceled": ("payment.cancelled", "canceled", None),
    }[plot]
    return (case.id,), [
        case.step(0, "payment.initiated", replace(case.entry("pending"), fail_times=0)),
        case.step(told, event, case.entry(cast(State, state), reason)),
    ]


def _ebilling(charge: Charge, plot: str, rng: random.Random) -> _Told:
    case = _Case(charge, rng, f"555{charge.number % 10**10:010d}")
    (told,) = _pauses(rng, 600)
    return (case.id,), [case.step(told, "paid", case.entry("succeeded"))]


_TELL: Mapping[str, Callable[[Charge, str, random.Random], _Told]] = {
    "stripe": _stripe,
    "paystack": _paystack,
    "fedapay": _fedapay,
    "monetbil": _monetbil,
    "moneroo": _moneroo,
    "ebilling": _ebilling,
}
