"""Accounts: default ones from the settings, stored ones sealed, and the registry that intake reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, select

import service.callbacks.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from service.config import Settings
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants import accounts, merchants, sealed
from service.merchants.accounts import Registry, ensure_defaults
from service.merchants.audit import By
from service.merchants.tables import accounts as account_table
from service.merchants.tables import audit, endpoint_secrets
from service.schema import metadata
from service.seal import Seal, WrongKey, new_master_key
from tests.support.clock import Clock

CLOCK = Clock()
TOKEN = "a-token-that-nobody-guesses"


def by() -> By:
    return By("test", CLOCK(), Ids(CLOCK))


def settings(**environment: str) -> Settings:
    return Settings.read(environment={f"CAISSE_{name.upper()}": value for name, value in environment.items()})


@pytest.fixture
def tx() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        yield connection
    engine.dispose()


@pytest.fixture
def seal() -> Seal:
    return Seal([new_master_key()])


def create(tx: Connection, seal: Seal, name: str = "Awa", url: str | None = None) -> merchants.NewMerchant:
    return merchants.create(tx, name, False, by(), seal, lambda *_: None, url)


def test_the_first_merchant_adopts_the_default_accounts(tx: Connection, seal: Seal) -> None:
    """Callbacks that came before there was a merchant are revived in the very transaction that makes one."""
    configured = settings(stripe_webhook_secrets="whsec_a", paystack_secret_keys="sk_a")
    ensure_defaults(tx, configured, 1)
    revived: list[str] = []
    first = merchants.create(tx, "Awa", False, by(), seal, lambda _, account_id: revived.append(account_id))
    assert revived == ["acc_paystack", "acc_stripe"]
    assert first.adopted == ("acc_paystack", "acc_stripe")
    second = merchants.create(tx, "Binta", False, by(), seal, lambda _, account_id: revived.append(account_id))
    assert second.adopted == ()
    assert len(revived) == 2
    owners = set(tx.execute(select(account_table.c.merchant_id)).scalars())
    assert owners == {first.id}


def test_a_provider_configured_later_belongs_to_the_first_merchant(tx: Connection, seal: Seal) -> None:
    """And running it again changes nothing, but for the mode."""
    first = create(tx, seal)
    CLOCK.advance(1)
    create(tx, seal, "Binta")
    for _ in range(2):
        ensure_defaults(tx, settings(stripe_webhook_secrets="whsec_a"), 5)
    rows = tx.execute(select(account_table)).all()
    assert [(row.id, row.merchant_id, row.live, row.origin) for row in rows] == [
        ("acc_stripe", first.id, False, "settings")
    ]
    ensure_defaults(tx, settings(stripe_webhook_secrets="whsec_a", mode="production"), 6)
    assert tx.execute(select(account_table.c.live)).scalar() is True


def test_the_registry_knows_default_accounts_with_what_they_lack(tx: Connection, seal: Seal) -> None:
    """A provider with nothing set is off; one half set is there, and says what is missing."""
    configured = settings(stripe_secret_key="sk_test_a", paystack_secret_keys="sk_new,sk_old")
    ensure_defaults(tx, configured, 1)
    registry = Registry.load(tx, configured, seal)
    stripe, paystack = registry.default("stripe"), registry.default("paystack")
    assert stripe is not None
    assert stripe.missing == ("webhook_secrets",)
    assert paystack is not None
    assert paystack.missing == ()
    assert paystack.credentials["secret_keys"] == ("sk_new", "sk_old")
    assert [entry.id for entry in registry.half_set()] == ["acc_stripe"]
    assert registry.default("fedapay") is None
    assert registry.offers("stripe")
    assert not registry.offers("fedapay")
    assert "sk_new" not in repr(paystack)
    assert Registry.load(tx, settings(), seal).default("stripe") is None


def test_an_account_is_found_under_its_own_provider_alone(tx: Connection, seal: Seal) -> None:
    """Another provider's callbacks do not get in by naming this account."""
    merchant = create(tx, seal)
    made = accounts.add(tx, merchant.id, "stripe", {"webhook_secrets": "whsec_b"}, False, by(), seal)
    registry = Registry.load(tx, settings(), seal)
    found = registry.by_id("stripe", made)
    assert found is not None
    assert (found.merchant_id, found.stored, found.live) == (merchant.id, True, False)
    assert registry.by_id("paystack", made) is None
    assert registry.default("stripe") is None
    assert registry.offers("stripe")


def test_an_ebilling_account_is_found_by_its_token(tx: Connection, seal: Seal) -> None:
    """The token is the account, over default and stored accounts; nothing near it is."""
    merchant = create(tx, seal)
    configured = settings(
        ebilling_username="u", ebilling_shared_key="k", ebilling_callback_tokens=f"{TOKEN},{TOKEN}-old"
    )
    ensure_defaults(tx, configured, 1)
    stored = accounts.add(
        tx, merchant.id, "ebilling", {"username": "u", "shared_key": "k", "callback_tokens": ["other-token"]},
        False, by(), seal,
    )  # fmt: skip
    registry = Registry.load(tx, configured, seal)
    for token, wanted in ((TOKEN, "acc_ebilling"), (f"{TOKEN}-old", "acc_ebilling"), ("other-token", stored)):
        found = registry.by_token("ebilling", token)
        assert found is not None
        assert found.id == wanted
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\ud800"):
        assert registry.by_token("ebilling", wrong) is None
    assert registry.by_token("stripe", TOKEN) is None


def test_credentials_are_sealed_in_the_database(tx: Connection, seal: Seal) -> None:
    """Nothing of them is in the file, and a row's value copied into another row's place does not open."""
    merchant = create(tx, seal)
    one = accounts.add(tx, merchant.id, "stripe", {"webhook_secrets": "whsec_planted"}, False, by(), seal)
    other = accounts.add(tx, merchant.id, "stripe", {"webhook_secrets": "whsec_other"}, False, by(), seal)
    rows = {row.id: row.credentials for row in tx.execute(select(account_table))}
    assert b"whsec_planted" not in rows[one]
    tx.execute(account_table.update().where(account_table.c.id == other).values(credentials=rows[one]))
    registry = Registry.load(tx, settings(), seal)
    moved = registry.get(other)
    assert moved is not None
    assert moved.missing == ("webhook_secrets",)
    whole = registry.get(one)
    assert whole is not None
    assert whole.missing == ()


def test_rotation_puts_the_new_secret_first_and_keeps_the_old_until_dropped(tx: Connection, seal: Seal) -> None:
    """Callbacks signed with the old secret still verify while the provider changes over."""
    merchant = create(tx, seal)
    made = accounts.add(tx, merchant.id, "stripe", {"webhook_secrets": "one", "secret_key": "k1"}, False, by(), seal)
    accounts.rotate(tx, made, "webhook_secrets", "two", by(), seal)
    accounts.rotate(tx, made, "webhook_secrets", "two", by(), seal)
    accounts.rotate(tx, made, "secret_key", "k2", by(), seal)

    def credentials() -> object:
        entry = Registry.load(tx, settings(), seal).get(made)
        assert entry is not None
        return entry.credentials

    assert credentials() == {"webhook_secrets": ["two", "one"], "secret_key": ["k2"]}
    accounts.rotate(tx, made, "webhook_secrets", "three", by(), seal, drop_old=True)
    assert credentials() == {"webhook_secrets": ["three"], "secret_key": ["k2"]}


@pytest.mark.parametrize(
    ("provider", "credentials", "code"),
    [
        ("strype", {}, "unknown_provider"),
        ("stripe", {}, "missing_credentials"),
        ("stripe", {"webhook_secrets": "  "}, "missing_credentials"),
        ("stripe", {"webhook_secret": "a"}, "unknown_credential"),
        ("stripe", {"webhook_secrets": "a\nb"}, "bad_credential"),
        ("stripe", {"webhook_secrets": ["a"] * 6}, "too_much"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_added(
    tx: Connection, seal: Seal, provider: str, credentials: dict[str, str | list[str]], code: str
) -> None:
    """Each refusal has a word and a sentence."""
    merchant = create(tx, seal)
    with pytest.raises(Refusal) as caught:
        accounts.add(tx, merchant.id, provider, credentials, False, by(), seal)
    assert caught.value.code == code


def test_default_accounts_are_changed_in_the_settings(tx: Connection, seal: Seal) -> None:
    """And the sentence says which one."""
    ensure_defaults(tx, settings(stripe_webhook_secrets="a"), 1)
    with pytest.raises(Refusal, match="CAISSE_STRIPE_WEBHOOK_SECRETS"):
        accounts.rotate(tx, "acc_stripe", "webhook_secrets", "b", by(), seal)
    with pytest.raises(NotFound, match="caisse account list"):
        accounts.rotate(tx, "acc_nobody", "webhook_secrets", "b", by(), seal)


def test_every_change_leaves_an_audit_row_without_its_secret(tx: Connection, seal: Seal) -> None:
    """Who, what, whom; never the value."""
    merchant = create(tx, seal, url="https://shop.example/hooks")
    made = accounts.add(tx, merchant.id, "stripe", {"webhook_secrets": "planted"}, False, by(), seal)
    accounts.rotate(tx, made, "webhook_secrets", "planted2", by(), seal)
    rows = tx.execute(select(audit)).all()
    assert {row.action for row in rows} == {
        "merchant.created", "key.created", "endpoint.added", "account.added", "account.rotated",
    }  # fmt: skip
    assert {row.actor for row in rows} == {"test"}
    assert "planted" not in repr(rows)
    assert merchant.key.key not in repr(rows)


def test_listed_accounts_show_no_secret(tx: Connection, seal: Seal) -> None:
    """Which credentials there are and how many of each, and what is missing."""
    configured = settings(paystack_secret_keys="planted,planted2", stripe_secret_key="planted3")
    ensure_defaults(tx, configured, 1)
    shown = accounts.listed(tx, Registry.load(tx, configured, seal))
    assert {row["id"]: (row["missing"], row["credentials"]) for row in shown} == {
        "acc_paystack": ([], {"secret_keys": 2}),
        "acc_stripe": (["webhook_secrets"], {"secret_key": 1, "webhook_secrets": 0}),
    }
    assert "planted" not in repr(shown)


def test_the_master_keys_turn_over_in_batches_and_the_old_one_can_go(tx: Connection, seal: Seal) -> None:
    """Idempotent, resumable after any batch, and at the end nothing needs the old key."""
    old, new = new_master_key(), new_master_key()
    seal.adopt([old])
    merchant = create(tx, seal)
    for number in range(5):
        accounts.add(tx, merchant.id, "stripe", {"webhook_secrets": f"s{number}"}, False, by(), seal)
        merchants.merchant_endpoints.add(tx, merchant.id, f"https://shop.example/{number}", by(), seal)
    both = Seal([new, old])
    assert sealed.reseal(tx, both, limit=3) == 3
    counts = []
    while count := sealed.reseal(tx, both, limit=3):
        counts.append(count)
    assert 3 + sum(counts) == 10
    assert sealed.reseal(tx, both) == 0
    registry = Registry.load(tx, settings(), Seal([new]))
    assert len(registry) == 5
    assert registry.half_set() == []
    endpoints = [row["id"] for row in merchants.merchant_endpoints.listed(tx)]
    assert len(merchants.merchant_endpoints.live_secrets(tx, endpoints, Seal([new]), CLOCK())) == 5
    with pytest.raises(WrongKey):
        seal.open(tx.execute(select(endpoint_secrets.c.secret)).scalars().first(), "x")
