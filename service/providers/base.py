"""
What a provider is to the rest of the house: a frozen record of pure functions and declared capabilities.

A provider's file is mostly tables. It never does I/O, reads no clock and raises nothing: whatever comes in,
each function returns one of the values below. `CONTRACT`:

    verify(callback, credentials, now_ms)  -> Verified | Refused
    identify(callback)                     -> Identity            (after verify; never fails)
    redact(body)                           -> body to be stored   (identity for most)
    translate(callback, received_at_ms)    -> Told | Ask | AboutPayout | Ignored | Unmapped | Parked
    question(reference, credentials)       -> Request             (only where capabilities.ask)
    answer(reference, status, body, asked) -> Told | NotFinal | NotKnown | Unclear
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.payments.facts import Told

BODY_BYTES_MAX = 256 * 1024

Credentials = Mapping[str, Sequence[str]]
"""Every credential is a list, newest first; the first one calls the API, all of them verify callbacks."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A callback as it came: header names lower case, values untouched bytes; `query` without the question mark."""

    method: str
    headers: Sequence[tuple[bytes, bytes]]
    query: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, None when it is missing *or given twice*: what is ambiguous is not trusted."""
        found = [value for key, value in self.headers if key == name]
        return found[0] if len(found) == 1 else None


# --- what verify says -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verified:
    """The callback is the provider's. `strong` is False where the proof only justifies asking (mission A12)."""

    strong: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """Not verified. `reason` is a fixed word for the quarantine and the metric; the sender is told nothing."""

    reason: str  # no_secret | missing_header | bad_header | bad_signature | too_old | too_new | no_sign | not_form


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The exactly-once key of a callback, unique per account, and what is on its label.

    `live` is what the body says about test or live money, None where it says nothing. `kind` is the provider's
    own event type, cut to 100 characters, empty when unreadable.
    """

    key: str
    kind: str = ""
    live: bool | None = None


# --- what translate says ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """
    The callback moves no money by itself: ask the provider about `reference` (its own id of the payment).

    `told` holds what may be shown meanwhile (a pending payment with the amount the callback claims), or None. `names`:
    all of the provider's ids of it, where one of them may be the only one that can be asked by.
    """

    reference: str
    told: Told | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AboutPayout:
    """
    It speaks of money that was paid out: by `references`, ours and the provider's own. Always a hint, which makes us
    ask about the payout that goes by one of them; `reason` is why it is ignored when none of ours does.
    """

    references: tuple[str, ...]
    reason: str = "payout"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A type we know and that is about neither a payment nor a payout (customers)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A type in no table: kept, counted, ignored."""

    kind: str


@dataclass(frozen=True, slots=True)
class Parked:
    """Verified, but we cannot say what it means: unreadable, or a known type with a status in no table."""

    reason: str  # unreadable:<why> | unknown_status:<status> | missing:<field> | bad_amount …


Meaning = Told | Ask | AboutPayout | Ignored | Unmapped | Parked


# --- asking -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the provider; `path` is joined to the account's base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    json: object | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What we hold about the payment we ask for: the answer must be about the same one (None: not known).

    `reference` is the one that *we gave the provider*, not the merchant's own. Amount and currency are not compared
    here: they come back as facts, and the rules find a mismatch.
    """

    live: bool
    reference: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    account: str | None = None  # Monetbil answers anybody about anything: its service key says whose payment it is


@dataclass(frozen=True, slots=True)
class NotFinal:
    """The provider knows it and has not decided; `told` may carry pending facts."""

    told: Told | None = None


@dataclass(frozen=True, slots=True)
class NotKnown:
    """The provider knows no such payment."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """5xx, rate limit, wrong credentials, unreadable: ask again later. `reason` is a fixed word."""

    reason: str


Answer = Told | NotFinal | NotKnown | Unclear


# --- the record -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credential:
    """One thing the merchant copies from the provider's dashboard. Setting: CAISSE_<PROVIDER>_<NAME in capitals>."""

    name: str
    many: bool = False
    verifies: bool = False  # checks callbacks
    calls: bool = False  # needed to ask the provider
    optional: bool = False
    where: str = ""  # where in the provider's dashboard it is found, one sentence


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the conformance suite may expect. Each switch turns cases on."""

    signed: bool  # a signature over the body or its fields
    signature_header: bytes | None = None  # None: the signature is a field of the body, or there is none
    timestamped: bool = False  # the signature covers a time, tolerance TOLERANCE_MS both ways
    test_flag: bool = False  # the body says whether it is test money
    strong: bool = True  # False: callbacks only cause a question
    ask: bool = False  # question and answer are there
    token_in_path: bool = False  # the account is found by a secret token in the address (eBilling)
    methods: tuple[str, ...] = ("POST",)
    event_id: bool = False  # the provider numbers its events, so the same id with another body is a repeat


TOLERANCE_MS = 300_000


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider, whole. `queue` names the retry policy (mission A4): stripe | monetbil | payments."""

    name: str
    title: str
    queue: str
    base_url: str
    credentials: tuple[Credential, ...]
    capabilities: Capabilities
    verify: Callable[[Incoming, Credentials, int], Verified | Refused]
    identify: Callable[[Incoming], Identity]
    translate: Callable[[Incoming, int], Meaning]
    redact: Callable[[bytes], bytes] = lambda body: body
    question: Callable[[str, Credentials], Request] | None = None
    answer: Callable[[str, int, bytes, Asked], Answer] | None = None
    acknowledgement: bytes = b'{"received":true}'
    acknowledgement_type: bytes = b"application/json"
    paste: str = ""  # where in the provider's dashboard the callback address goes, one sentence

    def missing(self, credentials: Credentials) -> tuple[str, ...]:
        """Names of required credentials that are not there; an empty value is not there."""
        return tuple(
            c.name
            for c in self.credentials
            if not c.optional and not any(value.strip() for value in credentials.get(c.name, ()))
        )
