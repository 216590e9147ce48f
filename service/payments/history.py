"""One payment told to a person: everything about it in order of time, and why it went where it went, in sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, or_, select

from service.callbacks.tables import callbacks
from service.errors import NotFound
from service.escrow.tables import holds, payouts
from service.merchants.events import rfc3339
from service.merchants.tables import audit, events
from service.payments.money import to_major
from service.payments.refund_rows import of_payment
from service.payments.states import LIVE, State, Step
from service.payments.tables import attempts, attention, decisions, facts, payments
from service.providers import PROVIDERS
from service.routing.words import sentences as routed

TIMELINE_MAX: Final = 1_000
ATTEMPTS_MAX: Final = 100

Row = Mapping[str, Any] | RowMapping
_Line = tuple[int, int, str, str, dict[str, Any]]
_ORDER: Final = (
    *("payment", "attempt", "decision", "callback", "fact", "refund", "hold", "payout"),
    *("audit", "attention", "event"),
)
"""What comes first of what has the same time: a cause before what it caused."""

REASONS: Final[Mapping[str, str]] = {
    "refused": "the connection was refused",
    "dns": "its name could not be looked up",
    "tls": "no secure connection could be made",
    "connect_timeout": "it did not answer the knocking",
    "bad_address": "its address in the settings is no address",
    "account_gone": "its account is not configured any more",
    "timeout": "no answer came in time",
    "time_limit": "no answer came in time",
    "connection_lost": "the connection was lost before the answer",
    "answer_too_large": "the answer was longer than any answer is",
    "unreadable": "the answer could not be read",
    "worker_died": "caisse was stopped while it was being sent",
    "credentials": "it refuses our key",
    "insufficient_funds": "not enough money in the account",
    "limit_reached": "a limit of the payer's account was reached",
    "wrong_pin": "a wrong code",
    "timed_out": "the payer did not answer in time",
    "declined_by_user": "the payer said no",
    "no_wallet": "the number has no such wallet",
    "number_mismatch": "the number does not fit the operator",
    "provider_unavailable": "the provider or operator is down",
    "unknown": "no reason was given",
}
"""Fixed words as people read them; one that is not here is shown as it is."""

_BECAME: Final[Mapping[str, str]] = {
    State.CREATED: "It is written down and not sent yet.",
    State.SUBMITTING: "It is being sent at this moment.",
    State.REQUIRES_ACTION: "It waits for the payer{doing}.",
    State.PENDING: "The provider has it; it is not final.",
    State.AUTHORIZED: "The money is reserved and not taken yet.",
    State.UNKNOWN: "It was sent, and nobody knows what became of it{why}.",
    State.CANCELING: "It is to be cancelled; the provider has not said yet that it is.",
    State.SUCCEEDED: "It has the money.",
    State.FAILED: "The provider declined it{why}.",
    State.CANCELED: "The provider has cancelled it.",
    State.EXPIRED: "It ran out of time at the provider.",
    State.NOT_SENT: "Nothing was sent, or nothing can come of it{why}.",
}
_DOING: Final = {
    "otp": " to type a code",
    "approve_on_phone": " to approve on the phone",
    "redirect": " on the provider's page",
    "confirm": " on the merchant's page",
}
_ALONE: Final[Mapping[str, str]] = {
    State.SUCCEEDED: "Nobody else had to be asked.",
    State.FAILED: "No other provider was asked: a decline is an answer, and asking elsewhere could charge twice.",
    State.CANCELED: "No other provider was asked: it was ended on purpose.",
    State.EXPIRED: "No other provider was asked: it had been shown to the payer.",
    State.NOT_SENT: "Another provider could have been asked, and there was none left that could take it.",
    State.UNKNOWN: "No other provider may be asked: if this one took the money, the payer would be charged twice.",
}
_WAITS: Final = "No other provider may be asked while this one can still take the money."
_BLIND: Final = (
    "No other provider was asked: what this one did could never be found out, so only a connection that never was lets "
    "go of it."
)
_STEPS: Final[Mapping[str, str]] = {
    Step.SENDING: "about to be sent",
    Step.CANCELED_UNSENT: "cancelled before anything was sent",
    Step.NOTHING_SENT: "proof that nothing was sent",
    Step.LOST: "the answer was lost",
    Step.FOUND_PENDING: "the provider has it",
    Step.FOUND_WAITING: "it waits for the payer",
    Step.NOT_KNOWN: "the provider knows no such reference",
    Step.CANCEL_WANTED: "it is to be cancelled",
    Step.CANCEL_UNCLEAR: "whether it is cancelled is not clear",
    Step.OPERATOR_SUCCEEDED: "decided by hand: it succeeded",
    Step.OPERATOR_FAILED: "decided by hand: it failed",
    Step.OPERATOR_CANCELED: "decided by hand: it was cancelled",
    Step.OPERATOR_NOT_SENT: "decided by hand: it was never sent",
}


def timeline(tx: Connection, payment_id: str, limit: int = 500) -> dict[str, Any]:
    """
    A query: `{"payment", "entries": [{"at", "what", "text", …}], "more"}`, the oldest first. Each kind is read up to
    the limit; `more` is true when anything was left out. Raises NotFound.
    """
    most = max(1, min(limit, TIMELINE_MAX))
    payment = _payment(tx, payment_id)
    tried = _attempts(tx, payment_id)
    mine = [attempt["id"] for attempt in tried]
    provider_of = {attempt["id"]: attempt["provider"] for attempt in tried}
    lines: list[_Line] = _of_payment(payment)
    for attempt in tried:
        text = f"{_title(attempt['provider'])} asked for {_money(attempt['amount_minor'], attempt['currency'])}"
        if attempt["reference"] is None:
            text = f"seen at {_title(attempt['provider'])}"
        lines.append(_line(attempt["created_at_ms"], "attempt", text, attempt=attempt["id"]))
    cut = len(tried) >= ATTEMPTS_MAX
    refunds = of_payment(tx, payment_id)
    for refund in refunds:
        lines += _of_refund(refund)
    held, paid = _held(tx, payment["order_id"])
    lines += [line for hold in held for line in _of_hold(hold)] + [line for one in paid for line in _of_payout(one)]
    others = [row["id"] for row in (*refunds, *held, *paid)]
    for what, query, told in (
        ("decision", select(decisions).where(decisions.c.attempt_id.in_(mine)).order_by(decisions.c.at_ms), _decision),
        ("fact", select(facts).where(facts.c.attempt_id.in_(mine)).order_by(facts.c.told_at_ms), _fact),
        ("event", select(events).where(events.c.payment_id == payment_id).order_by(events.c.position), _event),
        ("callback", select(callbacks).where(callbacks.c.payment_id == payment_id).order_by(callbacks.c.id), _callback),
        ("audit", _audit(payment_id, others), _entry),
    ):
        rows = tx.execute(query.limit(most + 1)).mappings().all()
        cut = cut or len(rows) > most
        for row in rows:
            at_ms, text, more = told(row)
            if "attempt" in more:
                more["provider"] = provider_of[more["attempt"]]
            lines.append(_line(at_ms, what, text, **more))
    lines += _matters(tx, [payment_id, *others])
    lines.sort(key=lambda line: line[:2])
    entries = [{"at": rfc3339(at_ms), "what": what, "text": text} | more for at_ms, _, what, text, more in lines[:most]]
    return {"payment": payment_id, "entries": entries, "more": cut or len(lines) > most}


def explain(tx: Connection, payment_id: str) -> dict[str, Any]:
    """
    A query: why this payment went where it went. `sentences` is the whole story; `routing` is the stored explanation,
    None for a payment that somebody else started; `attempts` tell each what became of it and why the next was or was
    not made. Raises NotFound.
    """
    payment = _payment(tx, payment_id)
    tried = _attempts(tx, payment_id)
    routing = json.loads(payment["explanation"]) if payment["explanation"] else None
    story = routed(routing) if routing else ["Somebody else started this payment; caisse chose no provider for it."]
    said = _lost_because(tx, [attempt["id"] for attempt in tried])
    chain = len(routing["chain"]) if routing else 0
    told: list[dict[str, Any]] = []
    for number, attempt in enumerate(tried, 1):
        following = tried[number] if number < len(tried) else None
        mine = _story(attempt, number, said.get(attempt["id"], ""))
        after = _next(attempt, following, number < chain)
        story += [*mine, after]
        told.append(
            {
                "id": attempt["id"],
                "provider": attempt["provider"],
                "account": attempt["account_id"],
                "state": attempt["state"],
                "reason": attempt["reason"],
                "reference": attempt["reference"],
                "provider_reference": attempt["provider_reference"],
                "sentences": mine,
                "next": after,
            }
        )
    if routing:
        story.append(f"The payment is recorded under {_title(payment['provider'])} and is {payment['status']}.")
    return {
        "payment": payment_id,
        "status": payment["status"],
        "provider": payment["provider"],
        "sentences": story,
        "routing": routing,
        "attempts": told,
    }


# --- explaining ---------------------------------------------------------------------------------------


def _story(attempt: Row, number: int, lost_because: str) -> list[str]:
    if attempt["reference"] is None:
        begun = f"Attempt {number}: seen at {_title(attempt['provider'])}."
    else:
        money = _money(attempt["amount_minor"], attempt["currency"])
        begun = f"Attempt {number}: {_title(attempt['provider'])} ({attempt['account_id']}) was asked for {money}."
    reason = attempt["reason"] or lost_because
    why = f": {REASONS.get(reason, reason)}" if reason else ""
    action = json.loads(attempt["action"]) if attempt["action"] else {}
    became = _BECAME[attempt["state"]].format(why=why, doing=_DOING.get(action.get("type", ""), ""))
    if attempt["state"] == State.SUCCEEDED and lost_because:
        became = f"The answer was lost ({REASONS.get(lost_because, lost_because)}), and it was found to have the money."
    return [begun, became]


def _next(attempt: Row, following: Row | None, left: bool) -> str:
    if following is not None:
        asked = _title(following["provider"])
        if attempt["state"] == State.FAILED:
            return f"The route lets a soft decline of a card go on, so {asked} was asked."
        if attempt["state"] == State.NOT_SENT:
            return f"Nobody can be charged by it, so {asked} was asked."
        return f"{asked} was asked because nothing seemed to have been sent; this one was heard of later."
    if attempt["state"] == State.NOT_SENT and left:
        return _BLIND
    if attempt["state"] in LIVE and attempt["state"] != State.UNKNOWN:
        return _WAITS
    return _ALONE[attempt["state"]]


def _lost_because(tx: Connection, ids: Sequence[str]) -> dict[str, str]:
    query = select(decisions.c.attempt_id, decisions.c.reason).where(
        decisions.c.attempt_id.in_(ids), decisions.c.step.in_([Step.LOST.value, Step.NOTHING_SENT.value])
    )
    return {str(row.attempt_id): str(row.reason) for row in tx.execute(query.order_by(decisions.c.at_ms))}


# --- lines --------------------------------------------------------------------------------------------


def _line(at_ms: int, what: str, text: str, **more: Any) -> _Line:
    return at_ms, _ORDER.index(what), what, text, more


def _of_payment(payment: Row) -> list[_Line]:
    begun = "asked for" if payment["origin"] == "caisse" else "somebody else's, first heard of"
    amount = _money(payment["amount_minor"], payment["currency"])
    lines = [_line(payment["created_at_ms"], "payment", f"{begun}: {amount}")]
    if payment["ended_at_ms"] is not None:
        lines.append(_line(payment["ended_at_ms"], "payment", "its order or session ended: money from now on is late"))
    return lines


def _of_refund(row: Row) -> list[_Line]:
    who = "by hand, " if row["manual"] else "" if row["origin"] == "caisse" else "at the provider, "
    money = _money(row["amount_minor"], row["currency"])
    lines = [_line(row["created_at_ms"], "refund", f"{money} to go back ({who}{row['actor']})", refund=row["id"])]
    if row["version"] > 1:
        why = f": {row['failure_reason']}" if row["failure_reason"] else ""
        lines.append(_line(row["updated_at_ms"], "refund", f"{money}: {row['state']}{why}", refund=row["id"]))
    return lines


def _held(tx: Connection, order_id: str | None) -> tuple[Sequence[Row], Sequence[Row]]:
    """What is held of the payment's order, and what was paid out of that."""
    if order_id is None:
        return [], []
    held = tx.execute(select(holds).where(holds.c.order_id == order_id)).mappings().all()
    of_them = payouts.c.hold_id.in_([row["id"] for row in held])
    query = select(payouts).where(of_them).order_by(payouts.c.id).limit(ATTEMPTS_MAX)
    return held, tx.execute(query).mappings().all() if held else []


def _of_hold(row: Row) -> list[_Line]:
    money = _money(row["held_minor"], row["currency"])
    lines = [_line(row["created_at_ms"], "hold", f"{money} held for {row['beneficiary_id']}", hold=row["id"])]
    if row["version"] > 1:
        lines.append(_line(row["updated_at_ms"], "hold", f"{money}: {row['state']}", hold=row["id"]))
    return lines


def _of_payout(row: Row) -> list[_Line]:
    money = f"{_money(row['amount_minor'], row['currency'])} by {_title(row['provider'])}"
    begun = _line(row["created_at_ms"], "payout", f"{money} to be paid out ({row['actor']})", payout=row["id"])
    if row["version"] == 1:
        return [begun]
    why = f": {row['failure_reason']}" if row["failure_reason"] else ""
    return [begun, _line(row["updated_at_ms"], "payout", f"{money}: {row['state']}{why}", payout=row["id"])]


_Told = tuple[int, str, dict[str, Any]]


def _decision(row: Row) -> _Told:
    text = _STEPS.get(row["step"], row["step"])
    text += f" ({REASONS.get(row['reason'], row['reason'])})" if row["reason"] else ""
    text += f", by {row['actor']}" if row["actor"] else ""
    return row["at_ms"], text, {"attempt": row["attempt_id"]}


def _fact(row: Row) -> _Told:
    money = ""
    if row["amount_minor"] is not None:
        money = f" {row['amount_minor']} {row['currency'] or ''}".rstrip()
    again = f" (told {row['seen_count']} times)" if row["seen_count"] > 1 else ""
    text = f"{row['kind']}{money}, from {row['source']}{again}"
    return row["told_at_ms"], text, {"attempt": row["attempt_id"]}


def _event(row: Row) -> _Told:
    return row["created_at_ms"], f"{row['type']} ({row['id']})", {"event": row["id"]}


def _callback(row: Row) -> _Told:
    text = f"{row['provider']} {row['kind']}: {row['status']} ({row['id']})"
    return row["received_at_ms"], text, {"callback": row["id"]}


def _audit(payment_id: str, others: Iterable[str]) -> Select[Any]:
    return select(audit).where(audit.c.subject.in_([payment_id, *others])).order_by(audit.c.at_ms)


def _entry(row: Row) -> _Told:
    why = f": {row['reason']}" if row["reason"] else ""
    return row["at_ms"], f"{row['action']} by {row['actor']}{why}", {}


def _matters(tx: Connection, subjects: Sequence[str]) -> list[_Line]:
    lines = []
    mine: ColumnElement[bool] = or_(*(attention.c.subject == subject for subject in subjects[:ATTEMPTS_MAX]))
    for row in tx.execute(select(attention).where(mine).limit(TIMELINE_MAX)).mappings():
        lines.append(_line(row["opened_at_ms"], "attention", row["reason"]))
        if row["closed_at_ms"] is not None:
            lines.append(_line(row["closed_at_ms"], "attention", f"{row['reason']}: closed"))
    return lines


# --- rows ---------------------------------------------------------------------------------------------


def _payment(tx: Connection, payment_id: str) -> Row:
    row = tx.execute(select(payments).where(payments.c.id == payment_id)).mappings().one_or_none()
    if row is None:
        raise NotFound("payment", payment_id, "caisse payments list")
    return row


def _attempts(tx: Connection, payment_id: str) -> Sequence[Row]:
    query = select(attempts).where(attempts.c.payment_id == payment_id).order_by(attempts.c.id).limit(ATTEMPTS_MAX)
    return tx.execute(query).mappings().all()


def _title(provider: str) -> str:
    known = PROVIDERS.get(provider)
    return known.title if known else provider


def _money(amount_minor: int, currency: str) -> str:
    return f"{to_major(amount_minor, currency)} {currency}"
