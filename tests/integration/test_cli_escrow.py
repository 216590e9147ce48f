"""Delayed payout from the command line: beside the running service, and alone when nothing runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service import commands
from service.cli import caisse, escrow
from service.cli.run import sentence_for
from service.errors import Refusal
from service.merchants.tables import audit
from tests.support.api import Api, api_of
from tests.support.paying import BUYER, Counter, counter

THERE = ("--kind", "account", "--number", "acct_1Seller", "--name", "Moussa")


class Terminal:
    """A command line in a directory."""

    def __init__(self, directory: Path) -> None:
        self.environment = {"CAISSE_DATABASE_URL": f"sqlite:///{directory}/caisse.db", "CAISSE_PORT": "0"}

    def run(self, *arguments: str) -> Result:
        """In this process, without a terminal."""
        return CliRunner().invoke(caisse, list(arguments), env=self.environment)

    async def __call__(self, *arguments: str) -> Any:
        """The JSON that it prints."""
        done = await asyncio.to_thread(self.run, *arguments, "--json")
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return json.loads(done.stdout)

    async def refused(self, *arguments: str) -> str:
        """What is said to a person whose command did not work."""
        done = await asyncio.to_thread(self.run, *arguments)
        assert done.exit_code != 0, done.output
        return (sentence_for(done.exception) if isinstance(done.exception, Exception) else None) or done.output


async def bought(c: Counter, api: Api, seller: str) -> tuple[str, str]:
    """An order for the seller, paid; and its hold."""
    lines = [{"description": "Couture", "unit_amount": 5_000}]
    order = await api("POST", "/orders", {"lines": lines, "currency": "XOF", "escrow": {"beneficiary": seller}})
    wish = {"amount": 5_000, "currency": "XOF", "method": "card", "order": order.said["id"],
            "return_url": "https://shop.example/", "customer": {"name": BUYER.name, "email": BUYER.email}}  # fmt: skip
    await c.pay((await api("POST", "/payments", wish)).said["id"])
    return order.said["id"], (await api("GET", f"/orders/{order.said['id']}")).said["escrow"]["hold"]


def test_a_sale_is_held_released_and_paid_out_from_the_command_line(tmp_path: Path) -> None:
    """Terms with their notice, a seller, a hold, a payout that only a second, named person lets go."""
    caisse_ = Terminal(tmp_path)

    async def run() -> tuple[str, str]:
        async with counter(tmp_path, "stripe") as c:
            api, merchant = api_of(c.till), c.till.merchant.id  # type: ignore[union-attr]
            assert (await caisse_("escrow", "show", merchant))["enabled"] is False
            unread = await asyncio.to_thread(caisse_.run, "escrow", "set", merchant, "--on", "--json")
            assert unread.exit_code == 2 and "licence" in unread.stderr and unread.stdout == ""
            assert (await caisse_("escrow", "show", merchant))["enabled"] is False, "nobody has understood anything"
            on = await asyncio.to_thread(
                caisse_.run, "escrow", "set", merchant, "--on", "--understood", "--hours", "24",
                "--approve-above", "XOF=100", "--approve-above", "eur=5", "--no-payout-on-release",
                "--timezone", "Africa/Abidjan",
            )  # fmt: skip
            assert on.exit_code == 0 and "licence" in on.stderr and "licence" not in on.stdout
            shown = await caisse_("escrow", "set", merchant, "--approve-above", "EUR=none", "--timezone", "")
            assert (shown["enabled"], shown["release_hours"], shown["payout_on_release"]) == (True, 24, False)
            assert (shown["approve_above"], shown["timezone"]) == ({"XOF": 100}, None)
            for wrong in (("--approve-above", "XOF"), ("--approve-above", "XOF=-5"), ("--hours", "x"), ()):
                assert "Traceback" not in await caisse_.refused("escrow", "set", merchant, *wrong)
            assert "no merchant" in await caisse_.refused("escrow", "show", "mer_none")

            made = await caisse_("beneficiaries", "add", merchant, "--currency", "XOF", *THERE, "--as", "Awa")
            seller = made["id"]
            listed = await asyncio.to_thread(caisse_.run, "beneficiaries", "list", "--merchant", merchant)
            assert "…ller" in listed.stdout and "acct_1Seller" not in listed.stdout
            order, hold = await bought(c, api, seller)
            (held,) = await caisse_("holds", "list", "--status", "held")
            assert (held["id"], held["order"], held["merchant"]) == (hold, order, merchant)
            assert await caisse_("holds", "list", "--after", hold) == []
            table = await asyncio.to_thread(caisse_.run, "holds", "list")
            assert hold in table.stdout and "5 000 XOF" in table.stdout and "Moussa" in table.stdout
            for group in ("holds", "payouts"):
                assert "is not one of" in await caisse_.refused(group, "list", "--status", "bogus")
                with pytest.raises(Refusal, match="status: one of"):
                    await commands.run(c.till.app, f"{group}.list", {"status": "bogus"})
            (balance,) = await caisse_("balances", "--beneficiary", seller)
            assert (balance["name"], balance["pending"]) == ("Moussa", 5_000), "in JSON minor units"
            link = await caisse_("holds", "buyer-link", hold)
            assert (link["order"], len(link["token"])) == (order, 43)
            await Api(c.till, link["token"])("POST", f"/orders/{order}/dispute", {"reason": "torn"})
            assert "frozen (buyer)" in await caisse_.refused("holds", "release", hold, "--reason", "x")
            assert (await caisse_("holds", "unfreeze", hold, "--reason", "mended"))["status"] == "held"
            assert "--reason" in await caisse_.refused("holds", "release", hold)
            released = await caisse_("holds", "release", hold, "--reason", "she called", "--as", "  AWA ")
            assert (released["status"], released["released"]) == ("released", 5_000)
            assert (await c.till.rows(audit, audit.c.action == "hold.released"))[0].actor == "cli:awa"

            nameless = (await caisse_("payouts", "add", seller, "--amount", "200"))["id"]
            said = await caisse_.refused("payouts", "approve", nameless, "--as", "moussa")
            assert "no second person" in said, "who asked without a name may be anybody"
            assert (await caisse_("payouts", "cancel", nameless))["status"] == "canceled"
            payout = (await caisse_("payouts", "add", seller, "--amount", "200", "--hold", hold, "--as", "awa"))["id"]
            assert "--as" in await caisse_.refused("payouts", "approve", payout)
            assert "second person" in await caisse_.refused("payouts", "approve", payout, "--as", "Awa")
            assert "a name has" in await caisse_.refused("payouts", "approve", payout, "--as", "; rm -rf")
            assert (await caisse_("payouts", "show", payout))["status"] == "awaiting_approval"
            approved = await caisse_("payouts", "approve", payout, "--as", "moussa", "--reason", "checked")
            assert approved["approved_by"] == "cli:moussa"
            assert "can be paid out" in await caisse_.refused("payouts", "add", seller, "--amount", "4801")
            await c.settle(4)
            (paid,) = await caisse_("payouts", "list", "--status", "paid", "--hold", hold)
            assert (paid["id"], paid["seller"], paid["amount"]) == (payout, "Moussa", 200)
            for wrong in (("otp", payout, "1"), ("decide", payout, "paid", "--reason", "x"), ("retry", payout)):
                assert payout in await caisse_.refused("payouts", *wrong)

            to = ("beneficiaries", "pay-to", seller, "--kind", "account", "--as", "awa", "--number")
            seen = (await caisse_(*to, "acct_1Moussa"))["payee"]["id"]
            moved = await caisse_(*to, "acct_1Other")
            new = moved["payee"]["id"]
            assert moved["payee"]["number"] == "…ther"
            assert "waits a day" in await caisse_.refused("payouts", "add", seller, "--amount", "1")
            assert "second person" in await caisse_.refused(
                "beneficiaries", "approve", seller, new, "--as", "awa", "--reason", "I know him"
            )
            called = ("--as", "moussa", "--reason", "I called")
            assert "changed again" in await caisse_.refused("beneficiaries", "approve", seller, seen, *called)
            known = await caisse_("beneficiaries", "approve", seller, new, *called)
            assert known["payee"]["approved_by"] == "cli:moussa"
            assert (await caisse_("beneficiaries", "disable", seller))["active"] is False
            assert "disabled" in await caisse_.refused("payouts", "add", seller, "--amount", "1")
            for wrong in (("payouts", "show", "po_none"), ("holds", "show", "x"), ("beneficiaries", "show", "x")):
                said = await caisse_.refused(*wrong)
                assert f"caisse {wrong[0]} list" in said, said
            return seller, hold

    seller, hold = asyncio.run(run())
    alone = caisse_.run("beneficiaries", "enable", seller, "--json")
    assert json.loads(alone.stdout)["active"] is True, "the same when no service runs"
    assert json.loads(caisse_.run("holds", "show", hold, "--json").stdout)["status"] == "released"
    link = json.loads(caisse_.run("beneficiaries", "link", seller, "--json").stdout)
    assert link["url"].startswith("/balance/") and len(link["url"]) > 43


def test_a_person_is_asked_before_delayed_payout_is_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice comes first; no leaves it off, yes switches it on, and once it is on nobody is asked again."""
    monkeypatch.setattr(escrow, "_is_person", lambda: True)
    caisse_ = Terminal(tmp_path)
    merchant = json.loads(caisse_.run("merchant", "create", "Shop", "--json").stdout)["id"]

    def switch_on(answer: str) -> Result:
        said = ["escrow", "set", merchant, "--on"]
        return CliRunner().invoke(caisse, said, env=caisse_.environment, input=answer)

    no = switch_on("n\n")
    assert no.exit_code == 1 and no.stderr.index("licence") < no.stderr.index("You have understood")
    assert json.loads(caisse_.run("escrow", "show", merchant, "--json").stdout)["enabled"] is False
    assert switch_on("y\n").exit_code == 0
    assert json.loads(caisse_.run("escrow", "show", merchant, "--json").stdout)["enabled"] is True
    assert "You have understood" not in switch_on("").stderr
