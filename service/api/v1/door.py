"""
Who may come in: a bearer API key, and the scope that the route asks for. Nobody learns more than that before.

    Authorization: Bearer ck_live_…

401: no key, or one that is wrong, revoked, or of a disabled merchant. 403: the key lacks the scope.
"""

from __future__ import annotations

from typing import Any

from litestar import Request
from sqlalchemy import Connection

from service import idempotency
from service.database import Database
from service.errors import Refusal
from service.idempotency import Place, Used
from service.merchants import keys
from service.merchants.keys import Caller
from service.seal import Seal


class Door:
    """Stands before every route of /v1. One read of the database says whose key it is, and what was done."""

    def __init__(self, db: Database, seal: Seal) -> None:
        self._db, self._seal = db, seal

    async def caller(self, request: Request[Any, Any, Any], scope: str, key: str = "") -> tuple[Caller, Used | None]:
        """
        Whose key it is, asked afresh each time: a request that waited may find its key revoked. Beside it what is known
        of the Idempotency-Key `key`. Raises Refusal: unauthorized, missing_scope.
        """
        caller, used = await self._db.read(self._look, bearer(request), key)
        if caller is None:
            raise Refusal("unauthorized", "This API key is not known, or was revoked.")
        if not caller.may(scope):
            raise Refusal("missing_scope", f"This API key lacks the scope {scope}.")
        return caller, used

    def _look(self, tx: Connection, given: str, key: str) -> tuple[Caller | None, Used | None]:
        caller = keys.verify(tx, given)
        if caller is None or not key:
            return caller, None
        return caller, idempotency.find(tx, Place(caller.merchant_id, caller.live, key), self._seal)


def bearer(request: Request[Any, Any, Any]) -> str:
    """What the Authorization header brings. Raises Refusal: unauthorized."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Refusal("unauthorized", "An API key is needed: Authorization: Bearer ck_….")
    return given.strip()
