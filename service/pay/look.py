"""
How pages look: templates, the one style, and the headers that keep everything else out.

A page is one response: no script, no image, no font, nothing from elsewhere, and the style is inside, so that it is
there after one round trip. The policy allows that style by its hash and forms to ourselves, and nothing more. A browser
that follows a form's redirect holds the target against `form-action` too, so a provider's page is never the answer to a
form: the page that answers leads there (`refresh`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Response
from markupsafe import Markup

from service.pay.words import LANGUAGES, sayer

STYLE: Final = (files("service.pay") / "templates" / "look.css").read_text(encoding="utf-8")
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address is the buyer's key
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TEMPLATES: Final = Environment(
    loader=PackageLoader("service.pay"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["style"] = Markup(STYLE)  # noqa: S704 - our own file


def page(
    name: str,
    language: str,
    values: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """
    A template, filled in. `here`: the page's own path without a query; `refresh`: what a meta refresh says, or nothing.
    """
    other = next(one for one in LANGUAGES if one != language)
    given = {"refresh": "", "here": "", "alert": "", **values}
    html = _TEMPLATES.get_template(f"{name}.html").render(say=sayer(language), lang=language, other=other, **given)
    made = {**HEADERS, **(headers or {})}
    return Response(html.encode(), status_code=status, media_type=MediaType.HTML, headers=made)


def see(path: str) -> Response[bytes]:
    """303: what was asked for is done, look there."""
    return Response(b"", status_code=303, media_type=MediaType.HTML, headers={**HEADERS, "Location": path})
