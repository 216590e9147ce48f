"""
Stripe's API: checkout sessions, PaymentIntents, refunds; forms with brackets in, JSON out, and idempotency keys.

Neither object charges anybody: a person pays on the page, which is there for a PaymentIntent too, in place of the
merchant's own. A decline leaves it open, for another try. `stripe_reading` reads the requests, `stripe_objects` has
what the objects look like.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from service.payments import money
from service.sandbox.api import stripe_objects as objects
from service.sandbox.api import stripe_reading as read
from service.sandbox.bank import Charge, Happening, Refund
from service.sandbox.desk import Account, Api, Asked, Choice, Desk, Letter, Route, Said

EXPIRES_MS: Final = 24 * 3_600_000
EXPIRES_MS_MIN: Final = 30 * 60_000
LIMIT, LIMIT_MAX = 10, 100
SPANS: Mapping[str, Callable[[int, int], bool]] = {
    "created[gt]": operator.gt,
    "created[gte]": operator.ge,
    "created[lt]": operator.lt,
    "created[lte]": operator.le,
}

_SESSION_FIELDS = (
    "mode payment_method_types line_items client_reference_id success_url cancel_url customer_email expires_at "
    "metadata payment_intent_data locale ui_mode"
)
SESSION_FIELDS: Final = frozenset(_SESSION_FIELDS.split())
_INTENT_FIELDS = "amount currency payment_method_types automatic_payment_methods description receipt_email metadata"
INTENT_FIELDS: Final = frozenset(_INTENT_FIELDS.split())
REFUND_FIELDS: Final = frozenset({"payment_intent", "charge", "amount", "reason", "metadata"})
REFUND_REASONS: Final = ("duplicate", "fraudulent", "requested_by_customer")
CANCEL_REASONS: Final = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")

# --- sessions -----------------------------------------------------------------------------------------


def create_session(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/checkout/sessions`."""
    said = read.form(asked, SESSION_FIELDS)
    if said.get("mode") != "payment":
        raise read.missing("mode") if "mode" not in said else read.turn("Invalid mode.", param="mode")
    items = said.get("line_items")
    if not isinstance(items, dict) or list(items) != [str(at) for at in range(len(items))]:
        raise read.missing("line_items")
    total, currency = 0, ""
    for at, item in items.items():
        price = item.get("price_data") if isinstance(item, dict) else None
        if not isinstance(price, dict):
            raise read.missing(f"line_items[{at}][price_data]")
        product = price.get("product_data")
        if not isinstance(product, dict) or not product.get("name"):
            raise read.missing(f"line_items[{at}][price_data][product_data][name]")
        one = read.currency(price.get("currency"), f"line_items[{at}][price_data][currency]")
        if currency not in ("", one):
            raise read.turn("All line items need one currency.", param="line_items")
        currency = one
        unit = read.whole(price.get("unit_amount"), f"line_items[{at}][price_data][unit_amount]")
        total += unit * read.whole(item.get("quantity"), f"line_items[{at}][quantity]")
    reference = said.get("client_reference_id", "")
    if not isinstance(reference, str) or len(reference) > 200:
        raise read.turn("Invalid client_reference_id.", param="client_reference_id")
    read.types(said)
    read.email(said.get("customer_email"), "customer_email")
    read.metadata(said.get("metadata"))
    data = said.get("payment_intent_data", {})
    if not isinstance(data, dict) or set(data) - {"description", "metadata"}:
        raise read.turn("Invalid payment_intent_data.", code="parameter_unknown", param="payment_intent_data")
    read.metadata(data.get("metadata"), "payment_intent_data[metadata]")
    now_ms, expires_ms = desk.clock(), desk.clock() + EXPIRES_MS
    if "expires_at" in said:
        expires_ms = read.whole(said["expires_at"], "expires_at") * 1000
        if not now_ms + EXPIRES_MS_MIN <= expires_ms <= now_ms + EXPIRES_MS:
            raise read.turn("`expires_at` must be 30 minutes to 24 hours from now.", param="expires_at")
    charge = Charge(
        id=f"cs_{'live' if account.live else 'test'}_{desk.letters(58)}",
        provider="stripe",
        account=account.name,
        amount_minor=read.amount(total, currency, "line_items[0][price_data][unit_amount]"),
        currency=currency,
        reference=reference,
        key=asked.headers.get("idempotency-key", ""),
        method="card",
        retriable=True,
        return_url=read.address(said.get("success_url"), "success_url", needed=True),
        cancel_url=read.address(said.get("cancel_url"), "cancel_url", needed=False),
        expires_ms=expires_ms,
        asked=said,
        notes={"secret": desk.letters(25)},
    )
    desk.bank.begin(charge)
    desk.bank.ask(charge, "page")
    return Said(200, objects.session(desk, charge))


def get_session(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/checkout/sessions/{id}`."""
    return Said(200, objects.session(desk, read.known(desk, account, asked.parts["id"], "cs_"), read.expand(asked)))


def expire_session(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/checkout/sessions/{id}/expire`, while it is open."""
    read.form(asked, frozenset())
    charge = read.known(desk, account, asked.parts["id"], "cs_")
    if not desk.bank.expire(charge):
        raise read.turn('Only Checkout Sessions with a status in ["open"] can be expired.')
    return Said(200, objects.session(desk, charge))


# --- PaymentIntents -----------------------------------------------------------------------------------


def create_intent(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/payment_intents`."""
    said = read.form(asked, INTENT_FIELDS)
    units = read.whole(said.get("amount"), "amount")
    currency = read.currency(said.get("currency"), "currency")
    read.types(said)
    read.email(said.get("receipt_email"), "receipt_email")
    read.metadata(said.get("metadata"))
    charge = Charge(
        id=f"pi_{desk.letters()}",
        provider="stripe",
        account=account.name,
        amount_minor=read.amount(units, currency, "amount"),
        currency=currency,
        reference=said.get("metadata", {}).get("reference", ""),
        key=asked.headers.get("idempotency-key", ""),
        method="card",
        retriable=True,
        asked=said,
        notes={"secret": desk.letters(25)},
    )
    desk.bank.begin(charge)
    desk.bank.ask(charge, "page")
    return Said(200, objects.payment_intent(desk, charge))


def get_intent(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payment_intents/{id}`, of a session too."""
    return Said(
        200, objects.payment_intent(desk, read.known(desk, account, asked.parts["id"], "pi_"), read.expand(asked))
    )


def cancel_intent(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/payment_intents/{id}/cancel`; one of a session goes with its session only."""
    said = read.form(asked, frozenset({"cancellation_reason"}))
    reason = said.get("cancellation_reason", "requested_by_customer")
    if reason not in CANCEL_REASONS:
        raise read.turn("Invalid cancellation_reason.", param="cancellation_reason")
    charge = read.known(desk, account, asked.parts["id"], "pi_")
    if objects.is_session(charge):
        raise read.turn("This PaymentIntent was created by Checkout; expire its session.")
    if charge.live:
        charge.notes["cancellation_reason"] = reason
    if not desk.bank.cancel(charge):
        words = f"You cannot cancel this PaymentIntent because it has a status of {charge.state}."
        raise read.turn(words, code="payment_intent_unexpected_state")
    return Said(200, objects.payment_intent(desk, charge))


# --- lists --------------------------------------------------------------------------------------------


def page_of(asked: Asked, found: Sequence[dict[str, Any]], url: str) -> Said:
    """A page of a list that is the newest first, within `created[gte]` and its sisters."""
    query = asked.queries()
    given = query.get("limit", str(LIMIT))
    if not given.isdigit() or not 1 <= int(given) <= LIMIT_MAX:
        raise read.turn("Invalid limit.", code="parameter_invalid_integer", param="limit")
    for name, fits in SPANS.items():
        if name in query:
            bound = read.whole(query[name], name)
            found = [one for one in found if fits(one["created"], bound)]
    begin = 0
    if after := query.get("starting_after"):
        begin = next((at + 1 for at, one in enumerate(found) if one["id"] == after), -1)
        if begin < 0:
            raise read.turn(f"No such object: '{after[:80]}'", code="resource_missing", param="starting_after")
    end = begin + int(given)
    return Said(200, {"object": "list", "data": list(found[begin:end]), "has_more": end < len(found), "url": url})


def list_sessions(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/checkout/sessions`, the newest first."""
    found = [objects.session(desk, one) for one in desk.bank.of("stripe", account.name) if objects.is_session(one)]
    return page_of(asked, found, "/v1/checkout/sessions")


def _intents(desk: Desk, account: Account) -> list[dict[str, Any]]:
    of = [one for one in desk.bank.of("stripe", account.name) if objects.intent_id(one)]
    return [objects.payment_intent(desk, one) for one in of]


def list_intents(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payment_intents`, the newest first."""
    return page_of(asked, _intents(desk, account), "/v1/payment_intents")


def search_intents(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/payment_intents/search?query=metadata['name']:'value'`."""
    query = re.fullmatch(
        r"""metadata\[["']([^"']{1,40})["']\]:["']([^"']{1,500})["']""", asked.queries().get("query", "")
    )
    if query is None:
        raise read.turn("We were unable to parse your search query.", param="query")
    found = [one for one in _intents(desk, account) if one["metadata"].get(query[1]) == query[2]][:LIMIT_MAX]
    return Said(200, {"object": "search_result", "data": found, "has_more": False, "url": "/v1/payment_intents/search"})


# --- refunds ------------------------------------------------------------------------------------------


def create_refund(desk: Desk, account: Account, asked: Asked) -> Said:
    """`POST /v1/refunds` of a PaymentIntent or a charge; by card it has succeeded at once."""
    said = read.form(asked, REFUND_FIELDS)
    name = said.get("payment_intent") or said.get("charge")
    if not isinstance(name, str):
        raise read.missing("payment_intent")
    charge = read.known(desk, account, name, "pi_", "ch_")
    if said.get("reason") not in (None, *REFUND_REASONS):
        raise read.turn("Invalid reason.", param="reason")
    read.metadata(said.get("metadata"))
    rest = charge.captured_minor - charge.refunded_minor
    if charge.state != "succeeded":
        raise read.turn("This PaymentIntent does not have a successful charge to refund.")
    if rest <= 0:
        raise read.turn("Charge has already been refunded.", code="charge_already_refunded")
    units = read.whole(said["amount"], "amount") if "amount" in said else objects.wire(rest, charge.currency)
    amount = money.from_wire(units, objects.places(charge.currency), charge.currency) if units > 0 else None
    if amount is None:
        raise read.turn("Invalid positive integer.", code="parameter_invalid_integer", param="amount")
    if amount > rest:
        raise read.turn("Refund amount is greater than unrefunded amount on charge.", param="amount")
    fails = desk.trouble.take("stripe", "refund", "refund_fails_later") is not None
    made = Refund(f"re_{desk.letters()}", amount, "succeeded", fails, note=said.get("reason", ""))
    made.key, made.metadata = asked.headers.get("idempotency-key", ""), said.get("metadata", {})
    return Said(200, objects.refund(charge, desk.bank.refund(charge, made)))


def list_refunds(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/refunds`, of one PaymentIntent or charge, or all."""
    query = asked.queries()
    name = query.get("payment_intent") or query.get("charge")
    of = [read.known(desk, account, name, "pi_", "ch_")] if name else desk.bank.of("stripe", account.name)
    found = [objects.refund(one, back) for one in of for back in reversed(one.refunds)]
    return page_of(asked, found, "/v1/refunds")


def get_refund(desk: Desk, account: Account, asked: Asked) -> Said:
    """`GET /v1/refunds/{id}`."""
    for one in desk.bank.of("stripe", account.name):
        for back in one.refunds:
            if back.id == asked.parts["id"]:
                return Said(200, objects.refund(one, back))
    raise read.turn("No such refund.", code="resource_missing", param="id", status=404)


# --- callbacks and pages ------------------------------------------------------------------------------


def letters(desk: Desk, happening: Happening) -> Sequence[Letter]:
    """The events of a happening, in the order in which they came about."""
    charge, refund = happening.charge, happening.refund
    if happening.word in ("try_failed", "succeeded"):
        objects.tried(desk, charge)
    session, intent = objects.is_session(charge), objects.intent_id(charge)
    told: list[tuple[str, dict[str, Any]]] = []
    match happening.word:
        case "begun" if not session:
            told = [("payment_intent.created", objects.payment_intent(desk, charge))]
        case "try_failed" if happening.failed is not None:
            told = [
                ("charge.failed", objects.card_charge(desk, charge, happening.failed.id)),
                ("payment_intent.payment_failed", objects.payment_intent(desk, charge)),
            ]
        case "succeeded":
            told = [
                ("charge.succeeded", objects.card_charge(desk, charge, charge.names["paid_by"])),
                ("payment_intent.succeeded", objects.payment_intent(desk, charge)),
            ]
            told += [("checkout.session.completed", objects.session(desk, charge))] if session else []
        case "canceled" | "expired":
            told = [("payment_intent.canceled", objects.payment_intent(desk, charge))] if intent else []
            told += [("checkout.session.expired", objects.session(desk, charge))] if session else []
        case "refund" if refund is not None:
            told = [("refund.failed" if refund.state == "failed" else "refund.created", objects.refund(charge, refund))]
            whole = objects.card_charge(desk, charge, charge.names["paid_by"])
            told += [("charge.refund.updated", told[0][1]) if refund.state == "failed" else ("charge.refunded", whole)]
        case _:
            pass
    account = desk.account_of(charge)
    live = "true" if account and account.live else "false"
    return [
        Letter(
            event,
            {
                "event_id": f"evt_{desk.letters()}",
                "id": intent or charge.id,
                "currency": charge.currency,
                "reference": charge.reference or "none",
                "live": live,
                "time_ms": str(happening.at_ms),
                "data.object": about,
            },
        )
        for event, about in told
    ]


def back(desk: Desk, charge: Charge, choice: Choice) -> str:
    """`success_url` or `cancel_url`, with the session's id where the merchant asked for it."""
    address = charge.cancel_url if choice == "abandon" and charge.cancel_url else charge.return_url
    return address.replace("{CHECKOUT_SESSION_ID}", charge.id)


_ID: Final = r"/(?P<id>[A-Za-z0-9_]{1,200})"

API = Api(
    name="stripe",
    routes=(
        Route("create", "POST", "/v1/checkout/sessions", create_session),
        Route("fetch", "GET", "/v1/checkout/sessions", list_sessions),
        Route("fetch", "GET", f"/v1/checkout/sessions{_ID}", get_session),
        Route("cancel", "POST", f"/v1/checkout/sessions{_ID}/expire", expire_session),
        Route("create", "POST", "/v1/payment_intents", create_intent),
        Route("fetch", "GET", "/v1/payment_intents", list_intents),
        Route("fetch", "GET", "/v1/payment_intents/search", search_intents),
        Route("fetch", "GET", f"/v1/payment_intents{_ID}", get_intent),
        Route("cancel", "POST", f"/v1/payment_intents{_ID}/cancel", cancel_intent),
        Route("refund", "POST", "/v1/refunds", create_refund),
        Route("fetch", "GET", "/v1/refunds", list_refunds),
        Route("fetch", "GET", f"/v1/refunds{_ID}", get_refund),
    ),
    enter=read.enter,
    error=read.error,
    letters=letters,
    back=back,
    replay=read.replay,
    keep=read.keep,
)
