"""
`/pay/{session}`: the buyer's page. Every GET shows where the session is; every form is a POST that ends in a 303 to it,
or in the same step again with what is wrong about it. It works without script and keeps nothing in the browser.

Who has the address may act: it is what a shop sends to its buyer, and it is not to be guessed. The client secret is for
the shop's own pages and is never here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from litestar import Request, Response
from sqlalchemy import Connection

from service.errors import Refusal
from service.merchants.audit import By
from service.orders import sessions
from service.orders.checkout import ACTOR
from service.orders.verify import ASK_AFTER_MS, ASK_LIMIT_MS
from service.pay import words
from service.pay.faces import Face, face_of, may_ask
from service.pay.form import Pace, Tokens, read
from service.pay.look import see
from service.pay.screens import Screens, Seen, language_of, path_of
from service.pay.ways import Offers, Way, Ways
from service.providers.calls import Customer
from service.routing.operators import Phone, read_phone

if TYPE_CHECKING:
    from service.application import Application

FORMS_MOST, FORMS_WITHIN_MS = 20, 60_000
"""Forms about one session: far above what a person sends, and each is a write at most."""
EMAIL_CHARACTERS_MAX: Final = 254
EXAMPLES: Final[Mapping[str, str]] = {"CI": "07 07 00 00 01", "SN": "77 100 00 01", "BJ": "01 97 00 00 01"}
MOVED_ON: Final = ("prompt_open", "session_not_open", "no_tries_left", "not_waiting_for_otp")
"""The page was older than the session: what is so now is the answer."""


class PayPage:
    """Over the application's parts; no state but the pace of forms."""

    def __init__(self, app: Application, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens
        self._screens = Screens(app, tokens)
        self._pace = Pace(FORMS_MOST, FORMS_WITHIN_MS, app.clock)
        self._offers = Offers(app.routes, app.accounts, app.calls, app.circuits.opened)

    # --- what comes in

    async def show(self, session_id: str, query: Mapping[str, str]) -> Response[bytes]:
        """The session as it is; the provider is asked first when nothing was heard for long (mission E2)."""
        seen = await self._see(session_id)
        if self._app.clock() - seen.row["created_at_ms"] >= ASK_AFTER_MS:
            seen = await self._ask(seen)
        return self._screens.shown(seen, query)

    async def back(self, session_id: str, query: Mapping[str, str]) -> Response[bytes]:
        """
        The payer comes back from the provider's page, usually before its callback does. An address of its own, since
        providers hang their own words on it, which must not stay in the address that the payer keeps.
        """
        await self._ask(await self._see(session_id))
        return see(path_of(session_id, query))

    async def act(self, session_id: str, query: Mapping[str, str], request: Request[Any, Any, Any]) -> Response[bytes]:
        """A form. Raises Refusal: bad_form, too_fast, not_found; other refusals are said on the page."""
        form = await read(request)
        self._tokens.check(session_id, form)
        self._pace.take(session_id)
        seen = await self._see(session_id)
        try:
            match form.get("do"):
                case "number":
                    return self._number(seen, query, form)
                case "wallet":
                    await self._wallet(seen, query, form)
                case "card":
                    await self._card(seen, query, form)
                case "otp":
                    await self._app.checkout.otp(session_id, "".join(form.get("code", "").split()))
                case "check":
                    await self._ask(seen)
                    return see(path_of(session_id, query, "asked"))
                case "give_up":
                    await self._give_up(seen)
                case _:
                    raise Refusal("bad_form", "do: this page has no such form.")
        except Refusal as refused:
            if refused.code in ("bad_form", "not_found"):
                raise
            return await self._refused(session_id, query, form, refused.code)
        return see(path_of(session_id, query, "go"))

    # --- what is done

    def _number(self, seen: Seen, query: Mapping[str, str], form: Mapping[str, str]) -> Response[bytes]:
        if seen.ways is None:
            return see(path_of(seen.row["id"], query))
        phone, country = _phone(seen.ways, form)
        return self._screens.operators(seen, query, phone, country, {"operator": "", "email": ""})

    async def _wallet(self, seen: Seen, query: Mapping[str, str], form: Mapping[str, str]) -> None:
        if seen.ways is None:
            raise Refusal("session_not_open", "The session takes no new attempt.")
        phone, country = _phone(seen.ways, form)
        way = seen.ways.wallet(country, form.get("operator", ""))
        if way is None or "operator" not in form:
            raise Refusal("bad_operator", "operator: none of those that were offered.")
        await self._app.checkout.submit(
            seen.row["id"],
            method="mobile_money",
            operator=way.operator,
            payer_phone=phone.e164,
            country=country,
            customer=_customer(seen, way, form),
            return_url=self._back_url(seen, query),
        )

    async def _card(self, seen: Seen, query: Mapping[str, str], form: Mapping[str, str]) -> None:
        if seen.ways is None:
            raise Refusal("session_not_open", "The session takes no new attempt.")
        if seen.ways.card is None:
            raise Refusal("bad_method", "card: it was not offered.")
        await self._app.checkout.submit(
            seen.row["id"],
            method="card",
            customer=_customer(seen, seen.ways.card, form),
            return_url=self._back_url(seen, query),
        )

    async def _give_up(self, seen: Seen) -> None:
        if not self._screens.can_give_up(seen):
            raise Refusal("not_cancelable", "Nothing waits that could be cancelled.")
        await self._app.desk.cancel(seen.row["payment_id"], By(ACTOR, self._app.clock(), self._app.ids))

    async def _ask(self, seen: Seen) -> Seen:
        """Ask the provider what became of it, two seconds at most; the desk asks at most once in ten."""
        if not may_ask(seen.row):
            return seen
        try:
            async with asyncio.timeout(ASK_LIMIT_MS / 1000):
                await self._app.desk.sync(seen.row["payment_id"], ASK_LIMIT_MS)
        except TimeoutError:
            pass  # what it hears is written all the same, and the next look finds it
        return await self._see(seen.row["id"])

    # --- reading

    async def _see(self, session_id: str) -> Seen:
        return await self._app.db.read(self._look, session_id)

    def _look(self, tx: Connection, session_id: str) -> Seen:
        row = sessions.page(tx, session_id)
        face = face_of(row, self._app.clock())
        if face is not Face.CHOOSE:
            return Seen(row, face, None, Customer())
        buyer = sessions.buyer(tx, session_id)
        return Seen(row, face, self._offers.of(tx, row, buyer), buyer)

    async def _refused(
        self, session_id: str, query: Mapping[str, str], form: Mapping[str, str], code: str
    ) -> Response[bytes]:
        """The step again, with what is wrong and with what was typed; what has gone on meanwhile is shown as it is."""
        if code in MOVED_ON:
            return see(path_of(session_id, query))
        seen = await self._see(session_id)
        country = form.get("country", "")
        example = EXAMPLES.get(country, "+229 01 97 00 00 01")
        alert = words.refused(language_of(seen, query), code, example=example)
        typed = {name: form.get(name, "") for name in ("phone", "country", "email")}
        offered = seen.ways.wallets if seen.ways is not None else {}
        if seen.ways is not None and form.get("do") == "wallet" and country in offered and code != "bad_phone":
            phone, country = _phone(seen.ways, form)
            chosen = {"operator": form.get("operator", ""), "email": typed["email"]}
            return self._screens.operators(seen, query, phone, country, chosen, alert)
        return self._screens.shown(seen, query, alert=alert, typed=typed, status=422)

    # --- addresses

    def _back_url(self, seen: Seen, query: Mapping[str, str]) -> str:
        """Where the provider sends the payer back to: our own address, never one that the request names."""
        settings = self._app.settings
        ours = settings.public_url or f"{settings.own_url.rpartition(':')[0]}:{self._app.port}"
        language = f"?lang={language_of(seen, query)}" if "lang" in query else ""
        return f"{ours}/pay/{seen.row['id']}/back{language}"


def _phone(ways: Ways, form: Mapping[str, str]) -> tuple[Phone, str]:
    """
    The number, and the country whose operators are offered for it: its own where that is offered, else the chosen one.

    Raises Refusal: bad_phone, bad_country.
    """
    chosen = form.get("country", "")
    if chosen not in ways.wallets:
        raise Refusal("bad_country", "country: none of those that were offered.")
    phone = read_phone(form.get("phone", ""), chosen, form.get("operator", ""))
    if phone.country != chosen and phone.country in ways.wallets:
        chosen = phone.country
        phone = read_phone(phone.e164, chosen, form.get("operator", ""))
    return phone, chosen


def _customer(seen: Seen, way: Way, form: Mapping[str, str]) -> Customer | None:
    """The buyer with the address that was typed, where the way needs one. Raises Refusal bad_email."""
    if not way.email:
        return None
    email = form.get("email", "")
    local, at, host = email.rpartition("@")
    plain = email.isascii() and email.isprintable() and " " not in email and len(email) <= EMAIL_CHARACTERS_MAX
    if not (plain and at and local and "." in host.strip(".")):
        raise Refusal("bad_email", "email: an address such as awa@example.com.")
    return replace(seen.buyer, email=email)
