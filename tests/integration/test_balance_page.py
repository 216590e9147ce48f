"""A beneficiary's page, and balances, statements and the evening closing as programs and people ask for them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from litestar import Litestar
from sqlalchemy import Connection, select, update

from service import commands
from service.cli import caisse
from service.errors import Refusal
from service.escrow import beneficiaries as steps
from service.escrow.beneficiaries import To
from service.escrow.payouts import Draft
from service.escrow.states import Hold, Payout
from service.escrow.tables import beneficiaries, holds, payees_personal
from service.escrow.terms import Terms, set_terms
from service.ledger.ledger import Entry, Kind, Move, Place, bring
from service.merchants.audit import By
from service.orders.owner import Whose
from service.pay.balance import STATES, WORDS, BalancePage
from service.payments.facts import Kind as FactKind
from tests.property.test_orders_machine import MINE
from tests.support.api import another, api_of
from tests.support.clock import Clock
from tests.support.corpora import strings
from tests.support.escrow import Market
from tests.support.service import Till, till

PAGE_BYTES_MAX = 50_000
LINE_SPACES = re.compile(r"\s+")


@dataclass
class Seller:
    """A seller of the first merchant with 7,000 F to be paid out, 5,000 in escrow and a payout that waits."""

    t: Till
    clock: Clock
    id: str = ""
    owner: Whose = field(default_factory=lambda: Whose("", False))

    async def begin(self) -> None:
        """The seller, and money as holds would move it."""
        t, by = self.t, By("test", self.clock(), self.t.app.ids)
        assert t.merchant is not None
        self.owner = Whose(t.merchant.id, False)

        def work(tx: Connection) -> None:
            set_terms(tx, self.owner.merchant_id, Terms(enabled=True, timezone="Africa/Abidjan"), by)
            self.id = steps.create(tx, self.owner, "XOF", To("account", "acct_1Seller", "Moussa"), by)
            whose = self.owner.merchant_id, False, "XOF"
            merchant, float_ = (
                Place(Kind.MERCHANT, self.owner.merchant_id, *whose), Place(Kind.FLOAT, "acc_stripe", *whose),
            )  # fmt: skip
            escrow, theirs = Place(Kind.ESCROW, self.id, *whose), Place(Kind.BENEFICIARY, self.id, *whose)
            moves = {
                Move(Entry.CAPTURE, float_, merchant): 12_000, Move(Entry.HOLD, merchant, escrow): 12_000,
                Move(Entry.RELEASE, escrow, theirs): 7_000,
            }  # fmt: skip
            bring(tx, {"hold_1": moves}, self.clock())
            t.app.payouts.request(tx, self.owner, Draft(self.id, 2_000, "XOF", description="=1+1"), by)

        await t.app.db.write(work)

    async def link(self) -> str:
        """A new path of the page."""
        by = By("test", self.clock(), self.t.app.ids)
        return f"/balance/{await self.t.app.db.write(steps.link, self.owner, self.id, by)}"


class Pages:
    """The page's own handler before a market in memory: 5,000 F can be paid out, 5,000 are in escrow, 2,000 wait."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.waits, _ = market.sold()
        order_id, self.payment = market.sold(7_000)
        market.release(market.hold_of(order_id)["id"])
        market.pay_out(2_000)
        settings = SimpleNamespace(timezone="Africa/Abidjan")
        self.app: Any = SimpleNamespace(db=self, clock=market.clock, settings=settings)
        self._site = Litestar(list(BalancePage(self.app, []).handlers), openapi_config=None)

    async def read(self, query: Callable[..., Any], *args: Any) -> Any:
        """What the page asks its database for."""
        with self.market.tx() as tx:
            return query(tx, *args)

    def link(self) -> str:
        """A new path of the page."""
        with self.market.tx() as tx:
            return f"/balance/{steps.link(tx, MINE, self.market.seller, self.market.by)}"

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """The answer."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._site)  # type: ignore[arg-type] # Litestar has types of its own
            async with httpx.AsyncClient(transport=transport, base_url="http://caisse.test") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def pages() -> Iterator[Pages]:
    """Payouts wait for a person, so nothing is sent."""
    market = Market(payout_on_release=False, approve_above={}, timezone="Africa/Abidjan")
    yield Pages(market)
    market.close()


def story(tmp_path: Path, tell: Callable[[Seller], Awaitable[None]], **settings: str) -> None:
    """Run it in front of a running service, whose clock stands still."""

    async def run() -> None:
        clock = Clock()
        async with till(tmp_path, clock=clock, **{"stripe_secret_key": "sk_test_1"} | settings) as t:
            seller = Seller(t, clock)
            await seller.begin()
            await tell(seller)

    asyncio.run(run())


def text_of(answer: httpx.Response) -> str:
    """What can be read, spaces folded."""
    inside = re.sub(r"<style>.*?</style>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return LINE_SPACES.sub(" ", unescape(inside)).strip()


def test_the_page_says_what_is_theirs(pages: Pages) -> None:
    """Name, three figures, what is on its way and the last payouts, in both languages, on one small page by itself."""
    path = pages.link()
    french, english = pages.get(path), pages.get(path + "?lang=en")
    said = text_of(french)
    for part in ("Moussa", "Awa", "Disponible 5 000 F CFA", "En attente 5 000 F CFA",
                 "Versé en novembre 0 F CFA En route vers vous : 2 000 F CFA", "20 novembre 2026",
                 "À valider par la boutique 2 000 F CFA",
                     "Situation le 20 novembre 2026 à 09:00 (GMT)"):  # fmt: skip
        assert part in said, (part, said)
    said = text_of(english)
    for part in ("Available 5,000 F CFA", "Waiting 5,000 F CFA", "Paid to you in November 0 F CFA",
                 "On its way to you: 2,000 F CFA", "Waiting for the shop 2,000 F CFA"):  # fmt: skip
        assert part in said, (part, said)
    assert f'href="{path}?lang=en"' in french.text and 'lang="fr"' in french.text
    assert f'href="{path}?lang=fr"' in english.text and 'lang="en"' in english.text
    for answer in (french, english):
        assert answer.status_code == 200 and len(answer.content) <= PAGE_BYTES_MAX
        assert not re.search(r"<script|<img|<form|\son\w+=|javascript:|https?://", answer.text)
        assert "acct_1Seller" not in answer.text, "where the money goes is not said"
        held = answer.headers
        assert held["cache-control"] == "no-store" and held["referrer-policy"] == "no-referrer"
        assert (
            "default-src 'none'" in held["content-security-policy"] and "unsafe" not in held["content-security-policy"]
        )
        assert held["x-robots-tag"] == "noindex" and "set-cookie" not in held


def test_the_hints_say_what_is_so(pages: Pages) -> None:
    """ "Can be paid out" stands above zero alone; what waits has a day once it is delivered, and none while frozen."""
    path, market = pages.link(), pages.market
    payable, next_ = (
        "Cette somme peut vous être versée",
        "La prochaine somme sera disponible le 22 novembre 2026 à 09:00",
    )
    said = text_of(pages.get(path))
    assert payable in said and "La prochaine" not in said, "nothing was delivered yet"
    market.deliver(pages.waits)
    market.pay_out(5_000)
    said = text_of(pages.get(path))
    assert "Disponible 0 F CFA" in said and payable not in said and next_ in said
    assert "becomes available on 22 November 2026 at 09:00 (GMT)." in text_of(pages.get(path + "?lang=en"))
    market.said(pages.payment, FactKind.REFUND_SUCCEEDED, "re_1", 1_000)  # of what was released: now they owe it
    said = text_of(pages.get(path))
    assert "Disponible -1 000 F CFA" in said.replace("\u2212", "-") and payable not in said and next_ in said
    with market.tx() as tx:
        tx.execute(update(holds).values(state=Hold.FROZEN.value))
    assert "La prochaine" not in text_of(pages.get(path)), "no clock releases what is frozen"


def test_the_language_is_the_browser_s_until_it_is_chosen(pages: Pages) -> None:
    """Accept-Language by its weights, odd ones too; the page's switch counts more; French where nothing is said."""
    wanted = {
        "": "fr", "en": "en", "en-GB,en;q=0.9,fr;q=0.8": "en", "fr-CI,en;q=0.9": "fr", "de,en;q=0.5": "en",
        "de, EN-us;q=0.3, fr;q=0.2": "en", "wo": "fr", "en;q=0,fr;q=0.1": "fr", "en;q=x": "fr", ",;=,": "fr",
        "*": "fr", "x" * 5_000: "fr",
    }  # fmt: skip
    path = pages.link()
    for header, language in wanted.items():
        answer = pages.get(path, {"Accept-Language": header})
        assert f'<html lang="{language}">' in answer.text, header
    assert '<html lang="fr">' in (pages.get(path + "?lang=fr", {"Accept-Language": "en"})).text
    for odd in ("?lang=de", "?lang=en&lang=fr", "?lang=%00", "?lang=%ff"):
        assert '<html lang="fr">' in (pages.get(path + odd)).text, odd


def test_an_address_that_is_none_says_nothing(pages: Pages) -> None:
    """Wrong, old and hostile tokens get one and the same page; a new link closes the old one."""
    old = pages.link()
    new = pages.link()
    assert (pages.get(new)).status_code == 200
    gone = pages.get(old)
    assert gone.status_code == 404 and "Il n’y a rien à cette adresse" in text_of(gone)
    assert gone.headers["referrer-policy"] == "no-referrer" and gone.headers["cache-control"] == "no-store"
    for path in (new + "x", new[:-1], new.lower(), f"/balance/{pages.market.seller}", "/balance/%ff", "/balance/%00",
                 "/balance/" + "a" * 3_000, "/balance/%ED%A0%80", "/balance/..%5c"):  # fmt: skip
        other = pages.get(path)
        assert (other.status_code, other.text) == (404, gone.text), path
    with pages.market.tx() as tx:
        assert new.removeprefix("/balance/") not in str(tx.execute(select(beneficiaries)).all()), "kept as its hash"


def test_hostile_names_stay_text(pages: Pages) -> None:
    """Whatever somebody is called, the page is the same page with that name on it."""
    path = pages.link()
    shape = re.sub(r"(?s)<h1>.*?</h1>", "", (pages.get(path)).text)
    stored = [text for text in strings() if text.strip() and "\0" not in text and text.isprintable()]
    for name in [one[:120] for one in stored][::5]:
        with pages.market.tx() as tx:
            tx.execute(update(payees_personal).values(name=name))
        answer = pages.get(path)
        assert answer.status_code == 200 and re.sub(r"(?s)<h1>.*?</h1>", "", answer.text) == shape, name


def test_every_state_has_its_words() -> None:
    """A new state of a payout needs plain words in both languages."""
    assert set(STATES) == set(Payout)
    assert all(all(both) for both in (*STATES.values(), *WORDS.values()))


async def programs_ask(seller: Seller) -> None:
    """The API's figures are the ledger's; another merchant and a key of the other mode see none of it."""
    t, api = seller.t, api_of(seller.t)
    (mine,) = (await api("GET", "/balances")).said["data"]
    assert (mine["pending"], mine["beneficiaries"], mine["reserved"], mine["at_providers"]) == (
        5_000, 5_000, 2_000, 12_000,
    )  # fmt: skip
    assert (mine["month"], mine["timezone"]) == ("2026-11", "Africa/Abidjan")
    theirs = await api("GET", f"/beneficiaries/{seller.id}/balance")
    assert (theirs.said["available"], theirs.said["pending"], theirs.said["reserved"]) == (5_000, 5_000, 2_000)
    today = await api("GET", "/closing")
    assert today.said["totals"][0]["received"] == 12_000 and not today.said["closed"]
    assert (await api("GET", "/closing?day=2026-11-20")).said == today.said
    other = await t.create_merchant("Other")
    for stranger in (await another(t, live=True), await another(t, merchant=other.id)):
        assert (await stranger("GET", "/balances")).said == {"data": []}
        assert (await stranger("GET", "/closing")).said["lines"] == []
        for method, path in (("GET", "balance"), ("POST", "link")):
            assert (await stranger(method, f"/beneficiaries/{seller.id}/{path}")).status == 404
        days = f"from=2026-11-01&to=2026-11-20&beneficiary={seller.id}"
        assert (await stranger("GET", f"/balances/statement?{days}")).status == 404
    for path, code in (
        ("/closing?day=2026-11-21", "bad_day"), ("/closing?day=20.11.2026", "bad_day"),
        ("/closing?format=pdf", "bad_query"), ("/balances/statement?from=2026-11-01", "bad_query"),
        ("/balances/statement?from=2026-11-20&to=2026-11-19", "bad_day"),
        ("/balances/statement?from=2026-11-20&to=2026-11-20&currency=EUR", "bad_currency"),
    ):  # fmt: skip
        refused = await api("GET", path)
        assert (refused.status, refused.code) == (400 if code != "bad_currency" else refused.status, code), path
    link = await api("POST", f"/beneficiaries/{seller.id}/link", once="k")
    again = await api("POST", f"/beneficiaries/{seller.id}/link", once="k")
    assert again.replayed and again.said == link.said
    assert len(link.said["path"]) > 40
    assert link.said["url"] == "https://pay.example" + link.said["path"]


def test_the_service_answers_with_csv_and_has_the_page(tmp_path: Path) -> None:
    """Through the service's own door: text/csv where it is asked for, and the page without a key, counted by route."""

    async def tell(seller: Seller) -> None:
        t, assert_key = seller.t, {"Authorization": f"Bearer {seller.t.merchant.key.key}"}  # type: ignore[union-attr]
        days = f"from=2026-11-20&to=2026-11-20&beneficiary={seller.id}"
        asked: list[tuple[str, dict[str, str], str]] = [
            (f"/v1/balances/statement?{days}", {}, "'=1+1"), ("/v1/closing?format=csv", {}, "stripe"),
            ("/v1/closing", {"Accept": "text/csv"}, "stripe"),
        ]  # fmt: skip
        for path, headers, part in asked:
            async with t.client.get(t.url + path, headers=assert_key | headers) as answer:
                raw = await answer.read()
                assert (answer.status, answer.content_type, answer.charset) == (200, "text/csv", "utf-8"), path
                assert answer.headers["Cache-Control"] == "no-store" and raw.startswith(b"\xef\xbb\xbf")
                rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
                assert any(part in row for row in rows), rows
        async with t.client.get(
            t.url + "/v1/closing?format=json", headers=assert_key | {"Accept": "text/csv"}
        ) as answer:
            assert answer.content_type == "application/json"
        path = await seller.link()
        async with t.client.get(t.url + path) as answer:
            assert answer.status == 200 and "Moussa" in await answer.text()
        async with t.client.get(t.url + "/metrics") as answer:
            shown = await answer.text()
            assert 'route="/balance/{token}"' in shown and path not in shown

    story(tmp_path, tell)


async def people_ask(seller: Seller) -> None:
    """The same by name: every merchant in both modes, one beneficiary, a statement, a closing; wrong ones say so."""
    app, merchant = seller.t.app, seller.owner.merchant_id
    (row,) = await commands.run(app, "balances.list", {})
    assert (row["merchant"], row["live"], row["at_providers"]) == (merchant, False, 12_000)
    (row,) = await commands.run(app, "balances.list", {"beneficiary": seller.id})
    assert row["available"] == 5_000
    text = await commands.run(
        app, "balances.statement", {"first": "2026-11-20", "last": "2026-11-20", "beneficiary": seller.id}
    )
    assert text.splitlines()[-1].endswith(",,,5000,XOF")
    (found,) = await commands.run(app, "closing", {"merchant": merchant})
    assert found["lines"][0]["received"] == 12_000
    assert await commands.run(app, "closing", {"day": "2026-11-19"}) == []
    assert len((await commands.run(app, "closing.csv", {})).splitlines()) == 2
    days = {"first": "2026-11-01", "last": "2026-11-20"}
    for name, arguments, code in (
        ("balances.list", {"merchant": "mer_x"}, "not_found"), ("balances.list", {"limit": 0}, "bad_limit"),
        ("balances.list", {"beneficiary": seller.id, "merchant": "mer_x"}, "not_found"),
        ("balances.statement", days, "bad_merchant"), ("closing", {"merchant": "mer_x"}, "not_found"),
        ("balances.statement", days | {"merchant": merchant, "language": "de"}, "bad_language"),
        ("balances.statement", days | {"merchant": merchant, "live": True}, "bad_currency"),
        ("closing", {"day": "2026-11-32"}, "bad_day"), ("closing", {"day": "2026-11-21"}, "bad_day"),
    ):  # fmt: skip
        with pytest.raises(Refusal) as refused:
            await commands.run(app, name, arguments)
        assert refused.value.code == code, (name, arguments)


def test_balances_and_closings_by_api_by_name_and_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The API's and the commands' answers; then `caisse balances` alone lists, a merchant may stand right behind it, and
    CSV goes to a file or to stdout as it is.
    """

    async def tell(seller: Seller) -> None:
        await programs_ask(seller)
        await people_ask(seller)

    story(tmp_path, tell, public_url="https://pay.example")
    monkeypatch.setenv("CAISSE_DATABASE_URL", f"sqlite:///{tmp_path}/caisse.db")
    monkeypatch.chdir(tmp_path)

    def caisse_(*arguments: str) -> str:
        done = CliRunner().invoke(caisse, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    (row,) = json.loads(caisse_("balances", "--json"))
    assert row["at_providers"] == 12_000
    for words in (("balances", row["merchant"]), ("balances", "list")):
        assert "12000" in "".join(caisse_(*words).split()), "grouped for people"
    shown = caisse_("closing", "2026-11-20")
    assert "2026-11-20 (Africa/Abidjan, over)" in shown and "stripe" in shown and "total" in shown
    assert caisse_("closing", "2026-11-19").startswith("Nothing moved")
    where = tmp_path / "closing.csv"
    assert caisse_("closing", "2026-11-20", "--csv", str(where)) == ""
    assert where.read_bytes().startswith(b"\xef\xbb\xbfday,") and where.read_bytes().endswith(b"\r\n")
    days = ("--from", "2026-11-20", "--to", "2026-11-20", "--currency", "XOF", "--lang", "fr")
    assert "Paiement reçu" in caisse_("balances", "statement", row["merchant"], *days)
