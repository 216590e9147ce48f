"""Delayed payout at `/v1`, against the sandbox's Stripe: what the merchant, a second person and the buyer may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from service.escrow.tables import holds, payouts
from service.ledger.tables import ledger_accounts, postings
from service.merchants.tables import accounts, api_keys, audit
from service.payments.tables import attention
from tests.support.api import Answer, Api, another, api_of
from tests.support.paying import BUYER, Counter, counter

SELLER = {"kind": "account", "number": "acct_1Seller", "name": "Moussa"}
BACK = "https://shop.example/back"
HOUR_MS = 3_600_000


@dataclass
class Market:
    """A shop with delayed payout on, a seller, and the keys of two people. Every payout waits for approval."""

    c: Counter
    api: Api
    second: Api
    seller: str
    second_actor: str

    async def bought(self, amount: int = 5_000) -> tuple[str, str]:
        """An order for the seller, paid at the sandbox. Returns its id and its hold's."""
        order = await self.ordered(amount)
        await self.pay(order, amount)
        return order, (await self.api("GET", f"/orders/{order}")).said["escrow"]["hold"]

    async def ordered(self, amount: int = 5_000) -> str:
        """An order for the seller, not paid yet."""
        body = {"lines": [{"description": "Couture", "unit_amount": amount}], "currency": "XOF",
                "escrow": {"beneficiary": self.seller}}  # fmt: skip
        made = await self.api("POST", "/orders", body)
        assert made.status == 201, made.said
        return str(made.said["id"])

    async def pay(self, order: str, amount: int = 5_000) -> None:
        """The buyer pays it by card."""
        wish = {"amount": amount, "currency": "XOF", "method": "card", "order": order, "return_url": BACK,
                "customer": {"name": BUYER.name, "email": BUYER.email}}  # fmt: skip
        paid = await self.api("POST", "/payments", wish)
        assert paid.status == 201, paid.said
        await self.c.pay(paid.said["id"])

    async def released(self, amount: int = 5_000) -> str:
        """A hold whose money is the seller's. Returns its id."""
        _, hold = await self.bought(amount)
        assert (await self.api("POST", f"/holds/{hold}/release", {"reason": "the buyer called"})).status == 200
        return hold

    async def buyer(self, hold: str) -> Api:
        """The buyer, with their token."""
        given = await self.api("POST", f"/holds/{hold}/buyer_link")
        assert given.status == 201, given.said
        return Api(self.c.till, given.said["token"])

    async def payout(self, amount: int = 1_000, **more: Any) -> Answer:
        """Somebody asks for one."""
        body = {"beneficiary": self.seller, "amount": amount, "currency": "XOF", **more}
        return await self.api("POST", "/payouts", body)

    async def ledger(self) -> tuple[Any, ...]:
        """All that no refused request may change."""
        sums = select(ledger_accounts.c.id, ledger_accounts.c.debits_minor, ledger_accounts.c.credits_minor)
        states = select(holds.c.id, holds.c.state, holds.c.version), select(payouts.c.id, payouts.c.state)
        count = select(func.count()).select_from(postings)

        def look(tx: Any) -> tuple[Any, ...]:
            return tuple(tuple(map(tuple, tx.execute(query))) for query in (sums, count, *states))

        return await self.c.till.app.db.read(look)


@asynccontextmanager
async def market(directory: Path, **terms: Any) -> AsyncIterator[Market]:
    """Switched on as a merchant would; what is released stays in the balance, unless `terms` say otherwise."""
    async with counter(directory, "stripe") as c:
        api = api_of(c.till)
        on = {"enabled": True, "understood": True, "payout_on_release": False, **terms}
        assert (await api("PATCH", "/escrow", on)).status == 200
        made = await api("POST", "/beneficiaries", {"currency": "XOF", "payee": SELLER, "reference": "moussa"})
        assert made.status == 201, made.said
        second = await another(c.till)
        newest = await c.till.app.db.read(lambda tx: tx.execute(select(func.max(api_keys.c.id))).scalar_one())
        yield Market(c, api, second, made.said["id"], f"api:{newest}")


def play(directory: Path, story: Callable[[Market], Awaitable[None]], **terms: Any) -> None:
    """One story in a market of its own."""

    async def run() -> None:
        async with market(directory, **terms) as m:
            await story(m)

    asyncio.run(run())


# --- the terms ------------------------------------------------------------------------------------------


def test_it_is_off_until_somebody_has_read_the_notice(tmp_path: Path) -> None:
    """No order is held before; the first time needs `understood`, later times do not, and what is not given stays."""

    async def run() -> None:
        async with counter(tmp_path, "stripe") as c:
            api = api_of(c.till)
            seen = (await api("GET", "/escrow")).said
            assert (seen["enabled"], seen["release_hours"]) == (False, 48) and "licence" in seen["notice"]
            seller = (await api("POST", "/beneficiaries", {"currency": "XOF", "payee": SELLER})).said["id"]
            order = {"lines": [{"description": "Couture", "unit_amount": 5_000}], "currency": "XOF",
                     "escrow": {"beneficiary": seller}}  # fmt: skip
            refused = await api("POST", "/orders", order)
            assert (refused.status, refused.code) == (409, "escrow_off")
            unread = await api("PATCH", "/escrow", {"enabled": True})
            assert (unread.status, unread.code) == (422, "not_understood") and "licence" in unread.said["detail"]
            assert not (await api("GET", "/escrow")).said["enabled"]
            on = (await api("PATCH", "/escrow", {"enabled": True, "understood": True, "release_hours": 24})).said
            assert (on["enabled"], on["release_hours"], on["undelivered_days"]) == (True, 24, 14)
            more = {"approve_above": {"XOF": 100_000, "EUR": 0}, "timezone": "Africa/Abidjan"}
            assert (await api("PATCH", "/escrow", more)).said["approve_above"] == {"EUR": 0, "XOF": 100_000}
            less = (await api("PATCH", "/escrow", {"approve_above": {"EUR": None}, "timezone": None})).said
            assert (less["approve_above"], less["timezone"], less["release_hours"]) == ({"XOF": 100_000}, None, 24)
            assert not (await api("PATCH", "/escrow", {"enabled": False})).said["enabled"]
            assert (await api("PATCH", "/escrow", {"enabled": True})).said["enabled"], "it was understood before"
            assert (await api("POST", "/orders", order)).said["escrow"] == {"beneficiary": seller, "hold": None}
            await c.till.app.db.write(lambda tx: tx.execute(update(accounts).values(live=True)))
            real = await api("PATCH", "/escrow", {"release_hours": 0})
            assert (real.status, real.code) == (403, "test_key"), "a test key decides nothing about real money"
            await c.till.app.db.write(lambda tx: tx.execute(update(accounts).values(live=False)))
            before = (await api("GET", "/escrow")).said
            for wrong, status, code in (
                ({}, 422, "nothing_to_change"),
                ({"understood": True}, 422, "nothing_to_change"),
                ({"release_hours": -1}, 400, "bad_field"),
                ({"release_hours": 1.5}, 400, "bad_field"),
                ({"undelivered_days": 366}, 400, "bad_field"),
                ({"approve_above": {"XOF": -1}}, 400, "bad_field"),
                ({"approve_above": {"XOF": 2**63}}, 400, "bad_field"),
                ({"approve_above": {"ZZZ": 5}}, 422, "bad_approve_above"),
                ({"timezone": "Mars/Olympus"}, 422, "bad_timezone"),
                ({"timezone": "../../etc/passwd"}, 422, "bad_timezone"),
                ({"timezone": ""}, 422, "bad_timezone"),
                ({"on": True}, 400, "bad_field"),
            ):
                answer = await api("PATCH", "/escrow", wrong)
                assert (answer.status, answer.code) == (status, code), (wrong, answer.said)
            assert (await api("GET", "/escrow")).said == before

    asyncio.run(run())


# --- the buyer ------------------------------------------------------------------------------------------


def test_the_buyer_confirms_and_nobody_in_their_place(tmp_path: Path) -> None:
    """With their own token, for their own order: released, completed, once. No API key and no other token will do."""

    async def story(m: Market) -> None:
        waiting = await m.ordered()
        assert (await m.api("GET", f"/orders/{waiting}")).said["escrow"]["hold"] is None
        order, hold = await m.bought()
        other, other_hold = await m.bought()
        buyer, stranger = await m.buyer(hold), await m.buyer(other_hold)
        before = await m.ledger()
        for who in (m.api, m.second, await another(m.c.till, live=True), stranger, Api(m.c.till, "x" * 43)):
            for door, body in (("confirm", None), ("dispute", {"reason": "it is torn"})):
                refused = await who("POST", f"/orders/{order}/{door}", body)
                assert (refused.status, refused.code) == (401, "unauthorized"), refused.said
        for path in (f"/orders/{waiting}/confirm", "/orders/ord_none/confirm", f"/orders/{other}/confirm"):
            assert (await buyer("POST", path)).status == 401
        assert await m.ledger() == before
        newer = await m.buyer(hold)
        assert (await buyer("POST", f"/orders/{order}/confirm")).status == 401, "the newer link takes its place"
        done = await newer("POST", f"/orders/{order}/confirm", once="mine")
        assert (done.status, done.said) == (200, {"order": order, "state": "completed", "hold": "released"})
        seen = (await m.api("GET", f"/orders/{order}")).said
        assert seen["state"] == "completed" and seen["delivered_at"] is not None
        after = await m.ledger()
        assert (await newer("POST", f"/orders/{order}/confirm")).said == done.said
        assert (await newer("POST", f"/orders/{order}/confirm", once="mine")).replayed
        for who in (m.api, stranger, Api(m.c.till, "x" * 43)):
            again = await who("POST", f"/orders/{order}/confirm", once="mine")
            assert again.status == 401, "the same Idempotency-Key in another's hand brings no token"
        assert (await newer("POST", f"/orders/{order}/dispute", {"reason": "too late"})).code == "hold_released"
        assert await m.ledger() == after
        trail = await m.c.till.rows(audit, audit.c.actor == "buyer")
        assert {row.action for row in trail} == {"hold.released", "order.delivered", "order.completed"}
        assert (await m.api("GET", f"/holds/{other_hold}")).said["status"] == "held"
        theirs = await stranger("POST", f"/orders/{other}/confirm", once="mine")
        assert (theirs.status, theirs.replayed) == (200, False), "two buyers may take the same Idempotency-Key"

    play(tmp_path, story)


def test_the_buyer_objects_and_a_person_or_the_buyer_frees_it(tmp_path: Path) -> None:
    """Frozen with their words before a person; released by nobody else meanwhile; unfrozen with a reason it goes on."""

    async def story(m: Market) -> None:
        order, hold = await m.bought()
        buyer = await m.buyer(hold)
        for wrong in ({}, {"reason": ""}, {"reason": "x" * 501}, {"reason": "a\0b"}, {"reason": 5}):
            assert (await buyer("POST", f"/orders/{order}/dispute", wrong)).status == 400, wrong
        assert (await buyer("POST", f"/orders/{order}/dispute", {"reason": "  "})).code == "no_reason"
        assert (await m.api("GET", f"/holds/{hold}")).said["status"] == "held"
        said = "The dress is torn, “<b>”, =1+1"
        done = await buyer("POST", f"/orders/{order}/dispute", {"reason": said})
        assert done.said == {"order": order, "state": "paid", "hold": "frozen"}
        assert said in (await m.c.till.rows(audit, audit.c.action == "hold.disputed"))[0].reason
        (item,) = await m.c.till.rows(attention, attention.c.reason == "hold_frozen")
        assert (item.subject, item.detail) == (hold, f"buyer: {said}")
        seen = (await m.api("GET", f"/holds/{hold}")).said
        assert (seen["against"], seen["frozen"], seen["releasable"]) == (["buyer"], 5_000, 0)
        before = await m.ledger()
        refused = await m.api("POST", f"/holds/{hold}/release", {"reason": "they are wrong"})
        assert (refused.status, refused.code) == (409, "hold_frozen") and "buyer" in refused.said["detail"]
        assert await m.ledger() == before
        assert (await m.api("POST", f"/holds/{hold}/unfreeze", {"reason": " "})).code == "no_reason"
        free = await m.api("POST", f"/holds/{hold}/unfreeze", {"reason": "a new dress was sent"})
        assert (free.status, free.said["status"], free.said["releasable"]) == (200, "held", 5_000)
        again = await m.api("POST", f"/holds/{hold}/unfreeze", {"reason": "again"})
        assert (again.status, again.code) == (409, "not_frozen")
        other, its_hold = await m.bought()
        content = await m.buyer(its_hold)
        await content("POST", f"/orders/{other}/dispute", {"reason": "it has not come"})
        # It has come after all: who alone has objected may withdraw that by confirming.
        assert (await content("POST", f"/orders/{other}/confirm")).said["hold"] == "released"
        assert (await buyer("POST", f"/orders/{order}/confirm")).said["hold"] == "released"

    play(tmp_path, story)


# --- who sells cannot be the buyer, who asks cannot approve -------------------------------------------------


def test_scopes_keep_the_hands_apart(tmp_path: Path) -> None:
    """Writing holds gives no buyer's link, writing payouts no approval, writing beneficiaries no payee's approval."""

    async def story(m: Market) -> None:
        hold = await m.released()
        asked = (await m.payout()).said["id"]
        writer = await another(
            m.c.till, scopes=("orders:write", "holds:write", "beneficiaries:write", "payouts:write", "escrow:read")
        )
        before = await m.ledger()
        decided = {"outcome": "paid", "reason": "seen"}
        for path, body, scope in (
            (f"/holds/{hold}/buyer_link", None, "holds:link"),
            (f"/payouts/{asked}/approve", {}, "payouts:approve"),
            (f"/payouts/{asked}/decide", decided, "payouts:approve"),
            (f"/beneficiaries/{m.seller}/payee/approve", {"reason": "called", "payee": "x"}, "beneficiaries:approve"),
        ):
            refused = await writer("POST", path, body)
            assert (refused.status, refused.code) == (403, "missing_scope") and scope in refused.said["detail"]
        assert (await writer("PATCH", "/escrow", {"enabled": False})).status == 403
        for path in ("/holds", "/payouts", "/beneficiaries"):
            assert (await writer("GET", path)).status == 200
        linker = await another(m.c.till, scopes=("holds:link",))
        assert (await linker("GET", "/holds")).status == 403
        assert (await linker("POST", f"/holds/{hold}/release", {"reason": "x"})).status == 403
        assert await m.ledger() == before

    play(tmp_path, story)


def test_a_payout_is_asked_for_approved_by_another_and_paid(tmp_path: Path) -> None:
    """Called off and asked for again, approved by another key, paid by the provider, in the payment's timeline."""

    async def story(m: Market) -> None:
        hold = await m.released()
        first = (await m.payout(5_000, hold=hold, description="Couture")).said["id"]
        off = await m.api("POST", f"/payouts/{first}/cancel", {"reason": "wrong day"})
        assert (off.status, off.said["status"]) == (200, "canceled")
        assert (await m.api("POST", f"/payouts/{first}/cancel", {})).said == off.said
        asked = await m.api("POST", f"/payouts/{first}/retry", once="again")
        assert (await m.api("POST", f"/payouts/{first}/retry", once="again")).replayed
        assert (asked.said["retry_of"], asked.said["description"]) == (first, "Couture")
        twice = await m.api("POST", f"/payouts/{first}/retry")
        assert (twice.status, twice.code) == (409, "retried_already") and asked.said["id"] in twice.said["detail"]
        assert (asked.status, asked.said["status"], asked.said["hold"]) == (201, "awaiting_approval", hold)
        path = f"/payouts/{asked.said['id']}"
        before = await m.ledger()
        own = await m.api("POST", f"{path}/approve", {"reason": "it is mine"})
        assert (own.status, own.code) == (403, "second_person")
        short = await m.payout(1)
        assert (short.status, short.code) == (409, "balance_short") and "0 XOF" in short.said["detail"]
        assert await m.ledger() == before
        approved = await m.second("POST", f"{path}/approve", {"reason": "checked"}, once="go")
        assert approved.status == 200 and approved.said["approved_by"] == m.second_actor
        assert (await m.second("POST", f"{path}/approve", {"reason": "checked"}, once="go")).replayed
        await m.c.settle(4)
        paid = (await m.api("GET", path)).said
        assert (paid["status"], paid["provider"]) == ("paid", "stripe"), paid
        for door, body, code in (
            ("approve", {}, "not_awaiting"), ("cancel", {}, "not_cancelable"), ("retry", None, "not_failed"),
            ("otp", {"otp": "123456"}, "no_otp_wanted"), ("decide", {"outcome": "paid", "reason": "x"}, "not_unknown"),
        ):  # fmt: skip
            refused = await m.second("POST", f"{path}/{door}", body)
            assert (refused.status, refused.code) == (409, code), refused.said
        second = await m.payout(1, hold=hold)
        assert (second.status, second.code) == (409, "hold_paid_out")
        payment = (await m.api("GET", "/payments")).said["data"][0]["id"]
        entries = (await m.api("GET", f"/payments/{payment}/timeline")).said["entries"]
        told = {entry["what"]: entry["text"] for entry in entries}
        assert told["hold"].endswith("released") and told["payout"].endswith("paid"), entries
        assert any("payout.approved" in entry["text"] for entry in entries)
        assert [row["id"] for row in (await m.api("GET", f"/payouts?hold={hold}&status=paid")).said["data"]] == [
            asked.said["id"]
        ]

    play(tmp_path, story)


# --- where the money goes -----------------------------------------------------------------------------------


def test_a_changed_payee_waits_for_a_day_or_for_a_second_person(tmp_path: Path) -> None:
    """Not paid meanwhile; not approved by who changed it; approved by another it counts at once."""

    async def story(m: Market) -> None:
        await m.released()
        path = f"/beneficiaries/{m.seller}"
        same = await m.api("POST", f"{path}/payee", SELLER)
        assert same.status == 200
        first = same.said["payee"]["id"]
        at_once = {"payee": first, "reason": "x"}
        assert (await m.second("POST", f"{path}/payee/approve", at_once)).code == "nothing_waits"
        seen = (await m.api("POST", f"{path}/payee", SELLER | {"number": "acct_1Moussa"})).said["payee"]["id"]
        moved = await m.api("POST", f"{path}/payee", SELLER | {"number": "acct_1Thief99"})
        assert moved.said["payee"]["number"] == "…ef99" and moved.said["payee"]["approved_by"] is None
        new = moved.said["payee"]["id"]
        assert len({first, seen, new}) == 3
        before = await m.ledger()
        waits = await m.payout()
        assert (waits.status, waits.code) == (409, "payee_waits")
        own = await m.api("POST", f"{path}/payee/approve", {"payee": new, "reason": "mine"})
        assert (own.status, own.code) == (403, "second_person")
        assert await m.ledger() == before
        assert (await m.second("POST", f"{path}/payee/approve", {"reason": "called"})).status == 400
        for wrong, status in (({}, 400), ({"reason": ""}, 400), ({"reason": "  "}, 422)):
            assert (await m.second("POST", f"{path}/payee/approve", {"payee": new} | wrong)).status == status
        stale = await m.second("POST", f"{path}/payee/approve", {"payee": seen, "reason": "I called Moussa"})
        assert (stale.status, stale.code) == (409, "payee_changed")
        assert (await m.payout()).code == "payee_waits"
        good = await m.second("POST", f"{path}/payee/approve", {"payee": new, "reason": "I called Moussa"})
        assert good.status == 200 and good.said["payee"]["approved_by"] == m.second_actor
        assert (await m.payout()).status == 201

    play(tmp_path, story)


def test_a_disabled_beneficiary_gets_nothing(tmp_path: Path) -> None:
    """No payout, no new hold; enabled again both."""

    async def story(m: Market) -> None:
        await m.released()
        path = f"/beneficiaries/{m.seller}"
        assert (await m.api("PATCH", path, {"active": False})).said["active"] is False
        before = await m.ledger()
        assert ((await m.payout()).status, (await m.payout()).code) == (409, "beneficiary_disabled")
        order = {"lines": [{"description": "x", "unit_amount": 5}], "currency": "XOF",
                 "escrow": {"beneficiary": m.seller}}  # fmt: skip
        refused = await m.api("POST", "/orders", order)
        assert (refused.status, refused.code) == (422, "bad_escrow")
        assert await m.ledger() == before
        assert (await m.api("PATCH", path, {"active": True})).said["active"] is True
        assert (await m.payout()).status == 201
        assert [one["id"] for one in (await m.api("GET", "/beneficiaries?reference=moussa")).said["data"]] == [m.seller]

    play(tmp_path, story)


WALLET: Mapping[str, str] = {"kind": "mobile_money", "operator": "mtn", "country": "BJ", "number": "+22997808080",
                             "name": "Moussa"}  # fmt: skip
BANK: Mapping[str, str] = {"kind": "bank", "bank_code": "044", "number": "0690000031", "name": "Moussa"}
MALFORMED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({**SELLER, "kind": "cash"}, 400, "bad_field"),
    ({**SELLER, "number": ""}, 400, "bad_field"),
    ({**SELLER, "number": "acct_"}, 422, "bad_number"),
    ({**SELLER, "number": "acct_1;DROP TABLE"}, 422, "bad_number"),
    ({**SELLER, "number": "cus_1Seller"}, 422, "bad_number"),
    ({**SELLER, "number": 5}, 400, "bad_field"),
    ({**SELLER, "secret": "x"}, 400, "bad_field"),
    ({**WALLET, "operator": ""}, 422, "bad_operator"),
    ({**WALLET, "operator": "’; --"}, 422, "bad_operator"),
    ({**WALLET, "name": ""}, 422, "bad_name"),
    ({**WALLET, "name": " "}, 422, "bad_name"),
    ({**WALLET, "name": "a\0b"}, 400, "bad_json"),
    ({**WALLET, "name": "x" * 121}, 400, "bad_field"),
    ({**WALLET, "number": "12"}, 422, "bad_phone"),
    ({**WALLET, "number": "call me"}, 422, "bad_phone"),
    ({**WALLET, "number": "123"}, 422, "bad_phone"),
    ({**WALLET, "number": "+229 9780808"}, 422, "bad_phone"),
    ({**WALLET, "number": "+229 01 97 80 80 80 1"}, 422, "bad_phone"),
    ({**WALLET, "number": "+229 12 34 56 78"}, 422, "bad_phone"),
    ({**WALLET, "country": "", "number": "97808080"}, 422, "bad_phone"),
    ({**WALLET, "country": "Benin"}, 400, "bad_field"),
    ({**BANK, "number": "12"}, 422, "bad_number"),
    ({**BANK, "number": "=cmd|' /C calc'!A0"}, 422, "bad_number"),
    ({**BANK, "bank_code": ""}, 422, "bad_bank_code"),
    ({**BANK, "bank_code": "../044"}, 422, "bad_bank_code"),
    ({**BANK, "name": ""}, 422, "bad_name"),
)


def test_a_malformed_account_is_nobody_s(tmp_path: Path) -> None:
    """Neither as a first payee nor as the next one; each says which field, and the one before stays."""

    async def story(m: Market) -> None:
        before = (await m.api("GET", "/beneficiaries")).said
        for payee, status, code in MALFORMED:
            for answer in (
                await m.api("POST", "/beneficiaries", {"currency": "XOF", "payee": payee}),
                await m.api("POST", f"/beneficiaries/{m.seller}/payee", payee),
            ):
                assert (answer.status, answer.code) == (status, code), (payee, answer.said)
        for body, status, code in (
            ({"currency": "ZZZ", "payee": SELLER}, 422, "bad_currency"),
            ({"currency": "XOF", "payee": SELLER, "reference": "moussa"}, 409, "reference_taken"),
            ({"currency": "XOF", "payee": SELLER, "account": "acc_none"}, 422, "bad_account"),
            ({"currency": "XOF"}, 400, "bad_field"),
        ):
            answer = await m.api("POST", "/beneficiaries", body)
            assert (answer.status, answer.code) == (status, code), (body, answer.said)
        assert (await m.api("GET", "/beneficiaries")).said == before
        good = await m.api("POST", "/beneficiaries", {"currency": "XOF", "payee": dict(WALLET)})
        assert good.said["payee"]["number"] == "…8080", "the number is shown by its end alone"

    play(tmp_path, story)


# --- bad requests change nothing ------------------------------------------------------------------------------

AMOUNTS = (0, -1, 2**63, 2**53, 1.5, 1e3, "1000", None, True, [1])


def test_bad_payouts_are_refused_with_a_sentence_and_the_ledger_is_untouched(tmp_path: Path) -> None:
    """Amounts that are none, more than there is, holds that are not released, strangers, hostile texts."""

    async def story(m: Market) -> None:
        await m.released()
        _, held = await m.bought()
        wallet = (await m.api("POST", "/beneficiaries", {"currency": "XOF", "payee": dict(WALLET)})).said["id"]
        before = await m.ledger()
        for amount in AMOUNTS:
            wrong = await m.payout(amount)  # type: ignore[arg-type]
            assert wrong.status == 400 and wrong.said["field"] == "amount", (amount, wrong.said)
        long, odd = "x" * 501, "a\u2028b"
        for more, status, code in (
            ({"amount": 5_001}, 409, "balance_short"),
            ({"amount": 10**11}, 422, "above_maximum"),
            ({"currency": "EUR"}, 422, "bad_currency"),
            ({"currency": "xof"}, 400, "bad_field"),
            ({"source": "bank"}, 400, "bad_field"),
            ({"source": "merchant"}, 409, "balance_short"),
            ({"hold": held}, 409, "hold_not_released"),
            ({"hold": "hold_none"}, 404, "not_found"),
            ({"beneficiary": "ben_none"}, 404, "not_found"),
            ({"beneficiary": "' OR 1=1 --"}, 404, "not_found"),
            ({"beneficiary": wallet}, 422, "no_way"),
            ({"account": "acc_none"}, 422, "no_way"),
            ({"description": long}, 400, "bad_field"),
            ({"description": "a\0b"}, 400, "bad_json"),
            ({"live": True}, 400, "bad_field"),
        ):
            answer = await m.payout(**{"amount": 1_000, **more})
            assert (answer.status, answer.code) == (status, code), (more, answer.said)
        for path in (
            "/holds/none",
            "/payouts/none",
            "/beneficiaries/none",
            "/holds/%27%22%3B--",
            f"/payouts/{'x' * 199}",
        ):
            assert (await m.api("GET", path)).status == 404, path
        for path in ("/holds?status=open", "/payouts?status=x", "/holds?limit=0", "/payouts?limit=101", "/holds?a=1"):
            assert (await m.api("GET", path)).status == 400, path
        for escrow in ({}, {"beneficiary": ""}, {"beneficiary": None}, {"beneficiary": m.seller, "to": "y"}, "x", 5):
            order = {"lines": [{"description": "x", "unit_amount": 5}], "currency": "XOF", "escrow": escrow}
            assert (await m.api("POST", "/orders", order)).status == 400, escrow
        assert await m.ledger() == before
        assert (await m.payout(1_000, description=odd)).said["description"] == odd

    play(tmp_path, story)


def test_what_is_another_s_is_not_there(tmp_path: Path) -> None:
    """Another merchant, and the same merchant's live key: empty lists, 404 at every door, nothing changed."""

    async def story(m: Market) -> None:
        order, hold = await m.bought()
        await m.released()
        payout = (await m.payout()).said["id"]
        strangers = (
            await another(m.c.till, merchant=(await m.c.till.create_merchant("Other")).id),
            await another(m.c.till, live=True),
        )
        before = await m.ledger()
        why, seller = {"reason": "mine now"}, m.seller
        for who in strangers:
            assert (await who("PATCH", "/escrow", {"enabled": True, "understood": True})).status == 200
            for path in (
                "/holds",
                "/payouts",
                "/beneficiaries",
                f"/holds?order={order}",
                "/beneficiaries?reference=moussa",
            ):
                assert (await who("GET", path)).said["data"] == [], path
            for method, path, body in (
                ("GET", f"/holds/{hold}", None), ("GET", f"/payouts/{payout}", None),
                ("GET", f"/beneficiaries/{seller}", None),
                ("POST", f"/holds/{hold}/release", why), ("POST", f"/holds/{hold}/unfreeze", why),
                ("POST", f"/holds/{hold}/buyer_link", None),
                ("PATCH", f"/beneficiaries/{seller}", {"active": False}),
                ("POST", f"/beneficiaries/{seller}/payee", SELLER | {"number": "acct_1Thief"}),
                ("POST", f"/beneficiaries/{seller}/payee/approve", why | {"payee": "pye_x"}),
                ("POST", f"/payouts/{payout}/approve", why), ("POST", f"/payouts/{payout}/cancel", why),
                ("POST", f"/payouts/{payout}/retry", None), ("POST", f"/payouts/{payout}/otp", {"otp": "1"}),
                ("POST", f"/payouts/{payout}/decide", why | {"outcome": "paid"}),
                ("POST", "/payouts", {"beneficiary": seller, "amount": 1, "currency": "XOF"}),
            ):  # fmt: skip
                answer = await who(method, path, body)
                assert (answer.status, answer.code) == (404, "not_found"), (path, answer.said)
            lines = [{"description": "x", "unit_amount": 5}]
            theirs = {"lines": lines, "currency": "XOF", "escrow": {"beneficiary": seller}}
            assert (await who("POST", "/orders", theirs)).code == "bad_escrow"
        assert await m.ledger() == before
        assert (await m.api("GET", f"/beneficiaries/{seller}")).said["payee"]["number"] == "…ller"

    play(tmp_path, story)
