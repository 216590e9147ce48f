"""
`/balance/{token}`: a beneficiary sees what is theirs, on any phone. Who has the address may look and nothing more:
there is no form on it, and where the money goes is not said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from sqlalchemy import Connection, func, select

from service.database import StorageError
from service.errors import Refusal
from service.escrow.beneficiaries import of_link, payee_of
from service.escrow.states import Hold, Payout
from service.escrow.tables import holds, payouts
from service.ledger.balances import OfBeneficiary, month_of, of_beneficiary
from service.ledger.months import local
from service.merchants.tables import merchants
from service.orders.owner import row_of
from service.pay import amounts, words
from service.pay.form import fields
from service.pay.look import page

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from service.application import Application

log: Any = structlog.get_logger()

PATH: Final = "/balance/{token}"
PAYOUTS_SHOWN: Final = 10
LANGUAGES_READ_MAX: Final = 20
"""Of Accept-Language; a browser sends a handful."""
_ACCEPTED: Final = re.compile(r"([a-z]{2})(?:-[a-z0-9-]*)?(?:;q=([01](?:\.[0-9]{0,3})?))?")

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "title": ("Votre solde", "Your balance"),
    "available": ("Disponible", "Available"),
    "available_hint": ("Cette somme peut vous être versée.", "This can be paid out to you."),
    "pending": ("En attente", "Waiting"),
    "pending_hint": (
        "Payé par vos clients, gardé jusqu’à la livraison.",
        "Paid by your customers, kept until it is delivered.",
    ),
    "scheduled": ("La prochaine somme sera disponible le {when}.", "The next sum becomes available on {when}."),
    "paid_out": ("Versé en {month}", "Paid to you in {month}"),
    "reserved": ("En route vers vous : {amount}", "On its way to you: {amount}"),
    "owed": (
        "De l’argent déjà versé a été rendu à un client. Il sera retenu sur vos prochaines ventes.",
        "Money that you were paid went back to a customer. It will be kept from your next sales.",
    ),
    "last": ("Derniers versements", "Last payouts"),
    "none": ("Aucun versement pour le moment.", "No payout yet."),
    "now": ("Situation le {when}.", "As of {when}."),
    "ask": (
        "Une question ? Parlez à {shop}. Ne donnez cette adresse à personne.",
        "A question? Talk to {shop}. Give this address to nobody.",
    ),
}
STATES: Final[Mapping[str, tuple[str, str]]] = {
    Payout.REQUESTED: ("Demandé", "Asked for"),
    Payout.AWAITING_APPROVAL: ("À valider par la boutique", "Waiting for the shop"),
    Payout.QUEUED: ("En préparation", "Being prepared"),
    Payout.SUBMITTING: ("En route", "On its way"),
    Payout.UNKNOWN: ("En route", "On its way"),
    Payout.IN_TRANSIT: ("En route", "On its way"),
    Payout.PAID: ("Versé", "Paid"),
    Payout.FAILED: ("Non abouti, remis dans votre solde", "Did not work, back in your balance"),
    Payout.CANCELED: ("Annulé, remis dans votre solde", "Cancelled, back in your balance"),
    Payout.RETURNED: ("Revenu, remis dans votre solde", "Came back, in your balance again"),
}


class BalancePage:
    """What is mounted: `handlers`, of `paths`."""

    def __init__(self, app: Application, middleware: list[Any]) -> None:
        self._app = app
        self.paths = (PATH,)

        async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
            return await self.show(request)

        made = HTTPRouteHandler(
            PATH.replace("{token}", "{token:str}"),
            http_method="GET",
            status_code=200,  # what Litestar assumes: the answer brings its own
            middleware=middleware,
            include_in_schema=False,
        )
        self.handlers = [made(handle)]

    async def show(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page. Whatever is no token of now ends in the same page, so that nothing can be learnt from it."""
        language, token = language_of(request), str(request.path_params["token"])
        try:
            values = await self._app.db.read(self._look, token, language)
        except Refusal:
            return _fault(language, "not_found", 404)
        except StorageError as error:
            log.warning("page.not_answered", reason=type(error).__name__)
            return _fault(language, "storage", 503, {"Retry-After": "5"})
        except Exception as error:
            log.error("page.raised", route=PATH, exc_info=error)  # never the path: it is a key
            return _fault(language, "other", 500)
        return page("balance", language, values | {"here": f"/balance/{token}"})

    def _look(self, tx: Connection, token: str, language: str) -> dict[str, Any]:
        row, now_ms = of_link(tx, token), self._app.clock()
        owner = row_of(row)
        month = month_of(tx, owner.merchant_id, self._app.settings.timezone, now_ms)
        balance = of_beneficiary(tx, row, month)
        p = payouts.c
        last = (
            select(p.amount_minor, p.currency, p.state, p.created_at_ms, p.paid_at_ms)
            .where(p.beneficiary_id == row["id"], p.source == "beneficiary")
            .order_by(p.id.desc())
            .limit(PAYOUTS_SHOWN)
        )
        tell, states = words.sayer(language, WORDS), words.sayer(language, STATES)
        release_at_ms = _next_release(tx, row["id"], now_ms) if balance.pending_minor else None
        scheduled = amounts.when(release_at_ms, month.zone.key, language) if release_at_ms else ""
        shop = tx.execute(select(merchants.c.name).where(merchants.c.id == owner.merchant_id)).scalar()
        return {
            "tell": tell,
            "shop": shop or "",
            "live": owner.live,
            "name": payee_of(tx, row["id"])["name"] or row["reference"] or "",
            "figures": _figures(balance, language, local(now_ms, month.zone).month, scheduled),
            "alert": tell("owed") if balance.available_minor < 0 else "",
            "payouts": [
                {
                    "day": _day(one.paid_at_ms or one.created_at_ms, month.zone, language),
                    "state": states(one.state),
                    "amount": amounts.shown(one.amount_minor, one.currency, language),
                }
                for one in tx.execute(last)
            ],
            "when": amounts.when(now_ms, month.zone.key, language),
        }


def language_of(request: Request[Any, Any, Any]) -> str:
    """What the address says (`lang`), else what the browser would rather have, else the first of ours."""
    try:
        asked = fields(request.scope["query_string"]).get("lang", "")
    except Refusal:
        asked = ""
    if asked in words.LANGUAGES:
        return asked
    weights: dict[str, float] = {}
    for one in request.headers.get("accept-language", "").lower().replace(" ", "").split(",")[:LANGUAGES_READ_MAX]:
        found = _ACCEPTED.fullmatch(one)
        if found and found[1] in words.LANGUAGES:
            weights[found[1]] = max(weights.get(found[1], 0.0), float(found[2] or 1))
    return max(words.LANGUAGES, key=lambda language: weights.get(language, 0.0))


def _next_release(tx: Connection, beneficiary_id: str, now_ms: int) -> int | None:
    """When the clock releases the next of what is held; none while all of it waits for a delivery or is frozen."""
    h = holds.c
    waits = h.beneficiary_id == beneficiary_id, h.state == Hold.RELEASE_SCHEDULED.value, h.release_at_ms > now_ms
    return tx.execute(select(func.min(h.release_at_ms)).where(*waits)).scalar()


def _figures(balance: OfBeneficiary, language: str, month: int, scheduled: str) -> list[tuple[str, str, list[str]]]:
    """Each figure with its label and what explains it. `scheduled`: when the next is released; empty when none is."""
    tell = words.sayer(language, WORDS)
    name = words.MONTHS[month - 1][words.LANGUAGES.index(language)]

    def amount(minor: int) -> str:
        return amounts.shown(minor, balance.currency, language)

    payable = [tell("available_hint")] if balance.available_minor > 0 else []
    waiting = [tell("pending_hint"), *([tell("scheduled", when=scheduled)] if scheduled else [])]
    on_its_way = [tell("reserved", amount=amount(balance.reserved_minor))] if balance.reserved_minor else []
    return [
        (tell("available"), amount(balance.available_minor), payable),
        (tell("pending"), amount(balance.pending_minor), waiting),
        (tell("paid_out", month=name), amount(balance.paid_out_minor), on_its_way),
    ]


def _day(at_ms: int, zone: ZoneInfo, language: str) -> str:
    at = local(at_ms, zone)
    return f"{at.day} {words.MONTHS[at.month - 1][words.LANGUAGES.index(language)]} {at.year}"


def _fault(language: str, code: str, status: int, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    values = {"alert": words.refused(language, code), "again": "", "shop": ""}
    return page("fault", language, values, status=status, headers=headers)
