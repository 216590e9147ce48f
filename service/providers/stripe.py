"""Stripe. Facts marked [SDK] are read in stripe-python 16.1.0, [docs] in docs.stripe.com; checked in November 2026."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source
from service.providers import meaning, signatures, strict
from service.providers.base import (
    AboutPayout,
    Capabilities,
    Credential,
    Credentials,
    Identity,
    Ignored,
    Incoming,
    Meaning,
    Parked,
    Provider,
    Refused,
    Verified,
)

# --- tables -------------------------------------------------------------------------------------------

PLACES = {"UGX": 2, "ISK": 2, "MGA": 0}
"""Where Stripe's smallest unit is not ISO's [docs/currencies]: UGX and ISK keep two decimals, MGA has none."""

SESSION_PAID: Mapping[str, Kind] = {
    "paid": Kind.CAPTURED,
    "no_payment_required": Kind.CAPTURED,  # a total of nothing, all of it here
    "unpaid": Kind.PENDING,  # bank debits: complete, and not paid [docs]
}
"""A session's `payment_status` [SDK]. Complete is not paid: only this word says so."""

SESSION: Mapping[str, Kind] = {"open": Kind.CREATED, "expired": Kind.EXPIRED}
"""An unpaid session's `status` [SDK]; of a complete one `payment_status` decides."""

SESSION_MODES_ELSEWHERE = {
    "setup": "a card is kept, nothing is paid",
    "subscription": "the invoice's payment_intent tells of the money",
}

INTENT: Mapping[str, Kind] = {
    "requires_payment_method": Kind.CREATED,  # also after a decline: live, the payer may try again
    "requires_confirmation": Kind.CREATED,
    "requires_action": Kind.REQUIRES_ACTION,
    "processing": Kind.PENDING,
    "requires_capture": Kind.AUTHORIZED,
    "canceled": Kind.CANCELED,
    "succeeded": Kind.CAPTURED,
}
"""A PaymentIntent's `status` [SDK]. It has no failed: a decline gives it back as requires_payment_method."""

INTENT_MOVED: Mapping[Kind, str] = {Kind.CAPTURED: "amount_received", Kind.AUTHORIZED: "amount_capturable"}
CANCELED_AS: Mapping[str, Kind] = {"expired": Kind.EXPIRED}
"""`cancellation_reason` [SDK]; every other reason is a cancellation."""

CHARGE: Mapping[str, Kind] = {"succeeded": Kind.CAPTURED, "pending": Kind.PENDING, "failed": Kind.TRY_FAILED}
"""A charge's `status` [SDK]; succeeded and not captured is authorized."""

# These tell of the charge long after it happened. Dated by the event, an old capture would look late.
CHARGE_AFTERWARDS = frozenset({"charge.updated", "charge.refunded"})

REFUND: Mapping[str, Kind] = {
    "pending": Kind.REFUND_PENDING,
    "requires_action": Kind.REFUND_PENDING,
    "succeeded": Kind.REFUND_SUCCEEDED,
    "failed": Kind.REFUND_FAILED,
    "canceled": Kind.REFUND_CANCELED,
}
"""A refund's `status` [SDK]."""

DISPUTE: Mapping[str, Kind] = {
    "warning_needs_response": Kind.DISPUTE_OPENED,
    "warning_under_review": Kind.DISPUTE_OPENED,
    "warning_closed": Kind.DISPUTE_WON,
    "needs_response": Kind.DISPUTE_OPENED,
    "under_review": Kind.DISPUTE_OPENED,
    "won": Kind.DISPUTE_WON,
    "lost": Kind.DISPUTE_LOST,
    "prevented": Kind.DISPUTE_WON,
}
"""A dispute's `status` [SDK]."""

PAYOUTS: Mapping[str, str] = {"payout.": "payout", "transfer.": "transfer"}
"""How events about money paid out begin [SDK], and the object's word."""

IGNORED = PAYOUTS
"""Those without a name."""

METHODS: Mapping[str, str] = {
    "card": "card",
    "link": "card",
    "card_present": "card",
    "sepa_debit": "bank",
    "us_bank_account": "bank",
    "customer_balance": "bank",
    "ideal": "bank",
    "bancontact": "bank",
}

REASONS: Mapping[str, Reason] = {
    "insufficient funds": Reason.INSUFFICIENT_FUNDS,
    "velocity exceeded": Reason.LIMIT_REACHED,
    "limit exceeded": Reason.LIMIT_REACHED,
    "incorrect pin": Reason.WRONG_PIN,
    "invalid pin": Reason.WRONG_PIN,
    "pin try exceeded": Reason.WRONG_PIN,
    "payment attempt expired": Reason.TIMED_OUT,
    "timeout": Reason.TIMED_OUT,
    "customer decline": Reason.DECLINED_BY_USER,
    "issuer not available": Reason.PROVIDER_UNAVAILABLE,
    "processing error": Reason.PROVIDER_UNAVAILABLE,
    "try again later": Reason.PROVIDER_UNAVAILABLE,
}
"""Parts of `decline_code`, `failure_code` and `code` [docs]; what stands in no row is unknown."""

# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to an object; an answer of the API is one without a type, and without a time of its own."""

    type: str
    at_ms: int  # when it happened, in whole seconds [SDK]
    about: Mapping[str, object]  # data.object
    source: Source = Source.CALLBACK


def _minor(value: object, currency: str) -> int | None:
    return money.from_wire(value, PLACES.get(currency, money.exponent(currency)), currency)


def _id(value: object) -> str | None:
    """An id that may have come expanded to the whole object."""
    return strict.identifier(value.get("id") if isinstance(value, dict) else value)


def _method(*types: object) -> str | None:
    return METHODS.get(strict.word(types[0]), "other") if len(types) == 1 else None


def of_session(event: Event) -> Meaning:
    """What a checkout session says; in an answer its own `status` says that it is open or has lapsed."""
    it = event.about
    elsewhere = SESSION_MODES_ELSEWHERE.get(strict.word(it.get("mode")))
    if elsewhere:
        return Ignored(elsewhere)
    session, intent = _id(it.get("id")), _id(it.get("payment_intent"))
    if session is None:
        return Parked("missing:id")
    said = strict.amounts(_minor, it.get("currency"), it.get("amount_total"))
    if isinstance(said, Parked):
        return said
    currency, (total,) = said
    # The capture is named by the PaymentIntent wherever there is one: session, intent and charge tell of one movement.
    movement, moved, why = intent or session, None, None
    kind: Kind | None
    if event.type == "checkout.session.expired":
        kind = Kind.EXPIRED
    elif event.type == "checkout.session.async_payment_failed":
        kind, movement, why = Kind.TRY_FAILED, session, Reason.UNKNOWN
    else:
        status = strict.word(it.get("payment_status"))
        kind = SESSION_PAID.get(status)
        if not event.type and status != "paid":
            status = strict.word(it.get("status"))
            kind = SESSION.get(status, kind if status == "complete" else None)
        if kind is None:
            return Parked(f"unknown_status:{status}")
        moved = total if kind is Kind.CAPTURED else None
    types = it.get("payment_method_types")
    method = _method(*types) if isinstance(types, list) else None
    fact = Fact(kind, movement, event.at_ms, moved, total, currency, method=method, reason=why, source=event.source)
    notes = strict.metadata(it.get("metadata"))
    ours = it.get("client_reference_id") or notes.get("reference")
    return meaning.tell((intent, session), [fact], ours, notes)


def of_intent(event: Event) -> Meaning:
    """What a PaymentIntent says."""
    it = event.about
    intent, status = _id(it.get("id")), strict.word(it.get("status"))
    kind = INTENT.get(status)
    if kind is None:
        return Parked(f"unknown_status:{status}")
    if intent is None:
        return Parked("missing:id")
    said = strict.amounts(_minor, it.get("currency"), it.get(INTENT_MOVED.get(kind, "")), it.get("amount"))
    if isinstance(said, Parked):
        return said
    currency, (moved, asked) = said
    movement, why = intent, None
    if kind is Kind.CANCELED:
        kind = CANCELED_AS.get(strict.word(it.get("cancellation_reason")), kind)
    if event.type == "payment_intent.payment_failed":
        error = strict.branch(it, "last_payment_error")
        # Two tries are two facts. The charge names a try, and `charge.failed` names the same one; a try that made no
        # charge (3-D Secure failed) has only its time. `latest_charge` would be the charge of an earlier try.
        kind, moved = Kind.TRY_FAILED, None
        movement = _id(error.get("charge")) or f"{intent}@{event.at_ms}"
        why = meaning.reason(REASONS, error.get("decline_code"), error.get("code"))
    types = it.get("payment_method_types")
    method = _method(*types) if isinstance(types, list) else None
    fact = Fact(kind, movement, event.at_ms, moved, asked, currency, method=method, reason=why, source=event.source)
    notes = strict.metadata(it.get("metadata"))
    return meaning.tell((intent, _id(it.get("latest_charge"))), [fact], notes.get("reference"), notes)


def of_charge(event: Event) -> Meaning:
    """What a charge says; as `charge.updated` it is dated by itself."""
    it = event.about
    charge, intent, status = _id(it.get("id")), _id(it.get("payment_intent")), strict.word(it.get("status"))
    kind = CHARGE.get(status)
    if kind is None:
        return Parked(f"unknown_status:{status}")
    if charge is None:
        return Parked("missing:id")
    captured = it.get("captured") is True
    said = strict.amounts(
        _minor, it.get("currency"), it.get("amount"), it.get("amount_captured"), it.get("amount_refunded")
    )
    if isinstance(said, Parked):
        return said
    currency, (asked, taken, back) = said
    movement, moved, why = intent or charge, None, None
    at_ms = strict.seconds_ms(it.get("created")) if event.type in CHARGE_AFTERWARDS else event.at_ms
    if kind is Kind.TRY_FAILED:
        movement = charge
        why = meaning.reason(REASONS, strict.dig(it, "outcome", "reason"), it.get("failure_code"))
    elif kind is Kind.CAPTURED and captured:
        moved = asked if taken is None else taken  # API versions before 2020 have no amount_captured
    elif kind is Kind.CAPTURED and event.type == "charge.refunded":
        kind, at_ms = Kind.CANCELED, event.at_ms  # an authorisation that is let go: no money came, none went back
    elif kind is Kind.CAPTURED:
        kind, moved = Kind.AUTHORIZED, asked
    if event.type == "charge.expired":
        kind, moved = Kind.EXPIRED, None
    method = _method(strict.dig(it, "payment_method_details", "type")) if it.get("payment_method_details") else None
    facts = [Fact(kind, movement, at_ms, moved, asked, currency, method=method, reason=why, source=event.source)]
    if kind is Kind.CAPTURED and back:
        facts.append(Fact(Kind.REFUNDED_TOTAL, charge, event.at_ms, back, currency=currency, source=event.source))
    notes = strict.metadata(it.get("metadata"))
    return meaning.tell((intent, charge), facts, notes.get("reference"), notes)


def _afterwards(statuses: Mapping[str, Kind]) -> Callable[[Event], Meaning]:
    """A refund or a dispute: its own id is the movement, the payment's are the references."""

    def read(event: Event) -> Meaning:
        it = event.about
        status, movement = strict.word(it.get("status")), _id(it.get("id"))
        kind = statuses.get(status)
        if kind is None:
            return Parked(f"unknown_status:{status}")
        if movement is None:
            return Parked("missing:id")
        said = strict.amounts(_minor, it.get("currency"), it.get("amount"))
        if isinstance(said, Parked):
            return said
        currency, (amount,) = said
        fact = Fact(kind, movement, event.at_ms, amount, currency=currency, source=event.source)
        return meaning.tell((_id(it.get("payment_intent")), _id(it.get("charge"))), [fact])

    return read


of_refund, _of_dispute = _afterwards(REFUND), _afterwards(DISPUTE)


def _of_payout(type_: str, it: object) -> AboutPayout | None:
    """A payout or a transfer: our reference where it is one of ours, and Stripe's id; None where it names nothing."""
    what = next((what for start, what in PAYOUTS.items() if type_.startswith(start)), None)
    names = (strict.identifier(name) for name in (strict.dig(it, "metadata", "reference"), strict.dig(it, "id")))
    found = tuple(dict.fromkeys(name for name in names if name))
    return AboutPayout(found, what) if what and found else None


EVENTS: Mapping[str, Callable[[Event], Meaning]] = {
    "checkout.session.completed": of_session,
    "checkout.session.expired": of_session,
    "checkout.session.async_payment_succeeded": of_session,
    "checkout.session.async_payment_failed": of_session,
    "payment_intent.created": of_intent,
    "payment_intent.processing": of_intent,
    "payment_intent.requires_action": of_intent,
    "payment_intent.amount_capturable_updated": of_intent,
    "payment_intent.partially_funded": of_intent,
    "payment_intent.succeeded": of_intent,
    "payment_intent.payment_failed": of_intent,
    "payment_intent.canceled": of_intent,
    "charge.succeeded": of_charge,
    "charge.failed": of_charge,
    "charge.pending": of_charge,
    "charge.captured": of_charge,
    "charge.expired": of_charge,
    "charge.updated": of_charge,
    "charge.refunded": of_charge,
    "charge.refund.updated": of_refund,
    "refund.created": of_refund,
    "refund.updated": of_refund,
    "refund.failed": of_refund,
    "charge.dispute.created": _of_dispute,
    "charge.dispute.updated": _of_dispute,
    "charge.dispute.closed": _of_dispute,
    "charge.dispute.funds_withdrawn": _of_dispute,
    "charge.dispute.funds_reinstated": _of_dispute,
}
"""Event types [SDK] and who reads them: what an event means comes from its object's status, not from its name."""

# --- the contract -------------------------------------------------------------------------------------


def verify(callback: Incoming, credentials: Credentials, now_ms: int) -> Verified | Refused:
    """`Stripe-Signature: t=…,v1=…`; the key is the endpoint's secret as it stands, `whsec_` included [SDK]."""
    live = signatures.secrets(credentials, "webhook_secrets")
    return signatures.over_time_and_body(callback, b"stripe-signature", b"v1", live, now_ms)


def identify(callback: Incoming) -> Identity:
    """Stripe numbers its events [SDK]: the event's id is the key, the same in all of its deliveries."""
    event = strict.glance(callback.body)
    if event is None:
        return Identity(meaning.key(callback.body))
    id_, live = event.get("id"), event.get("livemode")
    numbered = strict.word(event.get("object")) in ("event", "v2.core.event") and isinstance(id_, str)
    return Identity(
        (strict.identifier(id_) if numbered else None) or meaning.key(callback.body),
        strict.word(event.get("type")),
        live if isinstance(live, bool) else None,
    )


def translate(callback: Incoming, received_at_ms: int) -> Meaning:
    """What the event says."""
    event = strict.document(callback.body)
    if isinstance(event, Parked):
        return event
    if event.get("object") == "v2.core.event":
        return Parked("thin_event")  # it has no object to read, and does not belong in this endpoint [docs]
    type_ = strict.word(event.get("type"))
    if not type_:
        return Parked("missing:type")
    read = EVENTS.get(type_)
    about = strict.dig(event, "data", "object")
    if read is None:
        return _of_payout(type_, about) or meaning.of_no_payment(type_, IGNORED)
    if not isinstance(about, dict):
        return Parked("missing:data.object")
    return read(Event(type_, strict.seconds_ms(event.get("created")), about))


STRIPE = Provider(
    name="stripe",
    title="Stripe",
    queue="stripe",
    base_url="https://api.stripe.com",
    credentials=(
        Credential("secret_key", calls=True, optional=True, where="Stripe: Developers → API keys → Secret key."),
        Credential(
            "webhook_secrets",
            many=True,
            verifies=True,
            where="Stripe: Developers → Webhooks → the endpoint → Signing secret (whsec_…).",
        ),
    ),
    capabilities=Capabilities(
        signed=True, signature_header=b"stripe-signature", timestamped=True, test_flag=True, event_id=True
    ),
    verify=verify,
    identify=identify,
    translate=translate,
    paste="Stripe: Developers → Webhooks → Add endpoint.",
)
