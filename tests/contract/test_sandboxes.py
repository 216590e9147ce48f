"""
Each adapter's own calls to its provider's sandbox. They move no money: what is made is test money, small, and cancelled
where it can be.

Keys: CAISSE_CONTRACT_<PROVIDER>_<CREDENTIAL>, named as in the settings (STRIPE_SECRET_KEY, PAYSTACK_SECRET_KEYS …), and
CAISSE_CONTRACT_<PROVIDER>_BASE_URL where the sandbox has another address than is written here.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, replace
from typing import Any

import pytest

from service.ids import now_ms
from service.payments.client import Client
from service.payments.facts import Kind, Told
from service.providers import CALLS, PROVIDERS
from service.providers.base import Credentials, NotFinal, NotKnown, Unclear
from service.providers.calls import (
    Accepted,
    Approve,
    Calls,
    Channel,
    Confirm,
    Customer,
    Given,
    Listed,
    Listing,
    Lost,
    Redirect,
    Wanted,
    broken_ask,
    broken_cancel,
    broken_create,
)
from tests.contract.conftest import ENVIRONMENT, Settle

pytestmark = pytest.mark.enable_socket

SANDBOXES = {"fedapay": "https://sandbox-api.fedapay.com", "ebilling": "https://lab.billing-easy.net"}
"""Where a sandbox has its own host; elsewhere the key alone says that it is one."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One provider's sandbox."""

    provider: str
    base_url: str
    credentials: Credentials

    @property
    def calls(self) -> Calls:
        return CALLS[self.provider]

    def wanted(self, channel: Channel, amount_minor: int, **more: Any) -> Wanted:
        wish = Wanted(
            reference=f"contract-{uuid.uuid4().hex}",
            key=uuid.uuid4().hex,
            amount_minor=amount_minor,
            currency=channel.currency,
            method=channel.method,
            country=channel.country,
            operator=channel.operator,
            description="caisse contract",
            return_url="https://example.com/back",
            callback_url="https://example.com/callback",
            customer=Customer("Awa Koffi", "awa@example.com"),
            now_ms=now_ms(),
        )
        return replace(wish, **more)

    def way(self, method: Any, currency: str, country: str, operator: str = "", embedded: bool = False) -> Channel:
        found = self.calls.channel(method, currency, country, operator, embedded)
        assert found is not None
        return found

    def run(self, talk: Any, broken: Any = broken_ask) -> Any:
        return asyncio.run(self._run(talk, broken))

    async def _run(self, talk: Any, broken: Any) -> Any:
        client = Client()
        try:
            return await client.run(self.provider, self.base_url, talk, broken)
        finally:
            await client.close()

    def create(self, wish: Wanted, channel: Channel) -> Any:
        return self.run(self.calls.create(wish, channel, self.credentials), broken_create)

    def given(self, wish: Wanted, said: Any = None) -> Given:
        names = said.told.references if said is not None and said.told is not None else ()
        return Given(wish.reference, names, wish.amount_minor, wish.currency, uuid.uuid4().hex, wish.now_ms)

    def fetch(self, of: Given) -> Any:
        return self.run(self.calls.fetch(of, False, self.credentials))

    def find(self, of: Given) -> Any:
        assert self.calls.find is not None
        return self.run(self.calls.find(of, False, self.credentials))

    def cancel(self, of: Given) -> Any:
        assert self.calls.cancel is not None
        return self.run(self.calls.cancel(of, self.credentials), broken_cancel)

    def refunds(self, of: Given) -> Any:
        assert self.calls.refunds is not None
        return self.run(self.calls.refunds(of, self.credentials))

    def listed(self) -> Any:
        assert self.calls.list is not None
        return self.run(self.calls.list(Listing(now_ms() - 3_600_000, now_ms() + 60_000), self.credentials))


def trial(provider: str) -> Trial:
    """The sandbox, or a skip that names the keys that are missing."""
    prefix = f"CAISSE_CONTRACT_{provider.upper()}_"
    needed = [one.name for one in PROVIDERS[provider].credentials if one.calls]
    if provider == "monetbil":
        needed.append("service_secrets")
    missing = [prefix + name.upper() for name in needed if prefix + name.upper() not in ENVIRONMENT]
    if missing:
        pytest.skip(f"not in the environment: {', '.join(missing)}")
    credentials = {name: tuple(ENVIRONMENT[prefix + name.upper()].split(",")) for name in needed}
    live = [name for name, values in credentials.items() if any("live" in value[:8] for value in values)]
    assert not live, f"{', '.join(live)}: that is a live key; these tests take a sandbox's"
    base_url = ENVIRONMENT.get(f"{prefix}BASE_URL", SANDBOXES.get(provider, PROVIDERS[provider].base_url))
    return Trial(provider, base_url, credentials)


def kinds(said: Any) -> set[Kind]:
    assert isinstance(said, Told | NotFinal), said
    told = said.told if isinstance(said, NotFinal) else said
    return {fact.kind for fact in told.facts} if told else set()


# --- Stripe -------------------------------------------------------------------------------------------


def test_stripe() -> None:
    """A session made, repeated by its key, found, expired; an intent made and cancelled; no refunds; the list."""
    one = trial("stripe")
    way = one.way("card", "EUR", "FR")
    wish = one.wanted(way, 1050, expires_at_ms=now_ms() + 3_600_000)
    said = one.create(wish, way)
    assert isinstance(said, Accepted) and isinstance(said.action, Redirect), said
    assert one.create(wish, way) == said
    of = one.given(wish, said)
    assert kinds(one.fetch(of)) == kinds(one.find(of)) == {Kind.CREATED}
    assert kinds(one.cancel(of)) == {Kind.EXPIRED}
    assert one.refunds(of).facts == ()

    own = one.way("card", "EUR", "FR", embedded=True)
    wish = one.wanted(own, 1050)
    said = one.create(wish, own)
    assert isinstance(said, Accepted) and isinstance(said.action, Confirm), said
    listed = one.listed()
    assert isinstance(listed, Listed) and wish.reference in {told.reference for told in listed.told}, listed
    assert kinds(one.cancel(one.given(wish, said))) == {Kind.CANCELED}


@pytest.mark.parametrize("currency", ["XOF", "XAF", "UGX"])
def test_stripe_takes_the_currencies_of_its_ways(currency: str, settle: Settle) -> None:
    """A thousand francs or shillings, and what comes back is that."""
    one = trial("stripe")
    way = one.way("card", currency, "FR")
    said = one.create(one.wanted(way, 1000), way)
    settle("stripe", "channels.card-*", isinstance(said, Accepted), f"{currency}: {said}")


# --- Paystack -----------------------------------------------------------------------------------------


def test_paystack(settle: Settle) -> None:
    """A page made, verified, made again with the same reference; what is not known; the list."""
    one = trial("paystack")
    way = one.way("card", "NGN", "NG")
    wish = one.wanted(way, 500_000)
    said = one.create(wish, way)
    assert isinstance(said, Accepted) and isinstance(said.action, Redirect), said
    of = one.given(wish, said)
    assert kinds(one.fetch(of)) <= {Kind.CREATED, Kind.PENDING}
    again = one.create(wish, way)
    settle("paystack", "facts.duplicate_words", again == Lost("duplicate_reference"), again)
    unknown = one.find(replace(of, reference=f"contract-{uuid.uuid4().hex}"))
    settle("paystack", "facts.unknown_reference_words", unknown == NotKnown(), unknown)
    assert isinstance(one.listed(), Listed)
    long = one.wanted(way, 500_000, reference=f"contract-{'x' * 91}")
    settle("paystack", "facts.reference_characters_max", isinstance(one.create(long, way), Accepted), "100 characters")


def test_paystack_counts_francs_in_hundredths(settle: Settle) -> None:
    """Only its own page shows how much it asks for: verify says what it read."""
    one = trial("paystack")
    way = one.way("card", "XOF", "CI")
    wish = one.wanted(way, 1000)
    said = one.create(wish, way)
    if not isinstance(said, Accepted):
        pytest.skip(f"this account takes no XOF: {said}")
    back = one.fetch(one.given(wish, said))
    asked = {fact.asked_minor for fact in back.told.facts}
    settle("paystack", "facts.xof_places", asked == {1000}, f"asked {asked}; look at {said.action}")


def test_paystack_charges_the_test_wallet(settle: Settle) -> None:
    """The documented number of the sandbox in Ghana."""
    one = trial("paystack")
    way = one.way("mobile_money", "GHS", "GH", "mtn")
    said = one.create(one.wanted(way, 1000, payer_phone="+233551234987"), way)
    settle("paystack", "facts.local_phones", isinstance(said, Accepted), said)


# --- FedaPay ------------------------------------------------------------------------------------------


def test_fedapay(settle: Settle) -> None:
    """A page made, fetched, found, made again with the same reference, deleted; the list."""
    one = trial("fedapay")
    way = one.way("card", "XOF", "BJ")
    wish = one.wanted(way, 1000)
    said = one.create(wish, way)
    assert isinstance(said, Accepted) and isinstance(said.action, Redirect), said
    of = one.given(wish, said)
    fetched = one.fetch(of)
    currencies = (
        {fact.currency for fact in fetched.told.facts} if isinstance(fetched, NotFinal) and fetched.told else {}
    )
    settle("fedapay", "facts.include", currencies == {"XOF"}, fetched)
    found = one.find(of)
    settle("fedapay", "facts.find_path", isinstance(found, NotFinal), found)
    again = one.create(wish, way)
    settle("fedapay", "facts.reference_taken_word", again == Lost("reference_taken"), again)
    listed = one.listed()
    there = isinstance(listed, Listed) and wish.reference in {told.reference for told in listed.told}
    settle("fedapay", "facts.list_path", there, listed)
    assert kinds(one.cancel(of)) == {Kind.CANCELED}


def test_fedapay_pushes(settle: Settle) -> None:
    """The sandbox's own mode and number."""
    one = trial("fedapay")
    way = one.way("mobile_money", "XOF", "BJ", "mtn")
    said = one.create(one.wanted(way, 1000, payer_phone="+22964000001"), way)
    for fact in ("facts.sandbox_mode", "facts.push_path", "facts.pushed_words"):
        settle("fedapay", fact, isinstance(said, Accepted) and isinstance(said.action, Approve), said)


# --- Monetbil, Moneroo, eBilling ----------------------------------------------------------------------


def test_monetbil(settle: Settle) -> None:
    """A page made at the API's own host; a payment that is not known proves nothing."""
    one = trial("monetbil")
    way = one.way("mobile_money", "XAF", "CM")
    wish = one.wanted(way, 500)
    said = one.create(wish, way)
    for fact in ("facts.widget_url", "facts.widget_path"):
        settle("monetbil", fact, isinstance(said, Accepted), said)
    unknown = one.fetch(replace(one.given(wish), references=("26112100000000000000",)))
    settle("monetbil", "facts.check_path", isinstance(unknown, NotFinal | Unclear), unknown)
    wrong = replace(one, credentials={**one.credentials, "service_key": ("nobodys-service-key",)})
    prompt = one.way("mobile_money", "XAF", "CM", "mtn")
    refused = wrong.create(one.wanted(prompt, 500, payer_phone="+237670000000"), prompt)
    settle("monetbil", "facts.credentials_words", getattr(refused, "alert", False), refused)


def test_moneroo(settle: Settle) -> None:
    """A page made and verified, with a description and a name as long as we send them."""
    one = trial("moneroo")
    way = one.way("card", "USD", "US")
    wish = one.wanted(way, 500, description="d" * 255, customer=Customer("n" * 100, "awa@example.com"))
    said = one.create(wish, way)
    for fact in ("facts.description_characters_max", "facts.name_characters_max"):
        settle("moneroo", fact, isinstance(said, Accepted), said)
    assert kinds(one.fetch(one.given(wish, said))) <= {Kind.CREATED, Kind.PENDING}


def test_ebilling(settle: Settle) -> None:
    """A bill made, fetched, found in the list; a prompt that is sent, or refused as LAB does."""
    one = trial("ebilling")
    way = one.way("mobile_money", "XAF", "GA")
    wish = one.wanted(way, 500, payer_phone="+24174000011", expires_at_ms=now_ms() + 3_600_000)
    said = one.create(wish, way)
    settle("ebilling", "facts.bills_path", isinstance(said, Accepted), said)
    of = one.given(wish, said)
    assert kinds(one.fetch(of)) <= {Kind.CREATED, Kind.PENDING}
    found = one.find(of)
    settle("ebilling", "facts.list_per_page", isinstance(found, NotFinal), found)
    prompt = one.way("mobile_money", "XAF", "GA", "airtel")
    pushed = one.create(one.wanted(prompt, 500, payer_phone="+24174000011"), prompt)
    for fact in ("facts.push_path", "facts.dialled", "channels.airtel-ga"):
        settle("ebilling", fact, isinstance(pushed, Accepted) and isinstance(pushed.action, Approve), pushed)
