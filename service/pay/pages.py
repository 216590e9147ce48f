"""
The pages as routes: `/pay/{session}` and `/l/{link}` for buyers, `/balance/{token}` for beneficiaries. Whatever goes
wrong ends in a page, not in JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler

from service.database import StorageError
from service.errors import Refusal
from service.pay import words
from service.pay.balance import BalancePage
from service.pay.form import Tokens, fields
from service.pay.link import LinkPage
from service.pay.look import page
from service.pay.page import PayPage

if TYPE_CHECKING:
    from service.application import Application

log: Any = structlog.get_logger()

ID_CHARACTERS_MAX: Final = 64
STATUS: Final[Mapping[str, int]] = {
    "bad_form": 400,
    "not_found": 404,
    "too_slow": 408,
    "too_large": 413,
    "too_fast": 429,
    "storage": 503,
}
HEADERS: Final[Mapping[str, Mapping[str, str]]] = {
    "too_slow": {"Connection": "close"},
    "too_large": {"Connection": "close"},  # what is still coming is not read
    "too_fast": {"Retry-After": "60"},
    "storage": {"Retry-After": "5"},
}

Verb = Literal["GET", "POST"]
Does = Callable[[str, Mapping[str, str], Request[Any, Any, Any]], Awaitable[Response[bytes]]]


class Pages:
    """What the site mounts."""

    def __init__(self, app: Application, middleware: list[Any]) -> None:
        tokens = Tokens(app.seal, app.clock)
        pay, link, balance = PayPage(app, tokens), LinkPage(app, tokens), BalancePage(app, middleware)
        routes: list[tuple[Verb, str, Does]] = [
            ("GET", "/pay/{session}", lambda id_, query, _: pay.show(id_, query)),
            ("POST", "/pay/{session}", pay.act),
            ("GET", "/pay/{session}/back", lambda id_, query, _: pay.back(id_, query)),
            # Some providers send the payer back with a form of their own.
            ("POST", "/pay/{session}/back", lambda id_, query, _: pay.back(id_, query)),
            ("GET", "/l/{link}", lambda id_, query, _: link.show(id_, query)),
            ("POST", "/l/{link}", link.act),
            ("GET", "/l/{link}/print", lambda id_, query, _: link.poster(id_, query)),
            ("GET", "/l/{link}/qr.svg", lambda id_, _, __: link.code(id_, "svg")),
            ("GET", "/l/{link}/qr.png", lambda id_, _, __: link.code(id_, "png")),
        ]
        self.paths = (*dict.fromkeys(path for _, path, _ in routes), *balance.paths)
        self.handlers = [*(_route(method, path, does, middleware) for method, path, does in routes), *balance.handlers]


def _route(method: Verb, path: str, does: Does, middleware: list[Any]) -> HTTPRouteHandler:
    name = "session" if "{session}" in path else "link"

    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        id_ = str(request.path_params[name])
        query: Mapping[str, str] = {}
        try:
            query = _query(request)
            if len(id_) > ID_CHARACTERS_MAX or not (id_.isascii() and id_.replace("_", "").isalnum()):
                raise Refusal("not_found", "There is nothing at this address.")
            return await does(id_, query, request)
        except Refusal as refused:
            again = f"/{'pay' if name == 'session' else 'l'}/{id_}" if refused.code in ("bad_form", "too_fast") else ""
            return _fault(query, refused.code, STATUS.get(refused.code, 409), again)
        except StorageError as error:
            log.warning("page.not_answered", reason=type(error).__name__)
            return _fault(query, "storage", STATUS["storage"])
        except Exception as error:
            log.error("page.raised", route=path, exc_info=error)
            return _fault(query, "other", 500)

    made = HTTPRouteHandler(
        path.replace(f"{{{name}}}", f"{{{name}:str}}"),
        http_method=method,
        status_code=200,  # what Litestar assumes: the answer brings its own
        middleware=middleware,
        include_in_schema=False,
    )
    return made(handle)


def _query(request: Request[Any, Any, Any]) -> Mapping[str, str]:
    """What stands in the address. What cannot be read is not there: providers and chat programs add what they like."""
    try:
        return fields(request.scope["query_string"])
    except Refusal:
        return {}


def _fault(query: Mapping[str, str], code: str, status: int, again: str = "") -> Response[bytes]:
    language = query.get("lang", "")
    language = language if language in words.LANGUAGES else words.LANGUAGES[0]
    values = {"alert": words.refused(language, code), "again": again, "shop": ""}
    return page("fault", language, values, status=status, headers=HEADERS.get(code))
