"""
The REST API under `/v1`: what every route of it shares, and the list of its routes.

A route names the scope it needs in its `opt`; without one the service does not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.handlers import HTTPRouteHandler

from service.api.v1.door import SCOPE, Door
from service.api.v1.events import feed_route

if TYPE_CHECKING:
    from service.application import Application

PREFIX = "/v1"


def routes(app: Application, middleware: list[Any]) -> list[HTTPRouteHandler]:
    """All handlers, with their full paths, behind the door."""
    door = Door(app.db)
    handlers = [feed_route(app.feed, door, middleware)]
    for handler in handlers:
        assert SCOPE in handler.opt, f"{handler.paths} names no scope"
    return handlers
