"""
Payouts: asked for, approved, called off, decided by hand, tried again.

What is asked for is reserved in the same transaction, so two requests over one balance cannot both be met. The
reference at the provider is given here, once; sending is `pay_out.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, select

from outbox.message import Promise
from outbox.queue import Queue
from service.attention import open_attention
from service.errors import Refusal
from service.escrow.beneficiaries import approve_payee, as_payee, payee_of
from service.escrow.payout_rows import NOT_POSSIBLE, keep, move, one, owed_by, told_of
from service.escrow.refund_payouts import (
    Follows,
    keep_payee,
    nothing_follows,
    payee_row,
    payer_of,
    still_wanted,
    waiting,
)
from service.escrow.states import GAVE_BACK, Hold, Payout, PayoutStep
from service.escrow.tables import beneficiaries, holds, payouts
from service.escrow.terms import terms_of
from service.ledger.ledger import Kind, balance
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.events import News, tell
from service.orders.fields import a_text, an_amount
from service.orders.owner import Owner, find, row_of
from service.payments.heard import Context
from service.payments.money import to_major
from service.payments.tables import attempts, payments
from service.providers.payouts import Payouts as Provider
from service.schema import outbox_tables

PAYOUT: Final = "payout"
"""The outbox's topic. One message carries a payout to its end; later ones, and hints, only ask."""
ASK_ONLY: Final = "ask"
HASTENED_MAX: Final = 1_000
LIMITS: Final[Mapping[str, str]] = {
    "below_minimum": "at least",
    "above_maximum": "at most",
    "not_a_step": "a multiple of",
}
"""What a provider takes, by why it refuses an amount (`PayoutChannel.refuses`)."""
Source = Literal["beneficiary", "merchant"]


@dataclass(frozen=True, slots=True)
class Draft:
    """
    A payout to be made: to this beneficiary, from their own balance or the merchant's. `hold_id`: of what that hold has
    released. `account_id`: the provider account that pays; else the beneficiary's own, or the first that can.
    """

    beneficiary_id: str
    amount_minor: int
    currency: str
    source: Source = "beneficiary"
    hold_id: str | None = None
    description: str = ""
    account_id: str = ""
    retry_of: str | None = None


class Payouts:
    """Holds what never changes. `ours`: how our references at providers begin. `follows`: refunds that are paid out."""

    def __init__(
        self,
        queue: Queue,
        registry: Callable[[], Registry],
        providers: Mapping[str, Provider],
        ours: str,
        follows: Follows = nothing_follows,
    ) -> None:
        self._queue, self._registry, self._providers, self._ours = queue, registry, providers, ours
        self._follows = follows

    def request(self, tx: Connection, owner: Owner, draft: Draft, by: By, *, waits: bool = False) -> dict[str, Any]:
        """
        A work: reserve the money and let it be sent, or approved first. `waits`: a payee that may not be paid yet makes
        it wait, else it is refused.

        Raises NotFound, and Refusal: bad_amount, bad_currency, bad_source, beneficiary_disabled, payee_waits,
        payee_erased, no_way, below_minimum, above_maximum, not_a_step, balance_short (says what there is),
        hold_not_released, hold_paid_out.
        """
        an_amount("amount", draft.amount_minor, draft.currency)
        if draft.source not in ("beneficiary", "merchant"):
            raise Refusal("bad_source", "source: beneficiary or merchant.")
        to = find(tx, beneficiaries, owner, draft.beneficiary_id, "beneficiary")
        if not to["active"]:
            raise Refusal("beneficiary_disabled", f"The beneficiary {to['id']} is disabled; enable it first.")
        if draft.currency != to["currency"]:
            raise Refusal("bad_currency", f"currency: the beneficiary {to['id']} is paid in {to['currency']}.")
        payee = payee_of(tx, to["id"])
        if payee["usable_at_ms"] > by.now_ms and not waits:
            raise Refusal(
                "payee_waits",
                f"Where {to['id']} is paid was changed: it waits a day, or for a second person to approve it.",
            )
        if not payee["number"]:
            raise Refusal("payee_erased", f"Where {to['id']} is paid was erased; say it again first.")
        hold_account = self._of_hold(tx, owner, draft, to) if draft.hold_id else ""
        wanted = draft.account_id or to["account_id"] or ""
        entry = self._account(owner, payee, draft.amount_minor, wanted, hold_account)
        row = self._row(
            owner, entry, by,
            source=draft.source, beneficiary_id=to["id"], payee_id=payee["id"], hold_id=draft.hold_id,
            amount_minor=draft.amount_minor, currency=draft.currency, retry_of=draft.retry_of,
            description=a_text("description", draft.description),
        )  # fmt: skip
        has = available(tx, row)
        if draft.amount_minor > has:
            raise Refusal("balance_short", f"amount: {max(has, 0)} {draft.currency} can be paid out.")
        above = terms_of(tx, owner.merchant_id).approve_above.get(draft.currency, 0)
        return self._begin(tx, row, by, waits=draft.amount_minor > above)

    def refund_by_payout(self, tx: Connection, refund_id: str, by: By) -> dict[str, Any]:
        """
        A work: make a manual refund by paying it out to the wallet that paid, through the account that took the money.
        A second person approves it, whatever the amount; nothing is sent before.

        Raises NotFound, and Refusal: not_manual, payout_open, payer_unknown (says what is missing), no_way,
        below_minimum, above_maximum, not_a_step.
        """
        refund = waiting(tx, refund_id)
        owner = row_of(refund)
        payee = payee_row(payer_of(tx, refund), refund["currency"], by)
        entry = self._account(owner, payee, refund["amount_minor"], refund["account_id"], "")
        keep_payee(tx, payee)
        row = self._row(
            owner, entry, by,
            source="refund", refund_id=refund_id, payee_id=payee["id"], retry_of=refund["retry_of"],
            amount_minor=refund["amount_minor"], currency=refund["currency"], description=f"Refund {refund_id}",
        )  # fmt: skip
        by.write_down(tx, "refund.payout", refund_id, row["id"])
        return self._begin(tx, row, by, waits=True)

    def pay_out(self, tx: Connection, hold: Mapping[str, Any], by: By) -> None:
        """
        What a hold has just released, if the merchant's terms say so; where that cannot be, a person sees why. Whoever
        released it has asked for it, and does not approve it.
        """
        if not terms_of(tx, hold["merchant_id"]).payout_on_release:
            return
        draft = Draft(hold["beneficiary_id"], hold["released_minor"], hold["currency"], hold_id=hold["id"])
        try:
            self.request(tx, row_of(hold), draft, by, waits=True)
        except Refusal as refusal:
            open_attention(tx, by.ids, hold["id"], NOT_POSSIBLE, refusal.code, by.now_ms)

    def approve(self, tx: Connection, payout_id: str, reason: str, by: By) -> dict[str, Any]:
        """
        A work: a person lets it go. Raises NotFound, Refusal: not_awaiting, second_person (who asked for it),
        refund_over.
        """
        row = one(tx, payout_id)
        if row["state"] != Payout.AWAITING_APPROVAL:
            raise Refusal("not_awaiting", f"The payout {payout_id} is {row['state']}; it does not wait for approval.")
        if row["actor"] == by.actor:
            raise Refusal("second_person", "Whoever asks for a payout cannot approve it: that needs a second person.")
        if not still_wanted(tx, row):
            raise Refusal(
                "refund_over", f"The refund {row['refund_id']} waits for no money any more; cancel the payout."
            )
        by.write_down(tx, "payout.approved", payout_id, reason)
        context = Context(self._queue, by.ids, by.now_ms)
        news = self._queued(tx, row, PayoutStep.APPROVED, context, approved_by=by.actor)
        tell(tx, self._queue, news, by.ids, by.now_ms)
        return one(tx, payout_id)

    def approve_payee(
        self, tx: Connection, owner: Owner, beneficiary_id: str, payee_id: str, reason: str, by: By
    ) -> None:
        """A work: `beneficiaries.approve_payee`, and what waited for it goes now."""
        payee = approve_payee(tx, owner, beneficiary_id, payee_id, reason, by)
        hasten(tx, self._queue, "payee", by.now_ms, payee["id"])

    def cancel(self, tx: Connection, payout_id: str, reason: str, by: By) -> dict[str, Any]:
        """A work: it is not to be made. Raises NotFound, Refusal not_cancelable (sent, or over). Again is nothing."""
        row = one(tx, payout_id)
        if row["state"] == Payout.CANCELED:
            return row
        context = Context(self._queue, by.ids, by.now_ms)
        news = move(tx, row, PayoutStep.CANCELED, context)
        if not news:
            raise Refusal("not_cancelable", f"The payout {payout_id} is {row['state']}; it may be paid already.")
        by.write_down(tx, "payout.canceled", payout_id, reason)
        tell(tx, self._queue, news, by.ids, by.now_ms)
        self._follows(tx, row, context)
        if row["sent_at_ms"] is not None:  # the provider may have had it, whatever it said when it was asked
            self._queue.enqueue(tx, look_again(row, by.now_ms), by.now_ms)
        return one(tx, payout_id)

    def decide(
        self, tx: Connection, payout_id: str, outcome: str, reason: str, by: By, provider_reference: str = ""
    ) -> dict[str, Any]:
        """
        A work: a person has seen at the provider that it is `paid`, or that it is not there and never will be
        (`failed`).

        Raises NotFound, Refusal: bad_outcome, no_reason, not_unknown.
        """
        if outcome not in ("paid", "failed"):
            raise Refusal("bad_outcome", "outcome: paid or failed.")
        if not reason.strip():
            raise Refusal("no_reason", "Say what you saw at the provider: a reason is kept with it.")
        row = one(tx, payout_id)
        if row["state"] != Payout.UNKNOWN:
            raise Refusal("not_unknown", f"The payout {payout_id} is {row['state']}; nobody has to decide about it.")
        by.write_down(tx, "payout.decided", payout_id, f"{outcome}: {reason}")
        what = PayoutStep.OPERATOR_PAID if outcome == "paid" else PayoutStep.OPERATOR_FAILED
        more = {"provider_reference": provider_reference or row["provider_reference"]}
        if outcome == "failed":
            more["failure_reason"] = "operator"
        context = Context(self._queue, by.ids, by.now_ms)
        news = move(tx, row, what, context, **more)
        tell(tx, self._queue, news, by.ids, by.now_ms)
        self._follows(tx, row, context)
        self._queue.enqueue(tx, look_again(row, by.now_ms), by.now_ms)
        return one(tx, payout_id)

    def retry(self, tx: Connection, payout_id: str, by: By) -> dict[str, Any]:
        """
        A work: the same again as a new payout, linked to the one that failed or came back.

        Raises NotFound, Refusal: not_failed, retried_already, and what `request` raises.
        """
        row = one(tx, payout_id)
        if row["state"] not in GAVE_BACK:
            raise Refusal("not_failed", f"The payout {payout_id} is {row['state']}; there is nothing to try again.")
        again = select(payouts.c.id).where(payouts.c.retry_of == payout_id)
        if (found := tx.execute(again).scalar()) is not None:
            raise Refusal("retried_already", f"The payout {payout_id} was tried again as {found}; look at that one.")
        if row["source"] == "refund":
            return self.refund_by_payout(tx, row["refund_id"], by)
        draft = Draft(
            row["beneficiary_id"],
            row["amount_minor"],
            row["currency"],
            row["source"],
            row["hold_id"],
            row["description"],
            retry_of=payout_id,
        )
        return self.request(tx, row_of(row), draft, by)

    def wake(self, tx: Connection, account_id: str, references: Sequence[str], now_ms: int) -> bool:
        """A work: somebody says that one of these has moved, so the provider is asked now. False: none is ours."""
        p = payouts.c
        mine = (p.reference.in_(references)) | (p.provider_reference.in_(references))
        row = tx.execute(select(p.id).where(p.account_id == account_id, mine)).first()
        if row is None:
            return False
        promise = Promise(f"{PAYOUT}:{row.id}:{now_ms}", PAYOUT, account_id, row.id, ASK_ONLY)
        self._queue.enqueue(tx, [promise], now_ms)
        return True

    # --- parts

    def _row(self, owner: Owner, entry: Entry, by: By, **said: Any) -> dict[str, Any]:
        """A new payout, whole, and not kept yet."""
        row: dict[str, Any] = dict.fromkeys(payouts.c.keys()) | {
            "id": by.ids("po"),
            "merchant_id": owner.merchant_id,
            "live": owner.live,
            "account_id": entry.id,
            "provider": entry.provider,
            "state": Payout.REQUESTED.value,
            "fee_minor": 0,
            "waits_for": "",
            "otp_wanted": False,
            "actor": by.actor,
            "created_at_ms": by.now_ms,
            "updated_at_ms": by.now_ms,
            "version": 1,
            "sequence": 1,
        }
        reference = f"{self._ours}po-{row['id'].removeprefix('po_').lower()}"
        return row | said | {"reference": reference}

    def _begin(self, tx: Connection, row: Mapping[str, Any], by: By, *, waits: bool) -> dict[str, Any]:
        """Keep it with what it reserves, and let it be sent, or approved first."""
        keep(tx, row)
        by.write_down(tx, "payout.requested", row["id"], row["description"])
        news = [told_of(row, "payout.created")]
        context = Context(self._queue, by.ids, by.now_ms)
        if waits:
            news += move(tx, row, PayoutStep.WAITS_FOR_A_PERSON, context)
        else:
            news += self._queued(tx, row, PayoutStep.ALLOWED, context)
        tell(tx, self._queue, news, by.ids, by.now_ms)
        return one(tx, row["id"])

    def _queued(
        self, tx: Connection, row: Mapping[str, Any], what: PayoutStep, context: Context, **m: Any
    ) -> list[News]:
        promise = Promise(f"{PAYOUT}:{row['id']}", PAYOUT, row["account_id"], row["id"])
        self._queue.enqueue(tx, [promise], context.now_ms)
        return move(tx, row, what, context, **m)

    def _of_hold(self, tx: Connection, owner: Owner, draft: Draft, to: Mapping[str, Any]) -> str:
        """Check that a hold has so much for this beneficiary. Returns the account that its money came through."""
        hold = find(tx, holds, owner, draft.hold_id or "", "hold")
        if hold["state"] != Hold.RELEASED or hold["beneficiary_id"] != to["id"] or draft.source != "beneficiary":
            raise Refusal("hold_not_released", f"The hold {hold['id']} is {hold['state']}, or is not {to['id']}'s.")
        left_minor = hold["released_minor"] - hold["taken_back_minor"]
        if draft.amount_minor > left_minor:
            raise Refusal("bad_amount", f"amount: the hold {hold['id']} has released {left_minor} {hold['currency']}.")
        there = select(payouts.c.id).where(payouts.c.hold_id == hold["id"], payouts.c.state.not_in(GAVE_BACK))
        if (other := tx.execute(there).scalar()) is not None:
            raise Refusal("hold_paid_out", f"The hold {hold['id']} is paid out by {other} already.")
        through = (
            select(attempts.c.account_id)
            .join(payments, payments.c.id == attempts.c.payment_id)
            .where(payments.c.order_id == hold["order_id"], attempts.c.state == "succeeded")
        )
        return str(tx.execute(through.limit(1)).scalar() or "")

    def _account(self, owner: Owner, payee: Mapping[str, Any], amount_minor: int, wanted: str, rather: str) -> Entry:
        """Who pays: the account that is wanted, else the one that the money came through, else the first that can."""
        whose = owner.merchant_id, owner.live
        mine = [entry for entry in self._registry() if (entry.merchant_id, entry.live) == whose and not entry.missing]
        among = [entry for entry in mine if wanted in ("", entry.id)]
        among.sort(key=lambda entry: entry.id != rather)
        to, why = as_payee(payee), None
        for entry in among:
            provider = self._providers.get(entry.provider)
            channel = provider.channel(to) if provider is not None else None
            if channel is None:
                continue
            refused = channel.refuses(amount_minor)
            if refused is None:
                found: Entry = entry
                return found
            why = why or refused
        if why is not None:
            code, limit_minor = why
            limit = f"{LIMITS[code]} {to_major(limit_minor, to.currency)} {to.currency}"
            raise Refusal(code, f"amount: the provider pays out {limit}.")
        way = ", ".join(filter(None, (to.kind, to.operator, to.country, to.currency)))
        raise Refusal("no_way", f"None of your provider accounts can pay out to {way}; see caisse account list.")


DAY_MS: Final = 24 * 3_600_000
AGAIN_AFTER_MS: Final = (DAY_MS, 3 * DAY_MS, 7 * DAY_MS)
"""When a payout that is over is asked about once more: banks send money back days later, and callbacks get lost."""


def look_again(row: Mapping[str, Any], now_ms: int) -> list[Promise]:
    """To ask some days later: what was paid may come back, and what a person has ended may have been paid."""
    return [
        Promise(f"{PAYOUT}:{row['id']}:later:{n}", PAYOUT, row["account_id"], row["id"], ASK_ONLY, now_ms + after_ms)
        for n, after_ms in enumerate(AGAIN_AFTER_MS)
    ]


def hasten(tx: Connection, queue: Queue, waits_for: str, now_ms: int, payee_id: str = "", payout_id: str = "") -> None:
    """A work: what waits for this is tried now; by its own schedule that could be a day away."""
    p, m = payouts.c, outbox_tables.messages.c
    waits = p.state.in_((Payout.QUEUED.value, Payout.UNKNOWN.value))
    mine = (waits, p.waits_for == waits_for, m.topic == PAYOUT, m.payload == "")
    query = select(m.id, p.account_id).join(payouts, p.id == m.subject).where(*mine, m.state == "pending")
    if payee_id:
        query = query.where(p.payee_id == payee_id)
    if payout_id:
        query = query.where(p.id == payout_id)
    due = [(id_, PAYOUT, account, now_ms) for id_, account in tx.execute(query.limit(HASTENED_MAX))]
    queue.hasten(tx, due, now_ms)


def available(tx: Connection, row: Mapping[str, Any]) -> int:
    """A query: what can be paid out of the balance that a payout draws on, in minor units; below zero is owed."""
    kind, owner = owed_by(row)
    live, currency = bool(row["live"]), row["currency"]
    has = balance(tx, kind, owner, live, currency)
    if kind is Kind.MERCHANT:
        for taken in (Kind.BANK, Kind.FEES):
            has -= balance(tx, taken, owner, live, currency)
    return has
