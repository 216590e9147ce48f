"""What came of a call about an attempt, written into the book of payments."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Connection, select

from service.errors import NotFound, Refusal
from service.payments.book import Book
from service.payments.facts import Fact, Kind, Source, Told
from service.payments.heard import ON_TRUST
from service.payments.records import AttemptRecord
from service.payments.states import LIVE, State, Step
from service.payments.tables import aliases, attempts, payments
from service.providers.calls import (
    Accepted,
    Action,
    Approve,
    Confirm,
    Declined,
    Given,
    Lost,
    NotSent,
    Otp,
    Redirect,
    Result,
)

NEVER_CONNECTED: Final = frozenset({"refused", "dns", "tls", "connect_timeout", "bad_address", "account_gone"})
"""Reasons of a NotSent that no answer of the provider's is needed for."""

NEVER_CAME_THROUGH: Final = NEVER_CONNECTED - {"account_gone"} | {
    "timeout", "time_limit", "connection_lost", "provider_error", "answer_too_large",
}  # fmt: skip
"""Reasons that say something about the way to the provider, and not about this payment."""

OPERATORS_STEPS: Final = {
    "succeeded": Step.OPERATOR_SUCCEEDED,
    "failed": Step.OPERATOR_FAILED,
    "canceled": Step.OPERATOR_CANCELED,
    "not_sent": Step.OPERATOR_NOT_SENT,
}

Asked = dict[str, Any]
"""An attempt as asking needs it: its row, the payment's id, and `names`, the provider's own of it."""


def hear_result(book: Book, attempt: AttemptRecord, result: Result) -> State:
    """A create's or a code's result. Returns the attempt's state."""
    match result:
        case Accepted(told, action):
            # What was to be done before is done, or replaced by what is to be done now.
            attempt.row["action"], attempt.changed = None if action is None else json.dumps(shown(action)), True
            state = book.answered(attempt, told)
            if action is not None:
                book.found(attempt, Step.FOUND_WAITING, State.REQUIRES_ACTION)
            elif state is State.SUBMITTING:
                book.found(attempt, Step.FOUND_PENDING, State.PENDING)
        case Declined(told, reason, _):
            attempt.row["reason"], attempt.changed = reason.value, True
            book.answered(attempt, told)
        case NotSent(reason):
            attempt.row["reason"], attempt.changed = reason, True
            book.step(attempt, Step.NOTHING_SENT, reason=reason)
        case Lost(reason, told):
            attempt.row["reason"], attempt.changed = reason, True
            book.step(attempt, Step.LOST, reason=reason)
            if told is not None and (told.references or told.facts):
                book.answered(attempt, told)
    return State(attempt.row["state"])


def shown(action: Action) -> dict[str, str]:
    """What the payer has to do, as merchants and the buyer's page see it."""
    match action:
        case Otp(text):
            return {"type": "otp", "display_text": text}
        case Approve(text):
            return {"type": "approve_on_phone", "display_text": text}
        case Redirect(url, secret):
            return {"type": "redirect", "url": url} | ({"client_secret": secret} if secret else {})
        case Confirm(secret):
            return {"type": "confirm", "client_secret": secret}


def live_attempt(book: Book, payment_id: str) -> AttemptRecord | None:
    """The attempt that can still succeed, the youngest of them. Raises NotFound."""
    try:
        mine = book.payment(payment_id).attempts
    except KeyError:
        raise NotFound("payment", payment_id, "caisse payments list") from None
    return next((one for one in reversed(mine) if one.row["state"] in LIVE), None)


def refuse_open_prompt(tx: Connection, session_id: str) -> None:
    """One live prompt at a time (mission B1a). Raises Refusal prompt_open."""
    query = (
        select(attempts.c.payment_id)
        .join(payments, payments.c.id == attempts.c.payment_id)
        .where(payments.c.session_id == session_id, attempts.c.state.in_(sorted(LIVE)))
    )
    found = tx.execute(query.limit(1)).scalar()
    if found is not None:
        raise Refusal("prompt_open", f"The payment {found} still waits for the payer; end it before another begins.")


def on_trust(attempt: AttemptRecord, now_ms: int) -> Told:
    """The money that an operator has seen with their own eyes, until the provider's word replaces it."""
    row = attempt.row
    fact = Fact(
        Kind.CAPTURED,
        ON_TRUST + row["id"],
        now_ms,
        row["amount_minor"],
        row["amount_minor"],
        row["currency"],
        source=Source.OPERATOR,
    )
    return Told((), (fact,), row["reference"])


def asked(tx: Connection, row: dict[str, Any]) -> Asked:
    """An attempt's row with the provider's names of it, the one that a person would look up first."""
    found = tx.execute(select(aliases.c.reference).where(aliases.c.attempt_id == row["id"])).scalars().all()
    first = [row["provider_reference"]] if row["provider_reference"] else []
    others = sorted(name for name in found if name not in (row["reference"], row["provider_reference"]))
    return row | {"names": [*first, *others]}


def given_of(attempt: Asked, live: bool, key: str = "") -> Given:
    """The attempt as the provider's file wants it."""
    return Given(
        attempt["reference"],
        tuple(attempt["names"]),
        attempt["amount_minor"],
        attempt["currency"],
        key,
        attempt["created_at_ms"],
        live,
    )
