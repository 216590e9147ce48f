"""
The calls to Monetbil: its widget, placePayment and checkPayment. Weights as in `monetbil`.

A payment is asked about by Monetbil's own number alone. A placePayment whose answer was lost, and a page of the widget
that nobody has paid on yet, have no number that we know: only a callback can bring it, and till then nothing is
concluded. There is no idempotency key, no cancel, no refund [docs name none].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import called, meaning, monetbil, signatures, strict
from service.providers.base import Asked, Credentials, Parked, Unclear
from service.providers.calls import (
    Accepted,
    Action,
    Approve,
    Asking,
    Call,
    Calls,
    Channel,
    Creating,
    Declined,
    Facts,
    Given,
    Lost,
    NotSent,
    Redirect,
    Response,
    Result,
    Wanted,
)

# --- tables -------------------------------------------------------------------------------------------

WIDGET: Final = "widget"
"""Our own code for the channel of the widget."""

CURRENCIES: Mapping[str, str] = {
    "CM": "XAF",
    "CG": "XAF",
    "GA": "XAF",
    "SN": "XOF",
    "BJ": "XOF",
    "GN": "GNF",
    "CD": "CDF",
}
"""Where Monetbil takes money, and in what [docs by way of 3p]. Liberia and Uganda are left out."""

OPERATORS: Mapping[tuple[str, str], str] = {
    ("CM", "mtn"): "CM_MTNMOBILEMONEY",
    ("CM", "orange"): "CM_ORANGEMONEY",
    ("CM", "eu"): "CM_EUMM",
    ("SN", "orange"): "SN_ORANGEMONEY",
    ("BJ", "mtn"): "BJ_MTNMOBILEMONEY",
    ("BJ", "moov"): "BJ_MOOVMONEY",
    ("CG", "mtn"): "CG_MTNMOBILEMONEY",
    ("CG", "airtel"): "CG_AIRTELMONEY",
    ("CD", "orange"): "CD_ORANGEMONEY",
    ("CD", "airtel"): "CD_AIRTELMONEY",
    ("GN", "mtn"): "GN_MTNMOBILEMONEY",
    ("GN", "orange"): "GN_ORANGEMONEY",
    ("GA", "moov"): "GA_MOOVMONEY",
    ("GA", "airtel"): "GA_AIRTELMONEY",
}
"""Their codes: Cameroon, Senegal and Benin [SDK], the others [docs by way of 3p], GA_AIRTELMONEY [3p, one]."""

STEPS: Mapping[str, int] = {"CDF": 100}
"""Amounts are whole francs, so a currency with centimes is taken in hundreds of its minor units."""

ACCEPTED: Final = "REQUEST_ACCEPTED"  # `status` of placePayment [docs]

DECLINED: Mapping[str, Reason] = {"INVALID_MSISDN": Reason.NUMBER_MISMATCH}  # [docs, 3p]

BY_REDIRECT: Final = "payment_url"
BY_USSD: Final = "channel_ussd"

# --- creating -----------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials, facts: Facts = monetbil.FACTS) -> Creating:
    """The widget's page where the payer chooses, else a prompt on the phone."""
    key, amount = called.credential(credentials, "service_key"), called.whole(wanted.amount_minor, wanted.currency)
    unfit = called.unfit(wanted, channel, key)
    if unfit or amount is None:
        return unfit or NotSent("amount")
    shared = {
        "amount": str(amount),
        "currency": wanted.currency,
        "country": channel.country,
        **_refs(wanted),
        **_payer(wanted),
        "notify_url": wanted.callback_url,
    }
    if channel.code == WIDGET:
        secrets = signatures.secrets(credentials, "service_secrets")
        if not secrets:
            return called.CREDENTIALS_WRONG
        phone = called.digits(wanted.payer_phone or wanted.customer.phone) or ""
        form = _given(shared | {"locale": wanted.locale, "phone": phone, "return_url": wanted.return_url})
        written = quote(key, safe="", errors="replace")
        path, url = str(facts["widget_path"]).format(service_key=written), str(facts["widget_url"])
        signed = (*form, ("sign", sign(secrets, form)))
        response = yield Call("POST", path, _HEADERS, signed, base_url=url, secrets=(written,))
        return _page(wanted, response, facts)
    number = called.digits(wanted.payer_phone)
    if number is None:
        return NotSent("missing_payer_phone")
    form = _given({"service": key, "phonenumber": number, "operator": channel.code} | shared)
    response = yield Call("POST", str(facts["place_path"]), _HEADERS, form)
    return _placed(wanted, response, facts)


_HEADERS: Mapping[str, str] = {"Accept": "application/json"}


def sign(secrets: list[bytes], form: tuple[tuple[str, str], ...]) -> str:
    """`sign` of a request to the widget, with the newest secret: made as that of a notification is [SDK]."""
    return monetbil.signature(secrets[0], [(name.encode(), value.encode()) for name, value in form])


def _refs(wanted: Wanted) -> dict[str, str]:
    """Our reference is both: notifications and answers name one of them, and must not name what was bought instead."""
    return {"item_ref": wanted.reference, "payment_ref": wanted.reference}


def _payer(wanted: Wanted) -> dict[str, str]:
    first, _, last = wanted.customer.name.strip().partition(" ")
    return {"first_name": first, "last_name": last.strip(), "email": wanted.customer.email}


def _given(fields: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What is not empty; a field that stands there empty would be signed as well, and says nothing."""
    return tuple(
        (name, kept) for name, value in fields.items() if (kept := called.text(value, called.URL_CHARACTERS_MAX))
    )


def _page(wanted: Wanted, response: Response, facts: Facts) -> Result:
    """`{success: true, payment_url}` [SDK], or false with a `message` [3p]: then there is no page to pay on."""
    said = _read(wanted, response, facts)
    if not isinstance(said, dict):
        return said
    if said.get("success") is False:
        return _declined(wanted, meaning.reason(monetbil.REASONS, said.get("message")))
    if said.get("success") is not True:
        return Lost("unknown_status")
    if _of_another(wanted, said):
        return Lost("other_payment")
    url = called.link(said.get(BY_REDIRECT))
    # The page has no number yet, so the payment has no name but ours.
    return Lost("bad_url") if url is None else _accepted(wanted, (), Redirect(url))


def _placed(wanted: Wanted, response: Response, facts: Facts) -> Result:
    """What placePayment says: `status`, and with REQUEST_ACCEPTED the payment's number and what the payer dials."""
    said = _read(wanted, response, facts)
    if not isinstance(said, dict):
        return said
    if strict.word(said.get("status")) != ACCEPTED:
        return _lost(wanted, said, "unknown_status")
    number = strict.identifier(said.get("paymentId"))
    if number is None:
        return Lost("missing:id")
    if _of_another(wanted, said):
        return Lost("other_payment")
    url, dial = called.link(said.get(BY_REDIRECT)), strict.word(said.get(BY_USSD), 200)
    # Without anything to dial and with a page, the operator has a page of its own [3p: `payment_url?`].
    return _accepted(wanted, (number,), Redirect(url) if url and not dial else Approve(dial))


def _read(wanted: Wanted, response: Response, facts: Facts) -> strict.Document | Result:
    """
    The document of a 2xx that says nothing known against us, or what the answer comes to.

    Its refusals were seen with `status` in the body, and not with which HTTP status [3p]: below 500 the body speaks
    first. 422 lists the fields [docs]; where it complains of `service`, it is our settings that are wrong.
    """
    refused = called.turned_away(response.status)
    if response.status >= 500 and refused:
        return refused
    said = strict.document(response.body)
    if isinstance(said, Parked):
        return refused or Lost("unreadable")
    status = strict.word(said.get("status"))
    if status == ACCEPTED or said.get("success") is True or strict.identifier(said.get("paymentId")):
        return _lost(wanted, said, "contradictory") if refused else said
    if status in called.words(facts, "credentials_words") or (response.status == 422 and "service" in said):
        return called.CREDENTIALS_WRONG
    if status in called.words(facts, "nothing_asked_words"):
        return NotSent("unsupported")
    if status in DECLINED:
        return _declined(wanted, DECLINED[status])
    return refused or said


def _of_another(wanted: Wanted, said: strict.Document) -> bool:
    """Documented answers repeat nothing of what was asked; one that does must repeat it rightly."""
    names = [name for key in ("payment_ref", "item_ref") if (name := strict.identifier(said.get(key)))]
    sums = strict.amounts(money.from_major, said.get("currency") or wanted.currency, said.get("amount"))
    if isinstance(sums, Parked) or (names and wanted.reference not in names):
        return True
    currency, (amount,) = sums
    return currency != wanted.currency or amount not in (None, wanted.amount_minor)


def _lost(wanted: Wanted, said: strict.Document, reason: str) -> Lost:
    """Lost, with the payment's number where there is one: nothing else finds it again."""
    number = None if _of_another(wanted, said) else strict.identifier(said.get("paymentId"))
    return Lost(reason, Told((number,), (), wanted.reference) if number else None)


def _accepted(wanted: Wanted, names: tuple[str, ...], action: Action) -> Accepted:
    waits = Fact(
        Kind.REQUIRES_ACTION, names[0] if names else wanted.reference, method="mobile_money", source=Source.ANSWER
    )
    return Accepted(Told(names, (waits,), wanted.reference), action)


def _declined(wanted: Wanted, reason: Reason) -> Declined:
    no = Fact(Kind.FAILED, wanted.reference, method="mobile_money", reason=reason, source=Source.ANSWER)
    return Declined(Told((), (no,), wanted.reference), reason)


# --- asking -------------------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials, facts: Facts = monetbil.FACTS) -> Asking:
    """checkPayment by the payment's number; the answer is bound to our service, reference and number."""
    number = called.theirs(given)
    if number is None:
        return Unclear("no_number_yet")
    response = yield called.call(monetbil.question(number, credentials, facts))
    service = called.credential(credentials, "service_key") or None
    asked = Asked(live, given.reference or None, given.amount_minor, given.currency, service)
    return called.never_unknown(monetbil.answer(number, response.status, response.body, asked))


# --- the record ---------------------------------------------------------------------------------------

CALLS = Calls(
    channels=(
        *(
            Channel(
                "mobile_money",
                CURRENCIES[country],
                country,
                operator,
                code,
                direct=True,
                min_minor=STEPS.get(CURRENCIES[country], 1),
                step_minor=STEPS.get(CURRENCIES[country], 1),
                needs=frozenset({"payer_phone"}),
            )
            for (country, operator), code in OPERATORS.items()
        ),
        *(
            Channel(
                "mobile_money",
                currency,
                country,
                code=WIDGET,
                min_minor=STEPS.get(currency, 1),
                step_minor=STEPS.get(currency, 1),
            )
            for country, currency in CURRENCIES.items()
        ),
    ),
    create=create,
    fetch=fetch,
    facts=monetbil.FACTS,
)
