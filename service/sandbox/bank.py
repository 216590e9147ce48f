"""
The sandbox's own books: what payers really did, whatever anybody was told about it.

    bank.charged("psk-1")     every charge of this reference that took money, at any provider
    bank.books()              everything as plain values
    bank.settle()             what is due by now happens: payers answer, prompts and pages lapse, refunds arrive

A charge is begun by a provider's API (`begin`), then waits for a page, a code or an approval (`ask`); who owns the
number decides what comes of it (`Payer`). Time comes from the clock alone, so that a test may stop it. Nothing here
knows how a provider calls anything, and nothing opens a socket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from service.ids import Clock
from service.payments.facts import Reason

State = Literal["created", "waiting", "pending", "succeeded", "failed", "canceled", "expired"]
Waits = Literal["", "page", "otp", "approval"]
Word = Literal["begun", "asked", "try_failed", "succeeded", "failed", "canceled", "expired", "refund"]
Code = Literal["right", "wrong", "too_often"]

LIVE: frozenset[State] = frozenset({"created", "waiting", "pending"})
CHARGES_MAX = 20_000
PAYERS_MAX = 10_000
TRIES_MAX = 50
REFUNDS_MAX = 50
OTP_TRIES = 3
PROMPT_MS = 180_000
"""How long a phone asks: Paystack's window [docs], taken for all."""


@dataclass(frozen=True, slots=True)
class Payer:
    """
    What the owner of a number does when asked. `waits`: nothing, until a person does it on the page of the phone, or
    the prompt lapses. `wrong_otps`: how many codes are called wrong before the right one is taken.
    """

    does: Literal["pays", "declines", "waits"] = "pays"
    reason: Reason = Reason.DECLINED_BY_USER
    otp: str = "123456"
    wrong_otps: int = 0
    after_ms: int = 0


@dataclass(slots=True)
class Refund:
    """Money on its way back. `fails_later`: it succeeds first, and the bank sends it back."""

    id: str
    amount_minor: int
    state: Literal["pending", "succeeded", "failed"] = "pending"
    fails_later: bool = False
    key: str = ""
    note: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    created_ms: int = 0
    changed_ms: int = 0


@dataclass(slots=True)
class Try:
    """One try to pay that was declined while the charge stayed open."""

    reason: Reason
    at_ms: int
    id: str = ""  # the provider's name of it, where tries have one


@dataclass(slots=True)
class Charge:
    """
    One payment as its provider knows it. Amounts in minor units (ISO 4217) of `currency`, times in ms UTC, None: never.

    `names` are its further ids by the provider's words. `retriable`: a decline leaves it open (Stripe). `left_as`:
    what it becomes when the payer leaves the page. `asked` is the request that began it, for what answers repeat;
    `notes` belong to the provider's file.
    """

    id: str
    provider: str
    account: str
    amount_minor: int
    currency: str
    reference: str = ""
    key: str = ""
    names: dict[str, str] = field(default_factory=dict)
    method: str = ""
    country: str = ""
    operator: str = ""
    phone: str = ""
    state: State = "created"
    waits: Waits = ""
    captured_minor: int = 0
    reason: Reason | None = None
    retriable: bool = False
    left_as: Literal["", "canceled", "failed"] = ""
    otp_tries: int = 0
    tries: list[Try] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    return_url: str = ""
    cancel_url: str = ""
    callback_url: str = ""
    created_ms: int = 0
    changed_ms: int = 0
    asked_ms: int | None = None
    ended_ms: int | None = None
    expires_ms: int | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Neither paid nor dead."""
        return self.state in LIVE

    @property
    def refunded_minor(self) -> int:
        """What went back, or is on its way."""
        return sum(refund.amount_minor for refund in self.refunds if refund.state != "failed")


@dataclass(frozen=True, slots=True)
class Happening:
    """What has just become of a charge, for those who send callbacks."""

    word: Word
    charge: Charge
    at_ms: int
    refund: Refund | None = None
    failed: Try | None = None


class Bank:
    """Every charge and every payer; `heard` is told of all that happens, in order and at once."""

    def __init__(self, clock: Clock, *, anybody: Payer | None = None) -> None:
        self.clock = clock
        self.anybody = anybody or Payer()
        self.heard: list[Callable[[Happening], None]] = []
        self.takes: Callable[[Charge], int] = lambda charge: charge.amount_minor  # trouble may take another amount
        self._charges: OrderedDict[tuple[str, str], Charge] = OrderedDict()
        self._names: dict[tuple[str, str], Charge] = {}
        self._references: dict[tuple[str, str, str], Charge] = {}
        self._moving: dict[tuple[str, str], Charge] = {}  # what settle() has to look at
        self._payers: OrderedDict[str, Payer] = OrderedDict()

    # --- reading ------------------------------------------------------------------------------------

    def find(self, provider: str, id_: str) -> Charge | None:
        """By the provider's id, or any of its names."""
        return self._charges.get((provider, id_)) or self._names.get((provider, id_))

    def by_reference(self, provider: str, account: str, reference: str) -> Charge | None:
        """The first charge of an account that carries this reference of ours."""
        return self._references.get((provider, account, reference))

    def of(self, provider: str, account: str = "") -> list[Charge]:
        """A provider's charges, the newest first."""
        return [c for c in reversed(self._charges.values()) if c.provider == provider and account in ("", c.account)]

    def charged(self, *references: str) -> list[Charge]:
        """Charges that really took money; of these references, or all of them."""
        return [c for c in self._charges.values() if c.captured_minor and (not references or c.reference in references)]

    def waiting(self, phone: str) -> list[Charge]:
        """What waits for the owner of this number."""
        owner = _owner(phone)
        waits = [charge for charge in self._moving.values() if charge.live and charge.waits in ("otp", "approval")]
        return [charge for charge in waits if _owner(charge.phone) == owner]

    def books(self) -> list[dict[str, Any]]:
        """All charges as plain values, the oldest first."""
        return [asdict(charge) for charge in self._charges.values()]

    # --- payers -------------------------------------------------------------------------------------

    def payer(self, phone: str) -> Payer:
        """Who owns the number."""
        return self._payers.get(_owner(phone), self.anybody)

    def set_payer(self, phone: str, payer: Payer) -> None:
        """From now on, also for what already waits."""
        self._payers[_owner(phone)] = payer
        while len(self._payers) > PAYERS_MAX:
            self._payers.popitem(last=False)

    # --- the life of a charge -----------------------------------------------------------------------

    def begin(self, charge: Charge) -> Charge:
        """Enter a new charge in the books; the oldest is forgotten above `CHARGES_MAX`."""
        charge.phone = _digits(charge.phone)
        charge.created_ms = charge.changed_ms = self.clock()
        key = (charge.provider, charge.id)
        self._charges[key] = self._moving[key] = charge
        self.name(charge)
        if charge.reference:
            self._references.setdefault((charge.provider, charge.account, charge.reference), charge)
        while len(self._charges) > CHARGES_MAX:
            self._forget(self._charges.popitem(last=False)[1])
        self._tell("begun", charge)
        return charge

    def name(self, charge: Charge, **names: str) -> None:
        """Give a charge further ids to be found by."""
        charge.names |= names
        for name in charge.names.values():
            self._names[charge.provider, name] = charge

    def ask(self, charge: Charge, waits: Waits) -> None:
        """Show the payer a page, ask for a code, or make the phone ring."""
        charge.waits, charge.asked_ms = waits, self.clock()
        self._move(charge, "created" if waits == "page" else "waiting", "asked")

    def pay(self, charge: Charge, *, late: bool = False) -> bool:
        """The money is taken. False where it is not live any more; `late` takes it all the same, as happens."""
        self._lapse(charge)
        if charge.state == "succeeded" or not (charge.live or late):
            return False
        charge.captured_minor, charge.reason = self.takes(charge), None
        self._move(charge, "succeeded", "succeeded")
        return True

    def decline(self, charge: Charge, reason: Reason = Reason.UNKNOWN) -> bool:
        """A try is declined: the end, or one of several where the payer may try again."""
        self._lapse(charge)
        if not charge.live:
            return False
        charge.reason = reason
        if charge.retriable:
            failed = Try(reason, self.clock())
            charge.tries = [*charge.tries, failed][-TRIES_MAX:]
            charge.changed_ms = self.clock()
            self._tell("try_failed", charge, failed=failed)
        else:
            self._move(charge, "failed", "failed")
        return True

    def leave(self, charge: Charge) -> None:
        """The payer leaves the page without paying."""
        if charge.live and charge.left_as:
            self._move(charge, charge.left_as, charge.left_as)

    def cancel(self, charge: Charge) -> bool:
        """The merchant cancels it; False where it is not live."""
        if charge.live:
            self._move(charge, "canceled", "canceled")
            return True
        return False

    def expire(self, charge: Charge) -> bool:
        """Its time is up, or the merchant says so; False where it is not live."""
        if charge.live:
            self._move(charge, "expired", "expired")
            return True
        return False

    def code(self, charge: Charge, given: str, *, refused: bool = False) -> Code:
        """A code is typed. `OTP_TRIES` wrong ones are the end; `refused` calls even the right one wrong."""
        self._lapse(charge)
        payer = self.payer(charge.phone)
        if charge.waits != "otp":
            return "too_often"
        if refused or given != payer.otp or charge.otp_tries < payer.wrong_otps:
            charge.otp_tries += 1
            if charge.otp_tries < max(OTP_TRIES, payer.wrong_otps + 1):
                return "wrong"
            self.decline(charge, Reason.WRONG_PIN)
            return "too_often"
        charge.waits, charge.asked_ms = "", self.clock()
        self._move(charge, "pending", "asked")
        self._answer(charge)
        return "right"

    def refund(self, charge: Charge, refund: Refund) -> Refund:
        """Send money back. Whether there is enough is for the API to say; it arrives when the bank settles."""
        refund.created_ms = refund.changed_ms = self.clock()
        charge.refunds = [*charge.refunds, refund][-REFUNDS_MAX:]
        self._moving[charge.provider, charge.id] = charge
        self._tell("refund", charge, refund=refund)
        return refund

    # --- time ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything that is due by now. Said twice at one instant it changes nothing more, but for refunds."""
        for key, charge in list(self._moving.items()):
            self._lapse(charge)
            if charge.live:
                self._answer(charge)
            for refund in charge.refunds:
                self._arrive(charge, refund)
            if not charge.live and not any(_moves(refund) for refund in charge.refunds):
                self._moving.pop(key, None)

    def _lapse(self, charge: Charge) -> None:
        """Prompts and pages end when their time is up, also where nobody has settled since."""
        now_ms, prompted = self.clock(), charge.waits in ("otp", "approval")
        if charge.live and prompted and now_ms >= (charge.asked_ms or 0) + PROMPT_MS:
            charge.reason = Reason.TIMED_OUT
            self._move(charge, "failed", "failed")
        elif charge.live and charge.expires_ms is not None and now_ms >= charge.expires_ms:
            self.expire(charge)

    def _answer(self, charge: Charge) -> None:
        """What the payer says, once they have thought about it."""
        rings = charge.state == "waiting" and charge.waits == "approval"
        if not (rings or charge.state == "pending") or charge.asked_ms is None:
            return
        payer = self.payer(charge.phone)
        if (rings and payer.does == "waits") or self.clock() < charge.asked_ms + payer.after_ms:
            return
        if payer.does == "declines":
            self.decline(charge, payer.reason)
        else:  # whoever typed the right code has said yes
            self.pay(charge)

    def _arrive(self, charge: Charge, refund: Refund) -> None:
        if refund.state == "pending":
            refund.state = "succeeded"
        elif refund.state == "succeeded" and refund.fails_later:
            refund.state, refund.fails_later = "failed", False
        else:
            return
        refund.changed_ms = charge.changed_ms = self.clock()
        self._tell("refund", charge, refund=refund)

    # --- inside -------------------------------------------------------------------------------------

    def _move(self, charge: Charge, state: State, word: Word) -> None:
        charge.state, charge.changed_ms = state, self.clock()
        if not charge.live:
            charge.waits, charge.ended_ms = "", self.clock()
        self._tell(word, charge)

    def _tell(self, word: Word, charge: Charge, *, refund: Refund | None = None, failed: Try | None = None) -> None:
        happening = Happening(word, charge, self.clock(), refund, failed)
        for listener in self.heard:
            listener(happening)

    def _forget(self, charge: Charge) -> None:
        self._moving.pop((charge.provider, charge.id), None)
        for name in charge.names.values():
            self._names.pop((charge.provider, name), None)
        reference = (charge.provider, charge.account, charge.reference)
        if self._references.get(reference) is charge:
            del self._references[reference]


def _moves(refund: Refund) -> bool:
    return refund.state == "pending" or refund.fails_later


def _owner(phone: str) -> str:
    """Whose a number is: some providers write it without its country, and its last digits are the same."""
    return _digits(phone)[-8:]


def _digits(phone: str) -> str:
    """A number without its plus and spaces, as every provider writes it in the end."""
    return "".join(character for character in phone if character.isascii() and character.isdigit())
