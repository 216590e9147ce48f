"""Delayed payout from the command line: beside the running service, and alone when nothing runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from service.cli import caisse
from service.cli.run import sentence_for
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
            on = await asyncio.to_thread(
                caisse_.run, "escrow", "set", merchant, "--on", "--hours", "24", "--approve-above", "XOF=100",
                "--approve-above", "eur=5", "--no-payout-on-release", "--timezone", "Africa/Abidjan",
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
            assert paid["id"] == payout
            for wrong in (("otp", payout, "1"), ("decide", payout, "paid", "--reason", "x"), ("retry", payout)):
                assert payout in await caisse_.refused("payouts", *wrong)

            moved = await caisse_(
                "beneficiaries", "pay-to", seller, "--kind", "account", "--number", "acct_1Other", "--as", "awa"
            )
            assert moved["payee"]["number"] == "…ther"
            assert "waits a day" in await caisse_.refused("payouts", "add", seller, "--amount", "1")
            assert "second person" in await caisse_.refused(
                "beneficiaries", "approve", seller, "--as", "awa", "--reason", "I know him"
            )
            known = await caisse_("beneficiaries", "approve", seller, "--as", "moussa", "--reason", "I called")
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
