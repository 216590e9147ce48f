"""What a buyer sees of a session: one face for every state that it and its payment can be in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from service.orders.rules import LIVE
from service.orders.states import Session


class Face(StrEnum):
    """The kind of page; each has a title in `words.WORDS` or is a form."""

    CHOOSE = "choose"
    OTP = "otp"
    APPROVE = "approve"
    REDIRECT = "redirect"
    WAIT = "wait"
    UNKNOWN = "unknown"
    ENDING = "ending"
    PAID = "paid"
    REFUNDED = "refunded"
    HELD = "held"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


MONEY: Final = ("succeeded", "partially_refunded")
WAITING: Final = (Face.APPROVE, Face.WAIT, Face.UNKNOWN, Face.ENDING)
"""Faces that change by themselves: they load anew."""
_ASKED: Final[Mapping[str, Face]] = {
    "otp": Face.OTP,
    "approve_on_phone": Face.APPROVE,
    "redirect": Face.REDIRECT,
    # `confirm` is the merchant's own page, which has the secret: here there is nothing to do.
}
_BY_AGE_S: Final = ((30, 4), (120, 8), (600, 20), (3_600, 60))
"""How long a prompt has waited, and after how many seconds the page loads anew; older ones not by themselves."""


def face_of(row: Mapping[str, Any], now_ms: int) -> Face:
    """Of a row as `sessions.page` gives it. Money first: whatever the session's own state, money that came is said."""
    state, payment = row["state"], row["payment_status"]
    if payment == "refunded":
        return Face.REFUNDED
    if state == Session.COMPLETE:
        return Face.PAID
    if payment in MONEY:
        return Face.HELD
    if state in (Session.EXPIRING, Session.CANCELING):
        return Face.ENDING
    if state == Session.PROCESSING:
        if payment == "unknown":
            return Face.UNKNOWN
        return _ASKED.get((row["action"] or {}).get("type", ""), Face.WAIT)
    if state == Session.CANCELED:
        return Face.CANCELED
    if state == Session.EXPIRED:
        return Face.FAILED if row["ended_by"] == "tries" else Face.EXPIRED
    return Face.CHOOSE if row["expires_at_ms"] > now_ms else Face.EXPIRED


def reloads_s(face: Face, row: Mapping[str, Any], now_ms: int) -> int | None:
    """After how many seconds the page loads anew, None: only by hand."""
    if face not in WAITING:
        return None
    waited_s = max(now_ms - row["updated_at_ms"], 0) // 1000
    return next((every_s for up_to_s, every_s in _BY_AGE_S if waited_s < up_to_s), None)


def may_ask(row: Mapping[str, Any]) -> bool:
    """Whether the provider may know more than we do."""
    return row["payment_id"] is not None and row["payment_status"] in LIVE
