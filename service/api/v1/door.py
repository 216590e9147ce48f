"""
Who may come in: a bearer API key, and the scope that the route asks for. Nobody learns more than that before.

    Authorization: Bearer ck_live_…

401: no key, or one that is wrong, revoked, or of a disabled merchant. 403: the key lacks the scope.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any
from urllib.parse import parse_qsl

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from service.database import Database
from service.errors import Refusal
from service.merchants import keys
from service.merchants.keys import Caller

SCOPE = "scope"
MANY = "many"
"""In a route's `opt`: the scope it needs, and the query's names that may be repeated."""
QUERY_FIELDS = 100
_NOT_OF_THE_QUERY = frozenset({"request", "state", "scope", "headers", "cookies", "query", "body", "data", "socket"})
"""Names that mean something to Litestar in a handler."""

Connection = ASGIConnection[Any, Any, Any, Any]


class Door:
    """Stands before every route of /v1, as Litestar's guard; `request.auth` is the Caller afterwards."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self, connection: Connection, route: BaseRouteHandler) -> None:
        """Raises Refusal: unauthorized, missing_scope; bad_query, bad_body for what no handler would understand."""
        connection.scope["auth"] = await self.caller(connection, route.opt[SCOPE])
        known = route.parsed_fn_signature.parameters.keys() - _NOT_OF_THE_QUERY
        _check_query(connection.scope["query_string"], known, route.opt.get(MANY, ()))
        if connection.scope.get("method") == "GET" and _has_body(connection):
            raise Refusal("bad_body", "A GET has no body; what is asked for stands in the query.")

    async def caller(self, connection: Connection, scope: str) -> Caller:
        """Whose key it is, asked afresh: a request that waited may find its key revoked."""
        scheme, _, key = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Refusal("unauthorized", "An API key is needed: Authorization: Bearer ck_….")
        caller = await self._db.read(keys.verify, key.strip())
        if caller is None:
            raise Refusal("unauthorized", "This API key is not known, or was revoked.")
        if not caller.may(scope):
            raise Refusal("missing_scope", f"This API key lacks the scope {scope}.")
        return caller


def _check_query(query: bytes, known: Container[str], many: Container[str]) -> None:
    """A misspelt filter must not become no filter, nor the last of two the one that counts."""
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise Refusal("bad_query", f"The query has more than {QUERY_FIELDS} fields.") from None
    seen: set[str] = set()
    for name, _ in fields:
        if name not in known:
            raise Refusal("bad_query", f"{name[:60]!r} is nothing that can be asked for here.")
        if name in seen and name not in many:
            raise Refusal("bad_query", f"{name}: it is there more than once.")
        seen.add(name)


def _has_body(connection: Connection) -> bool:
    headers = connection.headers
    return headers.get("content-length", "0").strip() not in ("", "0") or "transfer-encoding" in headers
