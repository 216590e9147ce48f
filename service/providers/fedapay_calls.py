"""
FedaPay, asked: transaction, token, then the hosted page or a push to the payer's phone; fetch, find, cancel.

Facts marked [SDK] are read in fedapay-php and -node, [docs] in docs.fedapay.com, [3p] in others' code, [unv] nowhere.
There is no OTP to submit and no API of refunds: those are made in the dashboard, for MTN alone [docs].

A transaction alone charges nobody. When FedaPay refuses the token or the push, we delete it, and its own word that it
is gone is the proof that nothing can come of it; without that word it is lost.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Generator, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from service.payments import money
from service.payments.facts import Fact, Kind, Reason, Source, Told
from service.providers import called, meaning, strict
from service.providers.base import Answer, Credentials, NotFinal, NotKnown, Parked, Unclear
from service.providers.calls import (
    LISTED_MAX,
    Accepted,
    Approve,
    Asking,
    Broken,
    Call,
    Calls,
    Canceled,
    Canceling,
    Channel,
    Creating,
    Declined,
    Facts,
    Given,
    Listed,
    Listening,
    Listing,
    Lost,
    NotCanceled,
    NotSent,
    Redirect,
    Response,
    Wanted,
)
from service.providers.fedapay import transaction

# --- tables -------------------------------------------------------------------------------------------

PUSHED: Mapping[tuple[str, str], str] = {
    ("BJ", "mtn"): "mtn_open",
    ("BJ", "moov"): "moov",
    ("BJ", "celtiis"): "sbin",
    ("TG", "moov"): "moov_tg",
    ("TG", "togocel"): "togocel",
    ("CI", "mtn"): "mtn_ci",
    ("NE", "airtel"): "airtel_ne",
    ("SN", "free"): "free_sn",
}
"""Modes without redirection, by country and operator: [docs], and all but `sbin` in the SDK's list too."""

HOSTED: Mapping[str, tuple[str, ...]] = {
    "CI": ("moov", "orange", "wave"),
    "SN": ("orange", "wave"),
    "ML": ("orange",),
    "BF": ("moov", "orange"),
}
"""Operators of the hosted page alone [docs]. The payer chooses there: no mode is sent, so none can be a wrong one."""

PUSHED_UNVERIFIED: tuple[Channel, ...] = (Channel("mobile_money", "GNF", "GN", "mtn", "mtn_open_gn", direct=True),)
"""The mode is [docs]; that Guinea pays in GNF is [unv]."""

CHANNELS: tuple[Channel, ...] = (
    *(
        Channel("mobile_money", "XOF", country, operator, mode, direct=True)
        for (country, operator), mode in PUSHED.items()
    ),
    *(
        Channel("mobile_money", "XOF", country, operator)
        for country, operators in HOSTED.items()
        for operator in operators
    ),
    *PUSHED_UNVERIFIED,
    *(Channel("mobile_money", "XOF", country) for country in ("BJ", "TG", "CI", "NE", "SN", "ML", "BF")),
    Channel("card", "XOF"),  # Visa and MasterCard in all regions, on the hosted page [docs]
)

DIALLED: Mapping[str, str] = {
    "BJ": "229", "BF": "226", "CI": "225", "GN": "224", "ML": "223", "NE": "227", "SN": "221", "TG": "228",
}  # fmt: skip
"""Calling codes of these countries (ITU E.164)."""

SANDBOX_KEY: Final = "sk_sandbox_"
"""How the sandbox's keys begin [SDK]."""

FACTS: Facts = {
    "sandbox_mode": "momo_test",  # its one mode, with numbers in national form: 64000001 succeeds [docs]
    "push_path": "/v1/{mode}",  # both SDKs; the API reference says `/v1/transactions/{mode}`
    "find_path": "/v1/transactions/merchant/{reference}",  # [docs, 3p]
    "list_path": "/v1/transactions/search",  # [docs]
    "include": "currency",  # a parameter of create [SDK test]; that fetch takes it too is [unv]
    "pushed_words": ("success", "pending", "scheduled", "sent"),  # `message` [SDK test], the intent's `status` [docs]
    "reference_taken_word": "reference",  # part of what a 422 says when our reference was used before [unv]
}
"""
What is believed and may be set. Where an answer does not include the currency, `CURRENCY_IDS` stands in. A push that is
answered with none of `pushed_words` is lost.
"""

CURRENCY_IDS: Mapping[str, str] = {"1": "XOF"}
"""`currency_id` of answers that were not asked to include the currency: 1 in every fixture [SDK] and seen [3p]."""

DEAD = frozenset({Kind.CANCELED, Kind.EXPIRED, Kind.FAILED})
TOKEN_CHARACTERS_MAX, DESCRIPTION_CHARACTERS_MAX, NAME_CHARACTERS_MAX = 4096, 255, 100

# --- requests -----------------------------------------------------------------------------------------


def _headers(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": f"Bearer {called.credential(credentials, 'secret_key')}", "Accept": "application/json"}


def _path(number: str, more: str = "") -> str:
    return f"/v1/transactions/{quote(number, safe='')}{more}"


def _number(given: Given) -> str | None:
    """Its id, an integer [SDK]. Asked by its `trx_…`, FedaPay would know nothing, and that would end the attempt."""
    return next((name for name in given.references if name.isascii() and name.isdigit()), None)


def _phone(number: str, country: str, *, national: bool = False) -> dict[str, str]:
    """`{number, country}`, the country in small letters [SDK]; the number in E.164, as the docs' examples have it."""
    if national and country in DIALLED:
        number = number.removeprefix("+").removeprefix(DIALLED[country])
    return {"number": number, "country": country.lower()}


def _customer(wanted: Wanted) -> dict[str, object]:
    """Who buys. FedaPay knows people by their e-mail address; what the merchant did not say is left out."""
    buyer = wanted.customer
    first, _, last = called.text(buyer.name.strip(), NAME_CHARACTERS_MAX).partition(" ")
    said: dict[str, object] = {"firstname": first, "lastname": last.strip(), "email": buyer.email}
    code = DIALLED.get(wanted.country)
    if code and buyer.phone.startswith(f"+{code}"):  # a number from elsewhere would be stored under the wrong country
        said["phone_number"] = _phone(buyer.phone, wanted.country)
    return {name: value for name, value in said.items() if value}


def _asked_for(wanted: Wanted, amount: int, facts: Facts) -> dict[str, object]:
    """The transaction. `callback_url` is where the browser goes back to [docs]; callbacks have a dashboard setting."""
    body: dict[str, object] = {
        "description": called.text(wanted.description, DESCRIPTION_CHARACTERS_MAX) or wanted.reference,
        "amount": amount,
        "currency": {"iso": wanted.currency},
        "callback_url": wanted.return_url,
        "merchant_reference": wanted.reference,
        "custom_metadata": dict(wanted.metadata),
        "include": facts["include"],
    }
    customer = _customer(wanted)
    return {**body, "customer": customer} if customer else body


# --- reading ------------------------------------------------------------------------------------------


def _entity(body: bytes) -> Mapping[str, object] | None:
    """The transaction in an answer, with its currency where only the number of it was said."""
    said = strict.document(body)
    entity = None if isinstance(said, Parked) else said.get("v1/transaction")
    return _with_currency(entity) if isinstance(entity, dict) else None


def _with_currency(entity: Mapping[str, object]) -> Mapping[str, object]:
    iso = CURRENCY_IDS.get(strict.identifier(entity.get("currency_id")) or "")
    return {**entity, "currency": {"iso": iso}} if iso and entity.get("currency") is None else entity


def _told(entity: Mapping[str, object]) -> Told | Parked:
    # A deleted one still says pending; the field is shown for intents [docs], of transactions it is [unv].
    event = "transaction.deleted" if strict.time_ms(entity.get("deleted_at")) else ""
    return transaction(event, entity, Source.ANSWER)


def _of_other(told: Told, reference: str) -> bool:
    return told.reference is not None and told.reference != reference


def _refused(response: Response, facts: Facts) -> NotSent | Lost | None:
    """What a status says, and of a 422 its words: that our reference is taken proves that an earlier call arrived."""
    if response.status == 422:
        said = strict.document(response.body)
        if isinstance(said, Parked):
            return Lost("unreadable")
        # Wherever it stands, in French too: to take another refusal for this one only costs a question.
        plain = unicodedata.normalize("NFKD", str(said)).encode("ascii", "ignore").decode().casefold()
        if str(facts["reference_taken_word"]) in plain:
            return Lost("reference_taken")
    return called.turned_away(response.status)


# --- creating -----------------------------------------------------------------------------------------


def create(wanted: Wanted, channel: Channel, credentials: Credentials, facts: Facts = FACTS) -> Creating:
    """`POST /v1/transactions`, its token, and the push where the channel has one and the payer's number is known."""
    secret = called.credential(credentials, "secret_key")
    amount, unfit = called.whole(wanted.amount_minor, wanted.currency), called.unfit(wanted, channel, secret)
    if unfit or amount is None:
        return unfit or NotSent("amount")
    headers = _headers(credentials)
    # The SDK sends the key when it is told to repeat calls; what the server makes of it is documented nowhere.
    once = {**headers, "Idempotency-Key": wanted.key}
    made = yield Call("POST", "/v1/transactions", once, json=_asked_for(wanted, amount, facts))
    if (refused := _refused(made, facts)) is not None:
        return refused
    entity = _entity(made.body)
    told = None if entity is None else _told(entity)
    if entity is None or not isinstance(told, Told) or entity.get("amount") is None:
        return Lost("unreadable")
    # Without a currency an amount is no fact; what is said is compared all the same.
    same_amount = money.from_major(entity.get("amount"), wanted.currency) == wanted.amount_minor
    if not same_amount or _of_other(told, wanted.reference) or told.facts[0].currency not in (None, wanted.currency):
        return Lost("other_payment")
    first = told.facts[0]
    if first.kind is not Kind.PENDING:  # nobody can have paid it yet, so an earlier call made it: its facts decide
        no = called.said_no(told)
        return Accepted(told) if no is None else Declined(told, no.reason or Reason.UNKNOWN)
    given = yield from _step(Call("POST", _path(first.movement, "/token"), headers, json={}), told, headers, facts)
    if isinstance(given, NotSent | Lost):
        return given
    if not (channel.direct and wanted.payer_phone):
        url = called.link(given.get("url"))
        return Lost("unreadable", told) if url is None else Accepted(told, Redirect(url))
    token = given.get("token")
    if not isinstance(token, str) or not 0 < len(token) <= TOKEN_CHARACTERS_MAX or not token.isprintable():
        return Lost("unreadable", told)
    sandbox = secret.startswith(SANDBOX_KEY)
    path = str(facts["push_path"]).format(mode=facts["sandbox_mode"] if sandbox else channel.code)
    phone = _phone(wanted.payer_phone, channel.country, national=sandbox)
    push = Call("POST", path, headers, json={"token": token, "phone_number": phone})
    pushed = yield from _step(push, told, headers, facts)
    if isinstance(pushed, NotSent | Lost):
        return pushed
    # The intent's amount is not compared: nobody says whether the payer's fees are in it. The transaction's was.
    said = strict.word(strict.dig(pushed, "v1/payment_intent", "status") or pushed.get("message"))
    return (
        Accepted(told, Approve())
        if said.casefold() in called.words(facts, "pushed_words")
        else Lost("unknown_status", told)
    )


Heard = strict.Document | NotSent | Lost


def _step(call: Call, told: Told, headers: Mapping[str, str], facts: Facts) -> Generator[Call, Response, Heard]:
    """A later call about a transaction that is there: what it says, or what it means that it says nothing."""
    outcome: NotSent | Lost | None
    try:
        response = yield call
    except Broken as broken:
        outcome = Lost(broken.reason) if broken.sent else NotSent(broken.reason)
    else:
        outcome = _refused(response, facts)
        if outcome is None:
            said = strict.document(response.body)
            return Lost("unreadable", told) if isinstance(said, Parked) else said
    if isinstance(outcome, NotSent):
        gone = yield from _delete(told.references[0], told.reference or "", headers)
        if isinstance(gone, Told):
            return outcome
    return Lost(outcome.reason, told, alert=outcome.alert)


# --- cancelling ---------------------------------------------------------------------------------------


def cancel(given: Given, credentials: Credentials) -> Canceling:
    """`DELETE /v1/transactions/{id}`, possible while it is pending [docs]."""
    number = _number(given)
    if number is None:
        return Lost("not_named")
    return (yield from _delete(number, given.reference, _headers(credentials)))


def _delete(number: str, reference: str, headers: Mapping[str, str]) -> Generator[Call, Response, Canceled]:
    try:
        response = yield Call("DELETE", _path(number), headers)
    except Broken as broken:
        return Lost(broken.reason)
    refused = called.turned_away(response.status)
    if refused is not None:
        # 404 is either gone already or never there; the other words say that it is not pending any more. Ask.
        unheard = response.status in (401, 403, 405, 429) or response.status >= 500 or response.status < 400
        return Lost(refused.reason, alert=refused.alert) if unheard else NotCanceled()
    if not response.body.strip():  # what the SDK's test answers
        return Told((number,), (Fact(Kind.CANCELED, number, source=Source.ANSWER),), reference or None)
    entity = _entity(response.body)
    if entity is None:
        return Lost("unreadable")
    told = transaction("transaction.deleted", entity, Source.ANSWER)
    if isinstance(told, Parked):
        return Lost("unreadable")
    if told.references[0] != number or (reference and _of_other(told, reference)):
        return Lost("other_payment")
    return told if told.facts[0].kind in DEAD else NotCanceled(told)


# --- asking -------------------------------------------------------------------------------------------


def fetch(given: Given, live: bool, credentials: Credentials, facts: Facts = FACTS) -> Asking:
    """`GET /v1/transactions/{id}` [SDK]."""
    number = _number(given)
    if number is None:
        return Unclear("not_named")
    return (yield from _ask(_path(number), given, number, live, credentials, facts))


def find(given: Given, live: bool, credentials: Credentials, facts: Facts = FACTS) -> Asking:
    """By the reference that we gave it."""
    path = str(facts["find_path"]).format(reference=quote(given.reference, safe=""))
    return (yield from _ask(path, given, None, live, credentials, facts))


def _ask(path: str, given: Given, number: str | None, live: bool, credentials: Credentials, facts: Facts) -> Asking:
    try:
        response = yield Call("GET", f"{path}?{urlencode({'include': facts['include']})}", _headers(credentials))
    except Broken as broken:
        return Unclear(broken.reason)
    said = answer(response, given, number)
    test = live and isinstance(said, Told | NotFinal) and _mode(response.body) == facts["sandbox_mode"]
    return Unclear(called.TEST_MONEY) if test else said


def _mode(body: bytes) -> object:
    entity = _entity(body)
    return entity.get("mode") if entity else None


def answer(response: Response, given: Given, number: str | None) -> Answer:
    """What FedaPay says about the transaction of this number, or (None) of our reference, which it must name then."""
    turned_away = meaning.turned_away(response.status)
    if turned_away is not None:
        of_payment = not isinstance(turned_away, NotKnown) or meaning.knows_no_such(response.body)
        return turned_away if of_payment else Unclear("no_route")
    entity = _entity(response.body)
    if entity is None:
        return Unclear("unreadable")
    told = _told(entity)
    if isinstance(told, Parked):
        return Unclear(told.reason)
    if _of_other(told, given.reference) or (told.reference is None if number is None else told.references[0] != number):
        return Unclear("other_payment")
    return NotFinal(told) if told.facts[0].kind is Kind.PENDING else told


def listed(listing: Listing, credentials: Credentials, facts: Facts = FACTS) -> Listening:
    """
    `GET /v1/transactions/search` [docs]: all there are, a page at a time; neither order nor filters are documented.

    What was made outside the span is left out here. `per_page` and `page`, and `meta.next_page`, are [unv]; without
    `meta` a full page has a next one.
    """
    page = int(listing.cursor) if listing.cursor and listing.cursor.isdigit() else 1
    query = urlencode({"per_page": LISTED_MAX, "page": page, "include": facts["include"]})
    response = yield Call("GET", f"{facts['list_path']}?{query}", _headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away is not None:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
    # The reference shows a bare array, the SDK's lists are objects.
    said = strict.document(
        response.body if response.body[:1] != b"[" else b'{"v1/transactions":' + response.body + b"}"
    )
    items = None if isinstance(said, Parked) else said.get("v1/transactions")
    if not isinstance(items, list) or len(items) > LISTED_MAX:
        return Unclear("unreadable")
    within = [it for it in items if _within(it, listing)]
    told = tuple(one for it in within if isinstance(it, dict) and isinstance(one := _told(_with_currency(it)), Told))
    meta = strict.branch(said, "meta")
    following = meta.get("next_page") if meta else page + 1 if len(items) == LISTED_MAX else None
    more = str(following) if type(following) is int and following > page else None
    return Listed(told, more, len(within) - len(told))


def _within(it: object, listing: Listing) -> bool:
    """Made in the span; what does not say when is kept."""
    made_ms = strict.time_ms(strict.dig(it, "created_at"))
    return not made_ms or listing.since_ms <= made_ms < listing.until_ms


# `reopens`: "declined/canceled may be followed by approved on the same transaction" [3p].
CALLS = Calls(CHANNELS, create, fetch, find, cancel=cancel, list=listed, reopens=True, facts=FACTS)
