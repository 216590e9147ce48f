"""
The sandbox's book of payouts: what each provider's float holds, and what payees really got.

    treasury.set_float("paystack", "XOF", 50_000)     what can be paid out there; a generous sum by default
    treasury.paid_out("po-1")                         every payout of this reference that moved money, at any provider
    treasury.books(), treasury.floats()               everything as plain values
    treasury.settle()                                 what is due by now happens: money arrives, fails, comes back

A payout is entered by a provider's API (`begin`), which may want a code first (`ask_code`), and sent (`send`): that
takes the money from the float. Trouble decides its `Fate`. Payers' charges are the `Bank`'s; the two books know nothing
of each other. Nothing here knows how a provider calls anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from service.ids import Clock

State = Literal["created", "otp", "queued", "in_transit", "paid", "failed", "returned"]
"""Entered and not sent, waits for a code, sent, on its way, arrived, never arrived, arrived and came back."""

Reason = Literal["", "rejected", "no_code", "sent_back"]

START_MINOR: Final = 100_000_000
"""What a float holds that nobody has set: enough for any demonstration."""

PAYOUTS_MAX: Final = 20_000


@dataclass(slots=True)
class Payout:
    """
    One payout as its provider knows it. Amounts in minor units (ISO 4217) of `currency`, times in ms UTC, None: never.

    `purse` is the operator whose float it is paid from, empty where a provider has one for all. `paid_minor` is what
    the payee got, `returned_minor` what came back of it. `due_ms`: when it arrives; `lapses_ms`: until when a code is
    waited for. `asked` is the request that began it; `names` and `notes` as a `Charge` has them.
    """

    id: str
    provider: str
    account: str
    amount_minor: int
    currency: str
    reference: str = ""
    key: str = ""
    names: dict[str, str] = field(default_factory=dict)
    purse: str = ""
    payee: str = ""
    fee_minor: int = 0
    state: State = "created"
    reason: Reason = ""
    paid_minor: int = 0
    returned_minor: int = 0
    callback_url: str = ""
    created_ms: int = 0
    changed_ms: int = 0
    sent_ms: int | None = None
    due_ms: int | None = None
    lapses_ms: int | None = None
    paid_ms: int | None = None
    ended_ms: int | None = None
    returns_ms: int | None = None
    fails: bool = False
    returned_after_ms: int | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a payout that is sent. `slow_ms` None: it is on its way for ever."""

    fails: bool = False
    slow_ms: int | None = 0
    returned_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What has just become of a payout, for those who send callbacks: the state it is in now."""

    word: State
    payout: Payout
    at_ms: int


class Treasury:
    """Every payout and every float; `heard` is told of all that happens, in order and at once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.heard: list[Callable[[Moved], None]] = []
        self.fate: Callable[[Payout], Fate] = lambda payout: Fate()  # trouble may have another one in store
        self.poor: Callable[[Payout], bool] = lambda payout: False  # trouble may say that there is not enough
        self.fee: Callable[[Payout], int] = lambda payout: 0
        self._payouts: OrderedDict[tuple[str, str], Payout] = OrderedDict()
        self._names: dict[tuple[str, str], Payout] = {}
        self._references: dict[tuple[str, str, str], Payout] = {}
        self._moving: dict[tuple[str, str], Payout] = {}  # what settle() has to look at
        self._floats: dict[tuple[str, str, str, str], int] = {}

    # --- reading ------------------------------------------------------------------------------------

    def find(self, provider: str, id_: str) -> Payout | None:
        """By the provider's id, or any of its names."""
        return self._payouts.get((provider, id_)) or self._names.get((provider, id_))

    def by_reference(self, provider: str, account: str, reference: str) -> Payout | None:
        """The first payout of an account that carries this reference of ours."""
        return self._references.get((provider, account, reference))

    def of(self, provider: str, account: str = "") -> list[Payout]:
        """A provider's payouts, the newest first."""
        return [p for p in reversed(self._payouts.values()) if p.provider == provider and account in ("", p.account)]

    def paid_out(self, *references: str) -> list[Payout]:
        """
        Payouts that really moved money, also where it came back later; of these references, or all of them. More than
        one of a reference: somebody was paid twice.
        """
        return [p for p in self._payouts.values() if p.paid_minor and (not references or p.reference in references)]

    def books(self) -> list[dict[str, Any]]:
        """All payouts as plain values, the oldest first."""
        return [asdict(payout) for payout in self._payouts.values()]

    # --- floats -------------------------------------------------------------------------------------

    def float_minor(self, provider: str, account: str, currency: str, purse: str = "") -> int:
        """What can be paid out now."""
        return self._floats.get((provider, account, currency, purse), START_MINOR)

    def set_float(self, provider: str, currency: str, minor: int, *, purse: str = "", account: str = "main") -> None:
        """From now on there is this much."""
        self._floats[provider, account, currency, purse] = minor

    def floats(self) -> list[dict[str, Any]]:
        """The floats that were set or paid from, as plain values."""
        names = ("provider", "account", "currency", "purse")
        return [{**dict(zip(names, key, strict=True)), "minor": minor} for key, minor in sorted(self._floats.items())]

    def enough(self, payout: Payout) -> bool:
        """Whether the float holds its sum and its fee. Asked once for each payout: trouble counts it."""
        payout.fee_minor = self.fee(payout)
        return not self.poor(payout) and self._held(payout) >= payout.amount_minor + payout.fee_minor

    # --- the life of a payout -----------------------------------------------------------------------

    def begin(self, payout: Payout) -> Payout:
        """Enter a new payout in the books; the oldest is forgotten above `PAYOUTS_MAX`."""
        payout.created_ms = payout.changed_ms = self.clock()
        key = (payout.provider, payout.id)
        self._payouts[key] = self._moving[key] = payout
        for name in payout.names.values():
            self._names[payout.provider, name] = payout
        if payout.reference:
            self._references.setdefault((payout.provider, payout.account, payout.reference), payout)
        while len(self._payouts) > PAYOUTS_MAX:
            self._forget(self._payouts.popitem(last=False)[1])
        self._tell(payout)
        return payout

    def ask_code(self, payout: Payout, within_ms: int) -> None:
        """It is sent only when a person has handed in a code; after this time it never is."""
        payout.lapses_ms = self.clock() + within_ms
        self._move(payout, "otp")

    def send(self, payout: Payout, *, at_once: bool = False, fate: Fate | None = None) -> None:
        """Take it from the float and send it. It arrives when the book settles, `at_once` now unless it is slow."""
        if payout.state not in ("created", "otp"):
            return
        given = self.fate(payout) if fate is None else fate
        payout.fails, payout.returned_after_ms = given.fails, given.returned_after_ms
        payout.sent_ms = self.clock()
        payout.due_ms = None if given.slow_ms is None else self.clock() + given.slow_ms
        self._put(payout, -payout.amount_minor - payout.fee_minor)
        self._move(payout, "queued")
        if at_once and given.slow_ms == 0:
            self._arrive(payout)

    # --- time ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything that is due by now. Said twice at one instant it changes nothing more."""
        for key, payout in list(self._moving.items()):
            now_ms = self.clock()
            if payout.state == "otp" and payout.lapses_ms is not None and now_ms >= payout.lapses_ms:
                self._fail(payout, "no_code")
            if payout.state == "queued":
                self._move(payout, "in_transit")
            if payout.state == "in_transit" and payout.due_ms is not None and now_ms >= payout.due_ms:
                self._arrive(payout)
            if payout.state == "paid" and payout.returns_ms is not None and now_ms >= payout.returns_ms:
                payout.returned_minor, payout.reason = payout.paid_minor, "sent_back"
                self._put(payout, payout.paid_minor)  # the fee stays with the provider
                self._move(payout, "returned")
            if payout.state in ("failed", "returned") or (payout.state == "paid" and payout.returns_ms is None):
                self._moving.pop(key, None)

    def _arrive(self, payout: Payout) -> None:
        if payout.fails:
            self._put(payout, payout.amount_minor + payout.fee_minor)
            self._fail(payout, "rejected")
            return
        payout.paid_minor, payout.paid_ms = payout.amount_minor, self.clock()
        if payout.returned_after_ms is not None:
            payout.returns_ms = self.clock() + payout.returned_after_ms
        self._move(payout, "paid")

    def _fail(self, payout: Payout, reason: Reason) -> None:
        payout.reason = reason
        self._move(payout, "failed")

    # --- inside -------------------------------------------------------------------------------------

    def _held(self, payout: Payout) -> int:
        return self.float_minor(payout.provider, payout.account, payout.currency, payout.purse)

    def _put(self, payout: Payout, minor: int) -> None:
        held = self._held(payout) + minor
        self.set_float(payout.provider, payout.currency, held, purse=payout.purse, account=payout.account)

    def _move(self, payout: Payout, state: State) -> None:
        payout.state, payout.changed_ms = state, self.clock()
        if state in ("paid", "failed", "returned"):
            payout.ended_ms = self.clock()
        self._tell(payout)

    def _tell(self, payout: Payout) -> None:
        moved = Moved(payout.state, payout, self.clock())
        for listener in self.heard:
            listener(moved)

    def _forget(self, payout: Payout) -> None:
        self._moving.pop((payout.provider, payout.id), None)
        for name in payout.names.values():
            self._names.pop((payout.provider, name), None)
        reference = (payout.provider, payout.account, payout.reference)
        if self._references.get(reference) is payout:
            del self._references[reference]
