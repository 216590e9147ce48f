"""FedaPay. Facts marked [SDK] are read in fedapay-php and -node, [docs] in docs.fedapay.com, [3p] in others' code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source, Told
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

# --- tables -------------------------------------------------------------------------------------------

TRANSACTION: Mapping[str, tuple[Kind, bool]] = {
    "pending": (Kind.PENDING, False),
    "approved": (Kind.CAPTURED, False),
    "transferred": (Kind.CAPTURED, False),  # the same money, sent on to the merchant
    "declined": (Kind.FAILED, False),
    "canceled": (Kind.CANCELED, False),
    "expired": (Kind.EXPIRED, False),
    "refunded": (Kind.CAPTURED, True),
    "approved_partially_refunded": (Kind.CAPTURED, True),
    "transferred_partially_refunded": (Kind.CAPTURED, True),
}
"""A transaction's `status` [SDK], and whether it says that money went back."""

IN_FULL = frozenset({"refunded"})

EVENTS: Mapping[str, Mapping[str, Kind]] = {
    "transaction.created": {},
    "transaction.approved": {},
    "transaction.declined": {},
    "transaction.canceled": {},
    "transaction.transferred": {},
    "transaction.updated": {},
    "transaction.expired": {},
    "transaction.refunded": {},
    "transaction.approved_partially_refunded": {},
    "transaction.transferred_partially_refunded": {},
    # Deleting is possible while pending only, and cancels [docs]; the entity still says pending.
    "transaction.deleted": {"pending": Kind.CANCELED},
}
"""Event names [SDK/docs/3p]. What one means comes from the entity's status; here stand the exceptions."""

PAYOUT: Final = "payout."
"""How events about money paid out begin; payout.sent and payout.failed were seen [3p]."""

IGNORED: Mapping[str, str] = {"customer.": "customer", PAYOUT: "payout", "account.": "account"}

MOBILE_MODES = ("mtn", "moov", "airtel", "free_sn", "togocel", "wave", "orange", "sbin", "momo_test", "e_money")
"""How modes of mobile money begin [SDK node, live payloads]; `momo_test` is the sandbox's [docs]."""

REASONS: Mapping[str, Reason] = {
    "insufficient fund": Reason.INSUFFICIENT_FUNDS,
    "low balance": Reason.INSUFFICIENT_FUNDS,
    "limit": Reason.LIMIT_REACHED,
    "wrong pin": Reason.WRONG_PIN,
    "invalid pin": Reason.WRONG_PIN,
    "incorrect pin": Reason.WRONG_PIN,
    "timeout": Reason.TIMED_OUT,
    "timed out": Reason.TIMED_OUT,
    "expired": Reason.TIMED_OUT,
    "rejected": Reason.DECLINED_BY_USER,
    "declined by": Reason.DECLINED_BY_USER,
    "payer not found": Reason.NO_WALLET,
    "not registered": Reason.NO_WALLET,
    "unavailable": Reason.PROVIDER_UNAVAILABLE,
    "api error": Reason.PROVIDER_UNAVAILABLE,
}
"""Parts of `last_error_code` and `last_error_message`; only INSUFFICIENT_FUND_ERROR and API_ERROR were seen."""

# Canceled with one of these means that the operator refused, not that somebody changed their mind. API_ERROR is not
# among them: it was seen on approved transactions too.
REFUSED_BY_OPERATOR = frozenset({Reason.INSUFFICIENT_FUNDS, Reason.LIMIT_REACHED, Reason.WRONG_PIN, Reason.NO_WALLET})

REFUND_DONE = frozenset({None, "approved", "processed", "refunded", "succeeded", "success", "transferred"})
REFUND_NOT_DONE = frozenset({"pending", "failed", "declined", "canceled"})
"""Words of `refunds[].status`; nobody documents them [unv], so any other word leaves the total unsaid."""

# --- reading ------------------------------------------------------------------------------------------


def _refunded(entity: Mapping[str, object], currency: str | None, amount: int | None) -> int | None:
    """What `refunds` add up to, None where that cannot be read for certain."""
    refunds = entity.get("refunds")
    if not isinstance(refunds, list) or not 0 < len(refunds) <= 200 or currency is None or amount is None:
        return None
    total = 0
    for refund in refunds:
        status = strict.dig(refund, "status")
        if isinstance(status, str | None) and status in REFUND_NOT_DONE:
            continue
        back = money.from_major(strict.dig(refund, "amount"), currency)
        if not isinstance(status, str | None) or status not in REFUND_DONE or back is None:
            return None
        total += back
    return total if 0 < total <= amount else None


def transaction(name: str, entity: Mapping[str, object], source: Source = Source.CALLBACK) -> Told | Parked:
    """What a transaction says of itself, in the event `name` or in an answer (no name)."""
    status = strict.word(entity.get("status"))
    if status not in TRANSACTION:
        return Parked(f"unknown_status:{status}")
    kind, money_back = TRANSACTION[status]
    kind = EVENTS.get(name, {}).get(status, kind)
    number = strict.identifier(entity.get("id"))
    if number is None:
        return Parked("missing:entity.id")
    # `amount` is what was asked for; `amount_debited` has the payer's fees in it.
    iso = strict.dig(entity, "currency", "iso")
    said = strict.amounts(money.from_major, iso, entity.get("amount"))
    if isinstance(said, Parked):
        return said
    currency, (amount,) = said
    why: Reason | None = None
    if kind is Kind.CANCELED:
        why = meaning.reason(REASONS, entity.get("last_error_code"))
        kind, why = (Kind.FAILED, why) if why in REFUSED_BY_OPERATOR else (kind, None)
    elif kind is Kind.FAILED:
        why = meaning.reason(REASONS, entity.get("last_error_code"), entity.get("last_error_message"))
    captured = kind is Kind.CAPTURED
    if captured:
        # transferred and refunded come days later: dated by them, the capture would look late.
        times = ("approved_at", "paid_at", "updated_at" if status == "approved" else "created_at")
    else:
        times = (f"{status}_at", "updated_at", "created_at")
    mode = strict.word(entity.get("mode"))
    facts = [
        Fact(
            kind,
            number,
            strict.first_ms(*(entity.get(time) for time in times)),
            amount if captured else None,
            amount,
            currency,
            fee_minor=money.from_major(entity.get("fees"), currency) if captured and currency else None,
            method=("mobile_money" if mode.startswith(MOBILE_MODES) else "other") if mode else None,
            reason=why,
            source=source,
        )
    ]
    if money_back:
        back = amount if status in IN_FULL else _refunded(entity, currency, amount)
        at_ms = strict.first_ms(entity.get("refunded_at"), entity.get("updated_at"))
        facts.append(Fact(Kind.REFUNDED_TOTAL, number, at_ms, back, currency=currency, source=source))
    trx = strict.identifier(entity.get("reference"))
    names_of_it = (number, trx if trx and not trx.isdigit() else None)  # a bare number may be another one's id
    notes = strict.metadata(entity.get("custom_metadata"))  # `metadata` is FedaPay's own
    return meaning.tell(names_of_it, facts, entity.get("merchant_reference"), notes)


def _payout(entity: object) -> tuple[str, ...]:
    """A payout's names: the reference that we gave it, and FedaPay's number."""
    ours = strict.dig(entity, "merchant_reference") or strict.dig(entity, "custom_metadata", "reference")
    names = (strict.identifier(name) for name in (ours, strict.dig(entity, "id")))
    return tuple(dict.fromkeys(name for name in names if name))


# --- the contract -------------------------------------------------------------------------------------


def verify(callback: Incoming, credentials: Credentials, now_ms: int) -> Verified | Refused:
    """`X-FEDAPAY-SIGNATURE: t=…,s=…`; the key is the endpoint's secret as it stands [SDK]."""
    live = signatures.secrets(credentials, "webhook_secrets")
    return signatures.over_time_and_body(callback, b"x-fedapay-signature", b"s", live, now_ms)


def identify(callback: Incoming) -> Identity:
    """FedaPay numbers no events: the name, the transaction, when it was changed, and the raw body's hash."""
    event = strict.glance(callback.body)
    if event is None:
        return Identity(meaning.key(callback.body))
    entity = strict.branch(event, "entity")
    name = strict.word(event.get("name"))
    key = meaning.key(callback.body, name, entity.get("id"), entity.get("updated_at"))
    # Nothing says live; the sandbox's own mode is the only sure sign.
    return Identity(key, name, False if entity.get("mode") == "momo_test" else None)


_SPACE = re.compile(r"[ \t\n\r]*")


def redact(body: bytes) -> bytes:
    """
    Cut `account` out: the merchant's users with their e-mail addresses, public keys and balances.

    Every other byte stays as it came. What cannot be read is stored as it is: nobody can say where to cut.
    """
    event = strict.document(body)
    if isinstance(event, Parked) or "account" not in event:
        return body
    text, decoder = body.decode(), json.JSONDecoder()

    def past_space(at: int) -> int:
        found = _SPACE.match(text, at)
        return found.end() if found else at

    at = past_space(0) + 1
    kept: list[str] = []
    while True:
        start = at
        name, at = decoder.raw_decode(text, past_space(at))
        _, at = decoder.raw_decode(text, past_space(past_space(at) + 1))
        if name != "account":
            kept.append(text[start:at])
        at = past_space(at)
        if text[at] == "}":
            break
        at += 1
    return ("{" + ",".join(kept) + text[at:]).encode()


def translate(callback: Incoming, received_at_ms: int) -> Meaning:
    """What the event says."""
    event = strict.document(callback.body)
    if isinstance(event, Parked):
        return event
    name = strict.word(event.get("name"))
    if not name:
        return Parked("missing:name")
    entity = event.get("entity")
    if name not in EVENTS:
        about = _payout(entity) if name.startswith(PAYOUT) else ()
        return AboutPayout(about) if about else meaning.of_no_payment(name, IGNORED)
    return transaction(name, entity) if isinstance(entity, dict) else Parked("missing:entity")


FEDAPAY = Provider(
    name="fedapay",
    title="FedaPay",
    queue="payments",
    base_url="https://api.fedapay.com",
    credentials=(
        Credential("secret_key", calls=True, optional=True, where="FedaPay: Applications → API keys → Secret key."),
        Credential(
            "webhook_secrets",
            many=True,
            verifies=True,
            where="FedaPay: Webhooks → the webhook → Secret (wh_live_… or wh_sandbox_…).",
        ),
    ),
    capabilities=Capabilities(signed=True, signature_header=b"x-fedapay-signature", timestamped=True),
    verify=verify,
    identify=identify,
    translate=translate,
    redact=redact,
    paste="FedaPay: Webhooks → New webhook.",
)
