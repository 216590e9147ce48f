"""
Which rows are not the ordinary case, in SQL: only those are worked out by the rules, which costs fifty times as much.

The ordinary payment was captured once, for what was asked, and nothing more was ever said of it. Each condition here
is what the rules make of that case; whatever differs by anything is returned, so a condition too many costs time, and
one too few would hide a fault: a test changes every column and holds this against the rules.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

_PAYMENTS: Final = text("""
    SELECT p.id FROM payments p WHERE p.id > :after AND p.id <= :last AND NOT (
        p.status = 'succeeded' AND p.exceptions = '' AND p.amount_minor > 0 AND p.captured_minor = p.amount_minor
        AND p.refunded_minor = 0 AND coalesce(p.fee_minor, 0) >= 0 AND p.failure_reason IS NULL
        AND p.ended_at_ms IS NULL AND p.merged_into IS NULL
        AND (SELECT count(*) FROM attempts a WHERE a.payment_id = p.id) = 1
        AND EXISTS (
            SELECT 1 FROM attempts a
            JOIN facts f ON f.attempt_id = a.id AND f.kind = 'captured'
            JOIN postings q ON q.subject = p.id AND q.number = 1 AND q.kind = 'capture'
            JOIN ledger_accounts d ON d.id = q.debit_id
            JOIN ledger_accounts c ON c.id = q.credit_id
            WHERE a.payment_id = p.id AND a.state = 'succeeded'
            AND a.amount_minor = p.amount_minor AND a.currency = p.currency
            AND f.amount_minor = p.amount_minor AND f.currency = p.currency AND f.fee_minor IS p.fee_minor
            AND (f.asked_minor = p.amount_minor OR (p.origin = 'caisse' AND f.asked_minor IS NULL))
            AND (f.method IS p.method OR (p.origin = 'caisse' AND f.method IS NULL))
            AND p.paid_at_ms IS NOT NULL AND f.at_ms IN (0, p.paid_at_ms)
            AND NOT EXISTS (
                SELECT 1 FROM facts g WHERE g.attempt_id = a.id AND g.rowid <> f.rowid AND NOT (
                    g.kind IN ('created', 'pending', 'requires_action') AND g.fee_minor IS NULL AND g.method IS NULL
                    AND (g.asked_minor IS NULL OR (g.asked_minor = p.amount_minor AND g.currency = p.currency))
                )
            )
            AND q.amount_minor = p.amount_minor
            AND d.kind = 'float' AND d.owner = a.account_id AND d.live = p.live AND d.currency = p.currency
            AND c.kind = 'merchant' AND c.owner = p.merchant_id AND c.live = p.live AND c.currency = p.currency
            AND (coalesce(p.fee_minor, 0) = 0 OR EXISTS (
                SELECT 1 FROM postings r JOIN ledger_accounts e ON e.id = r.debit_id
                WHERE r.subject = p.id AND r.number = 2 AND r.kind = 'fee' AND r.amount_minor = p.fee_minor
                AND r.credit_id = d.id AND e.kind = 'fees' AND e.owner = p.merchant_id AND e.live = p.live
                AND e.currency = p.currency
            ))
        )
        AND (SELECT count(*) FROM postings q WHERE q.subject = p.id) = 1 + (coalesce(p.fee_minor, 0) > 0)
        AND NOT EXISTS (SELECT 1 FROM refunds r WHERE r.payment_id = p.id)
        AND (p.order_id IS NULL OR EXISTS (
            SELECT 1 FROM orders o WHERE o.id = p.order_id AND o.state NOT IN ('expired', 'canceled')
        ))
    ) ORDER BY p.id
""")
_ORDERS: Final = text("""
    SELECT o.id FROM orders o WHERE o.id > :after AND o.id <= :last AND (
        o.paid_minor = coalesce((
            SELECT sum(max(p.captured_minor - p.refunded_minor, 0)) FROM payments p WHERE p.order_id = o.id
            AND p.merged_into IS NULL AND p.currency = o.currency AND p.exceptions NOT LIKE '%mismatch%'
        ), 0)
        AND o.payment_status = CASE
            WHEN o.paid_minor <= 0 THEN 'unpaid' WHEN o.paid_minor >= o.amount_minor THEN 'paid'
            ELSE 'partially_paid' END
        AND (o.state NOT IN ('awaiting_payment', 'expiring', 'canceling') OR NOT EXISTS (
            SELECT 1 FROM payments p WHERE p.order_id = o.id AND p.captured_minor > 0
        ))
        AND CASE
            WHEN o.state IN ('awaiting_payment', 'expiring', 'canceling')
            THEN coalesce(o.fulfilled_at_ms, o.delivered_at_ms, o.ended_at_ms) IS NULL
            WHEN o.state IN ('expired', 'canceled')
            THEN o.ended_at_ms IS NOT NULL AND coalesce(o.fulfilled_at_ms, o.delivered_at_ms) IS NULL
            WHEN o.state IN ('paid', 'delivered', 'completed')
            THEN o.fulfilled_at_ms IS NOT NULL AND (o.delivered_at_ms IS NULL) = (o.state = 'paid') AND EXISTS (
                SELECT 1 FROM payments p WHERE p.order_id = o.id AND p.merged_into IS NULL AND p.captured_minor > 0
            )
            ELSE 0 END
    ) IS NOT TRUE ORDER BY o.id
""")
_SESSIONS: Final = text("""
    SELECT s.id FROM sessions s WHERE s.id > :after AND s.id <= :last AND CASE
        WHEN s.state = 'complete' THEN s.paid_at_ms IS NOT NULL AND EXISTS (
            SELECT 1 FROM payments p WHERE p.id = s.payment_id AND p.captured_minor > 0
        )
        WHEN s.state IN ('expired', 'canceled') THEN s.ended_at_ms IS NOT NULL
        WHEN s.state IN ('open', 'processing', 'expiring', 'canceling') THEN NOT EXISTS (
            SELECT 1 FROM payments p WHERE p.session_id = s.id AND p.captured_minor > 0
        )
        ELSE 0 END IS NOT TRUE
    ORDER BY s.id
""")
_HOLDS: Final = text("""
    SELECT h.id FROM holds h LEFT JOIN orders o ON o.id = h.order_id WHERE h.id > :after AND h.id <= :last AND (
        NOT EXISTS (
            SELECT 1 FROM payments p WHERE p.order_id = h.order_id AND p.captured_minor > 0
            AND (p.exceptions <> '' OR p.currency <> h.currency OR p.merged_into IS NOT NULL OR p.refunded_minor <> 0)
        )
        AND o.currency = h.currency AND o.exceptions = '' AND h.overruled = '' AND h.against = ''
        AND (h.release_at_ms IS NULL) = (h.delivered_at_ms IS NULL)
        AND (h.delivered_at_ms IS NULL OR (
            h.delivered_at_ms = o.delivered_at_ms AND h.release_at_ms >= h.delivered_at_ms
        ))
        AND (h.ended_at_ms IS NULL) = (h.state <> 'released')
        AND h.frozen_minor = 0
        AND h.refunded_minor + h.taken_back_minor = max(0, h.held_minor - coalesce((
            SELECT sum(p.captured_minor - p.refunded_minor) FROM payments p WHERE p.order_id = h.order_id
        ), 0))
        AND CASE WHEN h.released_minor > 0
            THEN h.state = 'released' AND h.released_minor + h.refunded_minor = h.held_minor
            ELSE h.taken_back_minor = 0
            AND h.state = CASE WHEN o.delivered_at_ms IS NULL THEN 'held' ELSE 'release_scheduled' END
            AND (h.release_at_ms IS NULL) = (o.delivered_at_ms IS NULL) END
    ) IS NOT TRUE ORDER BY h.id
""")


def payments_to_look_at(tx: Connection, after: str, last: str) -> list[str]:
    """A query: the payments behind `after`, up to `last`, whose status or postings are for the rules to say."""
    return list(tx.execute(_PAYMENTS, {"after": after, "last": last}).scalars())


def orders_to_look_at(tx: Connection, after: str, last: str) -> list[str]:
    """A query: likewise of orders, whose money is not plainly the sum of their payments', or whose state is not its."""
    return list(tx.execute(_ORDERS, {"after": after, "last": last}).scalars())


def sessions_to_look_at(tx: Connection, after: str, last: str) -> list[str]:
    """A query: likewise of sessions: unfinished ones that have money, complete ones that have none."""
    return list(tx.execute(_SESSIONS, {"after": after, "last": last}).scalars())


def holds_to_look_at(tx: Connection, after: str, last: str) -> list[str]:
    """
    A query: likewise of holds, about whose money something was ever said, or that do not plainly add up, or that are
    not where the delivery of their orders alone has brought them.
    """
    return list(tx.execute(_HOLDS, {"after": after, "last": last}).scalars())
