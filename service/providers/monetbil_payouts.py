"""
Monetbil, paying out: one call, whose answer is the end.

Weights as in `monetbil`; of withdrawals there are public pages and others' code only [3p]. A withdrawal cannot be asked
about, by no name, and repeating one pays again: whatever is lost here is a person's. A notification about it proves
nothing and only says that there is something to look at. What can be paid out cannot be asked either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from service.payments import money
from service.payments.facts import Told
from service.providers import called, monetbil, strict
from service.providers.base import Credentials, Parked
from service.providers.calls import Call, Facts, Lost, NotSent
from service.providers.monetbil_calls import CURRENCIES, OPERATORS, STEPS
from service.providers.payouts import (
    REFUSALS,
    PaidOut,
    Paying,
    PayoutChannel,
    PayoutRefused,
    Payouts,
    PayoutTold,
    Sending,
)

# --- tables -------------------------------------------------------------------------------------------

FACTS: Facts = {
    "withdrawal_path": "/v1/payouts/withdrawal",  # newer pages have /payment before it [3p]
    "service_field": "service_key",  # `service` in one [3p]
    "credentials_words": ("service_not_found", "missing_service", "service_", "service key", "credential", "unauthor"),
    "insufficient_float_words": ("insufficient", "not enough", "low balance"),
    "bad_account_words": ("invalid_msisdn", "phonenumber", "phone number", "msisdn", "not registered"),
    "amount_words": ("amount", "minimum", "maximum"),
    "unsupported_words": ("operator", "not supported", "unavailable"),
    "duplicate_reference_words": ("processing_number", "duplicate", "already"),
    "undecided_words": ("pending", "processing", "progress", "timeout", "timed out", "time out", "waiting", "unknown"),
}
"""What is believed and may be set. The words are parts of a refusal's texts in small letters, which are [unv]."""

REASONS: Final = ("credentials", "insufficient_float", "bad_account", "amount", "unsupported")

TEXTS: Final = ("status", "code", "message")
IDS: Final = ("transaction", "operator_transaction_id")
SUCCESS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}
"""`success`, which pages show as a truth value; everything else in Monetbil's answers is text."""

# --- sending ------------------------------------------------------------------------------------------


def send(paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """`POST /v1/payouts/withdrawal` → `{success, transaction, operator_transaction_id?, message, code?}` [3p]."""
    service, secret = (called.credential(credentials, name) for name in ("service_key", "service_secrets"))
    if not service or not secret:
        return called.CREDENTIALS_WRONG
    amount, number = _amount(paying, channel), called.digits(paying.payee.number)
    if not channel.fits(paying.payee) or paying.currency != channel.currency:
        return PayoutRefused("unsupported")
    if amount is None or number is None:
        return PayoutRefused("amount" if amount is None else "bad_account")
    fields = {
        str(facts["service_field"]): service,
        "service_secret": secret,
        "phonenumber": number,
        "amount": str(amount),
        "operator": channel.code,
        monetbil.PROCESSING: paying.reference,
        "payout_notification_url": paying.callback_url,
    }
    form = tuple((name, value) for name, value in fields.items() if value)
    response = yield Call("POST", str(facts["withdrawal_path"]), {"Accept": "application/json"}, form)
    said = strict.document(response.body)
    if isinstance(said, Parked) or response.status // 100 not in (2, 4):
        return _by_status(response.status)
    return _read(paying, response.status, said, facts)


def _amount(paying: Paying, channel: PayoutChannel) -> int | None:
    """In whole francs, within the limits; None where it cannot be paid out here."""
    minor, most = paying.amount_minor, channel.max_minor
    if minor < channel.min_minor or (most is not None and minor > most) or minor % channel.step_minor:
        return None
    return called.whole(minor, paying.currency)


def _by_status(status: int) -> PaidOut:
    """What an answer comes to whose body says nothing. 422 is a definite no to these very fields."""
    return PayoutRefused("unsupported") if status == 422 else called.turned_away(status) or Lost("unreadable")


def _read(paying: Paying, status: int, said: strict.Document, facts: Facts) -> PaidOut:
    """
    What the body says, which speaks beside the status: with which one refusals come is written nowhere.

    Whatever is neither a clear yes about our withdrawal nor a clear no to it is lost.
    """
    stopped, success = called.turned_away(status), _success(said.get("success"))
    names = tuple(dict.fromkeys(name for key in IDS if (name := strict.identifier(said.get(key)))))
    told = Told(names, (), paying.reference) if names else None
    if stopped is None and _of_another(paying, said):
        return Lost("other_payout")
    if paying.live and strict.word(said.get("testmode")) == "1":
        return Lost(called.TEST_MONEY, told, alert=True)
    if stopped and (success or (names and success is None)):
        return Lost("contradictory", told)
    words = strict.word(said.get("message"), 300)
    if success:
        return PayoutTold("paid", names, words=words)
    if success is None and stopped is None:
        return Lost("unknown_status", told)
    if isinstance(stopped, NotSent) and status != 422 and not names:
        return stopped
    # 422 lists what is wrong below the names of the fields, as placePayment does [docs].
    reason = _reason(facts, *(said.get(key) for key in TEXTS), *(said if status == 422 else ()))
    if reason in ("duplicate_reference", "undecided"):
        return Lost(reason, told)
    if names:
        # It was begun. Words in no table do not say how that ended, and nobody can be asked.
        known = reason in REFUSALS
        return PayoutTold("failed", names, reason=reason, words=words) if known else Lost("unknown_status", told)
    if reason == "credentials":
        return called.CREDENTIALS_WRONG
    if reason or success is False or status == 422:
        return PayoutRefused(reason or "refused", words)
    return stopped or Lost("unknown_status")


def _success(value: object) -> bool | None:
    """Whether it says that it paid; None where it does not say."""
    return SUCCESS.get(str(value).casefold()) if isinstance(value, bool | int | str) else None


def _reason(facts: Facts, *texts: object) -> str:
    """The fixed word of a refusal, by the words that it holds; empty where they are in no table."""
    said = " ".join(strict.word(text, 300) for text in texts).casefold()
    order = ("duplicate_reference", "undecided", *REASONS)
    return next((one for one in order if any(word in said for word in called.words(facts, f"{one}_words"))), "")


def _of_another(paying: Paying, said: strict.Document) -> bool:
    """Documented answers repeat nothing of what was asked; one that does must repeat it rightly."""
    ours = strict.identifier(said.get(monetbil.PROCESSING))
    read = strict.amounts(money.from_major, said.get("currency") or paying.currency, said.get("amount"))
    if isinstance(read, Parked) or ours not in (None, paying.reference):
        return True
    currency, (amount,) = read
    return currency != paying.currency or amount not in (None, paying.amount_minor)


# --- the record ---------------------------------------------------------------------------------------


def _way(country: str, operator: str, code: str) -> PayoutChannel:
    """Amounts are whole francs, so a currency with centimes is paid in hundreds of its minor units."""
    currency = CURRENCIES[country]
    step = STEPS.get(currency, 1)
    return PayoutChannel("mobile_money", currency, country, operator, code, min_minor=step, step_minor=step)


PAYOUTS = Payouts(
    channels=tuple(_way(country, operator, code) for (country, operator), code in OPERATORS.items()),
    send=send,
    facts=FACTS,
)
