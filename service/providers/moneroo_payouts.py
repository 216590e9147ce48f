"""
Moneroo, paying out: initialize, which is all it takes, and verify.

Weights as in `moneroo`. A payout is asked about by Moneroo's own id alone [docs]: one whose first answer was lost is a
person's, unless a callback names it. Our reference travels in `metadata`, which verify gives back. There is no key to
repeat a request with, and no way to ask what can be paid out [docs name none].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from service.payments import money
from service.payments.facts import Told
from service.providers import called, meaning, moneroo, strict
from service.providers.base import Credentials, NotKnown, Parked, Unclear
from service.providers.calls import Call, Facts, Lost
from service.providers.payouts import (
    AskingPayout,
    PaidOut,
    Paying,
    PayoutChannel,
    PayoutRefused,
    Payouts,
    PayoutTold,
    Sending,
    Stage,
)

# --- tables -------------------------------------------------------------------------------------------

WALLETS: Mapping[str, Mapping[tuple[str, str], str]] = {
    "XOF": {
        ("BJ", "mtn"): "mtn_bj",
        ("BJ", "moov"): "moov_bj",
        ("CI", "mtn"): "mtn_ci",
        ("CI", "orange"): "orange_ci",
        ("CI", "moov"): "moov_ci",
        ("CI", "wave"): "wave_ci",
        ("SN", "orange"): "orange_sn",
        ("SN", "wave"): "wave_sn",
        ("SN", "free"): "freemoney_sn",
        ("TG", "moov"): "moov_tg",
        ("TG", "togocel"): "togocel",
        ("ML", "orange"): "orange_ml",
    },
    "XAF": {("CM", "mtn"): "mtn_cm", ("CM", "orange"): "orange_cm", ("CM", "eu"): "eu_mobile_cm"},
    "GHS": {("GH", "mtn"): "mtn_gh", ("GH", "vodafone"): "vodafone_gh"},
    "KES": {("KE", "mpesa"): "mpesa_ke"},
    "TZS": {("TZ", "mpesa"): "mpesa_tz", ("TZ", "airtel"): "airtel_tz"},
    "NGN": {("NG", "mtn"): "mtn_ng", ("NG", "airtel"): "airtel_ng"},
    "RWF": {("RW", "mtn"): "mtn_rw", ("RW", "airtel"): "airtel_rw"},
    "UGX": {("UG", "mtn"): "mtn_ug", ("UG", "airtel"): "airtel_ug"},
    "ZMW": {("ZM", "mtn"): "mtn_zm", ("ZM", "airtel"): "airtel_zm"},
    "CDF": {("CD", "orange"): "orange_cd", ("CD", "airtel"): "airtel_cd"},
    "MWK": {("MW", "airtel"): "airtel_mw"},
}
"""`method` by currency, country and operator [docs]. Fewer than take money in: none in Burkina Faso, Niger, Guinea."""

STAGES: Mapping[str, Stage] = {
    "initiated": "in_transit",
    "pending": "in_transit",
    "success": "paid",
    "failed": "failed",
}
"""`data.status` [docs]; nothing comes back once it is a success."""

FACTS: Facts = {
    "customer_email": "beneficiary@caisse.invalid",  # required [docs]; a name that nobody can have (RFC 2606)
    "msisdn_as_number": 0,  # 1: the number as a number, as a table has it; the samples have text [docs, both]
    "description_characters_max": 255,  # [unv]
    "name_characters_max": 100,  # [unv]
    "insufficient_float_words": ("insufficient", "not enough", "low balance"),
    "bad_account_words": ("msisdn", "phone", "recipient", "account_number", "account number"),
    "amount_words": ("amount", "minimum", "maximum"),
    "unsupported_words": ("method", "currency", "not supported"),
    "duplicate_reference_words": ("duplicate", "already"),
}
"""What is believed and may be set. The words are parts of a refusal's text in small letters, which are [unv]."""

REASONS: Final = ("duplicate_reference", "insufficient_float", "bad_account", "amount", "unsupported")

NAMELESS: Final = "Client"
"""Both names are required [docs]; this stands for a name that nobody gave."""

REFERENCE: Final = "reference"
INITIALIZE: Final = "/v1/payouts/initialize"
REFUSED: Final = (400, 422)
"""Something is missing, or there and not proper [docs]: nothing was begun."""

# --- sending ------------------------------------------------------------------------------------------


def send(paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """`POST /v1/payouts/initialize` → 2xx `{success, message, data: {id}}` [docs]."""
    key = called.credential(credentials, "secret_key")
    if not key or (paying.live and key.startswith(called.TEST_KEYS)):
        return called.CREDENTIALS_WRONG
    amount, number = _amount(paying, channel), called.digits(paying.payee.number)
    if not channel.fits(paying.payee) or paying.currency != channel.currency:
        return PayoutRefused("unsupported")
    if amount is None or number is None:
        return PayoutRefused("amount" if amount is None else "bad_account")
    body = {
        "amount": amount,
        "currency": paying.currency,
        "description": called.text(paying.description, called.number(facts, "description_characters_max"))
        or paying.reference,
        "customer": _customer(paying, facts),
        "metadata": {REFERENCE: paying.reference},
        "method": channel.code,
        "recipient": {"msisdn": int(number) if facts["msisdn_as_number"] else number},
    }
    response = yield Call("POST", INITIALIZE, moneroo.headers(credentials), json=body)
    said = strict.document(response.body)
    if not 200 <= response.status < 300:
        return _refused(paying, response.status, said, facts)
    it = None if isinstance(said, Parked) else said.get("data")
    if isinstance(said, Parked) or not isinstance(it, dict):
        return Lost("unreadable")
    name = strict.identifier(it.get("id"))
    wrong = "contradictory" if said.get("success") is False else _wrong(paying, it)
    if wrong is not None:
        # Where it does not say that it is another's, its id is worth keeping: nothing else finds it again.
        kept = None if wrong == "other_payout" else name
        return Lost(wrong, _named(paying, kept), alert=wrong == called.TEST_MONEY)
    if name is None:
        return Lost("unreadable")
    # Only the id is documented here. A word in no table says no more than that it was taken.
    return _told(name, it, STAGES.get(strict.word(it.get("status")), "in_transit"), facts)


def _amount(paying: Paying, channel: PayoutChannel) -> int | None:
    """In whole major units, within the limits; None where it cannot be paid out here."""
    minor, most = paying.amount_minor, channel.max_minor
    if minor < channel.min_minor or (most is not None and minor > most) or minor % channel.step_minor:
        return None
    return called.whole(minor, paying.currency)


def _customer(paying: Paying, facts: Facts) -> dict[str, str]:
    """E-mail and both names are required [docs]. One word is a first name and stands for both."""
    longest = called.number(facts, "name_characters_max")
    first, _, last = called.text(paying.payee.name.strip(), longest).partition(" ")
    first = first or NAMELESS
    return {"email": str(facts["customer_email"]), "first_name": first, "last_name": last.strip() or first}


def _refused(paying: Paying, status: int, said: strict.Document | Parked, facts: Facts) -> PaidOut:
    """What an answer that is no 2xx comes to. One that shows a payout is no proof that there is none."""
    name = None if isinstance(said, Parked) else strict.identifier(strict.dig(said, "data", "id"))
    if name is not None:
        return Lost("contradictory", _named(paying, name))
    if status not in REFUSED:
        return called.turned_away(status) or Lost("refused")
    words = "" if isinstance(said, Parked) else strict.word(said.get("message"), 300)
    if status == 400 and not words:
        return Lost("refused")  # not Moneroo's envelope [docs]: somebody else's words on the way
    reason = _reason(facts, words, *_errors(said))
    return Lost(reason) if reason == "duplicate_reference" else PayoutRefused(reason, words)


def _errors(said: strict.Document | Parked) -> list[object]:
    """The texts and fields' names below `errors`: a list [docs], or an object by field, as frameworks have it [unv]."""
    errors = None if isinstance(said, Parked) else said.get("errors")
    if isinstance(errors, dict):
        return [*errors, *errors.values()]
    found = errors if isinstance(errors, list) else []
    return [value for one in found for value in (one.values() if isinstance(one, dict) else [one])]


def _reason(facts: Facts, *texts: object) -> str:
    """The fixed word of a refusal or a failure, by the words that it holds."""
    said = " ".join(strict.word(text, 300) for text in texts).casefold()
    return next(
        (one for one in REASONS if any(word in said for word in called.words(facts, f"{one}_words"))), "refused"
    )


def _named(paying: Paying, name: str | None) -> Told | None:
    return Told((name,), (), paying.reference) if name else None


# --- reading ------------------------------------------------------------------------------------------


def _wrong(paying: Paying, it: Mapping[str, object]) -> str | None:
    """Why an answer is not to be believed, None where nothing in it speaks against it."""
    if paying.live and moneroo.ENVIRONMENTS.get(strict.word(it.get("environment"))) is False:
        return called.TEST_MONEY
    ours = strict.metadata(it.get("metadata")).get(REFERENCE)
    if ours is not None and ours != paying.reference:
        return "other_payout"
    currency = moneroo.currency_code(it.get("currency"))
    read = strict.amounts(money.from_major, currency or paying.currency, it.get("amount"))
    if isinstance(read, Parked):
        return read.reason
    code, (amount,) = read
    return "other_payout" if code != paying.currency or amount not in (None, paying.amount_minor) else None


def _told(name: str, it: Mapping[str, object], stage: Stage, facts: Facts) -> PayoutTold:
    """Its words, where it failed: `disburse` has a text, a code and a type, and the operator's own text [docs]."""
    disburse = strict.branch(it, "disburse")
    texts = [disburse.get(key) for key in ("failure_message", "failure_error_code", "failure_error_type")]
    failed = stage == "failed"
    return PayoutTold(
        stage,
        (name,),
        reason=_failure(facts, texts) if failed else "",
        words=next((word for text in texts if (word := strict.word(text, 300))), "") if failed else "",
        at_ms=strict.first_ms(it.get(f"{strict.word(it.get('status'))}_at")),
    )


def _failure(facts: Facts, texts: list[object]) -> str:
    """Of a payout that ended; what is said of a reference says nothing about one that was taken."""
    reason = _reason(facts, *texts)
    return "refused" if reason == "duplicate_reference" else reason


def ask(paying: Paying, credentials: Credentials, facts: Facts = FACTS) -> AskingPayout:
    """
    `GET /v1/payouts/{id}/verify` [docs].

    A 404 is documented, and still never "not known": Moneroo itself gave the id, so it means another account's key or
    a wrong address, and who believed it would pay again.
    """
    name = next((one for one in paying.names if one != paying.reference), None)
    if name is None:
        return Unclear("not_named")
    response = yield Call("GET", f"/v1/payouts/{quote(name, safe='')}/verify", moneroo.headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away is not None:
        return Unclear("not_known") if isinstance(turned_away, NotKnown) else turned_away
    said = strict.document(response.body)
    it = None if isinstance(said, Parked) else said.get("data")
    if not isinstance(it, dict):
        return Unclear("unreadable")
    wrong = "other_payout" if strict.identifier(it.get("id")) != name else _wrong(paying, it)
    if wrong is not None:
        return Unclear(wrong)
    stage = STAGES.get(strict.word(it.get("status")))
    return Unclear("unknown_status") if stage is None else _told(name, it, stage, facts)


# --- the record ---------------------------------------------------------------------------------------


def _way(currency: str, country: str, operator: str, code: str) -> PayoutChannel:
    """Amounts are whole major units [docs]: no cents of a cedi."""
    step = int(10 ** money.exponent(currency))
    return PayoutChannel("mobile_money", currency, country, operator, code, min_minor=step, step_minor=step)


PAYOUTS = Payouts(
    channels=tuple(
        _way(currency, country, operator, code)
        for currency, codes in WALLETS.items()
        for (country, operator), code in codes.items()
    ),
    send=send,
    ask=ask,
    by_name_only=True,
    facts=FACTS,
)
