"""
The calls to eBilling, v1 with Basic: a bill, then a prompt on the phone (`ussd_push`) or the portal's page.

Weights as in `ebilling`. A bill is asked about by its number. By our reference it can only be looked for in the list of
all bills, whose order and paging are documented nowhere: what is found there is asked about by its number, and what is
not found there proves nothing. A bill cannot be cancelled and nothing refunded; once there is one it can be paid, so a
prompt that could not be sent never ends as `NotSent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import quote, quote_plus

from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import called, ebilling, strict
from service.providers.base import Asked, Credentials, NotFinal, Parked, Unclear
from service.providers.calls import (
    Accepted,
    Action,
    Approve,
    Asking,
    Broken,
    Call,
    Calls,
    Channel,
    Creating,
    Declined,
    Facts,
    Given,
    Lost,
    Need,
    NotSent,
    Redirect,
    Response,
    Result,
    Wanted,
)

# --- tables -------------------------------------------------------------------------------------------

COUNTRY: Final = "GA"

SYSTEMS: Mapping[str, str] = {"airtel": "airtelmoney", "moov": "moovmoney4"}
"""`payment_system_name` of a prompt [3p, many; one says moovmoney1]."""

PREFIXES: Mapping[str, str] = {"07": "airtel", "06": "moov"}
"""How an operator's local numbers begin [unv]: for a warning beside the field, never a reason to refuse."""

CARD: Final = "ORABANK_NG"  # the portal's own word for cards [3p]
PORTAL_CHOICE: Final = "portal"  # ours: the payer chooses on the portal

EXPIRY_MINUTES: Final = (1440, 720, 360, 180, 60, 30)
"""What the plugin lets choose for `expiry_period` [SDK]."""

NO_INSTRUCTION = ("accepted",)  # the `message` of a prompt that was sent [3p]: nothing for the payer to read

NO_PROMPT = frozenset({401, 403, 404, 405, 406, 422, 429})
"""The push was refused: 406 for another operator's number, and in LAB [3p ×2]; the others as in the failover table."""

LIST_CALLS_MAX: Final = 4

# --- creating -----------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials, facts: Facts = ebilling.FACTS) -> Creating:
    """A bill; then the prompt where the channel is an operator's. The portal where it is not, or none could be sent."""
    amount, number = called.whole(wanted.amount_minor, wanted.currency), msisdn(wanted, channel, facts)
    pair = [called.credential(credentials, name) for name in ("username", "shared_key")]
    unfit = called.unfit(wanted, channel, pair[0] if all(pair) else "")
    if unfit or amount is None:
        return unfit or NotSent("amount")
    if number is None:
        return NotSent("missing_payer_phone")
    headers = ebilling.headers(credentials)
    response = yield Call("POST", str(facts["bills_path"]), headers, json=_bill(wanted, amount, number, facts))
    made = _made(wanted, response)
    if not isinstance(made, Told):
        return made
    if made.facts[0].kind not in ebilling.NOT_FINAL:
        return Accepted(made)  # paid already: there is nothing to ask of anybody
    bill = made.references[0]
    page = Redirect(_page(bill, wanted, channel, facts))
    if not channel.direct:
        return _waits(made, page)
    push = {"payer_msisdn": number, "payment_system_name": channel.code}
    path = str(facts["push_path"]).format(bill=quote(bill, safe=""))
    try:
        response = yield Call("POST", path, headers, json=push)
    except Broken as broken:
        # The bill is there all the same. Without a prompt the portal is left; with one perhaps shown, nobody knows.
        return Lost(broken.reason, made) if broken.sent else _waits(made, page)
    return _pushed(made, bill, page, response)


def msisdn(wanted: Wanted, channel: Channel, facts: Facts = ebilling.FACTS) -> str | None:
    """
    The number as a payer in Gabon writes it, nine digits [3p]; others as they are. A bill has to have one [SDK]; for a
    prompt it is the wallet's and not simply the customer's.
    """
    number = called.digits(wanted.payer_phone or ("" if channel.direct else wanted.customer.phone))
    dialled = str(facts["dialled"])
    if number is None or not dialled or not number.startswith(dialled):
        return number
    local = number.removeprefix(dialled)
    return local if local.startswith("0") else f"0{local}"


def likely_operator(number: str) -> str:
    """Whose a local number probably is, empty where its beginning says nothing [unv]."""
    return PREFIXES.get(number[:2], "")


def expiry_period(wanted: Wanted, facts: Facts) -> int:
    """The longest choice that ends with the payment, else the shortest; in eBilling's unit, rounded up."""
    minutes = called.number(facts, "expiry_minutes")
    if wanted.now_ms and wanted.expires_at_ms is not None:
        left = (wanted.expires_at_ms - wanted.now_ms) // 60_000
        minutes = next((choice for choice in EXPIRY_MINUTES if choice <= left), EXPIRY_MINUTES[-1])
    return -(-minutes // max(1, called.number(facts, "expiry_unit_minutes")))


def _bill(wanted: Wanted, amount: int, number: str, facts: Facts) -> dict[str, object]:
    """What the official plugin sends [SDK]; eBilling itself is to send the payer nothing."""
    longest = called.number(facts, "description_characters_max")
    payer = {"payer_email": wanted.customer.email, "payer_name": wanted.customer.name}
    return {
        "payer_msisdn": number,
        "amount": amount,
        "short_description": called.text(wanted.description, longest) or wanted.reference,
        "external_reference": wanted.reference,
        "expiry_period": expiry_period(wanted, facts),
        "email": False,
        "sms": False,
        **{name: kept for name, value in payer.items() if (kept := called.text(value, strict.ID_CHARACTERS_MAX))},
    }


def _made(wanted: Wanted, response: Response) -> Told | Result:
    """What the answer says of our bill, or what it comes to where there is none to go on with."""
    refused, said = called.turned_away(response.status), strict.document(response.body)
    if isinstance(said, Parked):
        return refused or Lost("unreadable")
    it = ebilling.bill(said)
    number = strict.identifier(it.get("bill_id"))
    if refused and number:
        # A refusal that shows a bill is no proof that there is none.
        refused = Lost("contradictory")
    if refused or number is None:
        return refused or Lost("missing:id")
    found = ebilling.of_bill(it, number, Asked(live=True, reference=wanted.reference))
    if isinstance(found, Unclear):
        # Where it does not say that it is another's, its number is worth keeping: it can be asked about.
        ours = found.reason != "other_payment"
        return Lost(found.reason, Told((number,), (), wanted.reference) if ours else None)
    told = found.told if isinstance(found, NotFinal) else found
    if not isinstance(told, Told):
        return Lost("unreadable")
    if called.other_amount(told, wanted.amount_minor, wanted.currency):
        return Lost("other_payment")
    told = replace(told, reference=wanted.reference)
    no = called.said_no(told)
    return told if no is None else Declined(told, no.reason or Reason.UNKNOWN)


def _waits(told: Told, action: Action) -> Accepted:
    """It waits for the payer: said beside what the bill says, at its time."""
    first = told.facts[0]
    waits = Fact(
        Kind.REQUIRES_ACTION,
        first.movement,
        first.at_ms,
        asked_minor=first.asked_minor,
        currency=first.currency,
        method=first.method,
        source=Source.ANSWER,
    )
    return Accepted(replace(told, facts=(*told.facts, waits)), action)


def _pushed(made: Told, bill: str, page: Redirect, response: Response) -> Result:
    """202 [3p ×2]: the prompt is on its way, whatever else the answer says; a body that names another bill is none."""
    if response.status in NO_PROMPT:
        return _waits(made, page)
    refused = called.turned_away(response.status)
    if refused:
        return Lost(refused.reason, made)
    said = strict.document(response.body)
    if isinstance(said, Parked):
        return Lost("unreadable", made) if response.body else _waits(made, Approve())
    if strict.identifier(said.get("bill_id")) not in (None, bill):
        return Lost("other_payment", made)
    words = strict.word(said.get("message"), 300)
    return _waits(made, Approve("" if words.casefold() in NO_INSTRUCTION else words))


def _page(bill: str, wanted: Wanted, channel: Channel, facts: Facts) -> str:
    """
    The portal's page for a bill: `checkoutnow` [SDK], and for cards the form that goes straight to the bank [3p].

    Where the payer comes back from it proves nothing.
    """
    portal = str(facts["portal_url" if wanted.live else "test_portal_url"]).rstrip("/")
    path = str(facts["card_page_path" if channel.method == "card" else "page_path"])
    back = quote_plus(wanted.return_url, errors="replace")
    return portal + path.format(bill=quote_plus(bill), operator=quote_plus(channel.code), return_url=back)


# --- asking -------------------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials, facts: Facts = ebilling.FACTS) -> Asking:
    """The bill by its number."""
    number = called.theirs(given)
    if number is None:
        return Unclear("no_number_yet")
    response = yield called.call(ebilling.question(number, credentials, facts))
    asked = Asked(live, given.reference or None, given.amount_minor, given.currency)
    return called.never_unknown(ebilling.answer(number, response.status, response.body, asked))


def find(given: Given, live: bool, credentials: Credentials, facts: Facts = ebilling.FACTS) -> Asking:
    """
    The bill with our reference, looked for at both ends of the list [3p: `{current_page, total_entries, entries}`].

    What is not there is not "not known": we do not know the list's order, nor whether all bills are in it.
    """
    last, size = 1, called.number(facts, "list_per_page")
    for turn in range(LIST_CALLS_MAX):
        pages = _ends(last)
        if turn >= len(pages):
            break
        path = f"{facts['bills_path']}?page={pages[turn]}&per_page={size}"
        response = yield Call("GET", path, ebilling.headers(credentials))
        said = None if called.turned_away(response.status) else strict.document(response.body)
        entries = said.get("entries") if isinstance(said, dict) else None
        if not isinstance(said, dict) or not isinstance(entries, list):
            return Unclear("no_list")
        numbers = _ours(entries, given.reference)
        if len(numbers) > 1:
            return Unclear("several_bills")
        if numbers:
            return (yield from fetch(replace(given, references=tuple(numbers)), live, credentials, facts))
        last = _last_page(said, size)
    return Unclear("not_in_list")


def _ends(last: int) -> list[int]:
    """Pages from both ends inwards: new bills are at one of them."""
    return list(dict.fromkeys(page for pair in ((1, last), (2, last - 1)) for page in pair if 1 <= page <= last))


def _last_page(said: strict.Document, asked: int) -> int:
    total, size = said.get("total_entries"), said.get("per_page", asked)
    if type(total) is not int or type(size) is not int or not 0 < size <= total < 10**9:
        return 1
    return -(-total // size)


def _ours(entries: list[object], reference: str) -> list[str]:
    """The numbers of the bills with our reference."""
    bills = [ebilling.bill(entry) for entry in entries if isinstance(entry, dict)]
    ours = [it for it in bills if strict.identifier(it.get("external_reference")) == reference]
    return list(dict.fromkeys(name for it in ours if (name := strict.identifier(it.get("bill_id")))))


# --- the record ---------------------------------------------------------------------------------------

PHONE: Final[frozenset[Need]] = frozenset({"payer_phone"})
"""A bill has to have one [SDK]."""

CALLS = Calls(
    channels=(
        *(
            Channel("mobile_money", ebilling.CURRENCY, COUNTRY, operator, code, direct=True, needs=PHONE)
            for operator, code in SYSTEMS.items()
        ),
        Channel("mobile_money", ebilling.CURRENCY, COUNTRY, code=PORTAL_CHOICE, needs=PHONE),
        Channel("card", ebilling.CURRENCY, code=CARD, needs=PHONE),
    ),
    create=create,
    fetch=fetch,
    find=find,
    facts=ebilling.FACTS,
)
