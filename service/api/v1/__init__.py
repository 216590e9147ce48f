"""The REST API under `/v1`: all its operations, the document that describes them, and the page that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import MediaType, Request, Response
from litestar.handlers import HTTPRouteHandler

from service.api.v1 import page
from service.api.v1.attention import ATTENTION
from service.api.v1.balances import BALANCES
from service.api.v1.beneficiaries import BENEFICIARIES
from service.api.v1.closing import CLOSING
from service.api.v1.deliveries import DELIVERIES
from service.api.v1.document import document
from service.api.v1.door import Door
from service.api.v1.endpoints import ENDPOINTS
from service.api.v1.escrow import ESCROW
from service.api.v1.events import EVENTS
from service.api.v1.holds import HOLDS
from service.api.v1.jobs import JOBS
from service.api.v1.kit import PREFIX, Operation, Resource, handler
from service.api.v1.links import LINKS
from service.api.v1.merchants import MERCHANTS
from service.api.v1.orders import ORDERS
from service.api.v1.payments import PAYMENTS
from service.api.v1.payouts import PAYOUTS
from service.api.v1.products import PRODUCTS
from service.api.v1.refunds import REFUNDS
from service.api.v1.routes import ROUTES
from service.api.v1.sessions import SESSIONS
from service.api.v1.settlements import SETTLEMENTS
from service.idempotency import Keys

if TYPE_CHECKING:
    from service.application import Application

RESOURCES: tuple[Resource, ...] = (
    *(PAYMENTS, REFUNDS, SESSIONS, LINKS, ORDERS, PRODUCTS, ROUTES),
    *(ESCROW, HOLDS, BENEFICIARIES, PAYOUTS),
    SETTLEMENTS,
    *(BALANCES, CLOSING),
    JOBS,
    *(ATTENTION, EVENTS, ENDPOINTS, DELIVERIES, MERCHANTS),
)
OPERATIONS: tuple[Operation, ...] = tuple(op for resource in RESOURCES for op in resource.operations)


class Api:
    """What the site mounts. `close` once nothing is answered any more."""

    def __init__(self, app: Application, middleware: list[Any]) -> None:
        self.paths = [*(PREFIX + op.path for op in OPERATIONS), "/v1/openapi.json", "/v1/docs"]
        self._keys = Keys(app.db, app.seal, app.clock)
        door = Door(app.db, app.seal)
        described = document(OPERATIONS)
        self.handlers: list[HTTPRouteHandler] = [
            *(handler(app, door, self._keys, op, middleware) for op in OPERATIONS),
            _shown("/v1/openapi.json", msgspec.json.encode(described), MediaType.JSON, {}, middleware),
            _shown("/v1/docs", page.page(described), MediaType.HTML, page.HEADERS, middleware),
        ]

    async def close(self) -> None:
        """Until answers that went out are written down beside their keys."""
        await self._keys.close()


def _shown(path: str, body: bytes, media: MediaType, headers: Any, middleware: list[Any]) -> HTTPRouteHandler:
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(body, media_type=media, headers=dict(headers))

    return HTTPRouteHandler(path, http_method="GET", middleware=middleware, include_in_schema=False)(show)
