"""
Money paid out through FedaPay: a payout is made, which moves nothing, and started, which does.

Facts marked [SDK] are read in fedapay-php and -node, [docs] in docs.fedapay.com, [3p] in others' code, [unv] nowhere.

What keeps it from being paid twice. A payout is one object at FedaPay, and only a start of it pays. So before anything
is made we look for one of our reference, and when there is one, that one is started and no second one is made. It is
started only where FedaPay's own answer says at that moment that it is `pending`: made and never started; in any other
state it is only told. A start of which no answer came is `Lost`. When `ask` then finds it pending, the start may still
be on its way, so for `settles_after_ms` that says nothing; afterwards it is as good as not known, for no money moved,
and the next `send` looks again and starts the same object. `ask` itself never starts anything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Generator, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from service.payments import money
from service.payments.facts import Told
from service.providers import called, fedapay_calls, meaning, strict
from service.providers.base import Credentials, NotKnown, Parked, Unclear
from service.providers.calls import Broken, Call, Facts, Lost, NotSent, Response
from service.providers.payouts import (
    AskingFloat,
    AskingPayout,
    PaidOut,
    Payee,
    Paying,
    PayoutChannel,
    PayoutRefused,
    Payouts,
    PayoutTold,
    Sending,
    Stage,
)

# --- tables -------------------------------------------------------------------------------------------

PENDING: Final = "pending"
STATUS: Mapping[str, Stage] = {
    "started": "in_transit",
    "processing": "in_transit",
    "sent": "paid",
    "failed": "failed",
}
"""A payout's `status` [SDK]; `PENDING` is made and not started."""

CHANNELS: tuple[PayoutChannel, ...] = tuple(
    PayoutChannel("mobile_money", "XOF", country, operator, mode)
    for (country, operator), mode in fedapay_calls.PUSHED.items()
)
"""The modes of direct pushes [SDK]; that payouts take the same ones is [3p] for Togo and [unv] elsewhere."""

FACTS: Facts = {
    "sandbox_mode": fedapay_calls.FACTS["sandbox_mode"],  # these three are the same as for payments
    "include": fedapay_calls.FACTS["include"],
    "reference_taken_word": fedapay_calls.FACTS["reference_taken_word"],
    "payout_find_path": "/v1/payouts/merchant/{reference}",  # [3p quoting docs]
    "payout_start_field": "payouts",  # [SDK]; empty: a bare array, as the API reference has it
    "settles_after_ms": 900_000,  # ours: how long a start may be on its way [unv]
    "float_words": ("solde", "balance", "insuffi"),  # [unv]
    "account_words": ("phone", "numero", "number", "customer", "client"),  # [unv]
    "mode_words": ("mode", "operateur", "operator"),  # [unv]
    "amount_words": ("amount", "montant"),  # [unv]
}
"""What is believed and may be set. Words are parts of what a refusal says, in small letters without accents."""

REFUSED: tuple[tuple[str, str], ...] = (
    ("float_words", "insufficient_float"),
    ("account_words", "bad_account"),
    ("mode_words", "unsupported"),
    ("amount_words", "amount"),
)
"""The facts that tell why, and our words for it."""

FROM_LOOKING = frozenset({"other_payout", "not_known", called.TEST_MONEY})
"""What is there under our reference or name is not what we know of it: a person's, and not to be tried again."""

NAME_CHARACTERS_MAX, WORDS_CHARACTERS_MAX, BALANCES_MAX = 100, 300, 200

# --- requests -----------------------------------------------------------------------------------------


def _key(credentials: Credentials, live: bool) -> str:
    """The key that calls; none where it is the sandbox's and the account is live."""
    key = called.credential(credentials, "secret_key")
    return "" if live and key.startswith(called.TEST_KEYS) else key


def _headers(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": f"Bearer {called.credential(credentials, 'secret_key')}", "Accept": "application/json"}


def _sandbox(credentials: Credentials) -> bool:
    return called.credential(credentials, "secret_key").startswith(fedapay_calls.SANDBOX_KEY)


def _phone(payee: Payee, credentials: Credentials) -> dict[str, str]:
    """`{number, country}` [SDK]; the sandbox knows its numbers in national form."""
    number, dialled = payee.number, fedapay_calls.DIALLED.get(payee.country, "")
    if _sandbox(credentials) and dialled:
        number = number.removeprefix("+").removeprefix(dialled)
    return {"number": number, "country": payee.country.lower()}


def _number(paying: Paying) -> str | None:
    """Its id, an integer [SDK]; other names are none that could be asked by."""
    return next((name for name in paying.names if name.isascii() and name.isdigit()), None)


# --- reading ------------------------------------------------------------------------------------------


def _with_currency(entity: strict.Document) -> strict.Document:
    iso = fedapay_calls.CURRENCY_IDS.get(strict.identifier(entity.get("currency_id")) or "")
    return {**entity, "currency": {"iso": iso}} if iso and entity.get("currency") is None else entity


def _believed(
    said: object, paying: Paying, facts: Facts, *, number: str | None = None, named: bool = False
) -> strict.Document | str:
    """The payout in an answer; or why it is not believed. `named`: it has to name our reference."""
    if not isinstance(said, dict) or strict.identifier(said.get("id")) is None:
        return "unreadable"
    entity = _with_currency(said)
    ours = strict.identifier(entity.get("merchant_reference")) or strict.identifier(
        strict.dig(entity, "custom_metadata", "reference")
    )
    if ours != paying.reference and (named or ours is not None):
        return "other_payout"
    if number is not None and strict.identifier(entity.get("id")) != number:
        return "other_payout"
    if paying.live and entity.get("mode") == facts["sandbox_mode"]:
        return called.TEST_MONEY
    currency = strict.dig(entity, "currency", "iso") or paying.currency
    amounts = strict.amounts(money.from_major, currency, entity.get("amount"))
    if isinstance(amounts, Parked):
        return "unreadable"
    if amounts[0] != paying.currency or amounts[1][0] not in (None, paying.amount_minor):
        return "other_payout"
    return entity


def _told(entity: strict.Document, paying: Paying, facts: Facts) -> PayoutTold | str:
    """What a started payout says of itself."""
    status = strict.word(entity.get("status"))
    stage = STATUS.get(status)
    if stage is None:
        return "unknown_status"
    if stage == "failed" and strict.time_ms(entity.get("sent_at")):
        stage = "returned"  # it was sent, and failed afterwards: no status is documented for that
    error = strict.word(entity.get("last_error_message") or entity.get("last_error_code"), WORDS_CHARACTERS_MAX)
    failed = stage in ("failed", "returned")
    return PayoutTold(
        stage,
        (strict.identifier(entity.get("id")) or "",),
        fee_minor=money.from_major(entity.get("fees"), paying.currency) if stage == "paid" else None,
        reason=_why(error, facts) or "refused" if failed else "",
        words=error if failed else "",
        at_ms=strict.first_ms(entity.get(f"{status}_at"), entity.get("updated_at"), entity.get("created_at")),
    )


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().casefold()


def _why(text: str, facts: Facts) -> str | None:
    plain = _plain(text)
    return next((why for words, why in REFUSED if any(word in plain for word in called.words(facts, words))), None)


def _message(said: strict.Document) -> str:
    """`{message, errors}` of a refusal [SDK], the message alone for people."""
    return strict.word(said.get("message"), WORDS_CHARACTERS_MAX)


# --- looking ------------------------------------------------------------------------------------------

Looking = Generator[Call, Response, strict.Document | NotKnown | Unclear]


def _look(paying: Paying, credentials: Credentials, facts: Facts, number: str | None = None) -> Looking:
    """`GET /v1/payouts/{id}` [SDK], or by our reference; one that FedaPay has named to us is never not known."""
    number = number or _number(paying)
    path = (
        f"/v1/payouts/{quote(number, safe='')}"
        if number
        else str(facts["payout_find_path"]).format(reference=quote(paying.reference, safe=""))
    )
    try:
        response = yield Call("GET", f"{path}?{urlencode({'include': facts['include']})}", _headers(credentials))
    except Broken as broken:
        return Unclear(broken.reason)
    turned_away = meaning.turned_away(response.status)
    if isinstance(turned_away, NotKnown):
        if not meaning.knows_no_such(response.body):
            return Unclear("no_route")
        return Unclear("not_known") if number else turned_away
    if turned_away is not None:
        return turned_away
    said = strict.document(response.body)
    entity = None if isinstance(said, Parked) else said.get("v1/payout")
    found = _believed(entity, paying, facts, number=number, named=number is None)
    return Unclear(found) if isinstance(found, str) else found


# --- sending ------------------------------------------------------------------------------------------


def send(paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """Look for it, `POST /v1/payouts` where there is none, `PUT /v1/payouts/start` where it is pending [SDK]."""
    amount = called.whole(paying.amount_minor, paying.currency)
    if not _key(credentials, paying.live):
        return called.CREDENTIALS_WRONG
    if not channel.fits(paying.payee) or paying.payee.currency != paying.currency:
        return PayoutRefused("unsupported")
    most = paying.amount_minor if channel.max_minor is None else channel.max_minor
    fits = channel.min_minor <= paying.amount_minor <= most and not paying.amount_minor % channel.step_minor
    if amount is None or not fits:
        return PayoutRefused("amount")
    if called.digits(paying.payee.number) is None:
        return PayoutRefused("bad_account")
    found: strict.Document | NotKnown | Unclear | PaidOut = yield from _look(paying, credentials, facts)
    if isinstance(found, NotKnown):
        found = yield from _create(paying, amount, channel, credentials, facts)
    if isinstance(found, Unclear):
        return _not_looked(found.reason)
    if not isinstance(found, dict):
        return found
    if found.get("status") == PENDING:
        return (yield from _start(found, paying, credentials, facts))
    told = _told(found, paying, facts)
    return Lost(told) if isinstance(told, str) else told


def _not_looked(reason: str) -> NotSent | Lost:
    """Looking moves nothing: it is tried again, unless what was found is the trouble."""
    if reason in FROM_LOOKING:
        return Lost(reason, alert=reason == called.TEST_MONEY)
    return called.CREDENTIALS_WRONG if reason == "credentials" else NotSent(reason)


def _create(
    paying: Paying, amount: int, channel: PayoutChannel, credentials: Credentials, facts: Facts
) -> Generator[Call, Response, strict.Document | Unclear | PaidOut]:
    """
    A payout that is made and moves nothing, so whatever goes wrong here is proof, and the next try looks for it first.
    That our reference is taken means that there is one all the same: it is looked for.
    """
    payee, mode = paying.payee, facts["sandbox_mode"] if _sandbox(credentials) else channel.code
    first, _, last = called.text(payee.name.strip(), NAME_CHARACTERS_MAX).partition(" ")
    names = {"firstname": first, "lastname": last.strip()}
    asked = {
        "amount": amount,
        "currency": {"iso": paying.currency},
        "mode": mode,
        "description": called.text(paying.description, fedapay_calls.DESCRIPTION_CHARACTERS_MAX) or paying.reference,
        "customer": {name: value for name, value in names.items() if value}
        | {"phone_number": _phone(payee, credentials)},
        "merchant_reference": paying.reference,
        "custom_metadata": {"reference": paying.reference},
        "include": facts["include"],
    }
    headers = {**_headers(credentials), "Idempotency-Key": paying.key}  # what it does is documented nowhere
    try:
        response = yield Call("POST", "/v1/payouts", headers, json=asked)
    except Broken as broken:
        return NotSent(broken.reason)
    said = strict.document(response.body)
    if response.status in (400, 409, 422):
        if isinstance(said, Parked):
            return NotSent("refused")
        if str(facts["reference_taken_word"]) in _plain(str(said)):
            there = yield from _look(paying, credentials, facts)
            return Unclear("reference_taken") if isinstance(there, NotKnown) else there
        return PayoutRefused(_why(str(said), facts) or "refused", _message(said))
    stopped = called.turned_away(response.status)
    if stopped is not None:
        return NotSent(stopped.reason, alert=stopped.alert)
    made = None if isinstance(said, Parked) else said.get("v1/payout")
    entity = _believed(made, paying, facts)
    if isinstance(entity, str):
        return Unclear(entity)
    return entity


def _start(entity: strict.Document, paying: Paying, credentials: Credentials, facts: Facts) -> Sending:
    """The call that pays. What broke before a byte of it left is proof: FedaPay has just said that it is pending."""
    number = strict.identifier(entity.get("id")) or ""
    known = Told((number,), (), paying.reference)
    one = {"id": int(number) if number.isascii() and number.isdigit() else number}
    started = [{**one, "phone_number": _phone(paying.payee, credentials)}]
    field = str(facts["payout_start_field"])
    try:
        response = yield Call(
            "PUT", "/v1/payouts/start", _headers(credentials), json={field: started} if field else started
        )
    except Broken as broken:
        return Lost(broken.reason, known) if broken.sent else NotSent(broken.reason)
    stopped = called.turned_away(response.status)
    if stopped is not None and stopped.reason in ("refused", "unsupported"):
        return (yield from _refused(response, number, known, paying, credentials, facts))
    if stopped is not None:
        return Lost(stopped.reason, known) if isinstance(stopped, Lost) else stopped
    # The API reference shows a bare array, the SDKs an object.
    body = response.body.strip()
    said = strict.document(b'{"v1/payouts":' + body + b"}" if body[:1] == b"[" else body)
    items = None if isinstance(said, Parked) else said.get("v1/payouts")
    ours = (
        (it for it in items if strict.identifier(strict.dig(it, "id")) == number) if isinstance(items, list) else None
    )
    item = next(ours, None) if ours else None
    now = _believed(item, paying, facts, number=number)
    if isinstance(now, str):
        return Lost(now, known, alert=now == called.TEST_MONEY)
    told = "not_started" if now.get("status") == PENDING else _told(now, paying, facts)
    return Lost(told, known) if isinstance(told, str) else told


def _refused(
    response: Response, number: str, known: Told, paying: Paying, credentials: Credentials, facts: Facts
) -> Sending:
    """
    A start that was refused may have been refused because it is started already, so that it is asked what it is now:
    pending after a refusal is the provider's definite no, anything else speaks for itself.
    """
    said = strict.document(response.body)
    now = yield from _look(paying, credentials, facts, number)
    if isinstance(now, NotKnown | Unclear):
        return Lost(now.reason if isinstance(now, Unclear) else "not_known", known)
    if now.get("status") == PENDING:
        if isinstance(said, Parked):
            return NotSent("refused")
        return PayoutRefused(_why(str(said), facts) or "refused", _message(said))
    told = _told(now, paying, facts)
    return Lost(told, known) if isinstance(told, str) else told


# --- asking -------------------------------------------------------------------------------------------


def ask(paying: Paying, credentials: Credentials, facts: Facts = FACTS) -> AskingPayout:
    """By FedaPay's id, else by our reference. Pending is not known, once no start can be on its way any more."""
    if not _key(credentials, paying.live):
        return Unclear("credentials")
    found = yield from _look(paying, credentials, facts)
    if isinstance(found, NotKnown | Unclear):
        return found
    if found.get("status") == PENDING:
        last_ms = max(paying.since_ms, strict.first_ms(found.get("updated_at"), found.get("created_at")))
        settled = last_ms and paying.now_ms - last_ms >= called.number(facts, "settles_after_ms")
        return NotKnown() if settled else Unclear("not_started")
    told = _told(found, paying, facts)
    return Unclear(told) if isinstance(told, str) else told


def float_(
    payee: Payee,
    live: bool,
    credentials: Credentials,
    facts: Facts = FACTS,
    channels: tuple[PayoutChannel, ...] = CHANNELS,
) -> AskingFloat:
    """`GET /v1/balances` [docs]: a balance for each mode; the one from which this payee would be paid."""
    way = Payouts(channels, send).channel(payee)
    if not _key(credentials, live):
        return Unclear("credentials")
    mode = facts["sandbox_mode"] if _sandbox(credentials) else way.code if way else ""
    response = yield Call("GET", "/v1/balances", _headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away is not None:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
    body = response.body.strip()
    said = strict.document(b'{"v1/balances":' + body + b"}" if body[:1] == b"[" else body)
    items = None if isinstance(said, Parked) else said.get("v1/balances")
    if not isinstance(items, list) or len(items) > BALANCES_MAX:
        return Unclear("unreadable")
    found = [
        money.from_major(strict.dig(it, "amount"), payee.currency) for it in items if strict.dig(it, "mode") == mode
    ]
    if len(found) != 1 or found[0] is None:
        return Unclear("unreadable" if found else "no_balance")
    return {payee.currency: found[0]}


PAYOUTS = Payouts(channels=CHANNELS, send=send, ask=ask, float_=float_, facts=FACTS)
