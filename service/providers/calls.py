"""
What we ask of a provider, as conversations: generators that yield calls, are sent responses, and return the result.

A conversation is pure: it opens no socket, reads no clock and raises nothing of its own, and whatever it hears it ends
within `CALLS_MAX` calls. Whoever drives it (the client) sends each `Call` with one time limit over all of them. What
goes wrong on the way is *thrown into* the conversation as a `Broken`, so that it can say what is known by then; one
that does not catch it ends as `broken_create` and its sisters say.

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
from typing import Final, Literal

from service.payments.facts import Reason, Told
from service.providers.base import Answer, Credentials, Unclear

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

Need = Literal["payer_phone", "email", "name"]
"""What a way to be paid cannot do without. A name that is missing is stood in for where the adapter can."""

CALLS_MAX: Final = 8
"""The longest conversation: Stripe's two lists by our reference, three pages each, and the object found there."""

LISTED_MAX: Final = 100
"""The most that one page of `Calls.list` tells; also the most refunds of one payment that are read."""

# --- one request and its answer ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """
    One HTTP request. `path` is joined to `base_url`, to the account's where that is empty; it may carry a query, and it
    may hold a key, which then stands in `secrets` too. `form` and `json`: at most one of them. Logs have `shown` alone.
    """

    method: str
    path: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    json: object | None = field(default=None, repr=False)
    base_url: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def shown(self) -> str:
        """Method and path for people: without the query, and with every secret masked."""
        path = self.path.partition("?")[0]
        for secret in self.secrets:
            path = path.replace(secret, "***") if secret else path
        return f"{self.method} {path}"


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
    lapse, where it can be told, counted from `now_ms` where it wants a span (0: not known). `payer_phone` is the
    wallet's number, E.164, for mobile money. `locale` is the language of the provider's page (ISO 639-1). `live`: the
    account moves real money. `embedded`: the merchant's own page confirms, so an address to go to is of no use.
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
    live: bool = False
    now_ms: int = 0
    locale: str = "fr"
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """
    A payment that was asked for: by our reference, and the provider's names of it as far as we know them.

    `since_ms`: when it was asked for, our clock, 0 where that is not known; it bounds how far back a list is read.
    """

    reference: str
    references: tuple[str, ...]
    amount_minor: int
    currency: str
    key: str = ""  # for the next call about it
    since_ms: int = 0
    live: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Payments that the provider made from `since_ms` up to and without `until_ms`; `cursor` is the page before's."""

    since_ms: int
    until_ms: int
    cursor: str | None = None


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


@dataclass(frozen=True, slots=True)
class Confirm:
    """The merchant's own page has to confirm with this secret (a Stripe PaymentIntent); the payer goes nowhere."""

    client_secret: str = field(repr=False)


Action = Otp | Approve | Redirect | Confirm


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
    """Nobody knows. `told`: what had been learnt before. `alert`: our credentials or settings are wrong."""

    reason: str
    told: Told | None = None
    alert: bool = False


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


Refunded = Refunding | RefundRefused | NotSent | Lost
"""`NotSent` is proof that the provider did not hear of it, or took it for nothing: the refund stays queued."""


@dataclass(frozen=True, slots=True)
class NotCanceled:
    """It could not be cancelled, and what it is now is in the facts (None: ask)."""

    told: Told | None = None


Canceled = Told | NotCanceled | Lost
"""Cancelling ends as the provider's own words that it is dead (Told), that it is not, or in nothing."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One page: each payment with its names and facts; where the next begins, if any; how many could not be read."""

    told: tuple[Told, ...]
    cursor: str | None = None
    unread: int = 0


Creating = Generator[Call, Response, Result]
Asking = Generator[Call, Response, Answer]
Refunds = Generator[Call, Response, Refunded]
Canceling = Generator[Call, Response, Canceled]
Listening = Generator[Call, Response, Listed | Unclear]


# --- what a provider can do -------------------------------------------------------------------------


Refusal = tuple[Literal["below_minimum", "above_maximum", "not_a_step"], int]
"""Why a way does not take an amount, and the limit in minor units that says so."""


@dataclass(frozen=True, slots=True)
class Channel:
    """
    One way to be paid: by this method, in this currency, in this country (empty: anywhere), through this operator
    (empty: the provider asks the payer). `code` is the provider's own word. Limits in minor units; None where the
    provider names none. `direct`: the payer need not leave the merchant's page (OTP, approval on the phone).
    `embedded`: the merchant's own page confirms (`Wanted.embedded`). `needs`: what a `Wanted` has to bring.
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
    needs: frozenset[Need] = frozenset()
    embedded: bool = False

    def refuses(self, amount_minor: int) -> Refusal | None:
        """Why this amount cannot be asked for here, None where it can: said before anything is sent."""
        if amount_minor < self.min_minor:
            return "below_minimum", self.min_minor
        if self.max_minor is not None and amount_minor > self.max_minor:
            return "above_maximum", self.max_minor
        return ("not_a_step", self.step_minor) if amount_minor % self.step_minor else None

    def lacks(self, wanted: Wanted) -> frozenset[Need]:
        """Which of its needs this wish does not bring; a prompt needs the wallet's number, a page any of theirs."""
        buyer = wanted.customer
        phone = wanted.payer_phone or ("" if self.direct else buyer.phone)
        brought = {"payer_phone": phone, "email": buyer.email, "name": buyer.name}
        return frozenset(need for need in self.needs if not brought[need].strip())


Facts = Mapping[str, str | int | tuple[str, ...]]
"""What a provider's file only believes ([3p] or [unv]), by name; `overrides` may know better. A name says its unit."""


@dataclass(frozen=True, slots=True)
class Calls:
    """
    The calling half of a provider. None where the provider cannot; `explain` says so before anything is called.

    `fetch` asks by the provider's own name of the payment, `find` by our reference. `refunds` tells all refunds of it,
    each under its own id; no facts: none. `list`: what there is, by pages. `idempotent`: a key is never charged twice,
    so a lost call may be repeated. `reopens`: what was declined or cancelled may still be paid. `partial_refunds`: less
    than all can go back. A parameter `facts` is given these `facts`.
    """

    channels: tuple[Channel, ...]
    create: Callable[[Wanted, Channel, Credentials], Creating]
    fetch: Callable[[Given, bool, Credentials], Asking]
    find: Callable[[Given, bool, Credentials], Asking] | None = None
    otp: Callable[[Given, str, Credentials], Creating] | None = None
    cancel: Callable[[Given, Credentials], Canceling] | None = None
    refund: Callable[[Given, int, str, Credentials], Refunds] | None = None
    refunds: Callable[[Given, Credentials], Asking] | None = None
    list: Callable[[Listing, Credentials], Listening] | None = None
    idempotent: bool = False
    reopens: bool = False
    partial_refunds: bool = True
    facts: Facts = field(default_factory=dict)

    def channel(
        self, method: Method, currency: str, country: str, operator: str, embedded: bool = False
    ) -> Channel | None:
        """The way that fits, the most particular first; None: this provider cannot. `embedded` ways are asked for."""
        fitting = [
            one
            for one in self.channels
            if one.method == method
            and one.currency == currency
            and one.country in ("", country)
            and one.operator in ("", operator)
            and one.embedded == embedded
        ]
        return max(fitting, key=lambda one: (bool(one.operator), bool(one.country), one.direct), default=None)


# --- a break that a conversation did not catch ------------------------------------------------------
# `calls_made` counts the one that broke: only a first call can prove that nothing at all was sent.


def broken_create(broken: Broken, calls_made: int) -> NotSent | Lost:
    """Nothing was asked for, or nobody knows."""
    return NotSent(broken.reason) if calls_made == 1 and not broken.sent else Lost(broken.reason)


broken_otp = broken_refund = broken_create
"""`NotSent`: the code was not submitted, the payer may try again; the refund stays queued. Otherwise nobody knows."""


def broken_ask(broken: Broken, calls_made: int) -> Unclear:
    """Nothing was learnt; a question changes nothing."""
    return Unclear(broken.reason)


def broken_cancel(broken: Broken, calls_made: int) -> Lost:
    """It may be cancelled or not: ask."""
    return Lost(broken.reason)
