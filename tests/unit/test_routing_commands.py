"""`caisse routes`: the commands over a real database, and what a person sees of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

import service.callbacks.tables
import service.orders.tables  # noqa: F401 - the tables have to meet in the one MetaData
from service.application import Application
from service.cli import routes as cli
from service.commands import routes as commands
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants.accounts import Entry, Registry
from service.merchants.tables import accounts, audit, merchants
from service.payments.tables import payments
from service.schema import metadata
from tests.support.clock import Clock
from tests.support.database import Database

TABLE: dict[str, Callable[..., Awaitable[Any]]] = {
    "routes.list": commands.listed,
    "routes.show": commands.show,
    "routes.add": commands.add,
    "routes.change": commands.change,
    "routes.remove": commands.remove,
    "routes.order": commands.order,
    "routes.set": commands.set_all,
    "routes.simulate": commands.simulated,
}

KEYS = {"paystack": {"secret_keys": ["sk"]}, "fedapay": {"secret_key": ["sk"]}, "moneroo": {}}


class Installation:
    """A database with two merchants and the first one's accounts, and the commands over it."""

    def __init__(self, directory: Path) -> None:
        self.db = Database(directory / "caisse.db")
        clock = Clock()
        with self.db.engine.begin() as tx:
            metadata.create_all(tx)
            for n, name in enumerate(("mer_1", "mer_2")):
                tx.execute(insert(merchants).values(id=name, name=name, status="active", created_at_ms=n))
            for name in (*KEYS, "stripe"):
                row = {"id": f"acc_{name}", "provider": name, "live": True, "origin": "settings", "created_at_ms": 1}
                tx.execute(insert(accounts).values(**row, merchant_id="mer_1"))
        entries = [
            Entry(f"acc_{name}", name, "mer_1", True, f"https://{name}.example", credentials)
            for name, credentials in KEYS.items()
        ]
        self.opened: set[str] = set()
        self.app = cast(
            Application,
            SimpleNamespace(
                db=self.db,
                clock=clock,
                ids=Ids(clock),
                registry=Registry(entries),
                circuits=SimpleNamespace(opened=lambda: frozenset(self.opened)),
            ),
        )

    def run(self, name: str, /, *, progress_of: str | None = None, **arguments: Any) -> Any:
        """As the running process would: arguments and answer are JSON."""
        given = json.loads(json.dumps(arguments))
        return json.loads(json.dumps(asyncio.run(self._run(name, given))))

    async def _run(self, name: str, given: dict[str, Any]) -> Any:
        return await TABLE[name](self.app, **given)

    def pay(self, count: int, **values: Any) -> None:
        row: dict[str, Any] = {
            "merchant_id": "mer_1", "origin": "caisse", "live": True, "status": "succeeded", "amount_minor": 5000,
            "currency": "XOF", "provider": "paystack", "method": "mobile_money", "country": "CI", "operator": "mtn",
            "created_at_ms": 1, "updated_at_ms": 1,
        }  # fmt: skip
        with self.db.engine.begin() as tx:
            there = tx.exec_driver_sql("SELECT count(*) FROM payments").scalar_one()
            tx.execute(insert(payments), [{**row, **values, "id": f"pay_{there + n:06}"} for n in range(count)])


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    monkeypatch.setattr(cli, "run", installation.run)
    yield installation
    installation.db.close()


def terminal(*arguments: str) -> Result:
    """What the command line prints; a Refusal is in `exception`, as `service.cli.main` gets it."""
    return CliRunner().invoke(cli.routes, arguments)


def shown(*arguments: str) -> str:
    done = terminal(*arguments)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


MTN = {"currency": "XOF", "country": "CI", "method": "mobile_money", "operator": "mtn"}


# --- commands -----------------------------------------------------------------------------------------


def test_a_route_is_added_changed_ordered_and_removed(it: Installation) -> None:
    """Through the commands alone, with the audit trail of somebody at the command line."""
    first = it.run("routes.add", fields={"providers": ["paystack", "fedapay"], **MTN})
    second = it.run("routes.add", fields={"providers": "fedapay"}, actor="api:key_1")
    assert it.run("routes.change", route=first["id"], fields={"weight": 5})["version"] == 2
    assert [one["id"] for one in it.run("routes.order", groups=[[second["id"]], [first["id"]]])] == [
        second["id"],
        first["id"],
    ]
    it.run("routes.remove", route=second["id"])
    assert [one["weight"] for one in it.run("routes.list")] == [5]
    assert it.run("routes.show", route=first["id"])["operator"] == ["mtn"]
    with it.db.engine.connect() as tx:
        trail = [(row.actor, row.action) for row in tx.execute(audit.select())]
    assert trail[:3] == [("cli", "route.added"), ("api:key_1", "route.added"), ("cli", "route.changed")]


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("routes.add", {"fields": []}, "bad_route"),
        ("routes.change", {"route": "rt_1", "fields": {}}, "nothing_to_change"),
        ("routes.change", {"route": "rt_1", "fields": {"weight": 2}}, "not_found"),
        ("routes.order", {"groups": "rt_1"}, "bad_order"),
        ("routes.order", {"groups": [[7]]}, "bad_order"),
        ("routes.set", {"routes": {"providers": []}}, "bad_route"),
        ("routes.simulate", {}, "bad_amount"),
        ("routes.simulate", {"amount": 0, **MTN}, "bad_amount"),
        ("routes.simulate", {"amount": 1.5, **MTN}, "bad_amount"),
        ("routes.simulate", {"amount": 5, "method": "card"}, "bad_currency"),
        ("routes.simulate", {"amount": 5, "currency": "XOF"}, "bad_method"),
        ("routes.simulate", {"amount": 5, **MTN, "operator": "orang"}, "bad_operator"),
        ("routes.simulate", {"amount": 5, **MTN, "country": "Mali"}, "bad_country"),
        ("routes.simulate", {"amount": 5, **MTN, "merchant": "mer_9"}, "not_found"),
        ("routes.simulate", {"amount": 5, **MTN, "draft": "x"}, "bad_route"),
        ("routes.simulate", {"amount": 5, **MTN, "draft": [{"providers": "x"}]}, "unknown_provider"),
        ("routes.simulate", {"amount": 5, **MTN, "providers": ["x"] * 11}, "bad_providers"),
        ("routes.simulate", {"replay": 10_001}, "bad_replay"),
        ("routes.simulate", {"replay": -1}, "bad_replay"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(it: Installation, name: str, arguments: dict[str, Any], code: str) -> None:
    """With a word and a sentence, never with a traceback."""
    with pytest.raises(Refusal) as refused:
        it.run(name, **arguments)
    assert refused.value.code == code


def test_a_simulation_chooses_as_a_payment_would(it: Installation) -> None:
    """On the stored rules, the accounts as they are and their circuits; another merchant has no accounts."""
    it.run("routes.add", fields={"providers": ["paystack", "fedapay", "moneroo"], **MTN})
    told = it.run("routes.simulate", amount=5000, **MTN)
    assert (told["merchant"], told["live"], told["draft"]) == ("mer_1", True, False)
    assert [one["provider"] for one in told["explanation"]["chain"]] == ["paystack", "fedapay"]
    reasons = {one["provider"]: one["why"] for one in told["explanation"]["gateways"]}
    assert reasons["moneroo"] == {"word": "credentials_missing", "missing": ["secret_key"]}
    assert reasons["stripe"]["word"] == "capability"
    it.opened.add("acc_paystack")
    told = it.run("routes.simulate", amount=5000, **MTN)
    assert [one["provider"] for one in told["explanation"]["chain"]] == ["fedapay"]
    other = it.run("routes.simulate", amount=5000, **MTN, merchant="mer_2")
    assert (other["explanation"]["chain"], other["explanation"]["gateways"]) == ([], [])


def test_a_draft_is_tried_and_not_stored(it: Installation) -> None:
    """Also an empty one, which means the default order."""
    it.run("routes.add", fields={"providers": ["paystack"]})
    draft = [{"providers": "fedapay", "country": "CI"}]
    told = it.run("routes.simulate", amount=5000, **MTN, draft=draft)
    assert told["draft"] and told["explanation"]["rule"] == "draft_0001"
    assert it.run("routes.simulate", amount=5000, **MTN, draft=[])["explanation"]["decided_by"] == "default_order"
    assert [one["providers"] for one in it.run("routes.list")] == [["paystack"]]


def test_a_replay_says_how_many_would_go_elsewhere(it: Installation) -> None:
    """The newest first, no more than asked for, each where its own values send it, with some of their ids."""
    it.pay(150)
    it.pay(60, country="GH", currency="GHS", operator="mtn")
    it.pay(30, provider="fedapay")
    it.pay(10, currency="KWD")
    it.pay(5, method=None, country=None, operator=None)
    it.pay(7, merchant_id="mer_2")
    draft = [{"providers": "fedapay", "currency": "XOF"}]
    ran: list[tuple[int, int | None]] = []

    async def replay() -> Any:
        return await commands.simulated(it.app, replay=10_000, draft=draft, progress=lambda n, of: ran.append((n, of)))

    told = asyncio.run(replay())["replay"]
    assert {name: told[name] for name in ("looked", "same", "elsewhere", "nowhere", "skipped")} == {
        "looked": 262, "same": 90, "elsewhere": 150, "nowhere": 17, "skipped": 5,
    }  # fmt: skip
    assert told["moves"][0] == {
        "from": "paystack", "to": "fedapay", "count": 150, "samples": ["pay_000149", "pay_000148", "pay_000147"],
    }  # fmt: skip
    assert told["moves"][1]["to"] is None
    assert ran == [(100, 10_000), (200, 10_000), (262, 10_000)]
    assert it.run("routes.simulate", replay=20)["replay"]["looked"] == 20
    assert it.run("routes.simulate", replay=100, merchant="mer_2")["replay"]["nowhere"] == 7


def test_a_replay_shares_payments_by_their_own_ids(it: Installation) -> None:
    """Half and half of forty, and not all of them where one payment would go."""
    it.pay(40)
    draft = [{"providers": "paystack", "priority": 0}, {"providers": "fedapay", "priority": 0}]
    told = it.run("routes.simulate", replay=100, draft=draft)["replay"]
    assert told["same"] + told["elsewhere"] == 40 and 5 < told["same"] < 35


# --- the terminal -------------------------------------------------------------------------------------

TOML = """
[[routes]]
providers = ["paystack", "fedapay"]
country = "CI"
note = "first"

[[routes]]
providers = "stripe"
method = "card"
soft_decline_failover = true
"""


def test_a_file_is_set_shown_and_set_again(it: Installation, tmp_path: Path) -> None:
    """TOML by hand, the diff, the same file again, and JSON as it was printed."""
    file = tmp_path / "routes.toml"
    file.write_text(TOML)
    dry = shown("set", str(file), "--dry-run")
    assert "+ new  CI → paystack, fedapay" in dry and "Nothing was done; it would be: 2 added" in dry
    assert it.run("routes.list") == []
    assert "2 added, 0 changed, 0 removed, 0 unchanged." in shown("set", str(file))
    assert shown("set", str(file)).strip() == "0 added, 0 changed, 0 removed, 2 unchanged."
    printed = tmp_path / "printed.json"
    listed = json.loads(shown("list", "--json"))
    listed[0]["country"] = ["CI", "SN"]
    del listed[1]
    printed.write_text(json.dumps(listed))
    told = shown("set", str(printed))
    assert "    country: CI → CI, SN" in told and "- rt_" in told and "0 added, 1 changed, 1 removed" in told
    table = shown("list")
    assert "CI or SN" in table and "paystack, fedapay" in table and "first" in table
    printed.write_text("[]")
    assert "1 removed" in shown("set", str(printed))
    assert "There is no route" in shown("list")


@pytest.mark.parametrize(
    ("name", "body", "part"),
    [
        ("a.toml", "[[routes", "cannot be read as TOML"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "\udc80", "cannot be read as JSON"),
        ("a.json", '{"route": []}', "must hold a list"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.toml", "providers = 'stripe'", "must hold a list"),
        ("a.json", '[{"providers": "stripee"}]', "Rule 1: there is no provider 'stripee'; did you mean stripe"),
        ("a.json", " " * 900_001, "larger than 900 kB"),
    ],
    ids=lambda one: ascii(one)[:30],
)
def test_a_bad_file_is_refused_with_what_is_wrong(
    it: Installation, tmp_path: Path, name: str, body: str, part: str
) -> None:
    """And nothing is stored."""
    file = tmp_path / name
    file.write_bytes(body.encode(errors="surrogateescape"))
    done = terminal("set", str(file))
    assert isinstance(done.exception, Refusal) and part in done.exception.sentence
    assert it.run("routes.list") == []


def test_options_say_what_a_route_is(it: Installation) -> None:
    """Only those that are given reach the rule; a text without anything in it takes a condition away."""
    made = json.loads(
        shown(
            "add", "--providers", "paystack,fedapay", "--currency", "XOF", "--min-amount", "100", "--disabled", "--json"
        )
    )
    assert (made["min_amount"], made["enabled"], made["weight"]) == (100, False, 1)
    changed = json.loads(shown("change", made["id"], "--any-amount", "--currency", "", "--enabled", "--json"))
    assert (changed["min_amount"], changed["currency"], changed["enabled"]) == (None, [], True)
    assert changed["providers"] == ["paystack", "fedapay"]
    other = json.loads(shown("add", "--providers", "stripe", "--method", "card", "--json"))
    shown("order", f"{other['id']},{made['id']}")
    assert {one["priority"] for one in it.run("routes.list")} == {0}
    shown("remove", made["id"])
    assert isinstance(terminal("remove", made["id"]).exception, NotFound)


def test_a_simulation_can_be_read(it: Installation, tmp_path: Path) -> None:
    """The outcome first, then every rule and every gateway with its reason, then what past payments would do."""
    it.run("routes.add", fields={"providers": ["moneroo"], "country": ["SN"]})
    it.run("routes.add", fields={"providers": ["fedapay", "acc_paystack"]})
    it.pay(3)
    asked = [
        "--amount",
        "5000",
        "--currency",
        "XOF",
        "--country",
        "CI",
        "--method",
        "mobile_money",
        "--operator",
        "mtn",
    ]
    told = shown("simulate", *asked)
    assert "was taken: FedaPay (acc_fedapay), then Paystack (acc_paystack). (live, mer_1)" in told
    assert "the country is CI, the rule wants SN." in told
    assert "it cannot be called without secret_key." in told
    draft = tmp_path / "draft.json"
    draft.write_text('[{"providers": "fedapay"}]')
    told = shown("simulate", "--replay", "50", "--draft", str(draft))
    assert "Of 3 payments 0 would go where they went, 3 elsewhere, 0 nowhere" in told
    assert "pay_000002, pay_000001, pay_000000" in told
    named = json.loads(shown("simulate", *asked, "--providers", "paystack, acc_9", "--no-email", "--json"))
    assert named["explanation"]["not_here"] == ["acc_9"]
    assert named["explanation"]["decided_by"] == "request"
    reasons = {one["provider"]: one["why"] for one in named["explanation"]["gateways"]}
    assert reasons["paystack"] == {"word": "needs", "needs": ["email"]}
