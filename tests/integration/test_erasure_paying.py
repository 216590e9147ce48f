"""One person in everything that taking payments keeps: payers, buyers, orders, what was typed, answers of the API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from sqlalchemy import LargeBinary, Text, insert, update

from service.commands import run as command
from service.orders.tables import buyers, sessions
from service.payments.tables import attempts, decisions, idempotency, payers, payments, refunds
from service.person import Person
from service.personal import places
from service.schema import metadata
from service.seal import Seal
from tests.integration.test_erasure import EMAIL, NAME, PERSON, PHONE, names_in_files, names_in_tables
from tests.support.api import Api, api_of
from tests.support.paying import Counter, counter

CUSTOMER = {"name": NAME, "email": EMAIL, "phone": PHONE.replace(" ", "")}
BACK = f"https://shop.example/back?mail={EMAIL.replace('@', '%40')}"


async def erase(c: Counter, **more: Any) -> dict[str, Any]:
    answer = await command(c.till.app, "erase", {**PERSON, **more})
    assert isinstance(answer, dict)
    return answer


async def buy(c: Counter, api: Api) -> tuple[str, str]:
    """A paid payment, its refund, an order, a session and a link that all name the person; payment and session ids."""
    order = await api("POST", "/orders", {
        "currency": "XOF", "description": f"for {NAME}", "metadata": {"mail": EMAIL, "table": "7"},
        "lines": [{"description": f"{NAME}'s dress", "quantity": 1, "unit_amount": 5_000}],
    })  # fmt: skip
    assert order.status == 201, order.said
    session = await api("POST", "/sessions", {
        "amount": 700, "currency": "XOF", "country": "CI", "customer": CUSTOMER, "description": f"for {NAME}",
        "return_url": BACK, "metadata": {"who": NAME},
    })  # fmt: skip
    assert session.status == 201, session.said
    link = await api("POST", "/links", {
        "amount": 700, "currency": "XOF", "country": "CI", "description": f"{NAME} pays here", "return_url": BACK,
    })  # fmt: skip
    assert link.status == 201, link.said
    paid = await api("POST", "/payments", {
        "amount": 5_000, "currency": "XOF", "method": "card", "providers": ["stripe"], "customer": CUSTOMER,
        "description": f"dress of {NAME}", "return_url": BACK, "metadata": {"mail": EMAIL, "table": "7"},
    }, once="bought")  # fmt: skip
    assert paid.status == 201, paid.said
    await c.pay(paid.said["id"])
    refunded = await api("POST", f"/payments/{paid.said['id']}/refunds", {"amount": 100, "reason": f"{NAME} asked"})
    assert refunded.status in (201, 202), refunded.said
    await c.settle()
    return paid.said["id"], session.said["id"]


def test_who_paid_is_erased_from_all_that_paying_keeps(tmp_path: Path) -> None:
    """
    A dry run counts and changes nothing; then neither a table nor a byte of the files holds the person, amounts and
    states are what they were, and what the merchant asks for again with the same key is answered without the person.
    """

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            paid, session = await buy(c, api)
            await c.till.app._site._api.close()  # type: ignore[union-attr]
            before = await c.payment(paid)
            assert (before.status, before.captured_minor) == ("partially_refunded", 5_000)
            held = await names_in_tables(c.till)
            assert held >= {"payers", "buyers", "payments", "orders", "order_lines", "sessions", "links", "refunds"}
            (kept,) = await c.till.rows(idempotency)
            assert kept.answer is not None

            would = await erase(c, dry_run=True)
            assert await names_in_tables(c.till) == held
            did = await erase(c, reason="request 17")
            assert did["erased"] == would["erased"]
            counts = {place: did["erased"][place] for place in ("payers", "buyers", "payments", "orders", "sessions")}
            assert counts == {"payers": 1, "buyers": 1, "payments": 1, "orders": 2, "sessions": 1}
            assert (did["erased"]["links"], did["erased"]["replies"]) == (1, 1)
            assert did["erased"]["reasons"] >= 1
            assert (did["kept_count"], did["write_ahead_emptied"]) == (0, True), did["kept"]

            assert await names_in_tables(c.till) == set()
            assert names_in_files(tmp_path) == []
            assert await c.till.count(payers) == await c.till.count(buyers) == 0
            after = await c.payment(paid)
            for name in (
                "status",
                "captured_minor",
                "refunded_minor",
                "provider_reference",
                "created_at_ms",
                "paid_at_ms",
            ):
                assert getattr(after, name) == getattr(before, name)
            assert json.loads(after.metadata) == {"mail": "", "table": "7"}
            assert (after.description, after.return_url) == ("", "")
            assert (await c.till.rows(refunds))[0].reason == "(erased)"
            assert (await c.till.rows(sessions, sessions.c.id == session))[0].state == "open"

            again = await api("POST", "/payments", {
                "amount": 5_000, "currency": "XOF", "method": "card", "providers": ["stripe"], "customer": CUSTOMER,
                "description": f"dress of {NAME}", "return_url": BACK, "metadata": {"mail": EMAIL, "table": "7"},
            }, once="bought")  # fmt: skip
            assert (again.status, again.said["id"], again.replayed) == (201, paid, True)
            assert await c.till.count(payments) == 1, "the key is still used: nobody is charged twice"
            assert await names_in_tables(c.till) == set()
            assert set((await erase(c, dry_run=True))["erased"].values()) == {0}

    asyncio.run(run())


def test_others_keep_what_is_theirs(tmp_path: Path) -> None:
    """Two payers, one is erased, by the wallet's number alone; of a row that names them only what does is emptied."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            kept = await c.till.app.desk.create(c.usual("stripe", description="for Awa"))
            gone = await c.till.app.desk.create(c.usual("stripe", description="a dress", metadata={"mail": EMAIL}))

            def plant(tx: Any) -> None:
                tx.execute(update(payers).where(payers.c.payment_id == gone).values(payer_phone=PHONE.replace(" ", "")))

            await c.till.app.db.write(plant)
            did = await erase(c)
            assert did["erased"]["payers"] == 1
            (row,) = await c.till.rows(payers)
            assert (row.payment_id, row.name) == (kept, "Awa Koné")
            assert (await c.payment(kept)).description == "for Awa"
            assert ((await c.payment(gone)).description, (await c.payment(gone)).metadata) == (
                "a dress",
                '{"mail": ""}',
            )

    asyncio.run(run())


def test_what_the_payer_is_asked_to_do_goes_when_it_is_done(tmp_path: Path) -> None:
    """While the payment waits, its instruction stays and is told of; ended, it keeps its type alone."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            payment = await c.till.app.desk.create(c.usual("stripe"))
            text = json.dumps({"type": "approve_on_phone", "display_text": f"{NAME}, dial *144#"})
            await c.till.app.db.write(lambda tx: tx.execute(update(attempts).values(action=text)))
            did = await erase(c)
            assert (did["erased"]["payments"], [kept["id"] for kept in did["kept"]]) == (0, [payment])
            assert "let the payment end" in did["kept"][0]["why"]
            assert (await c.attempts(payment))[0].action == text
            await c.till.app.db.write(lambda tx: tx.execute(update(attempts).values(state="expired")))
            did = await erase(c)
            assert (did["erased"]["payments"], did["kept_count"]) == (1, 0)
            told = json.loads((await c.attempts(payment))[0].action)
            assert told == {"type": "approve_on_phone", "display_text": ""}

    asyncio.run(run())


def test_typed_reasons_and_references_of_paying(tmp_path: Path) -> None:
    """An operator's decision is marked; what the shop finds an order or session by is kept and told of."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            payment = await c.till.app.desk.create(c.usual("stripe"))
            (attempt,) = await c.attempts(payment)
            made = await api_of(c.till)("POST", "/sessions", {"amount": 700, "currency": "XOF", "reference": EMAIL})
            row = {"attempt_id": attempt.id, "step": "operator_failed", "at_ms": 1, "actor": "op"}
            await c.till.app.db.write(
                lambda tx: tx.execute(insert(decisions).values(**row, reason=f"{NAME} rang")) and None
            )
            did = await erase(c)
            assert did["erased"]["reasons"] == 1
            assert (await c.till.rows(decisions, decisions.c.actor == "op"))[0].reason == "(erased)"
            assert [kept["id"] for kept in did["kept"]] == [made.said["id"]]
            assert await names_in_tables(c.till) == {"sessions"}

    asyncio.run(run())


def test_an_answer_that_cannot_be_opened_ends_nothing(tmp_path: Path) -> None:
    """Sealed under another name it is noise to everybody; the row beside it is still searched."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            for once in ("a", "b"):
                assert (await api("POST", "/customers-none", {}, once=once)).status == 404
                body = {"name": f"dress of {NAME}", "price": 100, "currency": "XOF"}
                assert (await api("POST", "/products", body, once=once)).status == 201
            await c.till.app._site._api.close()  # type: ignore[union-attr]
            first, second = sorted(await c.till.rows(idempotency), key=lambda row: row.key)
            await c.till.app.db.write(
                lambda tx: tx.execute(update(idempotency).where(idempotency.c.key == "a").values(answer=second.answer))
            )
            assert (await erase(c))["erased"]["replies"] == 1
            rows = {row.key: row.answer is None for row in await c.till.rows(idempotency)}
            assert rows == {first.key: False, second.key: True}

    asyncio.run(run())


# --- nothing is forgotten ---------------------------------------------------------------------------------

YOURS = {
    "accounts.name", "api_keys.name", "endpoints.url", "merchants.name", "products.name", "routes.note",
    "audit.actor", "decisions.actor", "refunds.actor", "accounts.base_url",
    "payees.actor", "payees.approved_by", "payouts.actor", "payouts.approved_by", "settlements.actor",
    "settlements.reference", "ledger_checks.actor", "job_runs.actor", "jobs.paused_by",
}  # fmt: skip
"""Of merchants and their staff, not of a payer (docs/retention.md)."""
SEALED = {"accounts.credentials", "endpoint_secrets.secret", "installation.value"}
WORDS = {
    "aliases": "attempt_id", "accounts": "merchant_id provider origin status",
    "api_keys": "merchant_id hash hint scopes",
    "attempts": "payment_id account_id provider state currency reference provider_reference key channel reason",
    "attention": "subject reason", "audit": "action subject",
    "beneficiaries": "merchant_id currency account_id link",
    "callbacks": "account_id key provider kind status method body_sha256 payment_id",
    "differences": "merchant_id account_id provider provider_reference kind payment_id currency detail day",
    "endpoint_secrets": "endpoint_id", "endpoints": "merchant_id events status schedule",
    "escrow_terms": "approve_above timezone",
    "events": "id merchant_id type payment_id callback_id", "facts": "currency method reason source callback_id",
    "holds": "merchant_id order_id beneficiary_id state currency against overruled buyer",
    "idempotency": "fingerprint subject", "job_runs": "job state process counters error cursor",
    "ledger_accounts": "kind owner merchant_id currency", "ledger_checks": "looked problems",
    "links": "merchant_id currency product_id methods country",
    "merchants": "status", "orders": "merchant_id state payment_status exceptions currency late "
    "beneficiary_id",
    "order_lines": "product_id", "outbox_destinations": "recent",
    "outbox_messages": "topic destination subject state last_error revived", "outbox_tries": "error",
    "payees": "beneficiary_id kind currency country operator bank_code",
    "payments": "merchant_id origin status exceptions currency provider method failure_reason merged_into country "
    "operator session_id wish explanation",
    "payouts": "merchant_id source beneficiary_id payee_id account_id provider state currency hold_id retry_of "
    "reference provider_reference waits_for refund_id",
    "postings": "subject kind", "recipients": "recipient", "settlements": "merchant_id account_id currency",
    "products": "merchant_id currency", "quarantine": "account_id provider reason method",
    "recoveries": "merchant_id endpoint_id type payment_id status trouble phase cursor",
    "refunds": "payment_id attempt_id origin state currency provider_reference",
    "routes": "merchant_id currency country method operator providers",
    "sessions": "merchant_id state order_id link_id product_id payment_id currency methods country locale secret "
    "ended_by",
}  # fmt: skip
"""Ids, fixed words, digests, and names that only we or a provider give."""


def test_every_column_that_can_hold_a_person_is_searched_or_has_its_reason() -> None:
    """Who adds a column of text has to say here, or in `personal.py`, whether a payer may stand in it."""
    person = Person.read([PHONE], [EMAIL], [NAME])
    searched = {
        f"{column.table.name}.{column.name}"
        for place in places(Seal([bytes(32)]), person, False)
        for column in place.columns
    }
    words = {f"{table}.{name}" for table, names in WORDS.items() for name in names.split()}
    columns = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Text | LargeBinary) and not column.primary_key
    }
    listed = YOURS | SEALED | words
    assert columns - searched - listed == set()
    assert listed - columns == set()
    assert listed & searched == set()
