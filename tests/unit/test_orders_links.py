"""Payment links, sessions in memory, and the addresses that a buyer may be sent back to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from service.errors import NotFound, Refusal
from service.merchants.tables import merchants
from service.orders import links, sessions
from service.orders import products as product_steps
from service.orders.links import LinkDraft
from service.orders.owner import Whose
from service.orders.return_urls import check_return_url
from service.orders.sessions import NewSession
from service.orders.tables import buyers
from service.orders.verify import MESSAGES, answer
from service.payments.facts import Kind
from service.payments.tables import attention
from service.payments.wish import LOCALES
from service.providers.calls import Customer
from tests.property.test_orders_machine import MINE, Shop, captured, fact


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A shop in memory."""
    made = Shop()
    yield made
    made.close()


def code(shop: Shop, step: Any, *args: Any, **more: Any) -> str:
    """The code with which a step is refused."""
    with pytest.raises(Refusal) as refused, shop.tx() as tx:
        step(tx, *args, **more)
    return refused.value.code


def made(shop: Shop, **more: Any) -> str:
    """A link over 5,000 F, unless `more` says otherwise."""
    with shop.tx() as tx:
        draft = LinkDraft(**(more or {"currency": "XOF", "amount_minor": 5_000}))
        return links.create(tx, MINE, draft, shop.by)


def opened(shop: Shop, link_id: str, **more: Any) -> NewSession:
    """A session of somebody who opened it."""
    with shop.tx() as tx:
        return links.open_link(tx, shop.queue, link_id, shop.ids, shop.clock(), **more)


# --- links --------------------------------------------------------------------------------------------


def test_everybody_who_opens_a_link_has_a_session_of_their_own(shop: Shop) -> None:
    """The amount, the words and the language are the link's; a use is a payment, not a look."""
    link_id = made(shop, currency="XOF", amount_minor=5_000, description="Dîner", reference="T12", methods=("card",))
    first, second = opened(shop, link_id), opened(shop, link_id, locale="en")
    assert first.id != second.id and first.client_secret != second.client_secret
    seen = shop.seen_session(second.id)
    assert (seen["amount"], seen["description"], seen["reference"]) == (5_000, "Dîner", "T12")
    assert (seen["methods"], seen["locale"], seen["link"]) == (["card"], "en", link_id)
    with shop.tx() as tx:
        assert links.public(links.one(tx, MINE, link_id))["uses"] == 0
    shop.captured(shop.pay(session_id=first.id))
    with shop.tx() as tx:
        assert links.public(links.listed(tx, MINE)[0])["uses"] == 1


def test_an_open_amount_stays_within_its_bounds(shop: Shop) -> None:
    """The buyer says how much; a fixed link takes no other amount than its own."""
    link_id = made(shop, currency="XOF", min_minor=500, max_minor=2_000)
    assert shop.seen_session(opened(shop, link_id, amount_minor=2_000).id)["amount"] == 2_000
    for amount in (None, 499, 2_001, 1_000.5, True):
        assert code(shop, links.open_link, shop.queue, link_id, shop.ids, 1, amount_minor=amount) == "bad_amount"
    fixed = made(shop)
    assert code(shop, links.open_link, shop.queue, fixed, shop.ids, 1, amount_minor=1) == "bad_amount"


def test_a_link_is_used_as_often_as_it_may_be(shop: Shop) -> None:
    """Somebody else's payment on its way counts at the submit; a paid one closes the link; a failed one frees it."""
    link_id = made(shop, currency="XOF", amount_minor=5_000, max_uses=1)
    first, second = opened(shop, link_id), opened(shop, link_id)
    payment_id = shop.pay(session_id=first.id)
    assert code(shop, links.refuse_used_up, link_id, second.id) == "link_used_up"
    shop.tell((payment_id, fact(Kind.FAILED, payment_id)))
    with shop.tx() as tx:
        links.refuse_used_up(tx, link_id, second.id)
    shop.captured(shop.pay(session_id=second.id))
    assert code(shop, links.open_link, shop.queue, link_id, shop.ids, 1) == "link_used_up"
    with shop.tx() as tx:
        assert links.page(tx, link_id)["closed_reason"] == "link_used_up"
        links.change(tx, MINE, link_id, shop.by, max_uses=None)
        assert links.page(tx, link_id)["open"] is True


def test_a_links_product_is_at_its_price_of_the_day(shop: Shop) -> None:
    """What is sold out, not sold any more or the shop's no more is said before anything is begun."""
    product = shop.product(1, 2_500)
    link_id = made(shop, product_id=product, quantity=1, description="Pagne")
    with shop.tx() as tx:
        product_steps.change(tx, MINE, product, shop.by, price_minor=3_000)
        page = links.page(tx, link_id)
    assert (page["price_minor"], page["product_name"], page["merchant_name"]) == (3_000, "Pagne", "Awa")
    assert shop.seen_session(opened(shop, link_id).id)["amount"] == 3_000
    assert shop.stock(product) == 1, "looking is not buying"
    with shop.tx() as tx:
        product_steps.set_stock(tx, MINE, product, shop.by, 0)
    assert code(shop, links.open_link, shop.queue, link_id, shop.ids, 1) == "out_of_stock"
    with shop.tx() as tx:
        product_steps.change(tx, MINE, product, shop.by, active=False)
    assert code(shop, links.open_link, shop.queue, link_id, shop.ids, 1) == "link_inactive"
    with shop.tx() as tx:
        tx.execute(update(merchants).values(status="disabled"))
        assert links.page(tx, link_id)["closed_reason"] == "merchant_disabled"


def test_a_link_that_is_switched_off_opens_nothing(shop: Shop) -> None:
    """And another merchant cannot switch it on."""
    link_id = made(shop)
    with shop.tx() as tx:
        links.change(tx, MINE, link_id, shop.by, active=False, description="Fermé")
        assert [row["id"] for row in links.listed(tx, MINE, active=False)] == [link_id]
    assert code(shop, links.open_link, shop.queue, link_id, shop.ids, 1) == "link_inactive"
    assert code(shop, links.change, Whose("mer_2", False), link_id, shop.by, active=True) == "not_found"
    assert code(shop, links.open_link, shop.queue, "lnk_nobody", shop.ids, 1) == "not_found"


def test_a_public_link_keeps_a_bounded_number_of_open_sessions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever only opens it cannot fill the disk."""
    monkeypatch.setattr(links, "OPEN_SESSIONS_MAX", 3)
    link_id = made(shop)
    for _ in range(3):
        opened(shop, link_id)
    assert code(shop, links.open_link, shop.queue, link_id, shop.ids, 1) == "link_busy"


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ({"currency": "XOF"}, "bad_amount"),
        ({"currency": "XOF", "amount_minor": 0}, "bad_amount"),
        ({"currency": "XOF", "amount_minor": 5, "min_minor": 5}, "bad_amount"),
        ({"currency": "XOF", "min_minor": 5}, "bad_amount"),
        ({"currency": "XOF", "min_minor": 6, "max_minor": 5}, "bad_amount"),
        ({"currency": "XOF", "min_minor": -6, "max_minor": 5}, "bad_min_amount"),
        ({"currency": "", "amount_minor": 5}, "bad_currency"),
        ({"currency": "XOF", "amount_minor": 5, "methods": ()}, "bad_methods"),
        ({"currency": "XOF", "amount_minor": 5, "methods": ("cash",)}, "bad_methods"),
        ({"currency": "XOF", "amount_minor": 5, "country": "ci"}, "bad_country"),
        ({"currency": "XOF", "amount_minor": 5, "max_uses": 0}, "bad_max_uses"),
        ({"product_id": "prod_nobody"}, "not_found"),
    ],
)
def test_a_bad_link_is_refused_by_name(shop: Shop, draft: dict[str, Any], expected: str) -> None:
    """Each with the field that is wrong."""
    assert code(shop, links.create, MINE, LinkDraft(**draft), shop.by) == expected


# --- sessions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        ({}, "bad_amount"),
        ({"amount_minor": 5}, "bad_currency"),
        ({"amount_minor": -5, "currency": "XOF"}, "bad_amount"),
        ({"amount_minor": 5.0, "currency": "XOF"}, "bad_amount"),
        ({"order_id": "ord_nobody"}, "not_found"),
        ({"amount_minor": 5, "currency": "XOF", "expires_in_ms": 29 * 60_000}, "bad_expires_in_ms"),
        ({"amount_minor": 5, "currency": "XOF", "expires_in_ms": 25 * 3_600_000}, "bad_expires_in_ms"),
        ({"amount_minor": 5, "currency": "XOF", "tries": 0}, "bad_tries"),
        ({"amount_minor": 5, "currency": "XOF", "locale": "de"}, "bad_locale"),
        ({"amount_minor": 5, "currency": "XOF", "customer": Customer("x" * 501)}, "bad_customer"),
    ],
)
def test_a_bad_session_is_refused_by_name(shop: Shop, offer: dict[str, Any], expected: str) -> None:
    """R18: amounts are integers; 30 minutes to 24 hours."""
    assert code(shop, sessions.create, shop.queue, MINE, sessions.Offer(**offer), shop.by) == expected


def test_a_session_for_an_order_asks_for_what_is_left_and_ends_with_it(shop: Shop) -> None:
    """Another amount is refused; so is an order that is over. Paid through the session, both are done at once."""
    order_id = shop.order()
    shop.captured(shop.pay(order_id, asked=(2_000, "XOF")), (2_000, "XOF"))
    wrong = sessions.Offer(order_id=order_id, amount_minor=5_000)
    assert code(shop, sessions.create, shop.queue, MINE, wrong, shop.by) == "bad_amount"
    session = shop.session(order_id=order_id, expires_in_ms=24 * 3_600_000)
    seen = shop.seen_session(session.id)
    assert (seen["amount"], seen["expires_at"]) == (3_000, shop.seen(order_id)["expires_at"])
    other = shop.session(order_id=order_id)
    payment_id = shop.pay(order_id, session.id, (3_000, "XOF"))
    with pytest.raises(Refusal) as refused:
        shop.pay(order_id, other.id, (3_000, "XOF"))
    assert refused.value.code == "prompt_open", "the order has a live attempt in another session"
    assert shop.seen_session(other.id)["tries_left"] == 5, "what was refused spent nothing"
    shop.captured(payment_id, (3_000, "XOF"))
    assert (shop.seen(order_id)["state"], shop.seen_session(session.id)["status"]) == ("paid", "paid")
    assert shop.seen_session(other.id)["status"] == "expired", "nothing is left that it could be for"
    assert shop.told("session.") == ["session.completed", "session.expired"]
    assert code(shop, sessions.create, shop.queue, MINE, sessions.Offer(order_id=order_id), shop.by) == (
        "order_not_payable"
    )


def test_an_order_that_ends_takes_its_open_sessions_along(shop: Shop) -> None:
    """Nobody is shown a page for what cannot be bought any more."""
    order_id = shop.order()
    session = shop.session(order_id=order_id)
    assert shop.cancel(order_id) == "canceled"
    assert shop.seen_session(session.id)["status"] == "cancelled"
    assert shop.told("session.") == ["session.canceled"]


def test_a_try_that_failed_may_still_pay_and_a_late_one_leaves_the_session_as_it_is(shop: Shop) -> None:
    """FedaPay approves after a decline: open → complete. After the end: unchanged, the payment paid and late."""
    session = shop.session(currency="XOF", amount_minor=5_000)
    first = shop.pay(session_id=session.id)
    shop.tell((first, fact(Kind.FAILED, first)))
    assert shop.seen_session(session.id)["status"] == "pending"
    shop.captured(first)
    assert shop.seen_session(session.id)["status"] == "paid"
    other = shop.session(currency="XOF", amount_minor=5_000, tries=1)
    second = shop.pay(session_id=other.id)
    shop.tell((second, fact(Kind.FAILED, second)))
    assert shop.seen_session(other.id)["status"] == "failed"
    shop.clock.advance(1_000)
    shop.captured(second)
    assert shop.seen_session(other.id)["status"] == "failed"
    assert shop.bodies("payment.attention")[-1]["payment"]["exceptions"] == ["late"]
    assert shop.told("session.") == ["session.completed", "session.expired"]


def test_money_for_a_session_that_is_over_is_seen_whatever_time_the_provider_gives(shop: Shop) -> None:
    """Found by asking, with the time at which the payment was begun: not late by that clock, and no less unexpected."""
    session = shop.session(currency="XOF", amount_minor=5_000, tries=1)
    payment_id = shop.pay(session_id=session.id)
    shop.tell((payment_id, fact(Kind.FAILED, payment_id)))
    shop.captured(payment_id, at_ms=1)
    assert shop.seen_session(session.id)["status"] == "failed"
    with shop.tx() as tx:
        assert tx.execute(select(attention.c.reason).where(attention.c.subject == payment_id)).scalars().all() == [
            "late"
        ]


def test_r16_a_session_is_complete_only_for_the_right_money(shop: Shop) -> None:
    """R16: that something was captured is not enough; refunded in full, the merchant sees it."""
    session = shop.session(currency="XOF", amount_minor=5_000)
    payment_id = shop.pay(session_id=session.id)
    shop.captured(payment_id, (4_000, "XOF"))
    assert shop.seen_session(session.id)["status"] == "processing"
    shop.tell((payment_id, captured(payment_id, at_ms=9, movement="n")))
    assert shop.seen_session(session.id)["status"] == "paid"
    right = shop.session(currency="XOF", amount_minor=5_000)
    payment_id = shop.pay(session_id=right.id)
    shop.captured(payment_id)
    shop.tell((payment_id, fact(Kind.REFUND_SUCCEEDED, payment_id, 10, 5_000)))
    assert shop.seen_session(right.id)["status"] == "refunded"


def test_a_buyer_is_kept_apart_and_seen_by_no_page(shop: Shop) -> None:
    """The row, the page and the events have nobody's name in them."""
    session = shop.session(currency="XOF", amount_minor=5_000, customer=Customer("Awa Koné", "awa@example.com"))
    with shop.tx() as tx:
        assert sessions.buyer(tx, session.id).email == "awa@example.com"
        assert tx.execute(select(buyers.c.name)).scalar() == "Awa Koné"
        assert "Awa K" not in str(sessions.page(tx, session.id)) + str(sessions.one(tx, MINE, session.id))
        with pytest.raises(NotFound):
            sessions.page(tx, "ses_nobody")
        with pytest.raises(NotFound):
            sessions.one(tx, Whose("mer_1", True), session.id)
        assert sessions.listed(tx, Whose("mer_1", True)) == []
        assert [row["id"] for row in sessions.listed(tx, MINE, state="open")] == [session.id]
    assert code(shop, sessions.listed, MINE, limit=101) == "bad_limit"


# --- verify's words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", LOCALES)
def test_every_state_of_a_session_has_a_sentence(locale: str) -> None:
    """In both languages; what will not change by itself is not to be asked again."""
    for state, payment, word, status, again in (
        ("open", None, "pending", "pending", 2_000),
        ("processing", "requires_action", "processing", "pending", 2_000),
        ("expiring", "unknown", "processing", "pending", 2_000),
        ("complete", "succeeded", "paid", "success", None),
        ("complete", "refunded", "refunded", "success", None),
        ("expired", None, "expired", "error", None),
        ("canceled", None, "cancelled", "error", None),
        ("processing", "succeeded", "held", "pending", 2_000),
        ("expired", "succeeded", "held", "error", None),
    ):
        row = {"state": state, "ended_by": None, "payment_status": payment, "locale": "fr", "created_at_ms": 0}
        said = answer(row, None, locale, 1_000)
        assert (said["status"], said["message"], said["poll_after_ms"]) == (status, MESSAGES[word][locale], again)
        assert set(said) == {"status", "state", "message", "order", "poll_after_ms"}
    waiting = {"state": "open", "ended_by": None, "payment_status": None, "locale": "en", "created_at_ms": 0}
    assert answer(waiting, None, "xx", 60_000)["poll_after_ms"] == 5_000
    assert answer(waiting, None, "xx", 60_000)["message"] == MESSAGES["pending"]["en"]


# --- where to go afterwards ---------------------------------------------------------------------------

GOOD = ("https://shop.example/thanks?x=1#y", "https://SHOP.example:8443/", "https://8.8.8.8/", "")
LOCAL = (
    *("http://shop.example/", "https://localhost/", "https://127.0.0.1/", "https://10.1.2.3:8080/x"),
    *("https://[::1]/", "https://192.168.1.1/", "https://169.254.169.254/", "https://nas.local/"),
    *("https://127.1/", "https://0x7f000001/", "https://2130706433/", "https://localhost./", "https://intranet/"),
)
BAD = (
    *("javascript:alert(1)", "//evil.example", "https://", "https:///x", "ftp://shop.example/", "shop.example"),
    *("https://shop.example\\@evil.example/", "https://a@evil.example/", "https://shop.example/\r\nX: y"),
    *("https://shöp.example/", "https://shop.example:99999/", "https://[::1", "https://x/" + "a" * 2_000, "data:,x"),
)


@pytest.mark.parametrize("url", GOOD)
def test_a_good_return_url_passes_as_it_is(url: str) -> None:
    """Nothing is changed about it."""
    assert check_return_url(url, strict=True) == check_return_url(url, strict=False) == url


@pytest.mark.parametrize("url", LOCAL)
def test_a_local_return_url_is_for_development_alone(url: str) -> None:
    """However the address is spelled."""
    assert check_return_url(url, strict=False) == url
    with pytest.raises(Refusal) as refused:
        check_return_url(url, strict=True)
    assert refused.value.code == "bad_return_url"


@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_no_address_to_go_back_to_is_refused(url: str, strict: bool) -> None:
    """Another scheme, a user name, a second line, half an address."""
    with pytest.raises(Refusal) as refused:
        check_return_url(url, strict=strict)
    assert refused.value.code == "bad_return_url"


def test_with_a_list_only_its_origins_pass() -> None:
    """Scheme, host and port, compared as browsers do; a longer name that begins the same is another."""
    allowed = ("https://shop.example", "http://localhost:3000")
    for url in ("https://shop.example/x", "https://SHOP.example:443/", "http://localhost:3000/"):
        assert check_return_url(url, strict=True, allowed=allowed) == url
    for url in ("https://shop.example.evil.example/", "http://shop.example/", "https://shop.example:8443/",
                "http://localhost:3001/", "https://www.shop.example/"):  # fmt: skip
        with pytest.raises(Refusal):
            check_return_url(url, strict=True, allowed=allowed)
