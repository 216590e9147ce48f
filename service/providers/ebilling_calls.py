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
from urllib.parse import urlencode

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
    Given,
    Lost,
    NotSent,
    Redirect,
    Response,
    Result,
    Wanted,
)

# --- tables -------------------------------------------------------------------------------------------

COUNTRY: Final = "GA"
DIAL: Final = "241"

SYSTEMS: Mapping[str, str] = {"airtel": "airtelmoney", "moov": "moovmoney4"}
"""`payment_system_name` of a prompt [3p, many; one says moovmoney1]."""

PREFIXES: Mapping[str, str] = {"07": "airtel", "06": "moov"}
"""How an operator's local numbers begin [unv]: for a warning beside the field, never a reason to refuse."""

CARD: Final = "ORABANK_NG"  # the portal's own word for cards [3p]
PORTAL_CHOICE: Final = "portal"  # ours: the payer chooses on the portal

PORTAL_URL: Final = "portal_url"
"""A credential that is a setting: where the account's portal is. Its host is another than the API's."""

PORTAL: Final = "https://www.billing-easy.net"
PORTALS: Mapping[str, str] = {
    "https://www.billing-easy.com": PORTAL,
    "https://stg.billing-easy.com": "https://staging.billing-easy.net",
    "https://lab.billing-easy.net": "https://test.billing-easy.net",
}
"""Which portal shows the bills of which API [SDK]; most third parties take money at the second pair [3p]."""

EXPIRY_MINUTES: Final = 60
"""`expiry_period`: the plugin counts minutes [SDK], some hours or days [3p]. We are not told what time it is."""

DESCRIPTION_CHARACTERS_MAX: Final = 100  # [unv]
NO_INSTRUCTION = ("accepted",)  # the `message` of a prompt that was sent [3p]: nothing for the payer to read

NO_PROMPT = frozenset({401, 403, 404, 405, 406, 422, 429})
"""The push was refused: 406 for another operator's number, and in LAB [3p ×2]; the others as in the failover table."""

LIST_PER_PAGE: Final = 50  # [unv]
LIST_CALLS_MAX: Final = 4

# --- creating -----------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials) -> Creating:
    """A bill; then the prompt where the channel is an operator's. The portal where it is not, or none could be sent."""
    amount, number = called.whole(wanted.amount_minor, wanted.currency), msisdn(wanted, channel)
    if amount is None or wanted.currency != channel.currency:
        return NotSent("bad_amount")
    if number is None:
        return NotSent("missing_phone")
    if not all(called.credential(credentials, name) for name in ("username", "shared_key")):
        return called.CREDENTIALS_WRONG
    headers = ebilling.headers(credentials)
    response = yield Call("POST", ebilling.BILLS, headers, json=_bill(wanted, amount, number))
    made = _made(wanted, response)
    if not isinstance(made, Told):
        return made
    if made.facts[0].kind not in ebilling.NOT_FINAL:
        return Accepted(made)  # paid already: there is nothing to ask of anybody
    bill = made.references[0]
    page = Redirect(_page(bill, wanted.return_url, channel, credentials))
    if not channel.direct:
        return _waits(made, page)
    push = {"payer_msisdn": number, "payment_system_name": channel.code}
    try:
        response = yield Call("POST", f"{ebilling.bill_path(bill)}/ussd_push", headers, json=push)
    except Broken as broken:
        # The bill is there all the same. Without a prompt the portal is left; with one perhaps shown, nobody knows.
        return Lost(broken.reason, made) if broken.sent else _waits(made, page)
    return _pushed(made, bill, page, response)


def msisdn(wanted: Wanted, channel: Channel) -> str | None:
    """
    The number as a payer in Gabon writes it, nine digits [3p]; others as they are. A bill has to have one [SDK]; for a
    prompt it is the wallet's and not simply the customer's.
    """
    number = called.digits(wanted.payer_phone or ("" if channel.direct else wanted.customer.phone))
    if number is None or not number.startswith(DIAL):
        return number
    local = number.removeprefix(DIAL)
    return local if local.startswith("0") else f"0{local}"


def likely_operator(number: str) -> str:
    """Whose a local number probably is, empty where its beginning says nothing [unv]."""
    return PREFIXES.get(number[:2], "")


def _bill(wanted: Wanted, amount: int, number: str) -> dict[str, object]:
    """What the official plugin sends [SDK]; eBilling itself is to send the payer nothing."""
    payer = {"payer_email": wanted.customer.email, "payer_name": wanted.customer.name}
    return {
        "payer_msisdn": number,
        "amount": amount,
        "short_description": called.text(wanted.description, DESCRIPTION_CHARACTERS_MAX) or wanted.reference,
        "external_reference": wanted.reference,
        "expiry_period": EXPIRY_MINUTES,
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


def _page(bill: str, return_url: str, channel: Channel, credentials: Credentials) -> str:
    """
    The portal's page for a bill: `checkoutnow` [SDK], and for cards the form that goes straight to the bank [3p].

    Where the payer comes back from it proves nothing.
    """
    portal = (called.credential(credentials, PORTAL_URL) or PORTAL).rstrip("/")
    if channel.code == CARD:
        fields = {"invoice": bill, "operator": CARD, "redirect": "1", "redirect_url": return_url}
        path = "/"
    else:
        fields = {"invoice_number": bill, "merchant_redirect_url": return_url}
        path = "/checkoutnow"
    return f"{portal}{path}?{urlencode({name: value for name, value in fields.items() if value}, errors='replace')}"


# --- asking -------------------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials) -> Asking:
    """The bill by its number."""
    number = called.theirs(given)
    if number is None:
        return Unclear("no_number_yet")
    response = yield called.call(ebilling.question(number, credentials))
    asked = Asked(live, given.reference or None, given.amount_minor, given.currency)
    return called.never_unknown(ebilling.answer(number, response.status, response.body, asked))


def find(given: Given, live: bool, credentials: Credentials) -> Asking:
    """
    The bill with our reference, looked for at both ends of the list [3p: `{current_page, total_entries, entries}`].

    What is not there is not "not known": we do not know the list's order, nor whether all bills are in it.
    """
    last = 1
    for turn in range(LIST_CALLS_MAX):
        pages = _ends(last)
        if turn >= len(pages):
            break
        path = f"{ebilling.BILLS}?page={pages[turn]}&per_page={LIST_PER_PAGE}"
        response = yield Call("GET", path, ebilling.headers(credentials))
        said = None if called.turned_away(response.status) else strict.document(response.body)
        entries = said.get("entries") if isinstance(said, dict) else None
        if not isinstance(said, dict) or not isinstance(entries, list):
            return Unclear("no_list")
        numbers = _ours(entries, given.reference)
        if len(numbers) > 1:
            return Unclear("several_bills")
        if numbers:
            return (yield from fetch(replace(given, references=tuple(numbers)), live, credentials))
        last = _last_page(said)
    return Unclear("not_in_list")


def _ends(last: int) -> list[int]:
    """Pages from both ends inwards: new bills are at one of them."""
    return list(dict.fromkeys(page for pair in ((1, last), (2, last - 1)) for page in pair if 1 <= page <= last))


def _last_page(said: strict.Document) -> int:
    total, size = said.get("total_entries"), said.get("per_page", LIST_PER_PAGE)
    if type(total) is not int or type(size) is not int or not 0 < size <= total < 10**9:
        return 1
    return -(-total // size)


def _ours(entries: list[object], reference: str) -> list[str]:
    """The numbers of the bills with our reference."""
    bills = [ebilling.bill(entry) for entry in entries if isinstance(entry, dict)]
    ours = [it for it in bills if strict.identifier(it.get("external_reference")) == reference]
    return list(dict.fromkeys(name for it in ours if (name := strict.identifier(it.get("bill_id")))))


# --- the record ---------------------------------------------------------------------------------------

CALLS = Calls(
    channels=(
        *(
            Channel("mobile_money", ebilling.CURRENCY, COUNTRY, operator, code, direct=True)
            for operator, code in SYSTEMS.items()
        ),
        Channel("mobile_money", ebilling.CURRENCY, COUNTRY, code=PORTAL_CHOICE),
        Channel("card", ebilling.CURRENCY, code=CARD),
    ),
    create=create,
    fetch=fetch,
    find=find,
)
