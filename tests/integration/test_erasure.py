"""One person, told of by six providers: where it stands, that it can be erased, and that then it is nowhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from service import erasure
from service.callbacks.tables import callbacks, quarantine, waits
from service.commands import run as command
from service.errors import Refusal
from service.merchants.events import delivery_id
from service.merchants.tables import audit, endpoints, events, recoveries
from service.payments.tables import aliases, attention, payments
from service.sandbox.builder import Built, build
from service.sandbox.truths import Entry
from service.schema import metadata, outbox_tables
from tests.integration.test_asking import asking
from tests.support.service import Till, eventually, stripe_event, till

NAME, PHONE, EMAIL = "Zénobie Quartzmann", "+229 97 34 56 71", "Zenobie.Q@planted.example"
PERSON = {"phones": [PHONE], "emails": [EMAIL], "names": [NAME]}
NEEDLES = (b"quartzmann", b"97345671", b"97 34 56 71", b"planted.example")
"""What no spelling of the person below can do without, in small letters."""

CALLBACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "stripe": ("charge.succeeded", {"phone": "+229 97 34 56 71", "data.object.billing_details.email": EMAIL}),
    "paystack": ("charge.success", {"phone": "0022997345671", "data.customer.email": EMAIL.upper()}),
    "fedapay": ("transaction.approved", {"phone": "97345671", "entity.customer.email": EMAIL.lower()}),
    "monetbil": ("success", {"phone": "22997345671", "form.email": EMAIL, "method": "GET"}),
    "moneroo": ("payment.success", {"phone": "+22997345671", "data.customer.email": EMAIL}),
    "ebilling": ("paid", {"phone": "97345671", "form.payeremail": EMAIL}),
}
CURRENCY = {"monetbil": "XAF", "ebilling": "XAF"}


def built_for(t: Till, provider: str, **more: Any) -> Built:
    """A genuine callback about the person."""
    entry = t.app.registry.default(provider)
    assert entry is not None
    event, fields = CALLBACKS[provider]
    wanted = {"amount": "5000", "currency": CURRENCY.get(provider, "XOF"), "live": "false", "customer": NAME}
    wanted |= {"reference": f"CMD-{provider}", "time_ms": "1795165200000"} | fields | more
    return build(provider, event, entry.credentials, t.app.clock(), wanted)


async def send(t: Till, provider: str, *, genuine: bool = True, **more: Any) -> None:
    """Send it; one that is not `genuine` is turned away."""
    built = built_for(t, provider, **more)
    headers = dict(built.headers)
    if not genuine:
        headers["Stripe-Signature"] = "t=1,v1=00"
    async with t.client.request(built.method, t.url + built.path_suffix, data=built.body, headers=headers) as answer:
        assert answer.status == (200 if genuine else 401)


async def names_in_tables(t: Till) -> set[str]:
    """The tables in which any of the needles stands, in whatever column."""

    def look(tx: Any) -> set[str]:
        return {
            table.name
            for table in metadata.sorted_tables
            for row in tx.execute(select(table)).all()
            for value in row
            if _holds(value if isinstance(value, bytes) else str(value).encode())
        }

    return await t.app.db.read(look)


def _holds(value: bytes) -> bool:
    return any(needle in value.lower() for needle in NEEDLES)


def names_in_files(directory: Path) -> list[str]:
    """The files of the database that hold any of the needles, the write-ahead file among them."""
    return [path.name for path in sorted(directory.iterdir()) if path.is_file() and _holds(path.read_bytes())]


async def erase(t: Till, **more: Any) -> dict[str, Any]:
    answer = await command(t.app, "erase", {**PERSON, **more})
    assert isinstance(answer, dict)
    return answer


def found_in(did: dict[str, Any]) -> dict[str, int]:
    """The places that held the person, and in how many rows."""
    return {place: count for place, count in did["erased"].items() if count}


def test_a_person_told_of_by_six_providers_is_erased_from_everything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Before: only kept bodies hold the person, no fact, no payment, no log. After: neither a table nor a byte of the
    files does, the payments are what they were, a late copy is still known, and the audit trail tells it by a digest.
    """

    async def run() -> None:
        async with asking(tmp_path, events="*,provider.event") as (t, _, book):
            for provider in CALLBACKS:
                if provider in ("monetbil", "moneroo", "ebilling"):
                    entry = Entry("succeeded", 5000, CURRENCY.get(provider, "XOF"), f"CMD-{provider}")
                    book.write(provider, built_for(t, provider).payment, entry)
                await send(t, provider)
            await send(t, "stripe", genuine=False, event_id="evt_not_genuine")
            await t.settled()
            assert await t.count(quarantine) == 1
            assert {row.status for row in await t.rows(callbacks)} == {"processed"}
            before = await t.rows(payments)
            assert {p.status for p in before} == {"succeeded"}
            assert len(before) == 6

            passed_on = await t.count(events, events.c.type == "provider.event")
            assert passed_on == 6
            assert await names_in_tables(t) == {"callbacks", "events"}
            assert names_in_files(tmp_path) != []

            would = await erase(t, dry_run=True)
            assert await names_in_tables(t) == {"callbacks", "events"}
            did = await erase(t, reason="request 17")
            assert did["erased"] == would["erased"]
            assert found_in(did) == {"callbacks": 6, "quarantine": 1, "events": 6}
            assert (did["kept_count"], did["write_ahead_emptied"]) == (0, True)

            assert await names_in_tables(t) == set()
            assert names_in_files(tmp_path) == []
            assert await t.rows(payments) == before
            rows = await t.rows(callbacks)
            assert {(row.body, row.query, row.erased_at_ms is None) for row in rows} == {(b"", b"", False)}
            assert {len(row.body_sha256) for row in rows} == {32}

            await send(t, "fedapay")
            await t.settled()
            assert await t.count(callbacks) == 6, "a late copy is still known by its key"
            trail = await t.rows(audit, audit.c.action == "person.erased")
            assert [(row.reason, row.subject[:7], len(row.subject)) for row in trail] == [("request 17", "person:", 39)]
            with pytest.raises(Refusal, match="was erased"):
                await command(t.app, "callbacks.replay", {"callback": rows[0].id, "reason": "again"})
            shown = await command(t.app, "callbacks.show", {"callback": rows[0].id})
            assert shown["body"] == ""
            assert shown["erased_at"] is not None
            nothing = await erase(t, dry_run=True)
            assert set(nothing["erased"].values()) == {0}

    asyncio.run(run())
    said = capfd.readouterr()
    assert not _holds((said.out + said.err + caplog.text).encode())
    assert "service.started" in said.out + said.err + caplog.text


def test_what_is_owed_is_kept_and_told_of_until_it_is_delivered(tmp_path: Path) -> None:
    """A passed-on event whose delivery failed stays whole; when it has been sent again it can be erased."""

    async def run() -> None:
        async with till(tmp_path, events="provider.event") as t:
            t.shop.answer = lambda _: 410
            await send(t, "stripe")
            await eventually(lambda: t.shop.got)
            await t.settled()
            event = (await t.rows(events, events.c.type == "provider.event"))[0]
            did = await erase(t)
            assert did["erased"]["callbacks"] == 1
            assert did["erased"]["events"] == 0
            assert [kept["id"] for kept in did["kept"]] == [event.id]
            assert "retry" in did["kept"][0]["why"]
            assert (await t.rows(events, events.c.id == event.id))[0].body == event.body

            t.shop.answer = lambda _: 200
            endpoint = (await t.rows(endpoints))[0].id
            await command(t.app, "endpoint.enable", {"endpoint": endpoint})
            await command(t.app, "deliveries.retry", {"delivery": delivery_id(event.id, endpoint)})
            await t.shop.wait_for(2)
            await t.settled()
            did = await erase(t)
            assert (did["erased"]["events"], did["kept_count"]) == (1, 0)
            told = json.loads((await t.rows(events, events.c.id == event.id))[0].body)
            assert (told["id"], told["type"], told["data"]["callback"]["body"]) == (event.id, "provider.event", "")
            assert told["data"]["callback"]["provider"] == "stripe"
            assert await names_in_tables(t) == set()

    asyncio.run(run())


def test_a_callback_that_is_not_finished_is_kept_and_told_of(tmp_path: Path) -> None:
    """Parked, deferred for want of a merchant, or with a question nobody has answered."""

    async def run() -> None:
        async with asking(tmp_path, merchant=False) as (t, _, __):  # type: ignore[arg-type]
            await send(t, "stripe", event_id="evt_deferred")
            await t.settled()
            did = await erase(t)
            assert [row.status for row in await t.rows(callbacks)] == ["deferred"]
            assert (did["erased"]["callbacks"], did["kept_count"]) == (0, 1)
            assert "deferred" in did["kept"][0]["why"]

            await t.create_merchant(url=t.shop.url)
            await t.settled()
            await send(t, "moneroo")
            await eventually_asked(t)
            did = await erase(t)
            assert did["erased"]["callbacks"] == 1
            assert "is not answered" in did["kept"][0]["why"]
            assert len([row for row in await t.rows(callbacks) if row.body]) == 1

    asyncio.run(run())


async def eventually_asked(t: Till) -> None:
    messages = outbox_tables.messages
    for _ in range(500):
        if await t.count(messages, messages.c.topic == "ask", messages.c.state == "pending"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody asked")


def test_what_a_merchant_wrote_into_metadata_and_answers_goes_too(tmp_path: Path) -> None:
    """Notes lose the person, not their keys; the events that carried them and a shop's echo too; references stay."""

    async def run() -> None:
        async with till(tmp_path) as t:
            notes = {"customer": NAME, "mail": EMAIL, "table": "7"}
            assert await t.stripe(stripe_event("payment_intent.succeeded", metadata=notes)) == 200
            await t.shop.wait_for(1)
            await t.settled()
            tries = outbox_tables.tries
            await t.app.db.write(lambda tx: tx.execute(update(tries).values(head=f"got {EMAIL}".encode())))
            await t.app.db.write(lambda tx: tx.execute(update(payments).values(reference=EMAIL)))
            did = await erase(t)
            assert found_in(did) == {"callbacks": 1, "events": 1, "answers": 1, "payments": 1}
            payment = (await t.rows(payments))[0]
            assert json.loads(payment.metadata) == {"customer": "", "mail": "", "table": "7"}
            assert [kept["id"] for kept in did["kept"]] == [payment.id]
            assert "reference" in did["kept"][0]["why"]
            assert await names_in_tables(t) == {"payments"}
            event = json.loads((await t.rows(events))[0].body)
            assert event["data"]["payment"]["metadata"] == {"customer": "", "mail": "", "table": "7"}

            # Another callback of the same payment does not bring the notes back.
            await t.app.db.write(lambda tx: tx.execute(update(payments).values(reference=None)))
            assert await t.stripe(stripe_event("payment_intent.succeeded", "evt_2", metadata=notes)) == 200
            await t.settled()
            assert await names_in_tables(t) == {"callbacks"}

    asyncio.run(run())


def test_what_somebody_typed_as_a_reason_goes_too(tmp_path: Path) -> None:
    """Through the commands that keep one, and in every other column that may: a mark stands there, all else stays."""

    async def run() -> None:
        async with till(tmp_path) as t:
            endpoint = (await t.rows(endpoints))[0].id
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.settled()
            why = f"{NAME} called"
            await command(t.app, "endpoint.disable", {"endpoint": endpoint, "reason": why})
            await t.stripe(stripe_event("payment_intent.succeeded", "evt_2", intent="pi_2"))
            await t.settled()

            def plant(tx: Any) -> None:
                row = {"id": "att_1", "subject": "cb_1", "reason": "not_placed", "opened_at_ms": 1}
                tx.execute(insert(attention).values(**row, detail=why))
                row = {"id": "rec_1", "since_ms": 1, "status": "finished", "phase": "failed", "next_at_ms": 1}
                row |= {"total": 0, "created_at_ms": 1, "updated_at_ms": 1}
                tx.execute(insert(recoveries).values(**row, reason=why))
                tx.execute(update(outbox_tables.messages).values(reason=why))
                tx.execute(update(callbacks).values(reason=f"unknown_status:{EMAIL}"))

            await t.app.db.write(plant)
            owed = await t.count(outbox_tables.messages)
            found = {
                "audit",
                "endpoints",
                "outbox_destinations",
                "attention",
                "recoveries",
                "outbox_messages",
                "callbacks",
            }
            assert await names_in_tables(t) == found
            did = await erase(t)
            assert did["erased"]["reasons"] == 1 + 1 + 1 + 1 + 1 + owed + 2
            assert did["kept"] == []
            assert await names_in_tables(t) == set()
            assert names_in_files(tmp_path) == []
            row = (await t.rows(endpoints))[0]
            assert (row.status, row.disabled_reason) == ("disabled", "(erased)")
            standing = await t.app.db.read(t.app.queue.destinations.standing, "webhook", endpoint)
            assert (standing.held, standing.owed) == ("(erased)", 1)
            trail = await t.rows(audit, audit.c.action == "endpoint.disabled")
            assert [(row.subject, row.reason) for row in trail] == [(endpoint, "(erased)")]

    asyncio.run(run())


def test_what_money_is_called_by_is_kept_and_told_of(tmp_path: Path) -> None:
    """A payment's own names, its aliases, what waits for one and what asks by one: each by its id."""

    async def run() -> None:
        async with asking(tmp_path, merchant=False) as (t, _, __):  # type: ignore[arg-type]
            await t.create_merchant(url=t.shop.url)
            assert await t.stripe(stripe_event("payment_intent.succeeded")) == 200
            await t.settled()
            await send(t, "moneroo")
            await eventually_asked(t)
            asks = outbox_tables.messages.c.topic == "ask"

            def plant(tx: Any) -> None:
                tx.execute(update(callbacks).values(body=b"", query=b""))
                tx.execute(update(payments).values(order_id=PHONE))
                tx.execute(update(aliases).values(reference=aliases.c.reference + f" {EMAIL}"))
                tx.execute(update(outbox_tables.messages).where(asks).values(payload=json.dumps({"reference": EMAIL})))
                one = tx.execute(select(callbacks.c.id)).scalars().first()
                tx.execute(insert(waits).values(account_id="acc_stripe", reference=EMAIL, callback_id=one))

            await t.app.db.write(plant)
            did = await erase(t)
            told = sorted(kept["id"][: kept["id"].index("_")] for kept in did["kept"])
            counts = {"cb": 2, "pay": await t.count(payments), "try": await t.count(aliases)}
            assert told == [prefix for prefix, count in counts.items() for _ in range(count)]
            assert all(counts.values())
            assert sum(did["erased"].values()) == 0
            assert all(place != "references" for place in did["erased"])

    asyncio.run(run())


def test_a_quarantined_row_that_cannot_be_opened_is_told_of(tmp_path: Path) -> None:
    """It does not end the run: all others are searched, and it is too, where it is not sealed."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for number in range(4):
                await send(t, "stripe", genuine=False, event_id=f"evt_{number}")
            await t.settled()
            rows = await t.rows(quarantine)

            def plant(tx: Any) -> None:
                for row, headers in ((rows[1], "[]"), (rows[2], EMAIL)):
                    values = {"body": rows[0].body, "headers": headers}  # sealed for another row
                    tx.execute(update(quarantine).where(quarantine.c.id == row.id).values(**values))

            await t.app.db.write(plant)
            for dry_run in (True, False):
                did = await erase(t, dry_run=dry_run)
                assert did["erased"]["quarantine"] == 3
                assert (did["unread"], did["unread_count"], did["kept_count"]) == ([rows[1].id], 1, 0)
            assert [row.id for row in await t.rows(quarantine)] == [rows[1].id]

    asyncio.run(run())


def test_what_will_never_be_worked_on_goes_if_it_is_asked_for(tmp_path: Path) -> None:
    """Parked and deferred ones: kept without the option; with it they are empty, and nothing brings them back."""

    async def run() -> None:
        async with till(tmp_path, merchant=False) as t:
            await send(t, "stripe", event_id="evt_deferred")
            await send(t, "stripe", event_id="evt_parked")
            await t.settled()
            first, second = await t.rows(callbacks)
            await t.app.db.write(
                lambda tx: tx.execute(update(callbacks).where(callbacks.c.id == second.id).values(status="parked"))
            )
            did = await erase(t)
            assert (did["erased"]["callbacks"], did["kept_count"]) == (0, 2)
            assert all("--also-parked" in kept["why"] for kept in did["kept"])
            did = await erase(t, also_parked=True)
            assert (did["erased"]["callbacks"], did["kept_count"]) == (2, 0)
            assert await names_in_tables(t) == set()
            await t.create_merchant(url=t.shop.url)
            await t.settled()
            assert [row.status for row in await t.rows(callbacks)] == ["deferred", "parked"]
            with pytest.raises(Refusal, match="was erased"):
                await command(t.app, "callbacks.replay", {"callback": first.id, "reason": "again"})

    asyncio.run(run())


def test_a_question_under_way_is_kept_whatever_is_asked_for(tmp_path: Path) -> None:
    """Its answer may still need the body; one that was given up does not."""

    async def run() -> None:
        async with asking(tmp_path) as (t, _, __):
            await send(t, "moneroo")
            await eventually_asked(t)
            did = await erase(t, also_parked=True)
            assert (did["erased"]["callbacks"], did["kept_count"]) == (0, 1)
            m = outbox_tables.messages
            dead = {"state": "dead", "finished_at_ms": 1, "settled_claim": m.c.claim}
            await t.app.db.write(lambda tx: tx.execute(update(m).where(m.c.topic == "ask").values(**dead)))
            assert (await erase(t))["kept_count"] == 1
            assert (await erase(t, also_parked=True))["erased"]["callbacks"] == 1

    asyncio.run(run())


def test_what_changes_while_it_is_searched_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new text is not overwritten by one that was made of the old."""

    async def run() -> None:
        async with till(tmp_path) as t:
            assert await t.stripe(stripe_event("payment_intent.succeeded", metadata={"mail": EMAIL})) == 200
            await t.settled()
            await erase(t)
            old, new = json.dumps({"mail": EMAIL}), json.dumps({"mail": EMAIL, "table": "7"})
            await t.app.db.write(lambda tx: tx.execute(update(payments).values(metadata=old)))
            piece = erasure._piece

            def late(tx: Any, *given: Any) -> Any:
                tx.execute(update(payments).values(metadata=new))
                return piece(tx, *given)

            monkeypatch.setattr(erasure, "_piece", late)
            did = await erase(t)
            assert (did["erased"]["payments"], did["kept_count"]) == (0, 1)
            assert "changed meanwhile" in did["kept"][0]["why"]
            assert (await t.rows(payments))[0].metadata == new
            monkeypatch.undo()
            assert (await erase(t))["erased"]["payments"] == 1

    asyncio.run(run())


def test_a_hundred_others_keep_their_bodies(tmp_path: Path) -> None:
    """Several pages; one in ten is the person, and only those go. Progress comes up to what there is."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for number in range(250):
                who: dict[str, Any] = {"customer": NAME} if number % 10 == 0 else {"customer": "Awa Kone"}
                body = stripe_event("customer.created", f"evt_{number}", **who)
                assert await t.stripe(body) == 200
            await t.settled()
            told: list[tuple[int, int | None]] = []
            answer = await command(t.app, "erase", dict(PERSON), lambda done, total: told.append((done, total)))
            assert answer["erased"]["callbacks"] == 25
            assert len([row for row in await t.rows(callbacks) if not row.body]) == 25
            assert told[-1][0] == told[-1][1] == answer["looked"]
            assert len(told) >= 3

    asyncio.run(run())


def test_bad_input_is_refused_by_name_and_never_repeated(tmp_path: Path) -> None:
    """Nobody, half a name, a number without its country, a reason that names the person: a code each, no row."""

    async def run() -> None:
        async with till(tmp_path) as t:
            for arguments, code in (
                ({}, "nobody"),
                ({"names": ["Zénobie"]}, "bad_name"),
                ({"phones": ["97345671"]}, "bad_phone"),
                ({**PERSON, "reason": f"asked by {NAME}"}, "reason_names"),
            ):
                with pytest.raises(Refusal) as refused:
                    await command(t.app, "erase", arguments)
                assert refused.value.code == code
                assert not _holds(refused.value.sentence.encode())
            assert await t.count(audit, audit.c.action == "person.erased") == 0

    asyncio.run(run())
