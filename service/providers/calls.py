"""
What we ask of a provider, as conversations: generators that yield calls, are sent responses, and return the result.

A conversation is pure: it opens no socket, reads no clock and raises nothing of its own. Whoever drives it (the
client) sends each `Call` with one time limit over all of them. What goes wrong on the way is *thrown into* the
conversation as a `Broken`, so that it can say what is known by then; one that does not catch it ends as `after_break`
says.

    def create(wanted, credentials):
        response = yield Call("POST", "/v1/charges", json={…}, key=wanted.key)
        if refused := …:
            return NotSent("unsupported")
        return Accepted(told, Redirect(url))

What decides between the results is the table "When is failover safe?": `NotSent` is proof that nobody can be charged
by what was sent, `Declined` is the provider's own no, and everything that is neither is `Lost`, of which nothing is
concluded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from service.payments.facts import Reason, Told
from service.providers.base import Answer, Credentials

Method = Literal["card", "mobile_money"]
METHODS: tuple[Method, ...] = ("card", "mobile_money")

OPERATORS: Mapping[str, str] = {
    "orange": "Orange Money",
    "wave": "Wave",
    "mtn": "MTN MoMo",
    "moov": "Moov Money",
    "airtel": "Airtel Money",
    "free": "Free Money",
    "togocel": "Togocel Money",
    "celtiis": "Celtiis Cash",
    "vodafone": "Telecel Cash",
    "mpesa": "M-Pesa",
    "eu": "Express Union",
}
"""Our words for the wallets' operators; each provider's file maps them to its own, by country."""

# --- one request and its answer ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request; `path` is joined to the account's base URL. `form` and `json`: at most one of them."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: tuple[tuple[str, str], ...] | None = None
    json: object | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; header names lower case, the body undecoded and at most 256 kB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Broken(Exception):
    """
    No answer came. `sent` is False on proof that not one byte of the request reached the provider (refused, no route,
    DNS, TLS, no free connection); then `reason` is a fixed word for the explanation.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent


# --- what we want -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Customer:
    """Who buys, as far as the merchant said; empty where it did not."""

    name: str = ""
    email: str = ""
    phone: str = ""  # E.164


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    A payment to be asked for. `reference` is ours, unique, and begins with this installation's prefix; `key` is the
    attempt's idempotency key; both are on disk before this is made. `expires_at_ms`: when the provider should let it
    lapse, where it can be told. `payer_phone` is the wallet's number, E.164, for mobile money.
    """

    reference: str
    key: str
    amount_minor: int
    currency: str
    method: Method
    country: str  # ISO 3166-1, upper case; empty where nobody knows
    operator: str  # one of OPERATORS, empty: the payer chooses at the provider
    description: str
    return_url: str
    callback_url: str
    payer_phone: str = ""
    customer: Customer = Customer()
    expires_at_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Given:
    """A payment that was asked for: by our reference, and the provider's names of it as far as we know them."""

    reference: str
    references: tuple[str, ...]
    amount_minor: int
    currency: str
    key: str = ""  # for the next call about it


# --- what came of it --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Otp:
    """The payer has to type a code; `display_text` is the provider's own words."""

    display_text: str = ""


@dataclass(frozen=True, slots=True)
class Approve:
    """The payer has to approve on the phone."""

    display_text: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The payer has to go there. `client_secret` where the merchant's own page can do it (Stripe)."""

    url: str
    client_secret: str = field(default="", repr=False)


Action = Otp | Approve | Redirect


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has it: `told` holds its names and what it said; `action` is what the payer has to do now."""

    told: Told
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that nothing can come of what was sent. `alert`: our credentials or settings are wrong."""

    reason: str
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider's definite no, with its facts. `soft`: a card decline that its own table calls worth another try."""

    told: Told
    reason: Reason
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody knows. `told`: what had been learnt before."""

    reason: str
    told: Told | None = None


Result = Accepted | NotSent | Declined | Lost


@dataclass(frozen=True, slots=True)
class Refunding:
    """A refund that the provider took: `told` has its refund facts."""

    told: Told


@dataclass(frozen=True, slots=True)
class RefundRefused:
    """A definite no to a refund; `reason` is a fixed word, `words` the provider's own."""

    reason: str
    words: str = ""


Refunded = Refunding | RefundRefused | Lost


@dataclass(frozen=True, slots=True)
class NotCanceled:
    """It could not be cancelled, and what it is now is in the facts (None: ask)."""

    told: Told | None = None


Canceled = Told | NotCanceled | Lost
"""Cancelling ends as the provider's own words that it is dead (Told), that it is not, or in nothing."""

Creating = Generator[Call, Response, Result]
Asking = Generator[Call, Response, Answer]
Refunds = Generator[Call, Response, Refunded]
Canceling = Generator[Call, Response, Canceled]


# --- what a provider can do -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Channel:
    """
    One way to be paid: by this method, in this currency, in this country (empty: anywhere), through this operator
    (empty: the provider asks the payer). `code` is the provider's own word. Limits in minor units; None where the
    provider names none. `direct`: the payer need not leave the merchant's page (OTP, approval on the phone).
    """

    method: Method
    currency: str
    country: str = ""
    operator: str = ""
    code: str = ""
    direct: bool = False
    min_minor: int = 1
    max_minor: int | None = None
    step_minor: int = 1


@dataclass(frozen=True, slots=True)
class Calls:
    """
    The calling half of a provider. None where the provider cannot; `explain` says so before anything is called.

    `fetch` asks by the provider's own name of the payment, `find` by our reference. `idempotent`: the same key is
    never charged twice, so a lost call may be repeated. `partial_refunds`: less than all of it can go back.
    """

    channels: tuple[Channel, ...]
    create: Callable[[Wanted, Channel, Credentials], Creating]
    fetch: Callable[[Given, bool, Credentials], Asking]
    find: Callable[[Given, bool, Credentials], Asking] | None = None
    otp: Callable[[Given, str, Credentials], Creating] | None = None
    cancel: Callable[[Given, Credentials], Canceling] | None = None
    refund: Callable[[Given, int, str, Credentials], Refunds] | None = None
    idempotent: bool = False
    partial_refunds: bool = True

    def channel(self, method: Method, currency: str, country: str, operator: str) -> Channel | None:
        """The way that fits, the most particular first; None: this provider cannot."""
        fitting = [
            one
            for one in self.channels
            if one.method == method
            and one.currency == currency
            and one.country in ("", country)
            and one.operator in ("", operator)
        ]
        return max(fitting, key=lambda one: (bool(one.operator), bool(one.country), one.direct), default=None)


def after_break(broken: Broken, calls_made: int) -> NotSent | Lost:
    """What a conversation that did not catch it has come to: only a first call can prove that nothing was sent."""
    return NotSent(broken.reason) if calls_made == 1 and not broken.sent else Lost(broken.reason)
