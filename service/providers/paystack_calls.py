"""
What we ask of Paystack: a page of theirs (initialize), or a wallet charged directly (charge, submit_otp).

What it takes and refuses stands in `paystack_wire`.

There is no idempotency key: our reference is unique at Paystack, so that a repeated call is refused as a duplicate, and
a lost one is asked about by it. Nothing can be cancelled.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from urllib.parse import quote, urlencode

from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import called, meaning, paystack, strict
from service.providers import paystack_wire as wire
from service.providers.base import Answer, Credentials, NotFinal, NotKnown, Parked, Unclear
from service.providers.calls import (
    LISTED_MAX,
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
    Listed,
    Listening,
    Listing,
    Lost,
    NotSent,
    Otp,
    Redirect,
    Refunding,
    RefundRefused,
    Refunds,
    Response,
    Result,
    Wanted,
)

# --- reading ------------------------------------------------------------------------------------------


def _action(kind: Kind, it: Mapping[str, object]) -> Action | None:
    """
    What the payer has to do; None where nothing, or nothing that we could pass on.

    PIN, birthday, address and phone are asked of cards and bank accounts, which we never charge directly [docs].
    """
    status, display = strict.word(it.get("status")), wire.text(it.get("display_text"))
    if status == "send_otp":
        return Otp(display)
    url = next((url for name in wire.URL_FIELDS if (url := called.link(it.get(name)))), None)
    if kind in (Kind.REQUIRES_ACTION, Kind.PENDING) and url:
        return Redirect(url)
    if status == "pay_offline" or (kind is Kind.PENDING and display):
        return Approve(display)
    return None


def _attempted(it: Mapping[str, object], of: Wanted | Given, facts: Facts) -> Result:
    """A transaction that a charge or a code came to."""
    if strict.identifier(it.get("reference")) != of.reference:
        return Lost("other_payment")
    told = paystack.of_charge(it, Source.ANSWER, facts)
    if not isinstance(told, Told):
        return Lost("unknown_status" if isinstance(told, Parked) and "status" in told.reason else "unreadable")
    if called.other_amount(told, of.amount_minor, of.currency):
        return Lost("other_payment")
    if of.live and it.get("domain") == "test":
        return Lost(called.TEST_MONEY, alert=True)
    kind = told.facts[0].kind
    if kind is Kind.FAILED:
        return Declined(told, told.facts[0].reason or Reason.UNKNOWN)
    if kind is Kind.CANCELED:
        return Accepted(wire.waiting(told))  # `abandoned` a moment after it was begun
    if strict.word(it.get("status")) == "open_url" and _action(kind, it) is None:
        return Lost("unreadable", told)
    return Accepted(told, _action(kind, it))


def _result(response: Response, of: Wanted | Given, facts: Facts) -> Result:
    said = strict.document(response.body)
    if response.status == 400 and not isinstance(said, Parked):
        it = strict.branch(said, "data")
        # A refused charge may come as a 400 [3p].
        known = strict.word(it.get("status")) in paystack.CHARGE
        return _attempted(it, of, facts) if known else wire.refusal(said, facts)
    stopped = called.turned_away(response.status)
    if stopped:
        return stopped
    if isinstance(said, Parked) or not isinstance(said.get("data"), dict) or said.get("status") is not True:
        return Lost("unreadable")
    return _attempted(strict.branch(said, "data"), of, facts)


# --- create -------------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials, facts: Facts = paystack.FACTS) -> Creating:
    """`POST /charge` for a wallet whose code the channel knows, `POST /transaction/initialize` otherwise [SDK]."""
    units = wire.to_wire(wanted.amount_minor, wanted.currency, facts)
    unfit = called.unfit(wanted, channel, called.credential(credentials, "secret_keys"))
    if unfit or units is None:
        return unfit or NotSent("amount")
    longest = called.number(facts, "reference_characters_max")
    if not wire.REFERENCE.fullmatch(wanted.reference) or len(wanted.reference) > longest:
        return NotSent("reference", alert=True)
    asked: dict[str, object] = {
        "email": wanted.customer.email,
        "amount": units,
        "currency": wanted.currency,
        "reference": wanted.reference,
    }
    notes = {called.text(key, 100): called.text(note, 500) for key, note in wanted.metadata.items()}
    if channel.code:
        wallet = {
            "phone": wire.phone(wanted.payer_phone or wanted.customer.phone, channel.country, facts),
            "provider": channel.code,
        }
        asked |= {"mobile_money": wallet, "metadata": notes}
        response = yield Call("POST", "/charge", wire.headers(credentials), json=asked)
        return _result(response, wanted, facts)
    asked |= {
        "callback_url": wanted.return_url,
        "channels": [wanted.method],
        "metadata": notes | {"cancel_action": wanted.return_url},
    }
    response = yield Call("POST", "/transaction/initialize", wire.headers(credentials), json=asked)
    return _initialized(response, wanted, facts)


def _initialized(response: Response, wanted: Wanted, facts: Facts) -> Result:
    """`{"status": true, "data": {authorization_url, access_code, reference}}` [SDK]; it names no amount."""
    said = strict.document(response.body)
    if response.status == 400 and not isinstance(said, Parked):
        return wire.refusal(said, facts)
    stopped = called.turned_away(response.status)
    if stopped:
        return stopped
    it = strict.branch(said, "data")
    url = called.link(it.get("authorization_url"))
    if isinstance(said, Parked) or said.get("status") is not True or url is None:
        return Lost("unreadable")
    if it.get("reference") != wanted.reference:
        return Lost("other_payment")
    fact = Fact(Kind.CREATED, wanted.reference, source=Source.ANSWER)
    return Accepted(Told((wanted.reference,), (fact,), wanted.reference), Redirect(url))


def otp(given: Given, code: str, credentials: Credentials, facts: Facts = paystack.FACTS) -> Creating:
    """`POST /charge/submit_otp` [SDK]. A wrong code is asked for again; `failed` is the end of it."""
    asked = {"otp": called.text(code, 50), "reference": given.reference}
    response = yield Call("POST", "/charge/submit_otp", wire.headers(credentials), json=asked)
    said = strict.document(response.body)
    wrong = called.words(facts, "wrong_otp_words")
    again = response.status == 400 and not isinstance(said, Parked) and wire.says(said, wrong)
    if again and not strict.branch(said, "data").get("status"):
        fact = Fact(Kind.REQUIRES_ACTION, given.reference, source=Source.ANSWER)
        return Accepted(Told((given.reference,), (fact,), given.reference), Otp(wire.text(strict.dig(said, "message"))))
    return _result(response, given, facts)


# --- fetch and find -----------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials, facts: Facts = paystack.FACTS) -> Asking:
    """`GET /transaction/verify/{reference}` [SDK]: their name of a payment is the reference that was given to them."""
    return (yield from _ask(_name(given), live, credentials, facts))


def find(given: Given, live: bool, credentials: Credentials, facts: Facts = paystack.FACTS) -> Asking:
    """The same by our reference: it is unique there [SDK], and a lost create is found by it."""
    return (yield from _ask(given.reference, live, credentials, facts))


def _name(given: Given) -> str:
    return next(iter(given.references), given.reference)


def _ask(reference: str, live: bool, credentials: Credentials, facts: Facts) -> Asking:
    response, it = yield from _verify(reference, live, credentials, facts)
    now_ms = strict.http_date_ms(response.headers.get("date"))
    return it if isinstance(it, NotKnown | Unclear) else _verified(it, now_ms, facts)


Verifying = Generator[Call, Response, tuple[Response, strict.Document | NotKnown | Unclear]]


def _verify(reference: str, live: bool, credentials: Credentials, facts: Facts) -> Verifying:
    path = f"/transaction/verify/{quote(reference, safe='')}"
    response = yield Call("GET", path, wire.headers(credentials))
    return response, _transaction(response, reference, live, facts)


def _transaction(response: Response, reference: str, live: bool, facts: Facts) -> strict.Document | NotKnown | Unclear:
    """The transaction of this reference in an answer of verify."""
    said = strict.document(response.body)
    if response.status in (400, 404):
        # Only Paystack's own words say that there is no such transaction: a 404 may be any proxy's.
        if isinstance(said, Parked):
            return Unclear("refused")
        if wire.says(said, called.words(facts, "unknown_reference_words")):
            return NotKnown()
        return Unclear("credentials" if wire.says(said, called.words(facts, "credentials_words")) else "refused")
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away
    it = None if isinstance(said, Parked) or said.get("status") is not True else said.get("data")
    if not isinstance(it, dict):
        return Unclear("unreadable")
    if strict.identifier(it.get("reference")) != reference:
        return Unclear("other_payment")
    return Unclear(called.TEST_MONEY) if live and it.get("domain") == "test" else it


def _verified(it: Mapping[str, object], now_ms: int, facts: Facts) -> Answer:
    """What a transaction is now; the time is Paystack's, 0 where it did not say it."""
    told = paystack.of_charge(it, Source.ANSWER, facts)
    if not isinstance(told, Told):
        return Unclear(told.reason.partition(":")[0] if isinstance(told, Parked) else "unreadable")
    kind = told.facts[0].kind
    if kind is Kind.CANCELED:
        began_ms = strict.first_ms(it.get("created_at"), it.get("createdAt"))
        over = began_ms and now_ms - began_ms >= called.number(facts, "abandoned_after_ms")
        return told if over else NotFinal(wire.waiting(told))
    return told if kind in (Kind.CAPTURED, Kind.FAILED, Kind.REVERSED) else NotFinal(told)


# --- refund -------------------------------------------------------------------------------------------


def refund(
    given: Given, amount_minor: int, reason: str, credentials: Credentials, facts: Facts = paystack.FACTS
) -> Refunds:
    """`POST /refund` of our reference [SDK]. Without a key: a lost one is looked for (`refunds`), never said again."""
    units = wire.to_wire(amount_minor, given.currency, facts)
    if units is None:
        return RefundRefused("amount")
    asked: dict[str, object] = {"transaction": _name(given), "amount": units, "currency": given.currency}
    if reason:
        asked["merchant_note"] = called.text(reason, 200)
    response = yield Call("POST", "/refund", wire.headers(credentials), json=asked)
    said = strict.document(response.body)
    if response.status in (400, 404) and not isinstance(said, Parked):
        if wire.says(said, called.words(facts, "credentials_words")):
            return called.CREDENTIALS_WRONG
        why = wire.not_refunded(said, facts)
        return RefundRefused(why, wire.text(said.get("message"))) if why else Lost("refused")
    stopped = called.turned_away(response.status)
    if stopped:
        return called.not_refunded(stopped)
    it = strict.branch(said, "data")
    if isinstance(said, Parked) or said.get("status") is not True or not it:
        return Lost("unreadable")
    told = paystack.of_refund(
        {**it, "transaction_reference": strict.dig(it, "transaction", "reference")}, Source.ANSWER, facts
    )
    if not isinstance(told, Told):
        return Lost("unreadable")
    back = told.facts[0]
    if told.references != (_name(given),) or (back.amount_minor, back.currency) != (amount_minor, given.currency):
        return Lost("other_payment")
    return Refunding(told)


def refunds(given: Given, credentials: Credentials, facts: Facts = paystack.FACTS) -> Asking:
    """
    `GET /refund?transaction={id}` [SDK], the number from verify: the items name the transaction by that alone.

    Each is named as callbacks name it (`refund:<id>`).
    """
    reference = _name(given)
    _, it = yield from _verify(reference, given.live, credentials, facts)
    if isinstance(it, NotKnown | Unclear):
        return it
    number = strict.identifier(it.get("id"))
    if number is None:
        return Unclear("unreadable")
    page = yield from _page("/refund", {"transaction": number, "perPage": str(LISTED_MAX)}, credentials)
    if isinstance(page, Unclear):
        return page
    items, following = page
    if following:
        return Unclear("too_many")
    found: list[Fact] = []
    for item in items:
        of = item.get("transaction")
        names = (strict.identifier(of), strict.identifier(strict.dig(of, "id")))
        if number not in names and strict.dig(of, "reference") != reference:
            return Unclear("other_payment")
        told = paystack.of_refund({**item, "transaction_reference": reference}, Source.ANSWER, facts)
        if not isinstance(told, Told):
            return Unclear("unreadable")
        found += told.facts
    return Told((reference,), tuple(found), reference)


# --- lists --------------------------------------------------------------------------------------------


def _page(
    path: str, query: Mapping[str, str], credentials: Credentials
) -> Generator[Call, Response, tuple[list[strict.Document], str | None] | Unclear]:
    """The items of one page, and the number of the next: `{data: […], meta: {page, pageCount}}` [SDK]."""
    response = yield Call("GET", f"{path}?{urlencode(query)}", wire.headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
    said = strict.document(response.body)
    items = None if isinstance(said, Parked) or said.get("status") is not True else said.get("data")
    if not isinstance(items, list) or len(items) > LISTED_MAX or not all(isinstance(item, dict) for item in items):
        return Unclear("unreadable")
    page, last = (strict.dig(said, "meta", name) for name in ("page", "pageCount"))
    return items, str(page + 1) if type(page) is int and type(last) is int and page < last else None


def listed(listing: Listing, credentials: Credentials, facts: Facts = paystack.FACTS) -> Listening:
    """`GET /transaction`, newest first [SDK]; what nobody has finished yet is no more here than in verify."""
    query = {
        "from": called.rfc3339(listing.since_ms),
        "to": called.rfc3339(listing.until_ms),
        "perPage": str(LISTED_MAX),
        "page": listing.cursor or "1",
    }
    page = yield from _page("/transaction", query, credentials)
    if isinstance(page, Unclear):
        return page
    items, following = page
    read = [said for item in items if isinstance(said := paystack.of_charge(item, Source.ANSWER, facts), Told)]
    told = tuple(wire.waiting(said) if said.facts[0].kind is Kind.CANCELED else said for said in read)
    return Listed(told, following, len(items) - len(told))


# --- what it can do -----------------------------------------------------------------------------------

CALLS = Calls(
    channels=wire.channels(),
    create=create,
    fetch=fetch,
    find=find,
    otp=otp,
    refund=refund,
    refunds=refunds,
    list=listed,
    facts=paystack.FACTS,
)
