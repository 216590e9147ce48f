"""
Money paid out through Stripe: a transfer to a connected account (`acct_…`), or a payout to a bank account or card of
the account's own (`ba_…`, `card_…`, or none: its default).

Facts marked [SDK] are read in stripe-python 16.1.0, [docs] in docs.stripe.com, [unv] nowhere; checked in November 2026.

A lost one is sent again under its key, which brings back the first answer [docs]. Keys live for a day at least, and
after that the same key would pay anew: what may be older is looked for in the list first, by our reference in its
metadata, and sent only when the whole list does not have it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from decimal import ROUND_FLOOR, Decimal
from typing import Final
from urllib.parse import quote, urlencode

from service.payments import money
from service.payments.facts import AMOUNT_MINOR_MAX
from service.providers import called, meaning, strict, stripe
from service.providers import stripe_wire as wire
from service.providers.base import Credentials, NotKnown, Parked, Unclear
from service.providers.calls import LISTED_MAX, Broken, Call, Facts, Lost, NotSent, Response
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

PAYOUT: Mapping[str, Stage] = {
    "pending": "in_transit",
    "in_transit": "in_transit",
    "paid": "paid",
    "failed": "failed",
    "canceled": "failed",
}
"""A payout's `status` [SDK]. A transfer has none: it is there at once, until it is reversed."""

PATHS: Mapping[str, tuple[str, str]] = {"tr_": ("transfer", "/v1/transfers"), "po_": ("payout", "/v1/payouts")}
"""How an id begins, the object's word, and where they are [SDK]."""

DESTINATION: Final = re.compile(r"((acct|ba|card)_[A-Za-z0-9_]{1,200})?", re.ASCII)

REFUSED: Mapping[str, str] = {
    "balance_insufficient": "insufficient_float",
    "insufficient_funds": "insufficient_float",
    "amount_too_small": "amount",
    "amount_too_large": "amount",
    "payouts_limit_exceeded": "amount",
    "resource_missing": "bad_account",
    "account_closed": "bad_account",
    "account_number_invalid": "bad_account",
    "bank_account_restricted": "bad_account",
    "bank_account_unusable": "bad_account",
    "bank_account_unverified": "bad_account",
    "debit_not_authorized": "bad_account",
    "incorrect_account_holder_name": "bad_account",
    "invalid_account_number": "bad_account",
    "no_account": "bad_account",
    "bank_ownership_changed": "bad_account",
    "invalid_card": "bad_account",
    "payouts_not_allowed": "not_allowed",
    "transfers_not_allowed": "not_allowed",
    "account_country_invalid_address": "not_allowed",
    "invalid_currency": "unsupported",
    "unsupported_card": "unsupported",
    "instant_payouts_unsupported": "unsupported",
    "instant_payouts_config_disabled": "unsupported",
    "instant_payouts_currency_disabled": "unsupported",
}
"""`error.code` of a refused one and `failure_code` of a failed one [docs]; a code in no row is `refused`."""

_NOT_SENT: Mapping[str, NotSent] = {
    code: wire.REFUSED[code]
    for code in (
        *("rate_limit", "api_key_expired", "platform_api_key_expired", "secret_key_required"),
        *("testmode_charges_only", "account_invalid"),
    )
}
"""Codes that are about us, not about this payout."""

FACTS: Facts = {
    "key_lives_ms": 82_800_000,  # a day, less an hour between the clocks [docs]
    "payout_description_characters_max": 500,  # [unv]
}
"""What is believed and may be set."""

LIST_LIMIT, LIST_PAGES = 80, 5
"""How far our own is looked for: a page of them with a few notes each is about 120 kB, and a body may have 256."""

# --- reading ------------------------------------------------------------------------------------------


def _key(credentials: Credentials, live: bool) -> str:
    """The key that calls; none where it is one for test money and the account is live."""
    key = called.credential(credentials, "secret_key")
    return "" if live and key.startswith(called.TEST_KEYS) else key


def _places(currency: str) -> int:
    return stripe.PLACES.get(currency, money.exponent(currency))


def _units(amount_minor: int, currency: str) -> int | None:
    """An amount as Stripe writes it; the eight digits of charges are a limit of the ways here, which may be set."""
    units = money.to_wire(amount_minor, _places(currency), currency)
    return None if units is None or units <= 0 or (currency in wire.TENS and units % 10) else units


def _kind(payee: Payee) -> str:
    """How the id of what is made will begin."""
    return "tr_" if payee.number.startswith("acct_") else "po_"


def _name(paying: Paying) -> str | None:
    return next((name for name in paying.names if name[:3] in PATHS), None)


def _read(it: object, paying: Paying, now_ms: int, name: str = "") -> PayoutTold | str:
    """
    What a transfer or a payout says, or why it is not believed.

    A payout that was paid can fail afterwards, and its status alone does not say that it had been paid. From the day on
    which it was to arrive, failed therefore means that it came back.
    """
    if not isinstance(it, dict):
        return "unreadable"
    start = _kind(paying.payee)
    id_ = strict.identifier(it.get("id"))
    if id_ is None or not id_.startswith(start) or it.get("object") != PATHS[start][0]:
        return "unreadable"
    if (name and id_ != name) or strict.dig(it, "metadata", "reference") != paying.reference:
        return "other_payout"
    if paying.live and it.get("livemode") is not True:
        return called.TEST_MONEY
    said = strict.amounts(
        lambda value, currency: money.from_wire(value, _places(currency), currency),
        it.get("currency") or paying.currency,
        it.get("amount"),
        it.get("amount_reversed"),
    )
    if isinstance(said, Parked):
        return "unreadable"
    currency, (amount, back) = said
    to = it.get("destination")
    to = strict.dig(to, "id") if isinstance(to, dict) else to
    elsewhere = to is not None and paying.payee.number not in ("", to)
    if currency != paying.currency or amount not in (None, paying.amount_minor) or elsewhere:
        return "other_payout"
    made_ms, arrives_ms = strict.seconds_ms(it.get("created")), strict.seconds_ms(it.get("arrival_date"))
    if start == "tr_":
        whole = it.get("reversed") is True
        part = "partly_returned" if back and not whole else ""
        return PayoutTold("returned" if whole else "paid", (id_,), reason=part, at_ms=made_ms)
    status = strict.word(it.get("status"))
    stage = PAYOUT.get(status)
    if stage is None:
        return "unknown_status"
    if stage == "paid" and it.get("reversed_by") is not None:
        return PayoutTold("returned", (id_,), reason="reversed")
    if stage != "failed":
        return PayoutTold(stage, (id_,), at_ms=arrives_ms if stage == "paid" else made_ms)
    code, words = strict.word(it.get("failure_code")), strict.word(it.get("failure_message"), 300)
    if status == "failed" and 0 < arrives_ms <= now_ms:
        stage = "returned"
    return PayoutTold(stage, (id_,), reason=REFUSED.get(code, "refused" if status == "failed" else status), words=words)


def _now_ms(response: Response, paying: Paying) -> int:
    """Stripe's own clock, ours where it does not say it."""
    return strict.http_date_ms(response.headers.get("date")) or paying.now_ms


# --- sending ------------------------------------------------------------------------------------------


def send(paying: Paying, channel: PayoutChannel, credentials: Credentials, facts: Facts = FACTS) -> Sending:
    """`POST /v1/transfers` or `/v1/payouts` [SDK], after a look into the list where the key may have lapsed."""
    payee, units = paying.payee, _units(paying.amount_minor, paying.currency)
    if not _key(credentials, paying.live):
        return called.CREDENTIALS_WRONG
    if _name(paying):  # it is there: only what it is now can be said of it
        return _as_sent((yield from ask(paying, credentials)))
    if not channel.fits(payee) or payee.currency != paying.currency:
        return PayoutRefused("unsupported")
    most = paying.amount_minor if channel.max_minor is None else channel.max_minor
    if (
        units is None
        or not channel.min_minor <= paying.amount_minor <= most
        or paying.amount_minor % channel.step_minor
    ):
        return PayoutRefused("amount")
    if not DESTINATION.fullmatch(payee.number):
        return PayoutRefused("bad_account")
    young = paying.since_ms and paying.now_ms - paying.since_ms < called.number(facts, "key_lives_ms")
    if not young:
        try:
            found = yield from _find(paying, credentials)
        except Broken as broken:
            return NotSent(broken.reason)
        if isinstance(found, Unclear):
            return _unseen(found.reason)
        if isinstance(found, PayoutTold):
            return found
    fields: dict[str, wire.Field] = {
        "amount": units,
        "currency": paying.currency.lower(),
        "destination": payee.number or None,
        "description": called.text(paying.description, called.number(facts, "payout_description_characters_max"))
        or None,
        "transfer_group": paying.reference if _kind(payee) == "tr_" else None,
        "metadata": {"reference": paying.reference},
    }
    path = PATHS[_kind(payee)][1]
    try:
        response = yield Call("POST", path, wire.headers(credentials, paying.key), form=wire.form(fields))
    except Broken as broken:
        return Lost(broken.reason) if broken.sent else NotSent(broken.reason)
    return _sent(response, paying)


def _unseen(reason: str) -> NotSent | Lost:
    """A look moves nothing and is repeated; one that found something that is not what we asked for is a person's."""
    if reason in ("other_payout", "unknown_status", called.TEST_MONEY):
        return Lost(reason, alert=reason == called.TEST_MONEY)
    return called.CREDENTIALS_WRONG if reason == "credentials" else NotSent(reason)


def _as_sent(said: PayoutTold | NotKnown | Unclear) -> PaidOut:
    if isinstance(said, PayoutTold):
        return said
    return Lost(said.reason if isinstance(said, Unclear) else "not_known")


def _sent(response: Response, paying: Paying) -> PaidOut:
    error = wire.error(response)
    if response.status in (400, 402, 404) and error.type:
        if error.type != "invalid_request_error":
            return Lost(error.type if error.type == "idempotency_error" else "refused")
        return _NOT_SENT.get(error.code) or PayoutRefused(REFUSED.get(error.code, "refused"), error.words)
    stopped = called.turned_away(response.status)
    if stopped:
        return PayoutRefused("unsupported") if stopped.reason == "unsupported" else stopped
    it = strict.document(response.body)
    told = "unreadable" if isinstance(it, Parked) else _read(it, paying, _now_ms(response, paying))
    return told if isinstance(told, PayoutTold) else Lost(told, alert=told == called.TEST_MONEY)


# --- asking -------------------------------------------------------------------------------------------


def ask(paying: Paying, credentials: Credentials) -> AskingPayout:
    """`GET /v1/transfers/{id}` or `/v1/payouts/{id}`, else the list; what Stripe has named to us is never not known."""
    if not _key(credentials, paying.live):
        return Unclear("credentials")
    name = _name(paying)
    if name is None:
        return (yield from _find(paying, credentials))
    response = yield Call("GET", f"{PATHS[name[:3]][1]}/{quote(name, safe='')}", wire.headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("not_known")
    told = _read(strict.document(response.body), paying, _now_ms(response, paying), name)
    return told if isinstance(told, PayoutTold) else Unclear(told)


def _find(paying: Paying, credentials: Credentials) -> Generator[Call, Response, PayoutTold | NotKnown | Unclear]:
    """
    The one with our reference in its notes, newest first. Not known only when the list was read to its end, back to
    shortly before it was asked for: further back there may be one.
    """
    start = _kind(paying.payee)
    began_s = (paying.since_ms - wire.CLOCKS_APART_MS) // 1000
    query = {"limit": str(LIST_LIMIT)} | ({"created[gte]": str(began_s)} if began_s > 0 else {})
    if start == "tr_":
        query["transfer_group"] = paying.reference
    for _ in range(LIST_PAGES):
        response = yield Call("GET", f"{PATHS[start][1]}?{urlencode(query)}", wire.headers(credentials))
        turned_away = meaning.turned_away(response.status)
        if turned_away:
            return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
        page = strict.document(response.body)
        items, more = (None, None) if isinstance(page, Parked) else (page.get("data"), page.get("has_more"))
        if not isinstance(items, list) or not isinstance(more, bool) or len(items) > LISTED_MAX:
            return Unclear("unreadable")
        for item in items:
            if strict.dig(item, "metadata", "reference") == paying.reference:
                told = _read(item, paying, _now_ms(response, paying))
                return told if isinstance(told, PayoutTold) else Unclear(told)
        if not more:
            return NotKnown()
        last = strict.identifier(strict.dig(items[-1], "id")) if items else None
        if last is None:
            return Unclear("unreadable")
        query["starting_after"] = last
    return Unclear("too_many")


def float_(payee: Payee, live: bool, credentials: Credentials) -> AskingFloat:
    """`GET /v1/balance` [SDK]: what is `available` of each currency, rounded down; less than nothing is nothing."""
    if not _key(credentials, live):
        return Unclear("credentials")
    response = yield Call("GET", "/v1/balance", wire.headers(credentials))
    turned_away = meaning.turned_away(response.status)
    if turned_away:
        return turned_away if isinstance(turned_away, Unclear) else Unclear("refused")
    said = strict.document(response.body)
    items = None if isinstance(said, Parked) or said.get("object") != "balance" else said.get("available")
    if isinstance(said, Parked) or not isinstance(items, list):
        return Unclear("unreadable")
    if live and said.get("livemode") is not True:
        return Unclear(called.TEST_MONEY)
    found: dict[str, int] = {}
    for item in items:
        currency, amount = strict.currency(strict.dig(item, "currency")), strict.dig(item, "amount")
        if currency is None or type(amount) is not int or amount > AMOUNT_MINOR_MAX or currency in found:
            return Unclear("unreadable")
        by = money.exponent(currency) - _places(currency)
        found[currency] = int(Decimal(max(0, amount)).scaleb(by).to_integral_value(ROUND_FLOOR))
    return found


# --- what it can do -----------------------------------------------------------------------------------


def _channel(currency: str) -> PayoutChannel:
    """To an account in this currency, in steps that Stripe can write."""
    like = wire.channel(currency, "")
    return PayoutChannel(
        "account", currency, min_minor=like.step_minor, max_minor=like.max_minor, step_minor=like.step_minor
    )


CHANNELS: tuple[PayoutChannel, ...] = tuple(_channel(currency) for currency in wire.CURRENCIES)
"""[docs/currencies, not checked one by one: unv]; an account pays out what it has a balance in."""

PAYOUTS = Payouts(channels=CHANNELS, send=send, ask=ask, float_=float_, idempotent=True, facts=FACTS)
