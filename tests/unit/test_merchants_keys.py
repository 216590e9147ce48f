"""API keys: 256 random bits, kept as a hash, scoped, revocable."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, select

import service.callbacks.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants import keys, merchants
from service.merchants.audit import By
from service.merchants.tables import api_keys
from service.schema import metadata
from service.seal import Seal, new_master_key
from tests.support.clock import Clock

CLOCK = Clock()
BY = By("test", CLOCK(), Ids(CLOCK))


@pytest.fixture
def tx() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def made(tx: Connection) -> merchants.NewMerchant:
    return merchants.create(tx, "Awa", True, BY, Seal([new_master_key()]), lambda *_: None)


def test_a_key_says_what_money_it_moves_and_cannot_be_guessed(tx: Connection, made: merchants.NewMerchant) -> None:
    """ck_live_ or ck_test_, then 256 bits."""
    test = keys.create(tx, made.id, False, BY)
    assert made.key.key.startswith("ck_live_")
    assert test.key.startswith("ck_test_")
    assert len(base64.urlsafe_b64decode(test.key.removeprefix("ck_test_") + "=")) == 32
    assert test.key not in repr(test)


def test_a_key_is_verified_by_its_hash_alone(tx: Connection, made: merchants.NewMerchant) -> None:
    """The database never held it, and a key that differs anywhere is nobody's."""
    caller = keys.verify(tx, made.key.key)
    assert caller is not None
    assert (caller.merchant_id, caller.key_id, caller.live) == (made.id, made.key.id, True)
    row = tx.execute(select(api_keys)).one()
    assert made.key.key[8:] not in repr(row)
    assert row.hint.endswith(made.key.key[-4:])
    other_mode = made.key.key.replace("live", "test")
    for wrong in ("", "ck_live_", made.key.key[:-1], made.key.key + "x", other_mode, "é" * 51, "x" * 10_000, row.hint):
        assert keys.verify(tx, wrong) is None


def test_a_revoked_key_and_a_disabled_merchants_key_are_refused(tx: Connection, made: merchants.NewMerchant) -> None:
    """From the commit on."""
    second = keys.create(tx, made.id, True, BY)
    assert keys.revoke(tx, second.id, BY, "leaked")
    assert not keys.revoke(tx, second.id, BY)
    assert keys.verify(tx, second.key) is None
    assert keys.verify(tx, made.key.key) is not None
    merchants.disable(tx, made.id, "", BY, lambda *_: 0)
    assert keys.verify(tx, made.key.key) is None
    with pytest.raises(Refusal, match="disabled"):
        keys.create(tx, made.id, True, BY)
    with pytest.raises(NotFound, match="caisse keys list"):
        keys.revoke(tx, "key_nobody", BY)


@pytest.mark.parametrize(
    ("scopes", "may", "may_not"),
    [
        (("*",), ("payments:write", "events:read"), ()),
        ((), ("payments:write",), ()),
        (("payments:read",), ("payments:read",), ("payments:write", "events:read")),
        (("payments:write", "events:read"), ("payments:read", "payments:write"), ("events:write", "endpoints:read")),
    ],
)
def test_a_key_may_what_its_scopes_say(
    tx: Connection, made: merchants.NewMerchant, scopes: tuple[str, ...], may: tuple[str, ...], may_not: tuple[str, ...]
) -> None:
    """Write includes read of the same resource, and nothing else."""
    caller = keys.verify(tx, keys.create(tx, made.id, False, BY, scopes=scopes).key)
    assert caller is not None
    assert all(caller.may(scope) for scope in may)
    assert not any(caller.may(scope) for scope in may_not)


def test_an_unknown_scope_is_refused(tx: Connection, made: merchants.NewMerchant) -> None:
    """A misspelt scope must not become a key that can do nothing, or everything."""
    with pytest.raises(Refusal, match="there are"):
        keys.create(tx, made.id, False, BY, scopes=("payment:read",))


def test_listed_keys_show_hints(tx: Connection, made: merchants.NewMerchant) -> None:
    """Enough to tell them apart, the revoked ones too."""
    keys.revoke(tx, made.key.id, BY)
    (row,) = keys.listed(tx, made.id)
    assert row["revoked_at_ms"] == CLOCK()
    assert row["scopes"] == ["*"]
    assert made.key.key not in repr(row)
    assert keys.listed(tx, "mer_nobody") == []
