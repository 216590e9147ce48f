"""
What we ask of Stripe: a page of theirs to pay on (a checkout session), or a PaymentIntent for the merchant's own page.

Neither object charges anybody by being made: the payer has to act on its address or its secret, and only the answer to
our call has those. So a lost call is harmless in itself, and is repeated with its key, which brings back the first
answer or makes what was not made [docs]. Nothing here is confirmed by us, therefore nothing is declined in `create`:
declines come later, as `try_failed` facts.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from urllib.parse import quote, urlencode

from service.payments.facts import Kind, Source, Told, join
from service.providers import called, meaning, strict, stripe
from service.providers import stripe_wire as wire
from service.providers.base import Credentials, NotFinal, NotKnown, Parked, Unclear
from service.providers.calls import (
    LISTED_MAX,
    Accepted,
    Asking,
    Broken,
    Call,
    Calls,
    Canceled,
    Canceling,
    Channel,
    Confirm,
    Creating,
    Facts,
    Given,
    Listed,
    Listening,
    Listing,
    Lost,
    NotCanceled,
    NotSent,
    Redirect,
    Refunding,
    RefundRefused,
    Refunds,
    Response,
    Result,
    Wanted,
)

# --- reading ------------------------------------------------------------------------------------------


def _refusal(response: Response) -> NotSent | Lost | None:
    """What stops a creating call; None for a 2xx. Stripe's 400 says "unacceptable" by its type, not by its number."""
    if response.status == 400:
        error = wire.error(response)
        if error.type == "invalid_request_error":
            return wire.REFUSED.get(error.code, NotSent("invalid_request"))
        return Lost(error.type if error.type == "idempotency_error" else "refused")
    return called.turned_away(response.status)


def read(it: object, source: Source = Source.ANSWER) -> Told | Parked:
    """What an object of the API says, with the objects inside that were expanded."""
    if not isinstance(it, dict):
        return Parked("unreadable")
    name = strict.word(it.get("object"))
    match name:
        case "checkout.session":
            said = stripe.of_session(stripe.Event("", 0, it, source))
        case "payment_intent":
            over = it.get("canceled_at") if it.get("status") == "canceled" else None
            said = stripe.of_intent(stripe.Event("", strict.seconds_ms(over), it, source))
        case "charge":
            said = stripe.of_charge(stripe.Event("charge.updated", 0, it, source))
        case _:
            return Parked("unreadable")
    if not isinstance(said, Told):
        return said if isinstance(said, Parked) else Parked("other_payment")
    field, object_ = wire.NESTED.get(name, ("", ""))
    inner = it.get(field)
    if not isinstance(inner, dict):
        return said
    rest = read(inner, source) if inner.get("object") == object_ else Parked("unreadable")
    return _together(said, rest) if isinstance(rest, Told) else rest


def _together(a: Told, b: Told) -> Told:
    """Two objects of one payment as one message: both name the same movements."""
    facts = {(fact.kind, fact.movement): fact for fact in a.facts}
    for fact in b.facts:
        same = facts.get((fact.kind, fact.movement))
        facts[fact.kind, fact.movement] = join(same, fact) if same else fact
    names = dict.fromkeys((*b.references, *a.references))  # the PaymentIntent first, as callbacks have it
    return Told(tuple(names), tuple(facts.values()), a.reference or b.reference, a.metadata or b.metadata)


def _kinds(told: Told) -> set[Kind]:
    return {fact.kind for fact in told.facts}


def _made(response: Response, wanted: Wanted, channel: Channel) -> Result:
    """The object that a creating call answers with; on a repeated key it is the first answer, word for word [docs]."""
    it = strict.document(response.body)
    told = read(it)
    if isinstance(it, Parked) or isinstance(told, Parked):
        return Lost("unreadable")
    object_ = "checkout.session" if channel.code == wire.CHECKOUT else "payment_intent"
    if it.get("object") != object_ or told.reference != wanted.reference:
        return Lost("other_payment")
    if called.other_amount(told, wanted.amount_minor, wanted.currency):
        return Lost("other_payment")
    if wanted.live and it.get("livemode") is False:
        return Lost(called.TEST_MONEY, told, alert=True)
    if not all(fact.kind in (Kind.CREATED, Kind.REQUIRES_ACTION) for fact in told.facts):
        return Accepted(told)
    secret = it.get("client_secret")
    secret = secret if isinstance(secret, str) and strict.identifier(secret) and "_secret_" in secret else ""
    if channel.code == wire.INTENT:
        return Accepted(told, Confirm(secret)) if secret else Lost("unreadable", told)
    url = called.link(it.get("url"))
    return Accepted(told, Redirect(url, secret)) if url else Lost("unreadable", told)


def _of_expiry(error: wire.Error) -> bool:
    return (error.type, error.param) == ("invalid_request_error", "expires_at")


# --- create -------------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials, facts: Facts = wire.FACTS) -> Creating:
    """
    `POST /v1/checkout/sessions` or `/v1/payment_intents` [SDK].

    `expires_at` has to be 30 minutes to 24 hours away when Stripe reads it [SDK], which nobody can promise. Refused
    for it alone, nothing was made, and it is asked for again without, under a second key: it then lives for 24 hours
    unless it is cancelled. Repeated as a whole this comes to one session again, whichever of the two was lost.
    """
    unfit = called.unfit(wanted, channel, called.credential(credentials, "secret_key"))
    units = wire.to_wire(wanted.amount_minor, wanted.currency)
    if unfit or units is None:
        return unfit or NotSent("amount")
    checkout = channel.code == wire.CHECKOUT
    path = wire.PATHS["cs_" if checkout else "pi_"]
    fields = wire.session(wanted, units, facts) if checkout else wire.payment_intent(wanted, units, facts)
    response = yield Call("POST", path, wire.headers(credentials, wanted.key), form=wire.form(fields))
    if response.status == 400 and fields.get("expires_at") and _of_expiry(wire.error(response)):
        again = wire.form(fields | {"expires_at": None})
        try:
            response = yield Call("POST", path, wire.headers(credentials, f"{wanted.key}-lasting"), form=again)
        except Broken as broken:
            return Lost(broken.reason) if broken.sent else NotSent(broken.reason)
    return _refusal(response) or _made(response, wanted, channel)


# --- fetch and find -----------------------------------------------------------------------------------


def _name(given: Given) -> str | None:
    """The id to ask by; our own reference is none, whatever it begins with."""
    theirs = [name for name in given.references if name != given.reference]
    return next((name for start in wire.PATHS for name in theirs if name.startswith(start)), None)


def _of_another(it: strict.Document, told: Told, name: str, given: Given) -> bool:
    """Another id, or another reference of ours where both say one: somebody else's payments have none."""
    return it.get("id") != name or bool(given.reference and told.reference and told.reference != given.reference)


def _ask(name: str, given: Given, live: bool, credentials: Credentials) -> Asking:
    start = name[:3]
    query = urlencode({"expand[]": wire.EXPAND[start]})
    response = yield Call("GET", f"{wire.PATHS[start]}/{quote(name, safe='')}?{query}", wire.headers(credentials))
    if response.status == 404:
        # A key of the other mode gets the same number; only Stripe's own word says that there is no such object.
        error = wire.error(response)
        known_elsewhere = "similar object exists" in error.words
        return NotKnown() if error.code == "resource_missing" and not known_elsewhere else Unclear("refused")
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away
    it = strict.document(response.body)
    if isinstance(it, Parked):
        return Unclear("unreadable")
    told = read(it)
    if isinstance(told, Parked):
        return Unclear(told.reason.partition(":")[0])
    if _of_another(it, told, name, given):
        return Unclear("other_payment")
    if live and it.get("livemode") is False:
        return Unclear(called.TEST_MONEY)
    return told if _kinds(told) & wire.ENDED else NotFinal(told)


def fetch(given: Given, live: bool, credentials: Credentials) -> Asking:
    """`GET /v1/checkout/sessions/{id}` or `/v1/payment_intents/{id}`, with what hangs on it."""
    name = _name(given)
    return (yield from _ask(name, given, live, credentials)) if name else Unclear("no_name")


def find(given: Given, live: bool, credentials: Credentials) -> Asking:
    """
    By our reference, through the lists of the newest sessions and PaymentIntents.

    Searching metadata is not for reading what was just written [SDK: "don't use search in read-after-write flows"],
    and sessions cannot be searched; lists are not said to lag. `NotKnown` only when both lists were read to their
    ends, back to shortly before it was asked for: further back there may be one. Needed where repeating the key brings
    back a stored 500 for a day [docs].
    """
    began_s = (given.since_ms - wire.CLOCKS_APART_MS) // 1000
    since = {"created[gte]": str(began_s)} if began_s > 0 else {}
    complete = True
    for start, path in wire.PATHS.items():
        after: str | None = None
        for _ in range(wire.LIST_PAGES):
            query = since | {"limit": str(wire.LIST_LIMIT)} | ({"starting_after": after} if after else {})
            page = yield from _page(path, query, credentials)
            if isinstance(page, Unclear):
                return page
            items, more = page
            ids = [strict.identifier(strict.dig(item, "id")) or "" for item in items]
            if not all(id_.startswith(start) for id_ in ids):
                return Unclear("unreadable")
            for id_, item in zip(ids, items, strict=True):
                ours = (strict.dig(item, "client_reference_id"), strict.dig(item, "metadata", "reference"))
                if given.reference and given.reference in ours:
                    return (yield from _ask(id_, given, live, credentials))
            if not more or not ids:
                break
            after = ids[-1]
        else:
            complete = False
    return NotKnown() if complete else Unclear("not_among_the_newest")


# --- cancel and refund --------------------------------------------------------------------------------


def cancel(given: Given, credentials: Credentials) -> Canceling:
    """
    `POST …/sessions/{id}/expire`, while it is open, or `POST …/payment_intents/{id}/cancel` [SDK].

    A PaymentIntent of a session goes with its session. Refused, it is asked what it has become. Without a key: it is
    the same however often it is said, and a key would bring back yesterday's "not now".
    """
    name = _name(given)
    if name is None:
        return Lost("no_name")
    session = name.startswith("cs_")
    path = f"{wire.PATHS[name[:3]]}/{quote(name, safe='')}/{'expire' if session else 'cancel'}"
    fields: Mapping[str, wire.Field] = {} if session else {"cancellation_reason": wire.CANCELLATION_REASON}
    response = yield Call("POST", path, wire.headers(credentials), form=wire.form(fields))
    if response.status == 400 and wire.error(response).type == "invalid_request_error":
        answer = yield from _ask(name, given, False, credentials)
        now = answer.told if isinstance(answer, NotFinal) else answer
        return _whether_dead(now if isinstance(now, Told) else None)
    stopped = called.turned_away(response.status)
    if stopped:
        return Lost(stopped.reason, alert=stopped.alert)
    it = strict.document(response.body)
    told = read(it)
    if isinstance(it, Parked) or isinstance(told, Parked):
        return Lost("unreadable")
    if _of_another(it, told, name, given):
        return Lost("other_payment")
    return _whether_dead(told)


def _whether_dead(told: Told | None) -> Canceled:
    """Expired or cancelled, and no money came: the provider's own word that it is dead."""
    dead = told is not None and _kinds(told) & wire.DEAD and Kind.CAPTURED not in _kinds(told)
    return told if told is not None and dead else NotCanceled(told)


def refund(given: Given, amount_minor: int, reason: str, credentials: Credentials) -> Refunds:
    """`POST /v1/refunds` of the PaymentIntent, or of the charge where only that is known [SDK]; never without a key."""
    units = wire.to_wire(amount_minor, given.currency)
    kinds = {"pi_": "payment_intent", "ch_": "charge"}
    name = next((name for start in kinds for name in given.references if name.startswith(start)), None)
    if units is None or name is None or not given.key:
        return RefundRefused("amount" if units is None else "no_name" if name is None else "no_key")
    fields: dict[str, wire.Field] = {
        kinds[name[:3]]: name,
        "amount": units,
        "reason": reason if reason in wire.REFUND_REASONS else None,
        "metadata": {"reference": given.reference} | ({"reason": called.text(reason, wire.NOTE_MAX)} if reason else {}),
    }
    response = yield Call("POST", "/v1/refunds", wire.headers(credentials, given.key), form=wire.form(fields))
    error = wire.error(response)
    if response.status in (400, 404) and error.type == "invalid_request_error":
        return RefundRefused(wire.NOT_REFUNDED.get(error.code, "refused"), error.words)
    stopped = called.turned_away(response.status)
    if stopped:
        return called.not_refunded(stopped)
    it = strict.document(response.body)
    told = None if isinstance(it, Parked) else _refund(it)
    if told is None:
        return Lost("unreadable")
    back = told.facts[0]
    if name not in told.references or (back.amount_minor, back.currency) != (amount_minor, given.currency):
        return Lost("other_payment")
    return Refunding(told)


def _refund(it: object) -> Told | None:
    if not isinstance(it, dict) or it.get("object") != "refund":
        return None
    told = stripe.of_refund(stripe.Event("", 0, it, Source.ANSWER))
    return told if isinstance(told, Told) else None


def refunds(given: Given, credentials: Credentials) -> Asking:
    """`GET /v1/refunds?payment_intent=` [SDK]; a session is asked first which PaymentIntent it came to."""
    name = next((name for start in ("pi_", "ch_") for name in given.references if name.startswith(start)), None)
    if name is None:
        about = yield from fetch(given, given.live, credentials)
        if isinstance(about, Unclear | NotKnown):
            return about
        told = about.told if isinstance(about, NotFinal) else about
        names = told.references if told else ()
        name = next((name for name in names if name.startswith("pi_")), None)
        if name is None:
            return Told(names or given.references, (), given.reference)  # nobody has begun to pay it
    about_it = {"payment_intent" if name.startswith("pi_") else "charge": name, "limit": str(LISTED_MAX)}
    page = yield from _page("/v1/refunds", about_it, credentials)
    if isinstance(page, Unclear):
        return page
    items, more = page
    found = [_refund(item) for item in items]
    if more or not all(found):
        return Unclear("too_many" if more else "unreadable")
    if not all(told and name in told.references for told in found):
        return Unclear("other_payment")
    facts = tuple(fact for told in found if told for fact in told.facts)
    return Told((name,), facts, given.reference)


# --- lists --------------------------------------------------------------------------------------------


def _page(
    path: str, query: Mapping[str, str], credentials: Credentials
) -> Generator[Call, Response, tuple[list[object], bool] | Unclear]:
    """The items of one page of a list, and whether there are more."""
    response = yield Call("GET", f"{path}?{urlencode(query)}", wire.headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
    page = strict.document(response.body)
    items, more = (None, None) if isinstance(page, Parked) else (page.get("data"), page.get("has_more"))
    if not isinstance(items, list) or not isinstance(more, bool) or len(items) > LISTED_MAX:
        return Unclear("unreadable")
    return items, more


def listed(listing: Listing, credentials: Credentials) -> Listening:
    """`GET /v1/payment_intents`, newest first: every payment that somebody has begun, those of sessions too."""
    query = {
        "created[gte]": str(listing.since_ms // 1000),
        "created[lt]": str(-(-listing.until_ms // 1000)),
        "limit": str(wire.INTENTS_LIMIT),
    } | ({"starting_after": listing.cursor} if listing.cursor else {})
    page = yield from _page(wire.PATHS["pi_"], query, credentials)
    if isinstance(page, Unclear):
        return page
    items, more = page
    told = tuple(said for item in items if isinstance(said := read(item), Told))
    last = strict.identifier(strict.dig(items[-1], "id")) if items else None
    if more and last is None:
        return Unclear("unreadable")
    return Listed(told, last if more else None, len(items) - len(told))


# --- what it can do -----------------------------------------------------------------------------------

INTENTS = tuple(wire.channel(currency, wire.INTENT) for currency in wire.CURRENCIES)
"""For the merchant's own page, which has to be asked for: whoever was sent to an address cannot use a secret."""

CALLS = Calls(
    channels=(*(wire.channel(currency, wire.CHECKOUT) for currency in wire.CURRENCIES), *INTENTS),
    create=create,
    fetch=fetch,
    find=find,
    cancel=cancel,
    refund=refund,
    refunds=refunds,
    list=listed,
    idempotent=True,
    facts=wire.FACTS,
)
