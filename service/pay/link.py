"""
`/l/{link}`: a payment link. Looking makes nothing, since chat programs look too; the form makes the session.

Beside it the link's QR code (`qr.svg`, `qr.png`) and a page to print and hang up (`print`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import segno
from litestar import Request, Response
from markupsafe import Markup

from service.errors import Refusal
from service.orders import links
from service.pay import amounts, words
from service.pay.form import Pace, Tokens, read
from service.pay.look import page, see
from service.payments import money

if TYPE_CHECKING:
    from service.application import Application

FORMS_MOST, FORMS_WITHIN_MS = 60, 60_000
"""Sessions made from one link: a queue at a counter, not a flood."""
PNG_SCALE: Final = 12
"""Pixels a module: about 450 in all, enough for a hand's breadth of paper."""


class LinkPage:
    """Over the application's parts; no state but the pace of forms."""

    def __init__(self, app: Application, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens
        self._pace = Pace(FORMS_MOST, FORMS_WITHIN_MS, app.clock)

    async def show(self, link_id: str, query: Mapping[str, str]) -> Response[bytes]:
        """What it is for and how much, and the form if it can be paid now."""
        return self._shown(await self._row(link_id), _language(query), query)

    async def act(self, link_id: str, query: Mapping[str, str], request: Request[Any, Any, Any]) -> Response[bytes]:
        """A session of one's own. Raises Refusal: bad_form, too_fast, not_found."""
        form = await read(request)
        self._tokens.check(link_id, form)
        self._pace.take(link_id)
        language, row = _language(query), await self._row(link_id)
        app = self._app
        amount_minor: int | None = None
        if row["price_minor"] is None:
            amount_minor = amounts.typed(form.get("amount", ""), row["currency"])
            if amount_minor is None or not row["min_minor"] <= amount_minor <= row["max_minor"]:
                return self._shown(row, language, query, "bad_amount", form)
        try:
            made = await app.db.write(
                lambda tx: links.open_link(
                    tx, app.queue, link_id, app.ids, app.clock(), amount_minor=amount_minor, locale=language
                )
            )
        except Refusal as refused:
            if refused.code == "not_found":
                raise
            return self._shown(await self._row(link_id), language, query, refused.code, form)
        app.nudge()
        return see(f"/pay/{made.id}")

    async def poster(self, link_id: str, query: Mapping[str, str]) -> Response[bytes]:
        """To print: the shop, the sum, the code, and the address for who has no camera."""
        row, language = await self._row(link_id), _language(query)
        drawn = self._code(link_id).svg_inline(scale=8, border=4, omitsize=True, dark="#000", light="#fff")
        values = {"qr": Markup(drawn), "url": self._url(link_id)}  # noqa: S704 - drawn here, of an id that is ours
        here = f"/l/{row['id']}/print"
        return page("poster", language, self._common(row, language) | {"here": here} | values)

    async def code(self, link_id: str, kind: str) -> Response[bytes]:
        """The QR code alone; `kind`: svg or png."""
        await self._row(link_id)
        out = io.BytesIO()
        scale = PNG_SCALE if kind == "png" else 8
        self._code(link_id).save(out, kind=kind, scale=scale, border=4, dark="#000", light="#fff")
        headers = {
            "Content-Security-Policy": "default-src 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "public, max-age=3600",
        }
        media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
        return Response(out.getvalue(), media_type=media, headers=headers)

    # --- inside

    async def _row(self, link_id: str) -> dict[str, Any]:
        return await self._app.db.read(links.page, link_id)

    def _shown(
        self,
        row: Mapping[str, Any],
        language: str,
        query: Mapping[str, str],
        refused: str = "",
        form: Mapping[str, str] | None = None,
    ) -> Response[bytes]:
        bounds = {}
        if row["price_minor"] is None:
            bounds = {
                "least": amounts.shown(row["min_minor"], row["currency"], language),
                "most": amounts.shown(row["max_minor"], row["currency"], language),
            }
        why = refused or row["closed_reason"] or ""
        values = {
            "open": row["open"],
            "bounds": words.sayer(language)("link_bounds", **bounds) if bounds else "",
            "minor_units": money.exponent(row["currency"]) > 0,
            "sign": amounts.SIGNS.get(row["currency"], row["currency"]),
            "typed": {"amount": (form or {}).get("amount", "")},
            "alert": words.refused(language, why, **({"least": "", "most": ""} | bounds)) if why else "",
            "action": f"/l/{row['id']}" + (f"?lang={language}" if "lang" in query else ""),
            "token": self._tokens.give(row["id"]),
        }
        status = 422 if refused == "bad_amount" else 409 if refused else 200
        return page("link", language, self._common(row, language) | values, status=status)

    def _common(self, row: Mapping[str, Any], language: str) -> dict[str, Any]:
        price = row["price_minor"]
        name = row["product_name"]
        counted = f"{row['quantity']} × {name}" if name and row["quantity"] > 1 else name
        return {
            "shop": row["merchant_name"],
            "live": bool(row["live"]),
            "amount": amounts.shown(price, row["currency"], language) if price is not None else "",
            "what": row["description"] or counted or "",
            "here": f"/l/{row['id']}",
        }

    def _url(self, link_id: str) -> str:
        settings = self._app.settings
        ours = settings.public_url or f"{settings.own_url.rpartition(':')[0]}:{self._app.port}"
        return f"{ours}/l/{link_id}"

    def _code(self, link_id: str) -> segno.QRCode:
        return segno.make(self._url(link_id), error="m", micro=False)


def _language(query: Mapping[str, str]) -> str:
    asked = query.get("lang", "")
    return asked if asked in words.LANGUAGES else words.LANGUAGES[0]
