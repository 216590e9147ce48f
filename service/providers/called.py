"""
What the calling halves say in the same way: which HTTP status proves that nothing was sent, addresses for the payer,
amounts in whole major units, and questions as calls. (`meaning` does this for callbacks and answers.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from service.payments import money
from service.payments.facts import Fact, Kind, Told
from service.providers.base import Answer, Credentials, NotKnown, Request, Unclear
from service.providers.calls import Call, Channel, Facts, Given, Lost, NotSent, RefundRefused, Wanted

URL_CHARACTERS_MAX: Final = 2000
CREDENTIALS_WRONG: Final = NotSent("credentials", alert=True)
TEST_MONEY: Final = "test_answer_in_live"

TEST_KEYS = ("sk_test_", "rk_test_", "sk_sandbox_", "pvk_sandbox_")
"""How keys begin that move no money: Stripe and Paystack, FedaPay [SDK], Moneroo [3p]."""

_TURNED_AWAY: Mapping[int, NotSent] = {
    401: CREDENTIALS_WRONG,
    403: CREDENTIALS_WRONG,
    404: NotSent("no_route"),
    405: NotSent("no_route"),
    422: NotSent("unsupported"),
    429: NotSent("rate_limited"),
}
"""The rows of "When is failover safe?" that are an HTTP status. None of our providers documents one for maintenance."""

# Plain HTTP only where nobody listens on the way: the sandbox on this machine.
_LINK = re.compile(
    r"(https://[a-z0-9.-]+|http://(127\.0\.0\.1|localhost|\[::1\]))(:\d{1,5})?([/?#][!-~]*)?", re.ASCII | re.IGNORECASE
)


def turned_away(status: int) -> NotSent | Lost | None:
    """What the status of a creating call says by itself; None where the body has to be read."""
    if 200 <= status < 300:
        return None
    return _TURNED_AWAY.get(status) or Lost("refused" if 400 <= status < 500 else "provider_error")


def not_refunded(stopped: NotSent | Lost) -> NotSent | RefundRefused | Lost:
    """What a status says of a refund: refused by 422 it is refused, turned away at the door it may be sent again."""
    return RefundRefused(stopped.reason) if stopped.reason == "unsupported" else stopped


def unfit(wanted: Wanted, channel: Channel, key: str) -> NotSent | None:
    """What can be said against a wish before anything is sent; `key` is the credential that calls."""
    if not key or (wanted.live and key.startswith(TEST_KEYS)):
        return CREDENTIALS_WRONG
    if wanted.currency != channel.currency:
        return NotSent("unsupported")
    if channel.refuses(wanted.amount_minor) is not None:
        return NotSent("amount")
    lacking = sorted(channel.lacks(wanted))
    return NotSent(f"missing_{lacking[0]}") if lacking else None


def link(value: object) -> str | None:
    """An address that a payer can be sent to, None for anything else (another scheme, a user name in it, spaces)."""
    if isinstance(value, str) and len(value) <= URL_CHARACTERS_MAX and value.isascii() and _LINK.fullmatch(value):
        return value
    return None


def whole(amount_minor: int, currency: str) -> int | None:
    """An amount in whole major units, for providers that take no fraction; None where there is one, or no amount."""
    major = money.to_major(amount_minor, currency)
    return int(major) if major > 0 and major == major.to_integral_value() else None


def words(facts: Facts, name: str) -> tuple[str, ...]:
    """A fact that is a list of words."""
    found = facts[name]
    return found if isinstance(found, tuple) else ()


def number(facts: Facts, name: str) -> int:
    """A fact that is a number."""
    found = facts[name]
    return found if isinstance(found, int) else 0


def rfc3339(at_ms: int) -> str:
    """A time as lists are asked with it, in whole seconds."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def text(value: str, limit: int) -> str:
    """Merchants' and payers' words for a form or JSON: cut, without what no encoder takes."""
    return value.encode("utf-8", "replace").decode().replace("\x00", "")[:limit]


def digits(phone: str) -> str | None:
    """The digits of an E.164 number, None for what is none."""
    found = phone.removeprefix("+")
    return found if re.fullmatch(r"[1-9][0-9]{5,14}", found, re.ASCII) else None


def credential(credentials: Credentials, name: str) -> str:
    """The newest value that is not empty: the one that calls; empty where there is none."""
    return next((value for value in credentials.get(name, ()) if value.strip()), "")


def call(request: Request) -> Call:
    """A question as a call."""
    form = None if request.form is None else tuple(request.form.items())
    return Call(request.method, request.path, request.headers, form, request.json)


def theirs(given: Given) -> str | None:
    """The provider's own name of a payment, the first it gave; ours is not one."""
    return next((name for name in given.references if name != given.reference), None)


def never_unknown(answer: Answer) -> Answer:
    """
    Where no 404 is documented for a payment: one about a number that the provider gave us means a wrong address.

    "Not known" would end an unknown attempt and let another provider charge.
    """
    return Unclear("not_known") if isinstance(answer, NotKnown) else answer


def other_amount(told: Told, amount_minor: int, currency: str) -> bool:
    """Whether an answer is about another sum than was asked for. What it does not say is not another."""
    return any(
        (fact.asked_minor is not None and fact.asked_minor != amount_minor)
        or (fact.currency is not None and fact.currency != currency)
        for fact in told.facts
    )


def said_no(told: Told) -> Fact | None:
    """The fact by which an answer to a creating call is a definite no."""
    return next((fact for fact in told.facts if fact.kind in (Kind.FAILED, Kind.CANCELED, Kind.EXPIRED)), None)
