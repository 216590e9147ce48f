"""
Moneroo. Facts marked [docs] are read in docs.moneroo.io, [SDK] in moneroo-php and its WooCommerce plugin.

"We do not provide complete information … fetch the latest status" [docs]: a callback only makes us ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source
from service.providers import meaning, signatures, strict
from service.providers.base import (
    AboutPayout,
    Answer,
    Ask,
    Asked,
    Capabilities,
    Credential,
    Credentials,
    Identity,
    Ignored,
    Incoming,
    Meaning,
    NotFinal,
    Parked,
    Provider,
    Refused,
    Request,
    Unclear,
    Unmapped,
    Verified,
)

# --- tables -------------------------------------------------------------------------------------------

EVENTS = frozenset({"payment.initiated", "payment.success", "payment.failed", "payment.cancelled"})
PAYOUTS = "payout."
"""How the types of those about payouts begin: initiated, success and failed [docs]."""

PAYMENT: Mapping[str, Kind] = {
    "initiated": Kind.CREATED,
    "pending": Kind.PENDING,
    "success": Kind.CAPTURED,
    "failed": Kind.FAILED,
    "cancelled": Kind.CANCELED,
}
"""`data.status` [docs]; there is no refund and no dispute."""

NOT_FINAL = frozenset({Kind.CREATED, Kind.PENDING})

ENVIRONMENTS: Mapping[str, bool] = {"live": True, "production": True, "sandbox": False}

REASONS: Mapping[str, Reason] = {
    "insufficient": Reason.INSUFFICIENT_FUNDS,
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
}
"""Parts of `capture.failure_error_code` and `failure_message`; their words are documented nowhere."""

# --- callbacks ----------------------------------------------------------------------------------------


def currency_code(value: object) -> object:
    """A word in callbacks and in retrieve, an object with `code` in verify [docs]."""
    return value.get("code") if isinstance(value, dict) else value


def verify(callback: Incoming, credentials: Credentials, now_ms: int) -> Verified | Refused:
    """`X-Moneroo-Signature`: HMAC-SHA256 of the raw body with the webhook's secret; no time is signed [docs]."""
    live = signatures.secrets(credentials, "webhook_secrets")
    return signatures.over_body(callback, b"x-moneroo-signature", live, "sha256", strong=False)


def identify(callback: Incoming) -> Identity:
    """Moneroo numbers no events: the type, the payment, its status, and the raw body's hash."""
    event = strict.glance(callback.body)
    if event is None:
        return Identity(meaning.key(callback.body))
    type_, it = strict.word(event.get("event")), strict.branch(event, "data")
    live = ENVIRONMENTS.get(strict.word(it.get("environment")))  # not in any documented callback; an answer has it
    return Identity(meaning.key(callback.body, type_, it.get("id"), it.get("status")), type_, live)


def translate(callback: Incoming, received_at_ms: int) -> Meaning:
    """Whatever it says about a payment or a payout, ask."""
    event = strict.document(callback.body)
    if isinstance(event, Parked):
        return event
    type_ = strict.word(event.get("event"))
    if not type_:
        return Parked("missing:event")
    it = strict.branch(event, "data")
    if type_.startswith(PAYOUTS):
        ours, theirs = strict.metadata(it.get("metadata")).get("reference"), it.get("id")
        names = tuple(dict.fromkeys(name for one in (ours, theirs) if (name := strict.identifier(one))))
        return AboutPayout(names) if names else Ignored("payout")
    if type_ not in EVENTS:
        return Unmapped(type_)
    number = strict.identifier(it.get("id"))
    if number is None:
        return Parked("missing:data.id")
    notes = strict.metadata(it.get("metadata"))
    currency, amount = currency_code(it.get("currency")), it.get("amount")
    return Ask(number, meaning.hint(money.from_major, number, currency, amount, notes.get("reference"), notes))


# --- asking -------------------------------------------------------------------------------------------


def headers(credentials: Credentials) -> dict[str, str]:
    """Bearer, and the answer in JSON [docs]."""
    secret = next((key for key in credentials.get("secret_key", ()) if key.strip()), "")
    return {"Authorization": f"Bearer {secret}", "Accept": "application/json"}


def question(reference: str, credentials: Credentials) -> Request:
    """`GET /v1/payments/{id}/verify`, which is authoritative [docs]."""
    return Request("GET", f"/v1/payments/{quote(reference, safe='')}/verify", headers(credentials))


def answer(reference: str, status: int, body: bytes, asked: Asked) -> Answer:
    """What verify says; amounts are in major units: 200 XOF are 200, 100.00 USD are 100.00 [docs]."""
    turned_away = meaning.turned_away(status)
    if turned_away:
        return turned_away
    said = strict.document(body)
    it = said.get("data") if not isinstance(said, Parked) else None
    if not isinstance(it, dict):
        return Unclear("unreadable")
    notes = strict.metadata(it.get("metadata"))
    ours = notes.get("reference")
    if strict.identifier(it.get("id")) != reference or (asked.reference and ours and asked.reference != ours):
        return Unclear("other_payment")
    word = strict.word(it.get("status"))
    kind = PAYMENT.get(word)
    if kind is None:
        return Unclear("unknown_status")
    if asked.live and ENVIRONMENTS.get(strict.word(it.get("environment"))) is False:
        return Unclear("test_answer_in_live")
    read = strict.amounts(money.from_major, currency_code(it.get("currency")), it.get("amount"))
    if isinstance(read, Parked):
        return Unclear(read.reason)
    currency, (amount,) = read
    capture = strict.branch(it, "capture")
    method = strict.word(strict.dig(capture, "method", "short_code") or strict.dig(it, "method", "short_code"))
    failed = kind is Kind.FAILED
    codes = (capture.get("failure_error_code"), capture.get("failure_error_type"), capture.get("failure_message"))
    fact = Fact(
        kind,
        reference,
        # `processed_at` is no time of payment: the merchant sets it. A success has none of its own documented.
        strict.first_ms(it.get(f"{word}_at"), it.get("initiated_at") if kind in NOT_FINAL else None),
        amount if kind is Kind.CAPTURED else None,
        amount,
        currency,
        method=_method(method),
        reason=meaning.reason(REASONS, *codes) if failed else None,
        source=Source.ANSWER,
    )
    told = meaning.answered(meaning.tell((reference,), [fact], ours, notes))
    return NotFinal(told) if kind in NOT_FINAL and not isinstance(told, Unclear) else told


def _method(code: str) -> str | None:
    """`mtn_ci`, `wave_sn` … are wallets; only cards and coins say that they are not [docs]."""
    if not code:
        return None
    return {"card": "card", "crypto": "other"}.get(code.partition("_")[0], "mobile_money")


MONEROO = Provider(
    name="moneroo",
    title="Moneroo",
    queue="payments",
    base_url="https://api.moneroo.io",
    credentials=(
        Credential("secret_key", calls=True, where="Moneroo: Developers → API keys → Secret key (pvk_…)."),
        Credential(
            "webhook_secrets", many=True, verifies=True, where="Moneroo: Developers → Webhooks → Signing secret."
        ),
    ),
    capabilities=Capabilities(signed=True, signature_header=b"x-moneroo-signature", strong=False, ask=True),
    verify=verify,
    identify=identify,
    translate=translate,
    question=question,
    answer=answer,
    paste="Moneroo: Developers → Webhooks → Add webhook.",
)
