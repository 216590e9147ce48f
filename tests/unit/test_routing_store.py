"""Stored routes: what is refused, what a change writes down, replacing the whole list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, select

import service.callbacks.tables
import service.orders.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants.accounts import Entry, Registry
from service.merchants.audit import By
from service.merchants.tables import accounts, audit, merchants
from service.providers import CALLS
from service.routing import store
from service.routing.draft import RULES_MAX, read, shown
from service.routing.gateways import gateways, missing
from service.routing.rules import Rule
from service.routing.tables import routes
from service.schema import metadata
from tests.support.clock import Clock

ACCOUNTS = {"acc_1": "mer_1", "acc_2": "mer_2", "acc_free": None}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tx() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        for name in ("mer_1", "mer_2"):
            connection.execute(merchants.insert().values(id=name, name=name, status="active", created_at_ms=1))
        for name, owner in ACCOUNTS.items():
            connection.execute(
                accounts.insert().values(
                    id=name, merchant_id=owner, provider="paystack", live=False, origin="stored", created_at_ms=1
                )
            )
        yield connection
    engine.dispose()


def by(clock: Clock) -> By:
    clock.advance(1)
    return By("test", clock(), Ids(clock))


def create(tx: Connection, clock: Clock, **fields: Any) -> Rule:
    return store.create(tx, {"providers": ["paystack"], **fields}, by(clock))


def set_all(tx: Connection, rules: list[Any], hand: By) -> store.Diff:
    diff = store.plan_set(tx, rules, hand)
    store.apply(tx, diff, hand)
    return diff


def written(tx: Connection) -> list[tuple[str, str, str]]:
    return [(row.action, row.subject, row.reason) for row in tx.execute(select(audit).order_by(audit.c.id))]


# --- reading what people write ------------------------------------------------------------------------

WRONG: list[tuple[Any, str, str]] = [
    ([], "bad_route", "must be a table"),
    ({}, "bad_providers", "names 1 to 10 providers"),
    ({"providers": []}, "bad_providers", "names 1 to 10 providers"),
    ({"providers": ["paystack"] * 2}, "bad_providers", "twice"),
    ({"providers": [f"acc_{n}" for n in range(11)]}, "bad_providers", "names 1 to 10"),
    ({"providers": 7}, "bad_providers", "is a list"),
    ({"providers": [7]}, "bad_providers", "is a list"),
    ({"providers": ["paystak"]}, "unknown_provider", "did you mean paystack"),
    ({"providers": ["zzz"]}, "unknown_provider", "there are stripe, paystack"),
    ({"providers": ["acc_9"]}, "unknown_account", "'acc_9'"),
    ({"providers": ["acc_2"], "merchant": "mer_1"}, "unknown_account", "'acc_2'"),
    ({"provider": ["paystack"]}, "bad_route", "no field 'provider'; did you mean providers"),
    ({"currency": "xof"}, "bad_currency", "written like XOF, not 'xof'"),
    ({"currency": "XOFF"}, "bad_currency", "written like XOF"),
    ({"currency": 5}, "bad_currency", "a word or a list"),
    ({"country": ["CI", "Senegal"]}, "bad_country", "written like CI, not 'Senegal'"),
    ({"country": [f"{a}{b}" for a in "ABC" for b in "ABCDEFG"]}, "bad_country", "at most 20"),
    ({"method": "cards"}, "bad_method", "did you mean card"),
    ({"operator": "orang"}, "bad_operator", "did you mean orange"),
    ({"operator": "o'two"}, "bad_operator", "there are orange, wave"),
    ({"min_amount": 1.5, "currency": "XOF"}, "bad_amount", "min_amount is a whole number"),
    ({"min_amount": True, "currency": "XOF"}, "bad_amount", "min_amount is a whole number"),
    ({"max_amount": -1, "currency": "XOF"}, "bad_amount", "max_amount is a whole number"),
    ({"max_amount": 10**15 + 1, "currency": "XOF"}, "bad_amount", "max_amount is a whole number"),
    ({"min_amount": 9, "max_amount": 8, "currency": "XOF"}, "bad_amount", "9 is above max_amount 8"),
    ({"min_amount": 9}, "bad_amount", "exactly one"),
    ({"min_amount": 9, "currency": ["XOF", "GHS"]}, "bad_amount", "exactly one (XOF has 0, GHS has 2 decimal places)"),
    ({"method": "card", "operator": "mtn"}, "bad_operator", "nothing would match"),
    ({"method": "mobile_money", "soft_decline_failover": True}, "bad_soft_decline_failover", "cards only"),
    ({"soft_decline_failover": "yes"}, "bad_soft_decline_failover", "true or false"),
    ({"enabled": 1}, "bad_enabled", "true or false"),
    ({"weight": 0}, "bad_weight", "from 1 to 1000"),
    ({"weight": 1001}, "bad_weight", "from 1 to 1000"),
    ({"weight": "3"}, "bad_weight", "from 1 to 1000"),
    ({"priority": -1}, "bad_priority", "from 0 to"),
    ({"note": "x" * 201}, "bad_note", "at most 200"),
    ({"note": "\x1b[31m"}, "bad_note", "printable"),
    ({"merchant": 7}, "bad_merchant", "an id, or null"),
]


@pytest.mark.parametrize(("fields", "code", "part"), WRONG, ids=lambda one: str(one)[:50])
def test_a_wrong_rule_is_refused_with_what_is_wrong(fields: Any, code: str, part: str) -> None:
    """Every field has its own word and a sentence that names the rule of the file."""
    whole = {"providers": ["paystack"], **fields} if fields and isinstance(fields, dict) else fields
    with pytest.raises(Refusal) as refused:
        read(whole, ACCOUNTS, where="Rule 3")
    assert refused.value.code == code
    assert refused.value.sentence.startswith("Rule 3") and part in refused.value.sentence


def test_a_rule_may_be_written_in_words_or_lists() -> None:
    """TOML by hand has "CI, SN", what was printed has lists; both are the same rule, and nothing means any."""
    short = read({"providers": "paystack, fedapay", "country": "CI, SN, CI,", "currency": ""}, ACCOUNTS)
    long = read({"providers": ["paystack", "fedapay"], "country": ["CI", "SN"], "operator": None}, ACCOUNTS)
    assert short == long == Rule("", ("paystack", "fedapay"), country=("CI", "SN"))
    assert read(json.loads(json.dumps(shown(long))), ACCOUNTS) == long


# --- one rule -----------------------------------------------------------------------------------------


def test_a_rule_comes_back_as_it_was_stored(tx: Connection, clock: Clock) -> None:
    """Every column makes the way there and back, with an id of its own and version 1."""
    fields = {
        "providers": ["acc_1", "fedapay"],
        "merchant": "mer_1",
        "currency": ["XOF"],
        "country": ["CI", "SN"],
        "method": ["card", "mobile_money"],
        "operator": ["mtn"],
        "min_amount": 100,
        "max_amount": 10**15,
        "priority": 7,
        "weight": 3,
        "soft_decline_failover": True,
        "enabled": False,
        "note": "Señalé",
    }
    made = create(tx, clock, **fields)
    assert made.id.startswith("rt_") and made.version == 1
    assert store.one(tx, made.id) == made
    assert {**shown(made)} == {**fields, "id": made.id}


def test_without_a_priority_a_rule_comes_last(tx: Connection, clock: Clock) -> None:
    """Ten behind the last, so that there is room between."""
    assert [create(tx, clock).priority for _ in range(3)] == [0, 10, 20]
    assert create(tx, clock, priority=5).priority == 5
    assert [rule.priority for rule in store.listed(tx)] == [0, 5, 10, 20]


def test_a_change_keeps_the_rest_counts_and_is_written_down(tx: Connection, clock: Clock) -> None:
    """Only what is given changes; the audit trail names it; what changes nothing writes nothing."""
    made = create(tx, clock, currency="XOF", min_amount=100)
    changed = store.change(tx, made.id, {"weight": 4, "providers": "fedapay"}, by(clock))
    assert (changed.currency, changed.min_minor, changed.weight, changed.version) == (("XOF",), 100, 4, 2)
    assert store.change(tx, made.id, {"weight": 4}, by(clock)) == changed == store.one(tx, made.id)
    assert written(tx) == [
        ("route.added", made.id, "XOF from 100 → paystack"),
        ("route.changed", made.id, 'weight: 4, providers: ["fedapay"]'),
    ]


def test_a_change_of_what_somebody_changed_meanwhile_is_refused(tx: Connection, clock: Clock) -> None:
    """The version that was read has to be the one that is there."""
    made = create(tx, clock)
    store.change(tx, made.id, {"weight": 2}, by(clock), version=1)
    with pytest.raises(Refusal, match="has version 2 now") as refused:
        store.change(tx, made.id, {"weight": 3}, by(clock), version=1)
    assert refused.value.code == "changed_meanwhile"
    assert store.one(tx, made.id).weight == 2


def test_a_change_is_checked_as_a_whole(tx: Connection, clock: Clock) -> None:
    """Taking the currency away from a rule with amounts leaves a rule that could not be written."""
    made = create(tx, clock, currency="XOF", min_amount=100)
    with pytest.raises(Refusal, match="exactly one"):
        store.change(tx, made.id, {"currency": ""}, by(clock))
    with pytest.raises(Refusal, match="stays its merchant's"):
        store.change(tx, made.id, {"merchant": "mer_1"}, by(clock))


def test_a_deleted_rule_is_gone_and_known_to_the_audit_trail(tx: Connection, clock: Clock) -> None:
    """What it said is kept in words, because stored explanations name its id."""
    made = create(tx, clock, country="CI")
    store.remove(tx, made.id, by(clock))
    assert store.listed(tx) == []
    assert written(tx)[-1] == ("route.deleted", made.id, "CI → paystack")
    for step in (
        lambda: store.remove(tx, made.id, by(clock)),
        lambda: store.change(tx, made.id, {"weight": 2}, by(clock)),
    ):
        with pytest.raises(NotFound):
            step()


def test_an_unknown_merchant_is_refused(tx: Connection, clock: Clock) -> None:
    """And not by a foreign key."""
    with pytest.raises(Refusal, match="no merchant 'mer_9'"):
        create(tx, clock, merchant="mer_9")
    with pytest.raises(Refusal, match="Rule 1: there is no merchant"):
        set_all(tx, [{"providers": "paystack", "merchant": "mer_9"}], by(clock))


def test_a_merchant_sees_its_own_and_everybodys_and_changes_its_own(tx: Connection, clock: Clock) -> None:
    """Another's rule is not found; everybody's can be read, and is the operator's."""
    mine, other, all_ = (create(tx, clock, merchant=whose) for whose in ("mer_1", "mer_2", None))
    assert {rule.id for rule in store.listed(tx, "mer_1")} == {mine.id, all_.id}
    assert store.one(tx, all_.id, reader="mer_1") == all_
    with pytest.raises(NotFound):
        store.one(tx, other.id, reader="mer_1")
    for hidden in (other, all_):
        with pytest.raises(NotFound):
            store.change(tx, hidden.id, {"weight": 2}, by(clock), owner="mer_1")
        with pytest.raises(NotFound):
            store.remove(tx, hidden.id, by(clock), owner="mer_1")
    assert store.change(tx, mine.id, {"weight": 2}, by(clock), owner="mer_1").weight == 2


def test_there_is_a_limit(tx: Connection, clock: Clock) -> None:
    """The thousandth is taken, the next is not; a longer file is refused before it is read."""
    set_all(tx, [{"providers": "paystack"}] * (RULES_MAX - 1), by(clock))
    create(tx, clock)
    with pytest.raises(Refusal, match="at most 1,000 routes"):
        create(tx, clock)
    with pytest.raises(Refusal, match="at most 1,000 routes"):
        set_all(tx, [{}] * (RULES_MAX + 1), by(clock))


# --- all of them --------------------------------------------------------------------------------------


def test_an_order_gives_places_and_groups_share(tx: Connection, clock: Clock) -> None:
    """Two in one group have one priority; what keeps its place is not changed."""
    a, b, c = (create(tx, clock) for _ in range(3))
    store.apply(tx, store.plan_order(tx, [[a.id], [c.id, b.id]]), by(clock))
    ordered = store.listed(tx)
    assert [(rule.id, rule.priority, rule.version) for rule in ordered] == [(a.id, 0, 1), (b.id, 10, 1), (c.id, 10, 2)]


@pytest.mark.parametrize("how", ["lacking", "twice", "unknown"])
def test_an_order_names_every_rule_once(tx: Connection, clock: Clock, how: str) -> None:
    """Somebody who read the list before a rule was added must not push that rule anywhere."""
    a, b = create(tx, clock), create(tx, clock)
    named = {"lacking": [[a.id]], "twice": [[a.id, b.id], [a.id]], "unknown": [[a.id, b.id], ["rt_9"]]}[how]
    with pytest.raises(Refusal):
        store.plan_order(tx, named)
    assert [rule.priority for rule in store.listed(tx)] == [0, 10]


FILE = [
    {"providers": "fedapay", "country": "CI"},
    {"providers": "paystack", "country": "CI"},
    {"providers": "stripe", "method": "card"},
]


def test_setting_the_same_file_twice_changes_nothing(tx: Connection, clock: Clock) -> None:
    """The second time every rule is recognised by what it says; nothing is written down, ids and versions stay."""
    first = set_all(tx, FILE, by(clock))
    assert (len(first.added), first.changed, first.removed, first.unchanged) == (3, [], [], 0)
    before, trail = store.listed(tx), written(tx)
    again = set_all(tx, FILE, by(clock))
    assert (again.added, again.changed, again.removed, again.unchanged) == ([], [], [], 3)
    assert store.listed(tx) == before and written(tx) == trail
    twins = [{"providers": "fedapay", "priority": 3}] * 2
    assert len(set_all(tx, twins, by(clock)).added) == 2
    assert set_all(tx, twins, by(clock)).unchanged == 2


def test_what_was_printed_can_be_edited_and_set(tx: Connection, clock: Clock) -> None:
    """By id: one changed in place, one gone, one new; two that say the same stay two."""
    set_all(tx, [*FILE, {**FILE[0], "priority": 0}], by(clock))
    kept, twin, gone, edited = store.listed(tx)
    assert {kept.providers, twin.providers} == {("fedapay",)} and gone.providers == ("paystack",)
    printed = [{**shown(rule), "version": rule.version} for rule in (kept, twin, edited)]
    printed[2]["note"] = "cards"
    diff = set_all(tx, [*printed, {"providers": "moneroo", "priority": 99}], by(clock))
    assert [rule.providers for rule in diff.added] == [("moneroo",)]
    assert [(old.id, new.note) for old, new in diff.changed] == [(edited.id, "cards")]
    assert [rule.id for rule in diff.removed] == [gone.id] and diff.unchanged == 2
    assert [rule.id for rule in store.listed(tx)][:3] == [kept.id, twin.id, edited.id]
    assert store.one(tx, edited.id).version == 2
    again = [shown(rule) for rule in store.listed(tx)]
    assert set_all(tx, again, by(clock)).unchanged == 4


def test_a_dry_run_says_the_same_and_does_nothing(tx: Connection, clock: Clock) -> None:
    """What it would do is what it then does."""
    set_all(tx, FILE, by(clock))
    before, trail = store.listed(tx), written(tx)
    would = store.plan_set(tx, FILE[1:], by(clock))
    assert store.listed(tx) == before and written(tx) == trail
    # Without priorities the order of the file counts, so both that stay move up.
    did = set_all(tx, FILE[1:], by(clock))
    assert (len(would.added), len(would.removed), would.unchanged) == (len(did.added), len(did.removed), did.unchanged)


def test_one_wrong_rule_leaves_the_whole_list(tx: Connection, clock: Clock) -> None:
    """All or nothing, and the sentence names the rule."""
    set_all(tx, FILE, by(clock))
    before = store.listed(tx)
    for wrong, part in (
        ({"providers": "nobody"}, "Rule 2: there is no provider"),
        ({"providers": "stripe", "id": "rt_9"}, "Rule 2: there is no route 'rt_9'"),
        ({"providers": "stripe", "id": 9}, "Rule 2: there is no route '9'"),
        ({**shown(before[0])}, "Rule 2: rt_"),
        ({**shown(before[1]), "merchant": "mer_1"}, "Rule 2: a route stays its merchant's"),
        ("stripe", "Rule 2 must be a table"),
    ):
        first = shown(before[0])
        with pytest.raises(Refusal) as refused:
            set_all(tx, [first, wrong], by(clock))
        assert refused.value.sentence.startswith(part)
        assert store.listed(tx) == before


@pytest.mark.parametrize("how", ["added", "changed", "removed", "applied"])
def test_a_plan_is_not_applied_to_another_list(tx: Connection, clock: Clock, how: str) -> None:
    """Whoever changed a rule between the plan and its doing is not overwritten; and no plan is done twice."""
    set_all(tx, FILE, by(clock))
    first = store.listed(tx)[0]
    plan = store.plan_set(tx, FILE[1:], by(clock))
    match how:
        case "added":
            create(tx, clock)
        case "changed":
            store.change(tx, first.id, {"weight": 2}, by(clock))
        case "removed":
            store.remove(tx, first.id, by(clock))
        case _:
            store.apply(tx, plan, by(clock))
    before = store.listed(tx)
    with pytest.raises(Refusal) as refused:
        store.apply(tx, plan, by(clock))
    assert refused.value.code == "changed_meanwhile"
    assert store.listed(tx) == before


def test_a_merchants_order_is_of_its_own_rules(tx: Connection, clock: Clock) -> None:
    """Everybody's and another's stay where they are, and cannot be named."""
    mine, other, all_ = (create(tx, clock, merchant=whose, priority=70) for whose in ("mer_1", "mer_2", None))
    store.apply(tx, store.plan_order(tx, [[mine.id]], "mer_1"), by(clock))
    assert [store.one(tx, one.id).priority for one in (mine, other, all_)] == [0, 70, 70]
    for hidden in (other, all_):
        with pytest.raises(NotFound):
            store.plan_order(tx, [[mine.id], [hidden.id]], "mer_1")


def test_drafts_are_checked_and_stored_nowhere(tx: Connection, clock: Clock) -> None:
    """They have ids to be spoken of, and the order of the file."""
    drafted = store.draft(tx, FILE)
    assert [rule.id for rule in drafted] == ["draft_0001", "draft_0002", "draft_0003"]
    assert [rule.priority for rule in drafted] == [0, 10, 20]
    assert tx.execute(select(routes)).all() == []
    with pytest.raises(Refusal, match="Rule 1: there is no provider"):
        store.draft(tx, [{"providers": "x"}])


# --- accounts -----------------------------------------------------------------------------------------


def test_gateways_are_the_merchants_accounts_as_they_stand(tx: Connection) -> None:
    """Its own and nobody's, the disabled and the unset ones too, with what calling lacks; never another merchant's."""
    more = {"merchant_id": "mer_1", "live": True, "created_at_ms": 1}
    tx.execute(accounts.insert().values(id="acc_stripe", provider="stripe", origin="settings", **more))
    tx.execute(accounts.insert().values(id="acc_off", provider="fedapay", origin="stored", status="disabled", **more))
    entries = [
        Entry("acc_1", "paystack", "mer_1", False, "https://a.example", {"secret_keys": ["sk"]}),
        Entry("acc_2", "paystack", "mer_2", False, "https://a.example", {"secret_keys": ["sk"]}),
        Entry("acc_free", "paystack", None, False, "https://a.example", {}),
    ]
    found = {one.account_id: one for one in gateways(tx, Registry(entries), "mer_1", {"acc_free"})}
    assert list(found) == ["acc_1", "acc_free", "acc_off", "acc_stripe"]
    assert (found["acc_1"].missing, found["acc_1"].disabled, found["acc_1"].circuit_open) == ((), False, False)
    assert (found["acc_free"].missing, found["acc_free"].circuit_open) == (("secret_keys",), True)
    assert found["acc_off"].disabled and found["acc_stripe"].disabled
    assert (found["acc_1"].live, found["acc_stripe"].live) == (False, True)
    assert found["acc_stripe"].calls is CALLS["stripe"]


def test_calling_needs_other_credentials_than_callbacks() -> None:
    """Stripe without its secret key hears callbacks and cannot be asked for money; a blank value is none."""
    assert missing("stripe", {"webhook_secrets": ["whsec"]}) == ("secret_key",)
    assert missing("stripe", {"secret_key": ["sk"]}) == ()
    assert missing("ebilling", {"username": ["a"], "shared_key": ["  "]}) == ("shared_key",)
    assert missing("gone", {}) == ()
