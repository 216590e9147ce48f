"""
What we ask of a provider to pay money out: conversations like those of `calls.py`, and what comes of them.

The reference is ours, unique, and on disk before the call. Nobody pays twice because an answer was lost: `NotSent` is
proof that no money can move by what was sent, `PayoutRefused` is the provider's own no, everything else that went wrong
is `Lost`, after which the provider is asked by our reference; where it cannot be, the payout waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from service.providers.base import Credentials, NotKnown, Unclear
from service.providers.calls import Broken, Call, Facts, Lost, NotSent, Refusal, Response

PayeeKind = Literal["mobile_money", "bank", "account"]
PAYEE_KINDS: tuple[PayeeKind, ...] = ("mobile_money", "bank", "account")
"""A wallet by its number, a bank account by its number, an account at the provider itself (Stripe `acct_…`, `ba_…`)."""

Purpose = Literal["payout", "refund"]
"""Why money is paid out: somebody has earned it, or it goes back to whoever paid. Some providers want to know."""

Stage = Literal["in_transit", "otp", "paid", "failed", "returned"]
"""What the provider says of a payout: it has it, it wants a code from a person, done, it will not be, it came back."""


@dataclass(frozen=True, slots=True)
class Payee:
    """Where the money goes. `number` is E.164 for wallets; `bank_code` the provider's own code of a bank."""

    kind: PayeeKind
    currency: str
    country: str = ""  # ISO 3166-1, upper case
    operator: str = ""  # one of calls.OPERATORS
    number: str = field(default="", repr=False)
    bank_code: str = ""
    name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Paying:
    """
    A payout to be sent, or asked about. `reference` is ours, `key` the idempotency key, both on disk; `names` are the
    provider's own ids of it that we know (none before the first answer), `recipient` its id of the payee.
    """

    reference: str
    key: str
    amount_minor: int
    currency: str
    payee: Payee
    description: str = ""
    callback_url: str = ""
    names: tuple[str, ...] = ()
    recipient: str = ""
    live: bool = False
    since_ms: int = 0  # when it was asked for, 0 where that is not known
    now_ms: int = 0
    purpose: Purpose = "payout"


@dataclass(frozen=True, slots=True)
class PayoutTold:
    """
    What the provider says of a payout of ours. `names`: its ids of it; `recipient`: of the payee, to be used again.
    `reason` is a fixed word, `words` the provider's own. Amount and currency where it says them: another sum than was
    asked for is an answer about something else, and the adapter makes it `Lost` or `Unclear`.
    """

    stage: Stage
    names: tuple[str, ...] = ()
    recipient: str = ""
    fee_minor: int | None = None
    reason: str = ""
    words: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class PayoutRefused:
    """A definite no: nothing was paid and nothing will be. `reason` is a fixed word, one of `REFUSALS`."""

    reason: str
    words: str = ""


REFUSALS = (
    "insufficient_float", "bad_account", "amount", "unsupported", "not_allowed", "duplicate_reference", "refused",
)  # fmt: skip

PaidOut = PayoutTold | PayoutRefused | NotSent | Lost
PayoutAnswer = PayoutTold | NotKnown | Unclear
Balances = Mapping[str, int]
"""What can be paid out now, in minor units, by currency: of the payee's operator, where each has a float of its own."""

Sending = Generator[Call, Response, PaidOut]
AskingPayout = Generator[Call, Response, PayoutAnswer]
AskingFloat = Generator[Call, Response, Balances | Unclear]


@dataclass(frozen=True, slots=True)
class PayoutChannel:
    """A way to pay out: to this kind of payee, in this currency, country and operator (empty: any). `code`: theirs."""

    kind: PayeeKind
    currency: str
    country: str = ""
    operator: str = ""
    code: str = ""
    min_minor: int = 1
    max_minor: int | None = None
    step_minor: int = 1

    def refuses(self, amount_minor: int) -> Refusal | None:
        """Why this amount cannot be paid out here, None where it can: said before anything is sent."""
        if amount_minor < self.min_minor:
            return "below_minimum", self.min_minor
        if self.max_minor is not None and amount_minor > self.max_minor:
            return "above_maximum", self.max_minor
        return ("not_a_step", self.step_minor) if amount_minor % self.step_minor else None

    def fits(self, payee: Payee) -> bool:
        """Whether it leads to this payee."""
        return (
            self.kind == payee.kind
            and self.currency == payee.currency
            and self.country in ("", payee.country)
            and self.operator in ("", payee.operator)
        )


@dataclass(frozen=True, slots=True)
class Payouts:
    """
    The paying half of a provider. `send` sends; where it takes a key (`idempotent`) a lost one may be sent again under
    the same key. `ask` asks by our reference or the provider's name (None: it cannot be asked, an unknown payout is a
    person's; `by_name_only`: only by the provider's name, so that one whose first answer was lost is a person's too).
    `finalize`: hands in the code that stage `otp` wants. `float_`: what can be paid out (None: it cannot be asked).
    """

    channels: tuple[PayoutChannel, ...]
    send: Callable[[Paying, PayoutChannel, Credentials], Sending]
    ask: Callable[[Paying, Credentials], AskingPayout] | None = None
    finalize: Callable[[Paying, str, Credentials], Sending] | None = None
    float_: Callable[[Payee, bool, Credentials], AskingFloat] | None = None
    idempotent: bool = False
    by_name_only: bool = False
    facts: Facts = field(default_factory=dict)

    def channel(self, payee: Payee) -> PayoutChannel | None:
        """The way that fits, the most particular first; None: this provider cannot."""
        fitting = [one for one in self.channels if one.fits(payee)]
        return max(fitting, key=lambda one: (bool(one.operator), bool(one.country)), default=None)


def broken_payout(broken: Broken, calls_made: int) -> NotSent | Lost:
    """Nothing was sent, or nobody knows: what a conversation that makes several calls knows better, it catches."""
    return NotSent(broken.reason) if calls_made == 1 and not broken.sent else Lost(broken.reason)


def broken_asking(broken: Broken, calls_made: int) -> Unclear:
    """Nothing was learnt."""
    return Unclear(broken.reason)
