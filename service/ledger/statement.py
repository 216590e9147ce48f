"""
Statements as CSV: what came into a balance and what went out of it in a span of days, with the balance after each.

The balance is the one that can be paid out: a beneficiary's own account, or a merchant's less what is at the bank and
what fees took. What is in escrow is not in it yet.

A statement is opened in a spreadsheet, where a cell that begins like a formula is one, and strangers choose names and
references. Every cell of text goes through `cell`; numbers are written by us and stay numbers.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, or_, select

from service.errors import Refusal
from service.escrow.beneficiaries import payee_of
from service.escrow.tables import beneficiaries, holds, payouts
from service.ledger.ledger import Entry, Kind
from service.ledger.months import begun, local, of_days, zone_of
from service.ledger.tables import ledger_accounts, postings, settlements
from service.merchants.events import rfc3339
from service.merchants.tables import merchants
from service.orders.owner import Owner, find
from service.payments import money
from service.payments.currencies import CURRENCIES
from service.payments.tables import payments

ROWS_MAX: Final = 100_000
DEADLINE_MS: Final = 30_000
"""How long the largest statement may take to be read."""
LANGUAGES: Final = ("en", "fr")

WORDS: Final[Mapping[Entry, tuple[str, str]]] = {
    # What a posting is called in English and in French.
    Entry.CAPTURE: ("Payment received", "Paiement reçu"),
    Entry.FEE: ("Fee", "Frais"),
    Entry.REFUND: ("Refund", "Remboursement"),
    Entry.REFUND_ELSEWHERE: ("Refund made at the provider", "Remboursement fait chez le prestataire"),
    Entry.REVERSAL: ("Taken back by the operator", "Repris par l’opérateur"),
    Entry.DISPUTE: ("Disputed payment", "Paiement contesté"),
    Entry.DISPUTE_LOST: ("Dispute lost", "Contestation perdue"),
    Entry.UNALLOCATED: ("Money set aside", "Argent mis de côté"),
    Entry.HOLD: ("Held in escrow", "Mis sous séquestre"),
    Entry.RELEASE: ("Released from escrow", "Libéré du séquestre"),
    Entry.HOLD_REFUND: ("Given back from escrow", "Rendu du séquestre"),
    Entry.CLAWBACK: ("Taken back after release", "Repris après libération"),
    Entry.PAYOUT: ("Payout", "Versement"),
    Entry.PAID_OUT: ("Payout paid", "Versement payé"),
    Entry.RETURNED: ("Payout returned", "Versement retourné"),
    Entry.SETTLEMENT: ("Settled to the bank", "Versé à la banque"),
}
OPENING, CLOSING = ("Opening balance", "Solde d’ouverture"), ("Closing balance", "Solde de clôture")
HEADER: Final[Sequence[tuple[str, str]]] = (
    ("Time", "Heure"), ("Time (UTC)", "Heure (UTC)"), ("What", "Libellé"), ("Subject", "Objet"),
    ("Reference", "Référence"), ("In", "Entrée"), ("Out", "Sortie"), ("Balance", "Solde"), ("Currency", "Devise"),
)  # fmt: skip

_A, _P = ledger_accounts.c, postings.c
_AVAILABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "beneficiary": (Kind.BENEFICIARY.value,),
    "merchant": (Kind.MERCHANT.value, Kind.BANK.value, Kind.FEES.value),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Which statement: from the first moment of `first` to the last of `last`. Without a beneficiary the merchant's own.
    `currency`: of a merchant that has several.
    """

    first: date
    last: date
    beneficiary_id: str = ""
    currency: str = ""
    language: str = "en"


def statement(tx: Connection, owner: Owner, asked: Asked, installation: str, now_ms: int) -> str:
    """
    A query: the CSV, in the merchant's time zone; `installation`: that of one that has not chosen.

    Raises NotFound, and Refusal: bad_day (the wrong way round, or not begun), bad_currency, too_many_rows.
    """
    zone = zone_of(tx, owner.merchant_id, installation)
    begun("to", asked.last, now_ms, zone)
    if asked.last < asked.first:
        raise Refusal("bad_day", f"to: {asked.last} is before {asked.first}, the first day.")
    name, kinds, id_ = _whose(tx, owner, asked)
    theirs = _A.owner == id_, _A.kind.in_(kinds), _A.live == owner.live
    currencies = sorted(tx.execute(select(_A.currency).distinct().where(*theirs)).scalars())
    currency = _currency(tx, asked, currencies)
    accounts = {
        row.id: row.credits_minor - row.debits_minor
        for row in tx.execute(select(_A.id, _A.debits_minor, _A.credits_minor).where(*theirs, _A.currency == currency))
    }
    span = of_days(asked.first, asked.last, zone)
    after_minor = sum(accounts.values()) - _since(tx, accounts, span.until_ms)
    rows = _rows(tx, accounts, span.from_ms, span.until_ms)
    balance_minor = after_minor - sum(row["minor"] for row in rows)

    column = LANGUAGES.index(asked.language)
    lines = [[names[column] for names in HEADER]]
    lines[0][0] += f" ({zone.key})"

    def plain(minor: int) -> str:
        return number(minor, currency)

    def total(at_ms: int, names: tuple[str, str]) -> list[str]:
        return [*_times(at_ms, zone), names[column], cell(id_), cell(name), "", "", plain(balance_minor), currency]

    lines.append(total(span.from_ms, OPENING))
    for row in rows:
        minor = row["minor"]
        balance_minor += minor
        came, went = (plain(minor), "") if minor > 0 else ("", plain(-minor))
        what = WORDS[Entry(row["kind"])][column]
        known = cell(row["subject"]), cell(row["reference"] or "")
        lines.append([*_times(row["at_ms"], zone), what, *known, came, went, plain(balance_minor), currency])
    lines.append(total(span.until_ms - 1, CLOSING))
    return written(lines)


def _whose(tx: Connection, owner: Owner, asked: Asked) -> tuple[str, Sequence[str], str]:
    """The name, the kinds of accounts and their owner's id."""
    if asked.beneficiary_id:
        find(tx, beneficiaries, owner, asked.beneficiary_id, "beneficiary")
        return payee_of(tx, asked.beneficiary_id)["name"] or "", _AVAILABLE["beneficiary"], asked.beneficiary_id
    name = tx.execute(select(merchants.c.name).where(merchants.c.id == owner.merchant_id)).scalar()
    return name or "", _AVAILABLE["merchant"], owner.merchant_id


def _currency(tx: Connection, asked: Asked, there: Sequence[str]) -> str:
    if asked.beneficiary_id:
        query = select(beneficiaries.c.currency).where(beneficiaries.c.id == asked.beneficiary_id)
        there = [tx.execute(query).scalar_one()]
    if asked.currency in there or (asked.currency in CURRENCIES and not there):
        return asked.currency
    if len(there) == 1 and not asked.currency:
        return there[0]
    said = f"one of {', '.join(there)}" if there else "nothing was posted yet; name one, such as XOF"
    raise Refusal("bad_currency", f"currency: {said}.")


def _since(tx: Connection, accounts: Mapping[int, int], from_ms: int) -> int:
    """What came into these accounts from a moment on, less what went out."""
    found = 0
    for column, sign in ((_P.credit_id, 1), (_P.debit_id, -1)):
        query = select(func.coalesce(func.sum(_P.amount_minor), 0)).where(column.in_(accounts), _P.at_ms >= from_ms)
        found += sign * int(tx.execute(query).scalar_one())
    return found


def _rows(tx: Connection, accounts: Mapping[int, int], from_ms: int, until_ms: int) -> list[dict[str, Any]]:
    """The postings in order, each with `minor` (above zero: it came) and a reference of the merchant's own."""
    sides = or_(_P.debit_id.in_(accounts), _P.credit_id.in_(accounts))
    reference = func.coalesce(
        payments.c.reference, func.nullif(payouts.c.description, ""), settlements.c.reference, holds.c.order_id
    )
    query = (
        select(*(_P.id, _P.at_ms, _P.kind, _P.subject, _P.debit_id, _P.credit_id, _P.amount_minor))
        .add_columns(reference.label("reference"))
        .outerjoin(payments, payments.c.id == _P.subject)
        .outerjoin(payouts, payouts.c.id == _P.subject)
        .outerjoin(settlements, settlements.c.id == _P.subject)
        .outerjoin(holds, holds.c.id == _P.subject)
        .where(sides, _P.at_ms >= from_ms, _P.at_ms < until_ms)
        .order_by(_P.at_ms, _P.id)
        .limit(ROWS_MAX + 1)
    )
    rows = []
    for row in tx.execute(query).mappings():
        minor = row["amount_minor"] * ((row["credit_id"] in accounts) - (row["debit_id"] in accounts))
        rows.append({**row, "minor": minor})
    if len(rows) > ROWS_MAX:
        raise Refusal("too_many_rows", f"There are more than {ROWS_MAX} postings in these days; ask for fewer days.")
    return rows


def _times(at_ms: int, zone: ZoneInfo) -> tuple[str, str]:
    return f"{local(at_ms, zone):%Y-%m-%d %H:%M:%S}", str(rfc3339(at_ms))


# --- cells --------------------------------------------------------------------------------------------

_FORMULA: Final = ("=", "+", "-", "@", "\N{MINUS SIGN}")
_PIECE: Final = re.compile(r"([;\t\r\n])")


def cell(text: str) -> str:
    """
    Text as a spreadsheet may have it: what it might take for a formula gets an apostrophe before it.

    That is what begins with = + - @, TAB or a line break, also behind spaces and characters without width, and in
    forms that programs fold (full-width ones). A program that is set to French splits at semicolons, whatever the
    quotes say, so each piece is looked at.
    """
    pieces = "".join(piece if _PIECE.fullmatch(piece) else _guarded(piece) for piece in _PIECE.split(text))
    return f"'{pieces}" if text[:1] in ("\t", "\r", "\n") else pieces


def _guarded(text: str) -> str:
    """One piece: by its first character that has a width, as programs fold it."""
    for character in text:
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Mn"):
            continue
        folded = unicodedata.normalize("NFKC", character)
        return f"'{text}" if folded[:1] in _FORMULA else text
    return text


def number(minor: int, currency: str) -> str:
    """An amount as a plain decimal number of the currency's places: -1050 EUR is -10.50."""
    return f"{money.to_major(minor, currency):f}"


def written(lines: Iterable[Sequence[str]]) -> str:
    """Lines as RFC 4180 has them, with the byte order mark by which spreadsheet programs know UTF-8."""
    out = io.StringIO(newline="")
    out.write("\N{ZERO WIDTH NO-BREAK SPACE}")
    csv.writer(out, lineterminator="\r\n").writerows(lines)
    return out.getvalue()
