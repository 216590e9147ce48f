"""
What a provider lists, compared with what is known here. Only money counts: what was captured, and whether it went back.

Nothing is changed or adopted by it: a difference is a row of `differences` and a matter for a person. Two of the kinds
heal by asking the provider, which is promised for attempts of our own. A row stays open until the two agree again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, assert_never
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from service.attention import close_attention, open_attention
from service.escrow.terms import terms_of
from service.ids import Ids
from service.ledger.compare import BACK, Difference, Differs, captured, compare, is_over, money_words
from service.ledger.tables import differences
from service.merchants.events import rfc3339
from service.payments.facts import Fact, Kind, Told
from service.payments.heard import Account, names_of
from service.payments.records import AttemptRecord, Records
from service.payments.tables import aliases, attempts, payments

DIFFERS: Final = "reconcile_differs"
"""The matter that every difference puts before a person; its subject is the payment, or the difference itself."""
DAY_MS: Final = 24 * 3_600_000
CLOCKS_APART_MS: Final = 10 * 60_000
HEALED_AT_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Compared:
    """What one page came to: what was found, the attempts that it lists, and those the provider should be asked of."""

    found: int
    listed: frozenset[str]
    ask: tuple[AttemptRecord, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """Attempts that a list must hold; `after` is where the others begin, None where there are none."""

    attempts: tuple[str, ...]
    after: str | None


# --- one page -----------------------------------------------------------------------------------------


def take_page(
    tx: Connection, account: Account, page: Sequence[Told], ours: str, until_ms: int, ids: Ids, zone: str, now_ms: int
) -> Compared:
    """
    A work: compare what one page lists, and write down what came of it. `ours` begins our own references; `zone` is the
    installation's, for merchants that have none of their own.
    """
    records = Records(tx)
    records.load(name for told in page for name in names_of(told, ours))
    rows = _Rows(tx, account, ids, zone, now_ms)
    listed: set[str] = set()
    ask: dict[str, AttemptRecord] = {}
    told_of: list[tuple[set[str], Difference | None]] = []
    for told in page:
        names = names_of(told, ours)
        mine = dict.fromkeys(records.names.get((account.id, name), "") for name in names)
        known = [records.attempts[id_] for id_ in mine if id_]
        listed.update(attempt.row["id"] for attempt in known)
        found = compare(told, known, until_ms)
        told_of.append(({*names, *(id_ for id_ in mine if id_)}, found))
        if found is not None or is_over(told, known):
            ask |= {one.row["id"]: one for one in known if one.row["reference"] is not None}
    found_now = rows.take(told_of)
    return Compared(found_now, frozenset(listed), tuple(ask.values()))


class _Rows:
    """The rows of one account, in one transaction."""

    def __init__(self, tx: Connection, account: Account, ids: Ids, zone: str, now_ms: int) -> None:
        self._tx, self._account, self._ids, self._now_ms = tx, account, ids, now_ms
        self._zone = ZoneInfo(terms_of(tx, account.merchant_id).timezone or zone)

    def take(self, told_of: Sequence[tuple[set[str], Difference | None]]) -> int:
        """For each payment its names and attempts' ids, and what was found. Closes what no longer is."""
        tried = {name for names, _ in told_of for name in names if name.startswith("try_")}
        also: dict[str, set[str]] = {}
        known_as = select(aliases.c.attempt_id, aliases.c.reference).where(aliases.c.attempt_id.in_(sorted(tried)))
        for attempt_id, reference in self._tx.execute(known_as) if tried else ():
            also.setdefault(attempt_id, set()).add(reference)
        every_name = {name for names, _ in told_of for name in names}.union(*also.values())
        d = differences.c
        query = select(differences).where(
            d.account_id == self._account.id, d.provider_reference.in_(sorted(every_name))
        )
        kept = {(row["provider_reference"], row["kind"]): dict(row) for row in self._tx.execute(query).mappings()}
        every = {(found.reference, found.kind.value): found for _, found in told_of if found is not None}
        for key, row in kept.items():
            if row["closed_at_ms"] is None and key not in every:
                close(self._tx, row, self._now_ms)
        for key, found in every.items():
            self.write(found, kept.get(key))
        return len(every)

    def write(self, found: Difference, kept: Mapping[str, Any] | None) -> None:
        """Found for the first time, again, or anew."""
        said = {
            "payment_id": found.payment_id,
            "currency": found.currency,
            "ours_minor": found.ours_minor,
            "theirs_minor": found.theirs_minor,
            "detail": found.detail,
        }
        d = differences.c
        if kept is None:
            id_, account = self._ids("dif"), self._account
            moment = datetime.fromtimestamp((found.at_ms or self._now_ms) / 1000, UTC)
            row = said | {
                "id": id_,
                "merchant_id": account.merchant_id,
                "account_id": account.id,
                "live": account.live,
                "provider": account.provider,
                "provider_reference": found.reference,
                "kind": found.kind.value,
                "day": moment.astimezone(self._zone).strftime("%Y-%m-%d"),
                "found_at_ms": self._now_ms,
                "closed_at_ms": None,
            }
            self._tx.execute(insert(differences), row)
        else:
            id_ = kept["id"]
            again = {} if kept["closed_at_ms"] is None else {"closed_at_ms": None, "found_at_ms": self._now_ms}
            changed = {name: value for name, value in said.items() if kept[name] != value} | again
            if changed:
                self._tx.execute(update(differences).where(d.id == id_).values(changed))
            if not again:
                return  # a person who has put it aside is not asked again
        detail = f"{self._account.provider} {found.reference}: {found.detail}"[:500]
        open_attention(self._tx, self._ids, found.payment_id or id_, DIFFERS, detail, self._now_ms)


def close(tx: Connection, row: Mapping[str, Any], now_ms: int) -> None:
    """A work: this difference is gone, and with the last one of a payment the matter."""
    d = differences.c
    tx.execute(update(differences).where(d.id == row["id"], d.closed_at_ms.is_(None)).values(closed_at_ms=now_ms))
    subject = row["payment_id"]
    if subject is not None:
        others = select(d.id).where(
            d.account_id == row["account_id"], d.payment_id == subject, d.closed_at_ms.is_(None)
        )
        if tx.execute(others.limit(1)).first() is not None:
            return
    close_attention(tx, subject or row["id"], DIFFERS, now_ms)


# --- what is not listed -------------------------------------------------------------------------------


def expected(tx: Connection, account_id: str, since_ms: int, until_ms: int, after: str, limit: int) -> Expected:
    """
    A query: the attempts that a list of what was made in this span must hold: captured before its end, and surely begun
    inside. Of one that we did not make ourselves, a day is allowed for between its beginning and its first word. Looks
    at `limit` attempts whose ids come after `after`.
    """
    records = Records(tx)
    a, p = attempts.c, payments.c
    first, end = Ids(lambda: since_ms, lambda: 0)("try"), Ids(lambda: max(until_ms, 0), lambda: 0)("try")
    mine = select(a.id, p.id.label("payment_id")).join(payments, a.payment_id == p.id)
    mine = mine.where(a.id >= first, a.id < end, a.account_id == account_id, p.captured_minor > 0, a.id > after)
    rows = tx.execute(mine.order_by(a.id).limit(limit)).all()
    records.load_payments([row.payment_id for row in rows])
    found = []
    for row in rows:
        attempt = records.attempts[row.id]
        facts = [kept.fact for kept in attempt.facts.values()]
        paid = [fact.at_ms or attempt.row["updated_at_ms"] for fact in facts if fact.kind is Kind.CAPTURED]
        if attempt.row["reference"] is not None:
            begun_ms = attempt.row["created_at_ms"] - CLOCKS_APART_MS
        else:
            begun_ms = min((fact.at_ms for fact in facts if fact.at_ms), default=0) - DAY_MS
        if paid and max(paid) < until_ms and begun_ms >= since_ms:
            found.append(row.id)
    return Expected(tuple(found), rows[-1].id if len(rows) == limit else None)


def take_missing(
    tx: Connection, account: Account, attempt_ids: Collection[str], ids: Ids, zone: str, now_ms: int
) -> Compared:
    """A work: the whole span was listed, and these were not in it."""
    its = select(attempts.c.payment_id).where(attempts.c.id.in_(sorted(attempt_ids)))
    records = Records(tx)
    records.load_payments(list(tx.execute(its.distinct()).scalars()))
    rows = _Rows(tx, account, ids, zone, now_ms)
    ask: list[AttemptRecord] = []
    found: list[tuple[set[str], Difference | None]] = []
    for id_ in sorted(set(attempt_ids) & records.attempts.keys()):
        attempt = records.attempts[id_]
        facts = [kept.fact for kept in attempt.facts.values()]
        sums = captured(facts, attempt.row["currency"])
        if not sums:
            continue
        payment = records.payment_of(attempt).row
        name = attempt.row["provider_reference"] or payment["provider_reference"] or attempt.row["reference"] or id_
        currency, minor = next(iter(sums.items()))
        at_ms = max(fact.at_ms for fact in facts if fact.kind is Kind.CAPTURED)
        said = f"{money_words(sums)} here, not in the list"
        one = Difference(name, Differs.MISSING_THERE, payment["id"], currency, minor, 0, said, at_ms)
        found.append(({name, id_}, one))
        if attempt.row["reference"] is not None:
            ask.append(attempt)
    return Compared(rows.take(found), frozenset(), tuple(ask))


def heal(tx: Connection, account_id: str, now_ms: int) -> int:
    """A work: close what has been put right here since it was found. Returns how many that were."""
    d = differences.c
    query = select(differences).where(d.account_id == account_id, d.closed_at_ms.is_(None)).order_by(d.id.desc())
    rows = [dict(row) for row in tx.execute(query.limit(HEALED_AT_MOST)).mappings()]
    named = [row["provider_reference"] for row in rows]
    records = Records(tx)
    records.load(named)
    healed = 0
    for row in rows:
        attempt = records.attempts.get(records.names.get((account_id, row["provider_reference"]), ""))
        facts = [] if attempt is None else [kept.fact for kept in attempt.facts.values()]
        if _is_gone(row, attempt, facts):
            close(tx, row, now_ms)
            healed += 1
    return healed


def _is_gone(row: Mapping[str, Any], attempt: AttemptRecord | None, facts: Sequence[Fact]) -> bool:
    minor = captured(facts, row["currency"]).get(row["currency"], 0)
    kind = Differs(row["kind"])
    match kind:
        case Differs.MISSING_HERE:
            return attempt is not None
        case Differs.MISSING_THERE:
            return attempt is not None and not minor
        case Differs.AMOUNT:
            return bool(minor == row["theirs_minor"])
        case Differs.STATUS:
            back = any(fact.kind in BACK for fact in facts)
            return bool(minor == row["theirs_minor"] and (back or minor != row["ours_minor"]))
        case _:
            assert_never(kind)


# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Which:
    """Of whose differences; None: of all. `since_day` is the first day, YYYY-MM-DD."""

    merchant_id: str | None = None
    account_id: str | None = None
    live: bool | None = None
    since_day: str | None = None

    def where(self) -> list[ColumnElement[bool]]:
        """The open ones."""
        d = differences.c
        where: list[ColumnElement[bool]] = [d.closed_at_ms.is_(None)]
        where += [d.merchant_id == self.merchant_id] if self.merchant_id is not None else []
        where += [d.account_id == self.account_id] if self.account_id is not None else []
        where += [d.live == self.live] if self.live is not None else []
        where += [d.day >= self.since_day] if self.since_day is not None else []
        return where


ALL: Final = Which()


def listed(tx: Connection, which: Which = ALL, after: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """A query: the open differences, the oldest first; `after` is the id of the last one of the page before."""
    where = which.where() if after is None else [*which.where(), differences.c.id > after]
    query = select(differences).where(*where).order_by(differences.c.id).limit(limit)
    return [shown(row) for row in tx.execute(query).mappings()]


def counts(tx: Connection, which: Which = ALL) -> dict[str, int]:
    """A query: how many are open, by kind."""
    query = select(differences.c.kind, func.count()).where(*which.where())
    return {str(row[0]): int(row[1]) for row in tx.execute(query.group_by(differences.c.kind))}


def shown(row: Any) -> dict[str, Any]:
    """A difference for people, programs and events."""
    return {
        "id": row["id"],
        "kind": row["kind"],
        "provider": row["provider"],
        "account": row["account_id"],
        "provider_reference": row["provider_reference"],
        "payment": row["payment_id"],
        "currency": row["currency"],
        "here": row["ours_minor"],
        "there": row["theirs_minor"],
        "detail": row["detail"],
        "day": row["day"],
        "live": bool(row["live"]),
        "found_at": rfc3339(row["found_at_ms"]),
    }
