"""
`/v1/routes`: which provider takes a merchant's payments. A key sees its merchant's rules and those that hold for
everybody, and changes its merchant's alone. Both modes share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from service.api.v1.kit import Call, Resource
from service.api.v1.reading import not_found
from service.api.v1.shapes import Amount, Country, Currency, Id, Method
from service.commands import routes as commands
from service.errors import Refusal
from service.routing import store
from service.routing.draft import (
    NOTE_CHARACTERS_MAX,
    PRIORITY_MAX,
    PRIORITY_STEP,
    PROVIDERS_MAX,
    RULES_MAX,
    VALUES_MAX,
    WEIGHT_MAX,
    shown,
)
from service.routing.rules import Rule

ROUTES = Resource("routes")
READ, WRITE = "routes:read", "routes:write"

DRAFT_MAX = 100
REPLAY_MAX = 1_000
"""Past payments that one request replays; the command line takes more."""

Words = Annotated[list[Annotated[str, Meta(min_length=1, max_length=40)]], Meta(max_length=VALUES_MAX)]
Chain = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=100)]],
    Meta(min_length=1, max_length=PROVIDERS_MAX, description="Providers or account ids: the chain, in order."),
]


class RouteFields(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a rule says."""

    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX)] | UnsetType = UNSET
    currency: Words | UnsetType = UNSET
    country: Words | UnsetType = UNSET
    method: Words | UnsetType = UNSET
    operator: Words | UnsetType = UNSET
    min_amount: Amount | UnsetType | None = UNSET
    max_amount: Amount | UnsetType | None = UNSET
    weight: Annotated[int, Meta(ge=1, le=WEIGHT_MAX)] | UnsetType = UNSET
    soft_decline_failover: bool | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    note: Annotated[str, Meta(max_length=NOTE_CHARACTERS_MAX)] | UnsetType = UNSET


class NewRoute(RouteFields, kw_only=True):
    """A rule. A condition that is not given holds for everything; the lowest `priority` is looked at first."""

    providers: Chain


class RouteChanges(RouteFields, kw_only=True):
    """What is given is changed; with `version` only if it is still that one."""

    providers: Chain | UnsetType = UNSET
    version: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class Route(msgspec.Struct):
    """A rule. `merchant` null: it holds for everybody's payments."""

    id: str
    merchant: str | None
    priority: int
    currency: list[str]
    country: list[str]
    method: list[str]
    operator: list[str]
    min_amount: int | None
    max_amount: int | None
    weight: int
    providers: list[str]
    soft_decline_failover: bool
    enabled: bool
    note: str
    version: int


class Routes(msgspec.Struct):
    """All of them, in the order in which they are looked at."""

    data: list[Route]


class NewOrderOfRoutes(msgspec.Struct, forbid_unknown_fields=True):
    """Groups of your rules' ids, all of them once; a group shares payments by weight."""

    order: Annotated[
        list[Annotated[list[Id], Meta(min_length=1, max_length=RULES_MAX)]], Meta(min_length=1, max_length=RULES_MAX)
    ]


class Simulation(msgspec.Struct, forbid_unknown_fields=True):
    """A payment that nobody makes, or `replay` past ones, on the stored rules or on `draft`."""

    amount: Amount | None = None
    currency: Currency | UnsetType = UNSET
    method: Method | UnsetType = UNSET
    country: Country = ""
    operator: Annotated[str, Meta(max_length=40)] = ""
    providers: Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=PROVIDERS_MAX)] = []
    phone: bool = True
    email: bool = True
    name: bool = True
    embedded: bool = False
    payment: Annotated[Id, Meta(description="An id, for its share where rules share by weight.")] | UnsetType = UNSET
    draft: Annotated[list[NewRoute], Meta(max_length=DRAFT_MAX)] | None = None
    replay: Annotated[int, Meta(ge=0, le=REPLAY_MAX)] = 0


class Simulated(msgspec.Struct):
    """`explanation` is what a real payment keeps; `replay`: how many would go elsewhere."""

    draft: bool
    explanation: dict[str, Any] | UnsetType = UNSET
    sentences: list[str] | UnsetType = UNSET
    replay: dict[str, Any] | UnsetType = UNSET


@ROUTES.get("/routes", READ, Routes)
async def list_routes(call: Call) -> Any:
    """Your rules and everybody's, in the order in which they are looked at."""

    def look(tx: Connection) -> dict[str, Any]:
        return {"data": [_public(rule) for rule in store.listed(tx, call.caller.merchant_id)]}

    return await call.read(look)


@ROUTES.post("/routes", WRITE, Route, status=201)
async def create_route(call: Call, body: NewRoute) -> Any:
    """Add a rule; without a priority it comes last."""
    hand = call.by
    fields = {**_given(body), "merchant": call.caller.merchant_id}
    return await call.write(lambda tx: _public(store.create(tx, fields, hand)))


@ROUTES.get("/routes/{route}", READ, Route)
async def get_route(call: Call, route: str) -> Any:
    """One rule."""
    return await call.read(lambda tx: _public(_seen(tx, call, route)))


@ROUTES.patch("/routes/{route}", WRITE, Route)
async def change_route(call: Call, route: str, body: RouteChanges) -> Any:
    """Change a rule of yours."""
    hand, fields = call.by, _given(body)
    version = fields.pop("version", None)

    def work(tx: Connection) -> dict[str, Any]:
        _own(tx, call, route)
        return _public(store.change(tx, route, fields, hand, version))

    return await call.write(work)


@ROUTES.delete("/routes/{route}", WRITE)
async def delete_route(call: Call, route: str) -> None:
    """Delete a rule of yours."""
    hand = call.by

    def work(tx: Connection) -> None:
        _own(tx, call, route)
        store.remove(tx, route, hand)

    await call.write(work)


@ROUTES.post("/routes/order", WRITE, Routes)
async def order_routes(call: Call, body: NewOrderOfRoutes) -> Any:
    """Give all of your rules their places, in one go."""
    hand = call.by

    def work(tx: Connection) -> dict[str, Any]:
        _refuse_other_than(tx, call, body.order)
        for place, group in enumerate(body.order, 1):
            for route in group:
                store.change(tx, route, {"priority": place * PRIORITY_STEP}, hand)
        return {"data": [_public(rule) for rule in store.listed(tx, call.caller.merchant_id)]}

    return await call.write(work)


@ROUTES.post("/routes/simulate", READ, Simulated)
async def simulate_route(call: Call, body: Simulation) -> Any:
    """What would be chosen for a payment, and why; and where past payments would go."""
    merchant = call.caller.merchant_id
    draft = None if body.draft is None else [{**_given(rule), "merchant": merchant} for rule in body.draft]
    more: dict[str, Any] = {} if body.payment is UNSET else {"payment": body.payment}
    found = await commands.simulated(
        call.app,
        amount=body.amount,
        currency=body.currency or "",
        method=body.method or "",
        country=body.country,
        operator=body.operator,
        providers=body.providers,
        merchant=merchant,
        live=call.caller.live,
        phone=body.phone,
        email=body.email,
        name=body.name,
        embedded=body.embedded,
        draft=draft,
        replay=body.replay,
        **more,
    )
    return {name: value for name, value in found.items() if name not in ("merchant", "live")}


def _given(body: RouteFields) -> dict[str, Any]:
    """The fields that were given."""
    fields: dict[str, Any] = msgspec.structs.asdict(body)
    return {name: value for name, value in fields.items() if value is not UNSET}


def _public(rule: Rule) -> dict[str, Any]:
    return {**shown(rule), "version": rule.version}


def _seen(tx: Connection, call: Call, route: str) -> Rule:
    rule = store.one(tx, route)
    if rule.merchant_id not in (None, call.caller.merchant_id):
        raise not_found("route")
    return rule


def _own(tx: Connection, call: Call, route: str) -> None:
    if _seen(tx, call, route).merchant_id is None:
        raise Refusal("not_yours", f"{route} holds for every merchant; an operator changes it.")


def _refuse_other_than(tx: Connection, call: Call, order: Sequence[Sequence[str]]) -> None:
    own = {rule.id for rule in store.listed(tx, call.caller.merchant_id) if rule.merchant_id is not None}
    named = [route for group in order for route in group]
    if len(set(named)) < len(named):
        raise Refusal("bad_order", "order: a route stands in it twice.")
    if own != set(named):
        raise Refusal("bad_order", f"order: it has to name your {len(own)} routes and no other.")
