"""Endpoints: filters, schedules, secrets and their overlap, holding and releasing."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine

import service.callbacks.tables
import service.payments.tables  # noqa: F401 - the tables have to meet in the one MetaData
from outbox.policy import SHORT_MS, STANDARD_MS
from service.errors import NotFound, Refusal
from service.ids import Ids
from service.merchants import endpoints, merchants
from service.merchants.audit import By
from service.merchants.events import wants
from service.schema import metadata
from service.seal import Seal, new_master_key
from tests.support.clock import Clock

HOUR_MS = 3_600_000
SEAL = Seal([new_master_key()])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tx() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        yield connection
    engine.dispose()


@pytest.fixture
def merchant(tx: Connection, clock: Clock) -> str:
    return merchants.create(tx, "Awa", False, by(clock), SEAL, lambda *_: None).id


def by(clock: Clock) -> By:
    return By("test", clock(), Ids(clock))


def add(tx: Connection, merchant: str, clock: Clock, **given: str) -> endpoints.NewEndpoint:
    return endpoints.add(tx, merchant, given.pop("url", "https://shop.example/hooks"), by(clock), SEAL, **given)


def live(tx: Connection, endpoint_id: str, clock: Clock) -> endpoints.Secrets:
    return endpoints.live_secrets(tx, [endpoint_id], SEAL, clock())[endpoint_id]


def test_a_secret_is_a_standard_webhooks_secret(tx: Connection, merchant: str, clock: Clock) -> None:
    """`whsec_` and 24 to 64 random bytes in base64; shown by add, and by nothing else."""
    made = add(tx, merchant, clock)
    assert made.secret.startswith("whsec_")
    assert len(base64.b64decode(made.secret[6:], validate=True)) == 32
    assert made.secret not in repr(made)
    assert made.secret not in repr(endpoints.listed(tx))
    assert live(tx, made.id, clock) == endpoints.Secrets((made.secret,), made.secret)
    assert made.secret not in repr(live(tx, made.id, clock))


def test_while_rotating_both_sign_and_the_plain_header_keeps_the_old(
    tx: Connection, merchant: str, clock: Clock
) -> None:
    """Newest first; the old one is the plain header's until the overlap ends, to the millisecond."""
    made = add(tx, merchant, clock)
    clock.advance(1)
    new = endpoints.rotate(tx, made.id, by(clock), SEAL)
    assert live(tx, made.id, clock) == endpoints.Secrets((new, made.secret), made.secret)
    clock.advance(24 * HOUR_MS - 1)
    assert live(tx, made.id, clock).plain == made.secret
    clock.advance(1)
    assert live(tx, made.id, clock) == endpoints.Secrets((new,), new)


def test_rotating_twice_does_not_lengthen_the_first_overlap(tx: Connection, merchant: str, clock: Clock) -> None:
    """The oldest secret ends when it was said to end."""
    made = add(tx, merchant, clock)
    clock.advance(1)
    second = endpoints.rotate(tx, made.id, by(clock), SEAL)
    clock.advance(20 * HOUR_MS)
    third = endpoints.rotate(tx, made.id, by(clock), SEAL)
    assert live(tx, made.id, clock) == endpoints.Secrets((third, second, made.secret), made.secret)
    clock.advance(4 * HOUR_MS)
    assert live(tx, made.id, clock) == endpoints.Secrets((third, second), second)


def test_a_leaked_secret_ends_at_once(tx: Connection, merchant: str, clock: Clock) -> None:
    """An overlap of 0 leaves the new secret alone, whatever was live."""
    made = add(tx, merchant, clock)
    for _ in range(4):
        clock.advance(1)
        endpoints.rotate(tx, made.id, by(clock), SEAL)
    with pytest.raises(Refusal, match="--overlap-hours 0"):
        endpoints.rotate(tx, made.id, by(clock), SEAL)
    clock.advance(1)
    new = endpoints.rotate(tx, made.id, by(clock), SEAL, overlap_ms=0)
    assert live(tx, made.id, clock) == endpoints.Secrets((new,), new)
    with pytest.raises(Refusal, match="30 days"):
        endpoints.rotate(tx, made.id, by(clock), SEAL, overlap_ms=31 * 24 * HOUR_MS)


def test_secrets_of_many_endpoints_come_at_once(tx: Connection, merchant: str, clock: Clock) -> None:
    """One query for a batch, each endpoint its own."""
    made = [add(tx, merchant, clock, url=f"https://shop.example/{number}") for number in range(3)]
    found = endpoints.live_secrets(tx, [endpoint.id for endpoint in made], SEAL, clock())
    assert {endpoint.id: (endpoint.secret,) for endpoint in made} == {id_: found[id_].live for id_ in found}
    assert endpoints.live_secrets(tx, [], SEAL, clock()) == {}


def test_filters_are_checked_against_the_catalogue(tx: Connection, merchant: str, clock: Clock) -> None:
    """A misspelt type would silently hear nothing."""
    made = add(tx, merchant, clock, events=" payment.succeeded, provider.event ,payment.succeeded")
    filter_ = endpoints.one(tx, made.id)["events"]
    assert filter_ == "payment.succeeded,provider.event"
    assert wants(filter_, "provider.event")
    assert not wants(filter_, "payment.failed")
    assert not wants("*", "provider.event")
    with pytest.raises(Refusal, match=r"did you mean payment\.succeeded"):
        add(tx, merchant, clock, events="payment.suceeded")


@pytest.mark.parametrize(
    ("schedule", "delays_ms"),
    [("standard", STANDARD_MS), ("short", SHORT_MS), ("5, 60,300", (5_000, 60_000, 300_000)), ("0", (0,))],
)
def test_a_schedule_means_delays(
    tx: Connection, merchant: str, clock: Clock, schedule: str, delays_ms: tuple[int, ...]
) -> None:
    """Two presets, or seconds."""
    made = add(tx, merchant, clock, schedule=schedule)
    assert endpoints.delays_ms(endpoints.one(tx, made.id)["schedule"]) == delays_ms


@pytest.mark.parametrize("schedule", ["", "often", "5,-1", "1.5", "9999999", "1," * 60, "5,,6", "⁵"])
def test_a_schedule_that_cannot_be_is_refused(tx: Connection, merchant: str, clock: Clock, schedule: str) -> None:
    """With a sentence that shows how one looks."""
    with pytest.raises(Refusal, match="5,60,300"):
        add(tx, merchant, clock, schedule=schedule)


@pytest.mark.parametrize(
    "url",
    ["shop.example", "ftp://shop.example/", "https://", "https://a b/", "https://shop.example:99999/", "https://é.example",
     "https://user:pw@shop.example/", "https://shop.example/#x", "https://shop.example/\n", "https://" + "a" * 2_000],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused(tx: Connection, merchant: str, clock: Clock, url: str) -> None:
    """The shape here; where it leads is the guard's to judge, at every connect."""
    with pytest.raises(Refusal) as caught:
        add(tx, merchant, clock, url=url)
    assert caught.value.code == "bad_url"


def test_disabling_holds_and_enabling_releases(tx: Connection, merchant: str, clock: Clock) -> None:
    """Both in the transaction that changes the endpoint; nothing is dropped."""
    made = add(tx, merchant, clock)
    calls: list[str] = []

    def hold(_: Connection, endpoint_id: str) -> None:
        calls.append(f"hold {endpoint_id}")

    def release(_: Connection, endpoint_id: str) -> None:
        calls.append(f"release {endpoint_id}")

    assert endpoints.disable(tx, made.id, "too slow", by(clock), hold)
    row = endpoints.one(tx, made.id)
    assert (row["status"], row["disabled_reason"]) == ("disabled", "too slow")
    assert not endpoints.disable(tx, made.id, "again", by(clock), hold)
    endpoints.enable(tx, made.id, by(clock), release)
    row = endpoints.one(tx, made.id)
    assert (row["status"], row["disabled_reason"], row["warnings"]) == ("enabled", None, 0)
    assert calls == [f"hold {made.id}", f"hold {made.id}", f"release {made.id}"]


def test_who_is_not_there_is_named_with_how_to_list_them(tx: Connection, merchant: str, clock: Clock) -> None:
    """A wrong id is a sentence, not a foreign key's error."""
    with pytest.raises(NotFound, match="caisse endpoint list"):
        endpoints.rotate(tx, "ep_nobody", by(clock), SEAL)
    with pytest.raises(NotFound, match="caisse merchant list"):
        add(tx, "mer_nobody", clock)


def test_a_merchant_has_a_bounded_number_of_endpoints(tx: Connection, merchant: str, clock: Clock) -> None:
    """Every event is promised to each of them."""
    for number in range(endpoints.ENDPOINTS_MAX):
        add(tx, merchant, clock, url=f"https://shop.example/{number}")
    with pytest.raises(Refusal, match="at most 50"):
        add(tx, merchant, clock)


def test_a_disabled_merchant_has_its_endpoints_disabled(tx: Connection, merchant: str, clock: Clock) -> None:
    """Once; doing it again changes nothing."""
    made = add(tx, merchant, clock)
    assert merchants.disable(tx, merchant, "left", by(clock), lambda *_: 0)
    assert endpoints.one(tx, made.id)["disabled_reason"] == "merchant disabled"
    assert not merchants.disable(tx, merchant, "left", by(clock), lambda *_: 0)
    with pytest.raises(NotFound, match="caisse merchant list"):
        merchants.disable(tx, "mer_nobody", "", by(clock), lambda *_: 0)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x1b[31m", "a\nb"])
def test_a_name_is_printable(tx: Connection, clock: Clock, name: str) -> None:
    """It is shown on terminals and pages."""
    with pytest.raises(Refusal, match="1 to 100"):
        merchants.create(tx, name, False, by(clock), SEAL, lambda *_: None)
