"""The buyer's page as it looks: one session at one moment, and the template with everything that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import normalize
from urllib.parse import urlsplit, urlunsplit

import phonenumbers
from litestar import Response

from service.errors import Refusal
from service.orders.return_urls import check_return_url
from service.pay import amounts, words
from service.pay.faces import Face, reloads_s
from service.pay.form import Tokens
from service.pay.look import page
from service.pay.ways import Ways
from service.payments.desk import OTP_TRIES_MAX
from service.providers.calls import OPERATORS, Customer
from service.routing.operators import Phone

if TYPE_CHECKING:
    from service.application import Application


@dataclass(frozen=True, slots=True)
class Seen:
    """A session at one moment. `ways` where the buyer may choose, and what the shop has said of the buyer."""

    row: dict[str, Any]
    face: Face
    ways: Ways | None
    buyer: Customer


class Screens:
    """Over the application's parts; reads nothing and changes nothing."""

    def __init__(self, app: Application, tokens: Tokens) -> None:
        self._app, self._tokens = app, tokens

    def shown(
        self,
        seen: Seen,
        query: Mapping[str, str],
        *,
        alert: str = "",
        typed: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Response[bytes]:
        """The page for the session's face. `alert`: what was wrong with a form; `typed`: what stood in it."""
        match seen.face:
            case Face.CHOOSE:
                return self._choose(seen, query, alert, typed or {}, status)
            case Face.OTP | Face.APPROVE | Face.REDIRECT | Face.WAIT | Face.UNKNOWN | Face.ENDING:
                return self._wait(seen, query, alert, status)
            case _:
                return self._end(seen, query, status)

    def _choose(
        self, seen: Seen, query: Mapping[str, str], alert: str, typed: Mapping[str, str], status: int
    ) -> Response[bytes]:
        row, language = seen.row, language_of(seen, query)
        assert seen.ways is not None
        names = words.sayer(language, words.COUNTRIES)
        countries = [
            {
                "code": code,
                "name": names(code) if code in words.COUNTRIES else code,
                "calling": phonenumbers.country_code_for_region(code),
            }
            for code in seen.ways.wallets
        ]
        values = {
            "countries": sorted(countries, key=lambda one: normalize("NFD", str(one["name"]))),
            "card": seen.ways.card,
            "typed": {"country": "", "phone": "", "email": ""} | dict(typed),
            "fewer_tries": row["payment_id"] is not None,
            "tries_left": row["tries_left"],
            "alert": alert or self._why_again(row, language),
        }
        return page("choose", language, self._common(seen, query) | values, status=status)

    def operators(
        self,
        seen: Seen,
        query: Mapping[str, str],
        phone: Phone,
        country: str,
        typed: Mapping[str, str],
        alert: str = "",
    ) -> Response[bytes]:
        """The step between: which of the operators there is this number's, the likeliest first."""
        language = language_of(seen, query)
        assert seen.ways is not None
        ways = {one.operator: one for one in seen.ways.wallets[country]}
        likely = [one.operator for one in phone.operators if one.confidence == "likely" and one.operator in ways]
        ordered = [*likely, *(name for name in ways if name not in likely)]
        warn = words.sayer(language, words.WARNINGS)
        values = {
            "number": phonenumbers.format_number(
                phonenumbers.parse(phone.e164), phonenumbers.PhoneNumberFormat.INTERNATIONAL
            ),
            "operators": [
                {"operator": name, "name": OPERATORS.get(name, ""), "suggested": name in likely} for name in ordered
            ],
            "chosen": typed["operator"] or next(iter(likely), ordered[0] if len(ordered) == 1 else None),
            "warnings": [warn(name) for name in phone.warnings],
            "typed": {"phone": phone.e164, "country": country, "email": typed["email"]},
            "ask_email": any(one.email for one in ways.values()),
            "email_required": all(one.email for one in ways.values()),
            "alert": alert,
        }
        return page("operator", language, self._common(seen, query) | values, status=422 if alert else 200)

    def _wait(self, seen: Seen, query: Mapping[str, str], alert: str, status: int) -> Response[bytes]:
        row, language = seen.row, language_of(seen, query)
        say = words.sayer(language)
        action = row["action"] or {}
        go_url = _web_address(action.get("url", "")) if seen.face is Face.REDIRECT else ""
        every_s = reloads_s(seen.face, row, self._app.clock())
        refresh = f"{every_s};url={path_of(row['id'], query)}" if every_s is not None else ""
        if go_url and "go" in query:
            refresh = f"0;url={go_url}"
        if seen.face is Face.OTP and not alert and row["otp_tries"]:
            over = row["otp_tries"] >= OTP_TRIES_MAX
            alert = say("otp_over") if over else say("otp_wrong", count=row["otp_tries"], most=OTP_TRIES_MAX)
        if seen.face is Face.REDIRECT and not alert and row["failure_reason"]:
            alert = self._why_again(row, language)
        values = {
            "face": seen.face.value,
            "said": action.get("display_text", "") if seen.face in (Face.OTP, Face.APPROVE) else "",
            "asked": "asked" in query and seen.face is not Face.OTP,
            "otp_tries": row["otp_tries"],
            "otp_most": OTP_TRIES_MAX,
            "go_url": go_url,
            "refreshes": every_s is not None,
            "refresh": refresh,
            "can_give_up": self.can_give_up(seen),
            "alert": alert,
        }
        return page("wait", language, self._common(seen, query) | {"shop_url": ""} | values, status=status)

    def _end(self, seen: Seen, query: Mapping[str, str], status: int) -> Response[bytes]:
        row, face, language = seen.row, seen.face, language_of(seen, query)
        say = words.sayer(language)
        sentences = []
        if face is Face.PAID and row["payment_status"] == "partially_refunded":
            sentences = [say("refunded_part")]
        elif face is Face.HELD and "late" in (row["payment_exceptions"] or ()):
            sentences = [say("late_plain")]
        elif face is Face.FAILED:
            sentences = [self._why_again(row, language), say("failed_plain")]
        elif face is not Face.PAID:
            sentences = [say(f"{face}_plain")]
        receipt = self._receipt(row, language) if face is Face.PAID else []
        values = {"face": face.value, "sentences": sentences, "receipt": receipt, "payment": row["payment_id"] or ""}
        return page("end", language, self._common(seen, query) | values, status=status)

    def _receipt(self, row: Mapping[str, Any], language: str) -> list[tuple[str, str]]:
        """Nothing of the buyer's: who has the address sees it."""
        say = words.sayer(language)
        how = say("card") if row["method"] == "card" else OPERATORS.get(row["operator"] or "", say("wallet"))
        rows = [
            ("r_amount", amounts.shown(row["amount_minor"], row["currency"], language)),
            ("r_shop", row["merchant_name"]),
            ("r_for", row["description"]),
            ("r_when", amounts.when(row["paid_at_ms"], self._app.settings.timezone, language)),
            ("r_how", how if row["method"] else ""),
            ("r_reference", row["reference"] or ""),
        ]
        return [(name, value) for name, value in rows if value]

    def _common(self, seen: Seen, query: Mapping[str, str]) -> dict[str, Any]:
        row, language = seen.row, language_of(seen, query)
        return {
            "shop": row["merchant_name"],
            "live": bool(row["live"]),
            "amount": amounts.shown(row["amount_minor"], row["currency"], language),
            "description": row["description"],
            "lines": row["lines"] if len(row["lines"]) > 1 or not row["description"] else [],
            "here": path_of(row["id"], {}),
            "action": path_of(row["id"], query),
            "token": self._tokens.give(row["id"]),
            "shop_url": self._shop_url(row),
        }

    @staticmethod
    def _why_again(row: Mapping[str, Any], language: str) -> str:
        """Why the last try came to nothing; empty where there was none."""
        why = words.sayer(language, words.REASONS)
        if row["payment_id"] is None:
            return ""
        if row["failure_reason"]:
            return why(row["failure_reason"] if row["failure_reason"] in words.REASONS else "unknown")
        status = row["payment_status"]
        return why(status) if status in ("canceled", "expired") else why("unknown") if status == "failed" else ""

    def can_give_up(self, seen: Seen) -> bool:
        """Whether something waits that the provider can cancel."""
        calls = self._app.calls.get(seen.row["provider"] or "")
        waits = seen.face in (Face.OTP, Face.APPROVE, Face.REDIRECT)
        return waits and calls is not None and calls.cancel is not None

    def _shop_url(self, row: Mapping[str, Any]) -> str:
        """
        The merchant's address with `session` added, so that the shop knows whom to look up. How it went is not in it:
        anybody can type an address, so the shop asks.
        """
        try:
            url = check_return_url(
                row["return_url"], strict=self._app.settings.strict, allowed=self._app.settings.return_origins
            )
        except Refusal:  # it was checked when it came; the rules may have become stricter since
            return ""
        if not url:
            return ""
        parts = urlsplit(url)
        query = f"{parts.query}&" if parts.query else ""
        return urlunsplit(parts._replace(query=f"{query}session={row['id']}"))


def language_of(seen: Seen, query: Mapping[str, str]) -> str:
    """The one that the buyer chose on the page, else the session's."""
    asked = query.get("lang", "")
    return asked if asked in words.LANGUAGES else str(seen.row["locale"])


def path_of(session_id: str, query: Mapping[str, str], *flags: str) -> str:
    """The page, in the language that was chosen on it."""
    given = [f"lang={query['lang']}"] if query.get("lang") in words.LANGUAGES else []
    said = "&".join([*given, *(f"{flag}=1" for flag in flags)])
    return f"/pay/{session_id}" + (f"?{said}" if said else "")


def _web_address(url: str) -> str:
    """A provider's page, or nothing: what is no plain web address is no place to send anybody."""
    plain = url.isascii() and url.isprintable() and not set(url) & set(" \"'<>\\")
    return url if plain and urlsplit(url).scheme in ("https", "http") else ""
