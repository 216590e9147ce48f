"""Paystack. Facts marked [SDK] are read in its OpenAPI description and plugins, [docs] in paystack.com/docs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source
from service.providers import meaning, signatures, strict
from service.providers.base import (
    AboutPayout,
    Capabilities,
    Credential,
    Credentials,
    Identity,
    Incoming,
    Meaning,
    Parked,
    Provider,
    Refused,
    Verified,
)
from service.providers.calls import Facts

# --- tables -------------------------------------------------------------------------------------------

PLACES: Final = 2
"""Amounts are ×100 in every currency, XOF too, which has no minor unit [SDK plugin]: 1000 F come as 100000."""

FACTS: Facts = {
    "xof_places": PLACES,  # [SDK plugin]; one third party has 0
    "reference_characters_max": 100,  # [unv]
    "abandoned_after_ms": 3_600_000,  # [unv]
    "local_phones": ("GH +233 0", "CI +225 "),  # country, its numbers' beginning, what stands for it [docs; unv for CI]
    "credentials_words": ("invalid key",),  # a 400 [SDK]
    "duplicate_words": ("duplicate transaction reference", "duplicate reference"),  # message [SDK] and code [3p]
    "unknown_reference_words": ("transaction not found", "reference not found"),  # code and message [3p]
    "wrong_otp_words": (
        *("incorrect otp", "invalid otp", "wrong otp", "otp is incorrect"),
        *("incorrect token", "invalid token"),
    ),  # documented nowhere [unv]
}
"""
What is believed and may be set. Words are parts of Paystack's own, plain: small letters, no underscores or hyphens.

`abandoned_after_ms` says when `abandoned` is believed, counted from `created_at` on Paystack's own clock. It is what
verify says of every page that nobody has finished yet, one opened a second ago included [docs: "the customer has not
completed the transaction"]. Until then it says only that nobody has paid.
"""

CHARGE: Mapping[str, Kind] = {
    "success": Kind.CAPTURED,
    "reversed": Kind.REVERSED,  # clawed back by the operator, not a refund
    "failed": Kind.FAILED,
    "timeout": Kind.FAILED,
    "abandoned": Kind.CANCELED,  # the payer left; a later success still wins [3p]
    "ongoing": Kind.PENDING,
    "pending": Kind.PENDING,
    "processing": Kind.PENDING,
    "queued": Kind.PENDING,
    "send_otp": Kind.REQUIRES_ACTION,
    "send_pin": Kind.REQUIRES_ACTION,
    "send_phone": Kind.REQUIRES_ACTION,
    "send_birthday": Kind.REQUIRES_ACTION,
    "send_address": Kind.REQUIRES_ACTION,
    "pay_offline": Kind.REQUIRES_ACTION,
    "open_url": Kind.REQUIRES_ACTION,
}
"""A transaction's `status` [docs]: what waits for the payer is requires_action."""

REFUND: Mapping[str, Kind] = {
    "pending": Kind.REFUND_PENDING,
    "processing": Kind.REFUND_PENDING,
    "needs-attention": Kind.REFUND_PENDING,
    "processed": Kind.REFUND_SUCCEEDED,
    "failed": Kind.REFUND_FAILED,
}
"""A refund's `status` [docs]."""

DISPUTE: Mapping[str, Kind] = {
    "awaiting-merchant-feedback": Kind.DISPUTE_OPENED,
    "awaiting-bank-feedback": Kind.DISPUTE_OPENED,
    "pending": Kind.DISPUTE_OPENED,
    "resolved/merchant-accepted": Kind.DISPUTE_LOST,
    "resolved/auto-accepted": Kind.DISPUTE_LOST,  # nobody answered in time [unv]
    "resolved/declined": Kind.DISPUTE_WON,
}
"""A dispute's `status`, with its `resolution` once it is resolved [SDK]; resolved without one says nothing."""

TRANSFER: Final = "transfer."
"""How events about money paid out begin [docs]."""

IGNORED: Mapping[str, str] = {
    TRANSFER: "transfer",  # without a name
    "bank.transfer.rejected": "a payer's transfer that was sent back",
    "customeridentification.": "customer",
    "dedicatedaccount.": "account",
    "direct_debit.": "mandate",
    "invoice.": "its charge tells of the money",
    "paymentrequest.": "its charge tells of the money",
    "subscription.": "its charges tell of the money",
}

METHODS: Mapping[str, str] = {
    "card": "card",
    "apple_pay": "card",
    "mobile_money": "mobile_money",
    "bank": "bank",
    "bank_transfer": "bank",
    "dedicated_nuban": "bank",
    "eft": "bank",
    "ussd": "bank",
}
"""`channel` [SDK]; the others are other."""

REASONS: Mapping[str, Reason] = {
    "insufficient": Reason.INSUFFICIENT_FUNDS,
    "low balance": Reason.INSUFFICIENT_FUNDS,
    "not enough": Reason.INSUFFICIENT_FUNDS,
    "limit": Reason.LIMIT_REACHED,
    "incorrect pin": Reason.WRONG_PIN,
    "wrong pin": Reason.WRONG_PIN,
    "invalid pin": Reason.WRONG_PIN,
    "timed out": Reason.TIMED_OUT,
    "timeout": Reason.TIMED_OUT,
    "declined by user": Reason.DECLINED_BY_USER,
    "cancelled by": Reason.DECLINED_BY_USER,
    "not registered": Reason.NO_WALLET,
    "no wallet": Reason.NO_WALLET,
    "mismatch": Reason.NUMBER_MISMATCH,
    "unavailable": Reason.PROVIDER_UNAVAILABLE,
    "inoperative": Reason.PROVIDER_UNAVAILABLE,
}
"""Parts of `gateway_response` and `message`; their texts are documented nowhere [3p]."""

# --- reading ------------------------------------------------------------------------------------------


def places(currency: str, facts: Facts) -> int:
    """Decimals of the unit that Paystack counts in."""
    set_ = facts["xof_places"]
    return set_ if currency == "XOF" and isinstance(set_, int) else PLACES


def _minor(facts: Facts) -> strict.Read:
    return lambda value, currency: money.from_wire(value, places(currency, facts), currency)


def _fee(value: object, currency: str | None, facts: Facts) -> int | None:
    """A fee in whole minor units, rounded down: 1.95 % of 1000 F is 19.5 F. It is shown, and decides nothing."""
    units = money.from_wire(value, 2, "USD")  # as it stands there
    if units is None or currency is None:
        return None
    return int(Decimal(units).scaleb(money.exponent(currency) - places(currency, facts)).to_integral_value(ROUND_FLOOR))


def _notes(value: object) -> dict[str, str]:
    """`metadata` is an object, an object as text, "", 0 or null [docs samples]."""
    if isinstance(value, str) and value.startswith("{"):
        value = strict.document(value.encode())
    return strict.metadata(value)


def of_charge(it: Mapping[str, object], source: Source = Source.CALLBACK, facts: Facts = FACTS) -> Meaning:
    """What a transaction says, in an event or in an answer."""
    status = strict.word(it.get("status"))
    kind = CHARGE.get(status)
    if kind is None:
        return Parked(f"unknown_status:{status}")
    said = strict.amounts(_minor(facts), it.get("currency"), it.get("amount"), it.get("requested_amount"))
    if isinstance(said, Parked):
        return said
    currency, (amount, requested) = said
    # The merchant's own account may add the fee for the payer: `amount` is then more than what was asked for, and the
    # difference is not an overpayment. Less than what was asked for stays less.
    asked = requested or amount
    moved = min(amount, asked) if kind in meaning.MONEY_MOVED and amount is not None and asked is not None else None
    # The reference is unique per integration, and the only name that refunds and disputes use. The numeric id is left
    # out: merchants' own references may be such numbers, and two payments would be taken for one.
    reference = strict.identifier(it.get("reference"))
    if reference is None:
        return Parked("missing:reference")
    channel = strict.word(it.get("channel"))
    failed = kind is Kind.FAILED
    fact = Fact(
        kind,
        reference,
        strict.first_ms(it.get("paid_at"), it.get("paidAt"), it.get("created_at"), it.get("createdAt")),
        moved,
        asked,
        currency,
        fee_minor=_fee(it.get("fees"), currency, facts) if kind is Kind.CAPTURED else None,
        method=METHODS.get(channel, "other") if channel else None,
        reason=meaning.reason(REASONS, it.get("gateway_response"), it.get("message"), status) if failed else None,
        source=source,
    )
    return meaning.tell((reference,), [fact], reference, _notes(it.get("metadata")))


def of_refund(it: Mapping[str, object], source: Source = Source.CALLBACK, facts: Facts = FACTS) -> Meaning:
    """What a refund says, in an event or in an answer."""
    status = strict.word(it.get("status"))
    kind = REFUND.get(status)
    if kind is None:
        return Parked(f"unknown_status:{status}")
    said = strict.amounts(_minor(facts), it.get("currency"), it.get("amount"))
    if isinstance(said, Parked):
        return said
    currency, (amount,) = said
    reference = strict.identifier(it.get("transaction_reference"))
    if reference is None:
        return Parked("missing:transaction_reference")
    # A pending refund has no name yet, and may get one later: it then stands as two movements, of which only the
    # processed one moves money, so that it is counted once. Two unnamed ones of one amount are taken for one.
    name = strict.identifier(it.get("refund_reference")) or strict.identifier(it.get("id"))
    if name is None:
        name = "unnamed:" + hashlib.sha256(f"{reference}|{amount}".encode()).hexdigest()[:32]
    # Refunds and disputes are bare numbers: without a word before them they would be taken for somebody's reference.
    fact = Fact(kind, f"refund:{name}", amount_minor=amount, currency=currency, source=source)
    return meaning.tell((reference,), [fact])


def _of_dispute(it: Mapping[str, object], source: Source, facts: Facts) -> Meaning:
    status = strict.word(it.get("status"))
    if status == "resolved":
        status = f"resolved/{strict.word(it.get('resolution'))}"
    kind = DISPUTE.get(status)
    if kind is None:
        return Parked(f"unknown_status:{status}")
    said = strict.amounts(_minor(facts), it.get("currency"), it.get("refund_amount"))
    if isinstance(said, Parked):
        return said
    currency, (amount,) = said
    number = strict.identifier(it.get("id"))
    if number is None:
        return Parked("missing:id")
    at_ms = strict.first_ms(*(it.get(name) for name in ("updated_at", "updatedAt", "created_at", "createdAt")))
    reference = strict.dig(it, "transaction", "reference") or it.get("transaction_reference")
    return meaning.tell(
        (reference,), [Fact(kind, f"dispute:{number}", at_ms, amount, currency=currency, source=source)]
    )


def _of_transfer(it: object) -> tuple[str, ...]:
    """A transfer's names: our reference, which is unique there, and Paystack's code. Its number is nobody's name."""
    names = (strict.identifier(strict.dig(it, name)) for name in ("reference", "transfer_code"))
    return tuple(dict.fromkeys(name for name in names if name))


EVENTS: Mapping[str, Callable[[Mapping[str, object], Source, Facts], Meaning]] = {
    "charge.success": of_charge,
    "charge.failed": of_charge,  # not documented for cards and mobile money; read all the same should it come
    "refund.pending": of_refund,
    "refund.processing": of_refund,
    "refund.needs-attention": of_refund,
    "refund.processed": of_refund,
    "refund.failed": of_refund,
    "charge.dispute.create": _of_dispute,
    "charge.dispute.remind": _of_dispute,
    "charge.dispute.resolve": _of_dispute,
}
"""Event types [docs] and who reads them: what an event means comes from `data.status`, not from its name."""

# --- the contract -------------------------------------------------------------------------------------


def verify(callback: Incoming, credentials: Credentials, now_ms: int) -> Verified | Refused:
    """`x-paystack-signature`: HMAC-SHA512 of the raw body with the API's secret key; no time is signed [docs]."""
    live = signatures.secrets(credentials, "secret_keys")
    return signatures.over_body(callback, b"x-paystack-signature", live, "sha512", strong=True)


def identify(callback: Incoming) -> Identity:
    """Paystack numbers no events: the type, what it is about, and the raw body's hash."""
    event = strict.glance(callback.body)
    if event is None:
        return Identity(meaning.key(callback.body))
    it = strict.branch(event, "data")
    type_ = strict.word(event.get("event"))
    domain = it.get("domain")
    live = domain == "live" if domain in ("live", "test") else None
    reference = it.get("reference") or it.get("transaction_reference")
    return Identity(meaning.key(callback.body, type_, reference, it.get("id"), it.get("status")), type_, live)


def translate(callback: Incoming, received_at_ms: int, facts: Facts = FACTS) -> Meaning:
    """What the event says."""
    event = strict.document(callback.body)
    if isinstance(event, Parked):
        return event
    type_ = strict.word(event.get("event"))
    if not type_:
        return Parked("missing:event")
    read = EVENTS.get(type_)
    it = event.get("data")
    if read is None:
        about = _of_transfer(it) if type_.startswith(TRANSFER) else ()
        return AboutPayout(about, "transfer") if about else meaning.of_no_payment(type_, IGNORED)
    return read(it, Source.CALLBACK, facts) if isinstance(it, dict) else Parked("missing:data")


PAYSTACK = Provider(
    name="paystack",
    title="Paystack",
    queue="payments",
    base_url="https://api.paystack.co",
    credentials=(
        Credential(
            "secret_keys",
            many=True,
            verifies=True,
            calls=True,
            where="Paystack: Settings → API Keys & Webhooks → Secret Key (sk_…).",
        ),
    ),
    capabilities=Capabilities(signed=True, signature_header=b"x-paystack-signature", test_flag=True),
    verify=verify,
    identify=identify,
    translate=translate,
    paste="Paystack: Settings → API Keys & Webhooks → Webhook URL.",
)
