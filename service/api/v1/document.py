"""The OpenAPI document of /v1, at `/v1/openapi.json`: made by Litestar from the handlers."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from service import __version__
from service.api.problems import PROBLEM_TYPE, Problem

_MEANINGS = {
    400: "Something in the request is wrong; `detail` names it.",
    401: "No API key, or one that is wrong or revoked.",
    403: "The API key lacks the scope that `detail` names.",
    404: "There is no such thing, or it is not this key's to see.",
    429: "Too many at once; try again after `Retry-After` seconds.",
    503: "The storage cannot answer now; try again after `Retry-After` seconds.",
}


def answers(*statuses: int) -> dict[int, ResponseSpec]:
    """Descriptions of a route's problem answers."""
    media = PROBLEM_TYPE.decode()
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=_MEANINGS[status], media_type=media)
        for status in statuses
    }


def config(middleware: list[Any]) -> OpenAPIConfig:
    """The document alone: a page that shows it would fetch its script from somebody else's host."""

    def only_the_document(response: Response[Any]) -> Response[Any]:
        # Beside the document Litestar answers unknown paths with a page of its own; here they are problems.
        if response.status_code == NotFoundException.status_code:
            raise NotFoundException
        return response

    return OpenAPIConfig(
        title="caisse",
        version=__version__,
        description="The API for merchants' own software. Faults are problem+json (RFC 9457).",
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(type="http", scheme="bearer", description="ck_live_… or ck_test_…")
            }
        ),
        security=[{"apiKey": []}],
        render_plugins=[JsonRenderPlugin(media_type=MediaType.JSON)],
        openapi_router=Router(
            "/v1", route_handlers=[], include_in_schema=False, after_request=only_the_document, middleware=middleware
        ),
        use_handler_docstrings=False,
    )
