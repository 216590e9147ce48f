"""
Monetbil. Facts marked [SDK] are read in monetbil-php, [docs] in its public pages, [3p] in others' code.

Its signature is weak (MD5 over values without anything between them) and sometimes missing: a callback only makes us
ask, and what checkPayment answers is the fact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

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
    Verified,
)
from service.providers.calls import Facts

# --- tables -------------------------------------------------------------------------------------------

TRANSACTION: Mapping[str, tuple[Kind, bool]] = {
    "1": (Kind.CAPTURED, False),
    "0": (Kind.FAILED, False),
    "-1": (Kind.CANCELED, False),
    "-2": (Kind.CAPTURED, False),  # refunded: it was captured, and all of it went back
    "7": (Kind.CAPTURED, True),
    "8": (Kind.FAILED, True),
    "9": (Kind.CANCELED, True),
}
"""`transaction.status` of checkPayment [SDK constants], and whether it is a test's: 7, 8 and 9 move no money."""

FACTS: Facts = {
    "check_path": "/payment/v1/checkPayment",  # [docs, SDK]
    "place_path": "/payment/v1/placePayment",  # [docs, SDK]
    "widget_path": "/widget/v2.1/{service_key}",  # [docs, SDK]
    "widget_url": "",  # empty: the API's own host, as seven public integrations do [3p]; the SDK's is www.monetbil.com
    "credentials_words": ("SERVICE_NOT_FOUND", "MISSING_SERVICE"),  # `status` of a refusal [3p, by trying]
    "nothing_asked_words": ("MISSING_MSISDN",),  # [3p x2]
}
"""What is believed and may be set. A `status` in no table proves nothing (ORDER_ALREADY_EXISTS, SERVER_ERROR [3p])."""

PROCESSING = "processing_number"
WITHDRAWAL_NAMES = (PROCESSING, "transaction", "transaction_id", "transaction_uuid", "operator_transaction_id")
"""How a withdrawal is named: by our reference, then by whatever is theirs; its notification's fields are [unv]."""

REFUNDED = "-2"
WAITED_TOO_LONG = "waiting time expired"  # `message` of a failed one [docs sample]
ALLOW_UNSIGNED = "allow_unsigned"  # a credential "true": services that do not sign may still make us ask

REASONS: Mapping[str, Reason] = {
    "insufficient": Reason.INSUFFICIENT_FUNDS,
    "low balance": Reason.INSUFFICIENT_FUNDS,
    "not enough": Reason.INSUFFICIENT_FUNDS,
    "limit": Reason.LIMIT_REACHED,
    "wrong pin": Reason.WRONG_PIN,
    "invalid pin": Reason.WRONG_PIN,
    "incorrect pin": Reason.WRONG_PIN,
    WAITED_TOO_LONG: Reason.TIMED_OUT,
    "timeout": Reason.TIMED_OUT,
    "rejected": Reason.DECLINED_BY_USER,
    "cancelled by": Reason.DECLINED_BY_USER,
    "not registered": Reason.NO_WALLET,
    "invalid msisdn": Reason.NUMBER_MISMATCH,
    "unavailable": Reason.PROVIDER_UNAVAILABLE,
}
"""Parts of `message`; its texts are documented nowhere but for the waiting time [3p]."""

# --- callbacks ----------------------------------------------------------------------------------------


def _raw(callback: Incoming) -> bytes:
    """The form: the body, or the query where the service notifies by GET."""
    return callback.query if callback.method == "GET" else callback.body


def signature(secret: bytes, fields: Iterable[tuple[bytes, bytes]]) -> str:
    """The MD5 of the secret and the values in the order of their names, `sign` left out and nothing between [SDK]."""
    values = b"".join(value for name, value in sorted(fields) if name != b"sign")
    return hashlib.md5(secret + values, usedforsecurity=False).hexdigest()


def verify(callback: Incoming, credentials: Credentials, now_ms: int) -> Verified | Refused:
    """`sign` over the decoded values: bytes, as PHP has them. The form is split for that and not read further."""
    live = signatures.secrets(credentials, "service_secrets")
    if not live:
        return Refused("no_secret")
    fields = strict.split(_raw(callback))
    if isinstance(fields, Parked):
        return Refused("not_form")
    given = [value for name, value in fields if name == b"sign"]
    if not given:
        allowed = "true" in credentials.get(ALLOW_UNSIGNED, ())
        return Verified(strong=False) if allowed else Refused("no_sign")
    right = [signature(secret, fields).encode() for secret in live]
    return Verified(strong=False) if signatures.matches(right, given) else Refused("bad_signature")


def identify(callback: Incoming) -> Identity:
    """Monetbil numbers no events: the transaction, its status, and the raw form's hash."""
    raw = _raw(callback)
    fields = strict.form(raw)
    if isinstance(fields, Parked):
        return Identity(meaning.key(raw))
    status, test = fields.get("status", ""), fields.get("testmode", "")
    live = False if test == "1" or TRANSACTION.get(status, (None, False))[1] else True if test == "0" else None
    return Identity(meaning.key(raw, fields.get("transaction_id"), status), strict.word(status), live)


def translate(callback: Incoming, received_at_ms: int) -> Meaning:
    """Whatever it says, ask. What names a processing number is about a withdrawal, which cannot be asked about."""
    fields = strict.form(_raw(callback))
    if isinstance(fields, Parked):
        return fields
    if PROCESSING in fields:
        found = (strict.identifier(fields.get(name)) for name in WITHDRAWAL_NAMES)
        names = tuple(dict.fromkeys(name for name in found if name))
        return AboutPayout(names) if names else Ignored("payout")
    number = strict.identifier(fields.get("transaction_id"))
    if number is None:
        return Parked("missing:transaction_id")
    ours = fields.get("payment_ref") or fields.get("item_ref")
    return Ask(number, meaning.hint(money.from_major, number, fields.get("currency"), fields.get("amount"), ours))


# --- asking -------------------------------------------------------------------------------------------


def question(reference: str, credentials: Credentials, facts: Facts = FACTS) -> Request:
    """checkPayment takes no credential [SDK]: what comes back is bound to the payment's id, and to what we know."""
    headers = {"Accept": "application/json"}
    return Request("POST", str(facts["check_path"]), headers, form={"paymentId": reference})


def answer(reference: str, status: int, body: bytes, asked: Asked) -> Answer:
    """
    What checkPayment says. All values are text.

    Without `transaction` it is not final, whatever `message` says: "payment finish" was seen without one [3p].
    """
    turned_away = meaning.turned_away(status)
    if turned_away:
        return turned_away
    said = strict.document(body)
    if isinstance(said, Parked):
        return Unclear("unreadable")
    number = strict.identifier(said.get("paymentId"))
    if number not in (None, reference):
        return Unclear("other_payment")
    it = said.get("transaction")
    if not isinstance(it, dict):
        return NotFinal()
    if {number, strict.identifier(it.get("transaction_UUID"))} - {None} != {reference}:
        return Unclear("other_payment")
    ours = [name for key in ("payment_ref", "item_ref") if (name := strict.identifier(it.get(key)))]
    if asked.reference and ours and asked.reference not in ours:
        return Unclear("other_payment")
    if asked.account and _service(it) not in (None, asked.account):
        return Unclear("other_account")
    code = strict.word(it.get("status"))
    if code not in TRANSACTION:
        return Unclear("unknown_status")
    kind, test = TRANSACTION[code]
    if asked.live and (test or strict.word(it.get("testmode")) == "1"):
        return Unclear("test_answer_in_live")
    read = strict.amounts(money.from_major, it.get("currency"), it.get("amount"), it.get("fee"))
    if isinstance(read, Parked):
        return Unclear(read.reason)
    currency, (amount, fee) = read
    why: Reason | None = None
    if kind is Kind.FAILED:
        why = meaning.reason(REASONS, it.get("message"))
        if WAITED_TOO_LONG in strict.word(it.get("message")).casefold():
            kind, why = Kind.EXPIRED, None
    captured = kind is Kind.CAPTURED
    facts = [
        Fact(
            kind,
            reference,
            strict.seconds_ms(it.get("end_time")),
            amount if captured else None,
            amount,
            currency,
            fee_minor=fee if captured else None,
            method="mobile_money",
            reason=why,
            source=Source.ANSWER,
        )
    ]
    if code == REFUNDED:
        # No time: `end_time` is the payment's.
        facts.append(Fact(Kind.REFUNDED_TOTAL, reference, amount_minor=amount, currency=currency, source=Source.ANSWER))
    return meaning.answered(meaning.tell((reference,), facts, ours[0] if ours else None))


def _service(it: Mapping[str, object]) -> str | None:
    """Whose service took the payment; documented samples hold it in the kept query of the first request only."""
    kept = it.get("query_string")
    query = strict.document(kept.encode()) if isinstance(kept, str) else None
    named = (it.get("service_key"), it.get("service"), strict.dig(query, "service"))
    return next((name for value in named if (name := strict.identifier(value))), None)


MONETBIL = Provider(
    name="monetbil",
    title="Monetbil",
    queue="monetbil",
    base_url="https://api.monetbil.com",
    credentials=(
        Credential("service_key", calls=True, where="Monetbil: Services → the service → Service key."),
        Credential(
            "service_secrets",
            many=True,
            verifies=True,
            where="Monetbil: Services → the service → Service secret.",
        ),
    ),
    capabilities=Capabilities(signed=True, test_flag=True, strong=False, ask=True, methods=("POST", "GET")),
    verify=verify,
    identify=identify,
    translate=translate,
    question=question,
    answer=answer,
    acknowledgement=b"received",
    acknowledgement_type=b"text/plain",
    paste="Monetbil: Services → the service → Notification URL.",
)
