"""
What money that is held and paid out should be: plain Python, written from the tables of the specification.

It knows sets of facts, people's decisions and a clock, and works everything out afresh; it knows no database and no
code of the product. Amounts are minor units of one currency, times ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

HOUR_MS, DAY_MS = 3_600_000, 24 * 3_600_000
RELEASE_MS = 48 * HOUR_MS
UNDELIVERED_MS = 14 * DAY_MS

Cause = tuple[str, object]
"""What stands against releasing a hold: a word, and which one of its kind."""


# --- money that came ------------------------------------------------------------------------------------


@dataclass
class Movement:
    """A refund or a dispute at the provider: its amount, and the set of words that were said of it."""

    amount: int
    said: set[str] = field(default_factory=set)
    ours: bool = False


@dataclass
class Payment:
    """One payment of an order. `captures`: by movement; `elsewhere`: captured in another currency."""

    id: str
    price: int
    captures: dict[str, int] = field(default_factory=dict)
    elsewhere: int = 0
    fee: int = 0
    late: bool = False
    refunds: dict[str, Movement] = field(default_factory=dict)
    disputes: dict[str, Movement] = field(default_factory=dict)
    reversals: dict[str, int] = field(default_factory=dict)

    @property
    def captured(self) -> int:
        """All that came in the right currency."""
        return sum(self.captures.values())

    def refunded(self, *, ours: bool | None = None) -> int:
        """What went back: what a bank has rejected later did not."""
        among = [one for one in self.refunds.values() if "succeeded" in one.said and "failed" not in one.said]
        return sum(one.amount for one in among if ours is None or one.ours == ours)

    @property
    def pending_elsewhere(self) -> int:
        """On its way back, not by us."""
        among = [one for one in self.refunds.values() if not one.ours and one.said == {"pending"}]
        return sum(one.amount for one in among)

    @property
    def clawed(self) -> int:
        """Reversed by the operator."""
        return min(sum(self.reversals.values()), self.captured)

    def verdict(self, dispute: Movement) -> str:
        """Of two verdicts the one that costs money is believed."""
        return next((word for word in ("lost", "won") if word in dispute.said), "open")

    @property
    def lost(self) -> int:
        """In disputes."""
        return min(sum(one.amount for one in self.disputes.values() if self.verdict(one) == "lost"), self.captured)

    @property
    def gone(self) -> int:
        """What is not there any more."""
        return self.refunded() + self.clawed + self.lost

    @property
    def claimed(self) -> int:
        """In disputes that are open, and still there to be claimed."""
        still = sum(one.amount for one in self.disputes.values() if self.verdict(one) == "open")
        return max(0, min(still, self.captured - self.gone))

    @property
    def disputed(self) -> bool:
        """Somebody claims it, or has taken it."""
        return bool(self.reversals) or any(self.verdict(one) != "won" for one in self.disputes.values())

    @property
    def wrong(self) -> bool:
        """Not exactly what was asked for."""
        return bool(self.elsewhere) or (bool(self.captures) and self.captured != self.price)

    @property
    def buys(self) -> bool:
        """Goods may be given for it: a capture that is right to the unit, still there, and nobody disputes it."""
        kept = self.captured - self.refunded()
        return self.price in self.captures.values() and not self.disputed and kept >= self.price

    def causes(self, under_way: int) -> set[Cause]:
        """What it says against a release. `under_way`: of ours, at the provider and without an end."""
        if not self.captured:
            return set()
        found: set[Cause] = {("dispute", name) for name, one in self.disputes.items() if self.verdict(one) != "won"}
        found |= {("dispute", name) for name in self.reversals}
        # While one of ours is on its way nobody can say whose money it was; nothing is released meanwhile.
        if self.refunded() > self.refunded(ours=True) + under_way:
            found.add(("refunded_elsewhere", (self.id, self.refunded(ours=False))))
        if self.late:
            found.add(("late", (self.id, self.captured)))
        if self.wrong:
            found.add(("mismatch", (self.id, self.captured)))
        return found


@dataclass
class Refund:
    """One of ours. `state`: queued, submitting, unknown, pending, succeeded, failed, canceled."""

    id: str
    payment: Payment
    amount: int
    state: str = "queued"

    @property
    def open(self) -> bool:
        """Without an end."""
        return self.state in ("queued", "submitting", "unknown", "pending")

    @property
    def with_the_provider(self) -> bool:
        """It may have it."""
        return self.state in ("submitting", "unknown", "pending")


# --- money that is held ---------------------------------------------------------------------------------


@dataclass
class Hold:
    """The money of one paid order. held = releasable + released + refunded + frozen."""

    held: int
    state: str = "held"
    released: int = 0
    refunded: int = 0
    frozen: int = 0
    taken_back: int = 0
    due_ms: int | None = None
    created_ms: int = 0
    undelivered: bool = False
    was_taken_back: bool = False
    buyer_objects: bool = False
    overruled: set[Cause] = field(default_factory=set)
    stands: set[str] = field(default_factory=set)
    auto_failed: bool = False
    came_back: bool = False

    @property
    def unreleased(self) -> bool:
        """Still to be decided."""
        return self.state in ("held", "release_scheduled", "frozen")

    @property
    def releasable(self) -> int:
        """What a release would give."""
        return self.held - self.released - self.refunded - self.frozen

    def follow(self, causes: Iterable[Cause], kept: int, delivered_ms: int | None) -> None:
        """What its payments are now."""
        before = self.state
        gone = min(max(self.held - kept, 0), self.held)
        if self.state == "refunded" and gone < self.held:
            self.state = "held"  # a bank has sent a refund back
            self.came_back = True
        if self.unreleased:
            stands = set(causes) | ({("buyer", "")} if self.buyer_objects else set())
            self.stands = {word for word, _ in stands - self.overruled}
            frozen = bool(self.stands)
            if not frozen and self.due_ms is None and delivered_ms is not None:
                self.due_ms = delivered_ms + RELEASE_MS
            self.state = "frozen" if frozen else "held" if self.due_ms is None else "release_scheduled"
            self.refunded = gone
            self.frozen = self.held - gone if frozen else 0
            if gone == self.held:
                self.state = "refunded"
        elif self.state == "released":
            back = min(max(gone - self.refunded, 0), self.released)
            self.was_taken_back |= back > self.taken_back
            self.taken_back = back
        if self.state != before:
            self.undelivered = False

    def release(self) -> None:
        """To the beneficiary."""
        self.released, self.state, self.undelivered = self.releasable, "released", False


@dataclass
class Order:
    """An order with the payments that were made for it. `state`: awaiting, canceled, paid, delivered, refunded."""

    id: str
    price: int
    late: str = "ask"
    state: str = "awaiting"
    payments: list[Payment] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    hold: Hold | None = None
    delivered_ms: int | None = None

    @property
    def kept(self) -> int:
        """What is left of its money."""
        return max(sum(one.captured - one.gone for one in self.payments if one.captured), 0)

    def under_way(self, payment: Payment) -> int:
        """Our refunds of a payment that have no end and that the provider may have."""
        return sum(one.amount for one in self.refunds if one.payment is payment and one.with_the_provider)

    def refund_open(self, *, but_pending: bool = False) -> bool:
        """Some money is on its way back, whoever sends it. `but_pending`: what only waits there does not count."""
        ours = any(one.open and not (but_pending and one.state == "pending") for one in self.refunds)
        return ours or (not but_pending and any(one.pending_elsewhere for one in self.payments))

    def ours_alone(self, payment: Payment) -> bool:
        """Whether all that went back of it went by our hand, and nobody disputes it."""
        return not payment.disputed and payment.refunded(ours=False) == 0

    def follow(self, now_ms: int) -> None:
        """Anything about its payments may have changed."""
        payable = self.state == "awaiting" or (self.state == "canceled" and self.late == "revive")
        if payable and any(one.buys for one in self.payments):
            self.state = "paid"
        came = [one for one in self.payments if one.captured]
        all_back = all(one.refunded() >= one.captured and self.ours_alone(one) for one in came)
        if self.state in ("paid", "delivered") and came and all_back:
            self.state = "refunded"
        if self.hold is None and self.state in ("paid", "delivered") and self.kept:
            self.hold = Hold(min(self.kept, self.price), created_ms=now_ms)
        if self.hold is not None:
            causes = {cause for one in self.payments for cause in one.causes(self.under_way(one))}
            self.hold.follow(causes, self.kept, self.delivered_ms)

    def aside(self, payment: Payment) -> int:
        """What of its money is nobody's, because nothing was given for it; of what came twice, the surplus."""
        left = max(payment.captured - payment.gone - payment.claimed, 0)
        twice, bought = len(payment.captures) > 1, self.state in ("paid", "delivered", "refunded")
        surplus = max(left - payment.price, 0)
        if bought:
            return surplus if twice else 0
        if self.state == "canceled" or payment.late:
            return left
        if twice and not payment.elsewhere and payment.captured >= payment.price:
            return surplus
        return left if payment.wrong else 0


# --- money that goes out --------------------------------------------------------------------------------

OPEN = ("requested", "awaiting_approval", "queued", "submitting", "unknown", "in_transit")
SENT = ("queued", "submitting", "unknown", "in_transit")
BACK = ("failed", "canceled", "returned")

_SAID: dict[str, dict[str, str]] = {
    "in_transit": dict.fromkeys(SENT, "in_transit"),
    "otp": dict.fromkeys(SENT, "in_transit"),
    "paid": dict.fromkeys((*SENT, "failed", "canceled"), "paid"),
    "failed": dict.fromkeys(SENT, "failed") | {"paid": "returned"},
    "returned": dict.fromkeys((*SENT, "paid"), "returned"),
}


@dataclass
class Payee:
    """Where the money goes."""

    usable_ms: int = 0


@dataclass
class Payout:
    """A payout. `unknown_ms`: since when. `paid_after_all`: it had ended. `looked_after`: asked about days later."""

    id: str
    reference: str
    amount: int
    source: str
    payee: Payee
    actor: str
    hold: Hold | None = None
    retry_of: Payout | None = None
    state: str = "requested"
    fee: int = 0
    unknown_ms: int = 0
    first_sent_ms: int = 0
    named: bool = False
    otp: bool = False
    paid_after_all: bool = False
    retried: bool = False
    cannot_be_asked: bool = False
    looked_after: bool = False

    def told(self, stage: str, fee: int) -> None:
        """The provider's word."""
        was = self.state
        self.state = _SAID[stage].get(was, was)
        self.fee = min(max(self.fee, fee), self.amount)
        self.named = True
        if stage == "otp" and self.state in OPEN:
            self.otp = True
        self.paid_after_all |= was in BACK and self.state == "paid"
        self.looked_after |= was != "paid" and stage == "paid"
        self.ended()

    def ended(self) -> None:
        """What was only while it was open."""
        if self.state not in OPEN:
            self.otp = self.cannot_be_asked = False

    @property
    def left(self) -> bool:
        """Money has left for it, though it may have come back."""
        return self.state in ("paid", "returned")


@dataclass
class Books:
    """Everything, and what the ledger has to show for it."""

    orders: list[Order] = field(default_factory=list)
    payouts: list[Payout] = field(default_factory=list)
    settled: int = 0
    settlement_fees: int = 0

    def holds(self) -> list[Hold]:
        """All there are."""
        return [order.hold for order in self.orders if order.hold is not None]

    def payments(self) -> list[tuple[Order, Payment]]:
        """With money."""
        return [(order, one) for order in self.orders for one in order.payments if one.captured]

    def reserved(self) -> int:
        """In payouts that are open."""
        return sum(one.amount for one in self.payouts if one.state in OPEN)

    def told(self, one: Payout, stage: str, fee: int) -> None:
        """The provider's word. What another payout of the same hold has meanwhile is that one's for good."""
        was = one.state
        one.told(stage, fee)
        others = [other for other in self.payouts if other is not one and other.hold is one.hold]
        if was in BACK and one.state not in BACK and any(other.state not in BACK for other in others):
            one.hold = None

    def drawn(self, source: str) -> int:
        """By payouts from one of the two balances."""
        among = [one for one in self.payouts if one.source == source and one.state not in BACK]
        return sum(one.amount for one in among)

    def beneficiary(self) -> int:
        """What a beneficiary can have paid out; below zero they owe it."""
        return sum(one.released - one.taken_back for one in self.holds()) - self.drawn("beneficiary")

    def fees(self) -> int:
        """Kept by providers."""
        of_payouts = sum(one.fee for one in self.payouts if one.left)
        return sum(one.fee for _, one in self.payments()) + of_payouts + self.settlement_fees

    def float(self) -> int:
        """At the provider: captured − fees − refunds − reversals − paid out + returned − settled."""
        came = sum(one.captured - one.gone for _, one in self.payments())
        out = sum(one.amount for one in self.payouts if one.state == "paid")
        return came - self.fees() - out - self.settled

    def balances(self) -> dict[str, int]:
        """Every kind of account that is not empty."""
        kept = {
            "float": self.float(),
            "bank": self.settled,
            "fees": self.fees(),
            "unallocated": sum(order.aside(one) for order, one in self.payments()),
            "disputed": sum(one.claimed for _, one in self.payments()),
            "escrow": sum(one.held - one.released - one.refunded for one in self.holds()),
            "beneficiary": self.beneficiary(),
            "reserved": self.reserved(),
        }
        there = kept["float"] + kept["bank"] + kept["fees"]
        whose = sum(kept[name] for name in ("unallocated", "disputed", "escrow", "beneficiary", "reserved"))
        kept["merchant"] = there - whose
        return {kind: minor for kind, minor in kept.items() if minor}

    def merchant_available(self) -> int:
        """What the merchant can have paid out."""
        return self.balances().get("merchant", 0) - self.settled - self.fees()
