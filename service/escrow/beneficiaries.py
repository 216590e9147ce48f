"""
Beneficiaries: whom money is held for and paid out to, and where it goes.

Where it goes (the *payee*) is never changed, only followed by another, which waits a day or for a second person: who
has got hold of one key must not be able to have tomorrow's money sent to a number of their own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import phonenumbers
from sqlalchemy import Connection, bindparam, func, insert, select, update

from outbox.prepared import Lookup
from service.attention import close_attention, open_attention
from service.errors import NotFound, Refusal
from service.escrow.hold_rows import digest
from service.escrow.tables import beneficiaries, payees, payees_personal
from service.escrow.terms import terms_of
from service.merchants.audit import By
from service.merchants.events import rfc3339
from service.merchants.tables import accounts
from service.orders.fields import a_country, a_text
from service.orders.owner import Owner, find, mine, page_of
from service.payments.currencies import CURRENCIES
from service.providers.calls import OPERATORS
from service.providers.payouts import PAYEE_KINDS, Payee, PayeeKind
from service.routing.operators import Phone, read_phone

CHANGED_WAITS_MS: Final = 24 * 3_600_000
"""How long a changed payee is not paid (mission B7), unless a second person approves it."""
CHANGED: Final = "payee_changed"
"""Why a beneficiary is before a person."""
CHANGES_A_DAY_MAX: Final = 10
NAME_MAX, REFERENCE_MAX = 120, 120
_NUMBER = re.compile(r"[A-Z0-9]{4,34}")  # the longest is an IBAN's (ISO 13616)
_PROVIDERS_OWN = re.compile(r"(acct|ba|card)_[A-Za-z0-9]{4,60}")
_BANK = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True, slots=True)
class To:
    """Where money is to go, as somebody writes it. `operator`: of a wallet; `bank_code`: the provider's, of a bank."""

    kind: PayeeKind
    number: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    country: str = ""
    operator: str = ""
    bank_code: str = ""


def create(tx: Connection, owner: Owner, currency: str, to: To, by: By, reference: str = "", account: str = "") -> str:
    """
    A work: a beneficiary with a first payee, which may be paid at once. Returns the id.

    Raises Refusal: bad_… (names the field), reference_taken.
    """
    if currency not in CURRENCIES:
        raise Refusal("bad_currency", f"currency: {currency[:10]!r} is no ISO 4217 code, such as XOF or EUR.")
    reference = a_text("reference", reference, REFERENCE_MAX)
    if reference and tx.execute(mine(beneficiaries, owner).where(beneficiaries.c.reference == reference)).first():
        raise Refusal("reference_taken", f"reference: there is a beneficiary {reference!r} already.")
    id_ = by.ids("ben")
    row = {
        "id": id_,
        "merchant_id": owner.merchant_id,
        "live": owner.live,
        "reference": reference or None,
        "currency": currency,
        "active": True,
        "account_id": _own_account(tx, owner, account) if account else None,
        "created_at_ms": by.now_ms,
        "updated_at_ms": by.now_ms,
    }
    checked = check(to)
    tx.execute(insert(beneficiaries).values(row))
    _add_payee(tx, row, checked, by, by.now_ms)
    by.write_down(tx, "beneficiary.created", id_)
    return id_


def pay_to(tx: Connection, owner: Owner, beneficiary_id: str, to: To, by: By) -> dict[str, Any]:
    """
    A work: from now on the money goes there, after a day, or once a second person approves. The same again is nothing.

    Raises NotFound, Refusal bad_….
    """
    row = find(tx, beneficiaries, owner, beneficiary_id, "beneficiary")
    checked, known = check(to), payee_of(tx, beneficiary_id)
    if _said(checked) == tuple(known[name] for name in _SAID):
        return known
    changes = select(func.count()).where(
        payees.c.beneficiary_id == beneficiary_id, payees.c.created_at_ms > by.now_ms - CHANGED_WAITS_MS
    )
    if tx.execute(changes).scalar_one() >= CHANGES_A_DAY_MAX:
        raise Refusal(
            "too_many_changes", f"Where {beneficiary_id} is paid was changed {CHANGES_A_DAY_MAX} times today."
        )
    usable_at_ms = by.now_ms + CHANGED_WAITS_MS
    _add_payee(tx, row, checked, by, usable_at_ms)
    by.write_down(tx, "beneficiary.payee_changed", beneficiary_id)
    open_attention(tx, by.ids, beneficiary_id, CHANGED, by.actor, by.now_ms)
    return payee_of(tx, beneficiary_id)


def approve_payee(
    tx: Connection, owner: Owner, beneficiary_id: str, payee_id: str, reason: str, by: By
) -> dict[str, Any]:
    """
    A work: a second person has made sure that this payee is the beneficiary's, so it may be paid at once.

    Raises NotFound, Refusal: no_reason, payee_changed (it is not the newest: they have looked at another),
    nothing_waits, second_person (it is who has changed it).
    """
    find(tx, beneficiaries, owner, beneficiary_id, "beneficiary")
    payee = payee_of(tx, beneficiary_id)
    if not reason.strip():
        raise Refusal("no_reason", "Say how you made sure: a reason is kept with it.")
    if payee["id"] != payee_id:
        raise Refusal("payee_changed", f"Where {beneficiary_id} is paid was changed again since; look at it anew.")
    if payee["usable_at_ms"] <= by.now_ms:
        raise Refusal("nothing_waits", f"The payee of {beneficiary_id} can be paid already.")
    if payee["actor"] == by.actor:
        raise Refusal("second_person", "Whoever has changed a payee cannot approve it: that needs a second person.")
    usable = {"usable_at_ms": by.now_ms, "approved_by": by.actor}
    tx.execute(update(payees).where(payees.c.id == payee["id"]).values(usable))
    by.write_down(tx, "beneficiary.payee_approved", beneficiary_id, reason)
    close_attention(tx, beneficiary_id, CHANGED, by.now_ms)
    return payee_of(tx, beneficiary_id)


def change(tx: Connection, owner: Owner, beneficiary_id: str, by: By, *, active: bool) -> None:
    """A work: one that is not active is paid nothing more, and holds no more. Raises NotFound."""
    find(tx, beneficiaries, owner, beneficiary_id, "beneficiary")
    values = {"active": active, "updated_at_ms": by.now_ms}
    tx.execute(update(beneficiaries).where(beneficiaries.c.id == beneficiary_id).values(values))
    by.write_down(tx, f"beneficiary.{'enabled' if active else 'disabled'}", beneficiary_id)


def link(tx: Connection, owner: Owner, beneficiary_id: str, by: By) -> str:
    """A work: a new token of the read-only page; the one before opens nothing any more. Raises NotFound."""
    find(tx, beneficiaries, owner, beneficiary_id, "beneficiary")
    token = secrets.token_urlsafe(32)
    tx.execute(update(beneficiaries).where(beneficiaries.c.id == beneficiary_id).values(link=digest(token)))
    by.write_down(tx, "beneficiary.link", beneficiary_id)
    return token


def held_for(tx: Connection, owner: Owner, beneficiary_id: str, currency: str) -> str:
    """
    A query: that money of this currency can be held for a beneficiary. Returns the id.

    Raises Refusal: escrow_off, bad_escrow.
    """
    if not terms_of(tx, owner.merchant_id).enabled:
        raise Refusal("escrow_off", "escrow: delayed payout is off for this merchant; see caisse escrow set.")
    b = beneficiaries.c
    row = tx.execute(mine(beneficiaries, owner).where(b.id == beneficiary_id)).mappings().one_or_none()
    if row is None or not row["active"] or row["currency"] != currency:
        why = (
            "there is no" if row is None else "disabled is the" if not row["active"] else f"in {row['currency']} is the"
        )
        raise Refusal("bad_escrow", f"escrow: {why} beneficiary {beneficiary_id[:60]!r}.")
    return beneficiary_id


# --- looking ------------------------------------------------------------------------------------------


def of_link(tx: Connection, token: str) -> dict[str, Any]:
    """A query: whose read-only page a token opens. Raises NotFound."""
    row = tx.execute(select(beneficiaries).where(beneficiaries.c.link == digest(token))).mappings().one_or_none()
    if row is None:
        raise NotFound("page", "", "the link that you were sent")
    return dict(row)


def one(tx: Connection, owner: Owner, beneficiary_id: str) -> dict[str, Any]:
    """A query: a beneficiary with its `payee`. Raises NotFound, also for another merchant's."""
    row = find(tx, beneficiaries, owner, beneficiary_id, "beneficiary")
    return row | {"payee": payee_of(tx, beneficiary_id)}


def listed(
    tx: Connection, owner: Owner, *, reference: str | None = None, before: str = "", limit: int = 50
) -> list[dict[str, Any]]:
    """A query: an owner's beneficiaries, newest first, each with its `payee`."""
    query = mine(beneficiaries, owner)
    if reference is not None:
        query = query.where(beneficiaries.c.reference == reference)
    return [row | {"payee": payee_of(tx, row["id"])} for row in page_of(tx, query, beneficiaries, before, limit)]


_PAYEE = select(payees, payees_personal.c.name, payees_personal.c.number).outerjoin(
    payees_personal, payees_personal.c.payee_id == payees.c.id
)


_WANTED: Any = bindparam("wanted", expanding=True)
_NEWEST = Lookup(
    _PAYEE.where(
        payees.c.id.in_(
            select(func.max(payees.c.id)).where(payees.c.beneficiary_id.in_(_WANTED)).group_by(payees.c.beneficiary_id)
        )
    )
)
_BY_ID = Lookup(_PAYEE.where(payees.c.id.in_(_WANTED)))
_OF = Lookup(_PAYEE.where(payees.c.beneficiary_id.in_(_WANTED)).order_by(payees.c.id))


def payee_of(tx: Connection, beneficiary_id: str) -> dict[str, Any]:
    """A query: where a beneficiary's money goes, the newest that was said."""
    return _NEWEST(tx, [beneficiary_id])[0]


def payee(tx: Connection, payee_id: str) -> dict[str, Any]:
    """A query: one payee."""
    return _BY_ID(tx, [payee_id])[0]


def names_of(tx: Connection, beneficiary_ids: Collection[str]) -> dict[str, str]:
    """A query: under which names beneficiaries are paid now; an erased one is empty."""
    found: dict[str, str] = {}
    for row in _OF(tx, sorted(beneficiary_ids)) if beneficiary_ids else ():
        found[row["beneficiary_id"]] = row["name"] or ""  # the newest comes last
    return found


def payee_names(tx: Connection, payee_ids: Collection[str]) -> dict[str, str]:
    """A query: the names of payees; an erased one is empty."""
    return {row["id"]: row["name"] or "" for row in _BY_ID(tx, sorted(payee_ids))} if payee_ids else {}


def as_payee(row: Mapping[str, Any]) -> Payee:
    """As providers are told of it."""
    return Payee(
        row["kind"],
        row["currency"],
        row["country"],
        row["operator"],
        row["number"] or "",
        row["bank_code"],
        row["name"] or "",
    )


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """A beneficiary as merchants see it; `row` as `one` and `listed` give it. Numbers by their last digits alone."""
    to = row["payee"]
    return {
        "id": row["id"],
        "reference": row["reference"],
        "currency": row["currency"],
        "active": bool(row["active"]),
        "live": bool(row["live"]),
        "account": row["account_id"],
        "payee": {
            "id": to["id"],
            "kind": to["kind"],
            "name": to["name"] or "",
            "number": masked(to["number"] or ""),
            "country": to["country"],
            "operator": to["operator"],
            "bank_code": to["bank_code"],
            "usable_at": rfc3339(to["usable_at_ms"]),
            "approved_by": to["approved_by"],
        },
        "created_at": rfc3339(row["created_at_ms"]),
        "updated_at": rfc3339(row["updated_at_ms"]),
    }


def masked(number: str) -> str:
    """Enough of a number to recognise it: the last four characters."""
    return f"…{number[-4:]}" if len(number) > 4 else number


# --- checking -----------------------------------------------------------------------------------------


def check(to: To) -> To:
    """The same, written in one way. Raises Refusal: bad_kind, bad_phone, bad_number, bad_operator, bad_country, …"""
    if to.kind not in PAYEE_KINDS:
        raise Refusal("bad_kind", f"kind: one of {', '.join(PAYEE_KINDS)}.")
    name = a_text("name", to.name.strip(), NAME_MAX)
    country = a_country(to.country)
    if to.operator and to.operator not in OPERATORS:
        raise Refusal("bad_operator", f"operator: one of {', '.join(OPERATORS)}.")
    match to.kind:
        case "mobile_money":
            if not to.operator:
                raise Refusal("bad_operator", f"operator: a wallet has one of {', '.join(OPERATORS)}.")
            if not name:
                raise Refusal("bad_name", "name: whose wallet it is; providers ask for it.")
            phone = _payable(read_phone(to.number, country, to.operator))
            return To("mobile_money", phone.e164, name, country or phone.country, to.operator)
        case "bank":
            number = re.sub(r"[\s-]", "", to.number).upper()
            if not _NUMBER.fullmatch(number):
                raise Refusal("bad_number", "number: 4 to 34 letters and digits, as on a statement of the bank.")
            if not _BANK.fullmatch(to.bank_code):
                raise Refusal("bad_bank_code", "bank_code: the provider's own code of the bank.")
            if not name:
                raise Refusal("bad_name", "name: whose account it is, as the bank knows it.")
            return To("bank", number, name, country, "", to.bank_code)
        case "account":
            if not _PROVIDERS_OWN.fullmatch(to.number):
                raise Refusal("bad_number", "number: an account at the provider, such as acct_… or ba_….")
            return To("account", to.number, name, country)


def _payable(phone: Phone) -> Phone:
    """
    What only warns a payer is refused of a payee, because the money is gone: a number that is too short or too long.
    Those of a plan that has ended still reach their operator's wallets, and are what providers test with.
    """
    number = phonenumbers.parse(phone.e164)
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    if possible or ("old_number" in phone.warnings and "no_operator" not in phone.warnings):
        return phone
    raise Refusal("bad_phone", f"number: no number of {phone.country or 'any country'} is as long or as short as this.")


_SAID = ("kind", "number", "name", "country", "operator", "bank_code")


def _said(to: To) -> tuple[str, ...]:
    return tuple(getattr(to, name) for name in _SAID)


def _add_payee(tx: Connection, beneficiary: Mapping[str, Any], to: To, by: By, usable_at_ms: int) -> None:
    id_ = by.ids("pye")
    row = {
        "id": id_,
        "beneficiary_id": beneficiary["id"],
        "kind": to.kind,
        "currency": beneficiary["currency"],
        "country": to.country,
        "operator": to.operator,
        "bank_code": to.bank_code,
        "actor": by.actor,
        "created_at_ms": by.now_ms,
        "usable_at_ms": usable_at_ms,
    }
    tx.execute(insert(payees).values(row))
    tx.execute(insert(payees_personal).values(payee_id=id_, name=to.name, number=to.number))


def _own_account(tx: Connection, owner: Owner, account_id: str) -> str:
    a = accounts.c
    theirs = (a.id == account_id, a.merchant_id == owner.merchant_id, a.live == owner.live)
    if tx.execute(select(a.id).where(*theirs)).first() is None:
        raise Refusal("bad_account", f"account: there is no provider account {account_id[:60]!r}; caisse account list.")
    return account_id
