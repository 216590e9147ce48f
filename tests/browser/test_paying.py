"""A buyer pays on a phone, in a real browser without script: what a person does, from the link to the receipt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.orders import links, sessions
from service.orders.links import LinkDraft
from service.orders.owner import Whose
from service.orders.sessions import Offer
from service.payments.facts import Reason
from service.payments.tables import payments
from service.sandbox.bank import Payer
from tests.browser.phone import Phone, needs_chromium, phone
from tests.support.paying import BUYER, Counter, counter

pytestmark = needs_chromium
MINUTE_MS = 60_000
OF_BENIN: dict[str, Any] = {"currency": "XOF", "amount_minor": 5_000, "country": "BJ", "description": "Pagne, 6 yards"}
NUMBER, OTHER = "01 97 80 80 80", "01 97 80 80 81"


async def offered(c: Counter, **more: Any) -> str:
    """The address of a new session's page."""
    assert c.till.merchant is not None
    app = c.till.app
    offer = Offer(**{**OF_BENIN, "return_url": "https://shop.example/thanks?a=1", **more})
    made = await app.db.write(sessions.create, app.queue, Whose(c.till.merchant.id, False), offer, c.by)
    app.nudge()
    return f"{c.till.url}/pay/{made.id}"


def story(
    tmp_path: Path,
    name: str,
    tell: Callable[[Counter, Phone], Awaitable[None]],
    *providers: str,
    anybody: Payer | None = None,
    **more: Any,
) -> None:
    """Run it with a counter and a phone."""

    async def run() -> None:
        async with counter(tmp_path, *providers, anybody=anybody) as c, phone(name, **more) as p:
            await tell(c, p)

    asyncio.run(run())


async def by_number(p: Phone, number: str = NUMBER, operator: str = "MTN MoMo") -> str:
    """The first two steps of mobile money: the number, and the operator that is suggested for it."""
    await p.fill("Numéro qui paie", number)
    said = await p.press("Payer par mobile money")
    assert operator in said and "proposé" in said
    assert await p.page.get_by_label(operator).is_checked()
    return await p.press("Payer 5")


@pytest.mark.parametrize("script", [False, True], ids=["without script", "with script"])
def test_a_card_is_paid_on_the_providers_page_and_back(tmp_path: Path, script: bool) -> None:
    """
    The form's answer leads to Stripe's page by itself, and Stripe's page back to a receipt, before any callback.
    """

    async def tell(c: Counter, p: Phone) -> None:
        c.sandbox.trouble.on("stripe", "silence")
        url = await offered(c)
        assert "Payer par carte" in await p.open(url)
        await p.click("Payer par carte")
        await p.page.wait_for_url("**/stripe/pay/**")
        said = await p.press("Payer · Pay")
        assert "Paiement reçu" in said and "Carte" in said and "Pagne" in said
        assert p.page.url == url, "what the provider hangs on the address is gone"
        shop = await p.page.get_by_text("Retour à la boutique").get_attribute("href")
        assert shop == f"https://shop.example/thanks?a=1&session={url.rpartition('/')[2]}"

    story(tmp_path, f"card{script:d}", tell, "stripe", script=script)


def test_a_card_that_is_declined_is_told_and_another_way_chosen(tmp_path: Path) -> None:
    """Declined on Stripe's page, back by hand, cancelled there, then paid by mobile money: charged once."""

    async def tell(c: Counter, p: Phone) -> None:
        url = await offered(c, currency="XAF", country="GA", customer=BUYER)
        await p.open(url)
        await p.click("Payer par carte")
        await p.page.wait_for_url("**/stripe/pay/**")
        await p.page.get_by_label("Raison du refus").select_option("insufficient_funds")
        await p.press("Échouer")
        await c.settle()
        said = await p.open(url)
        assert "Aller à la page de paiement" in said and "Le solde est insuffisant" in said
        said = await p.press("Annuler et changer de moyen")
        assert "Numéro qui paie" in said and "Essais restants : 4" in said
        assert "Validez sur votre téléphone" in await by_number(p, "074 00 00 01", "Airtel Money")
        await c.settle()
        assert "Paiement reçu" in await p.press("J’ai validé")
        assert len(c.sandbox.bank.charged()) == 1

    story(tmp_path, "declined-card", tell, "stripe", "ebilling")


def test_a_code_wrong_then_right(tmp_path: Path) -> None:
    """Paystack's own words are shown as it sent them; a wrong code asks again and says so."""

    async def tell(c: Counter, p: Phone) -> None:
        c.sandbox.trouble.on("paystack", "otp_wrong", times=1)
        url = await offered(c, currency="GHS", country="GH", customer=BUYER)
        await p.open(url)
        await p.fill("Numéro qui paie", "020 123 4567")
        assert "Telecel Cash" in await p.press("Payer par mobile money")
        said = await p.press("Payer 50")
        (row,) = await c.till.rows(payments)
        words = (await c.attempts(row.id))[0].action
        assert "Entrez le code" in said and " ".join(said.split()).find(_display(words)) >= 0, (said, words)
        await p.fill("Code reçu", "111 111")
        said = await p.press("Valider le code")
        assert "Ce code n’a pas été accepté. Essai 1 sur 5" in said
        await p.fill("Code reçu", "123456")
        await p.press("Valider le code")
        await c.settle()
        assert "Paiement reçu" in await p.open(url)

    story(tmp_path, "otp", tell, "paystack")


def test_approval_on_the_phone(tmp_path: Path) -> None:
    """The prompt rings, the page waits and asks when the payer says so; it loads anew by itself, too."""

    async def tell(c: Counter, p: Phone) -> None:
        url = await offered(c, locale="en")
        assert "Number that pays" in await p.open(url)
        assert "Numéro qui paie" in await p.press("Français")
        said = await by_number(p)
        assert "Validez sur votre téléphone" in said
        assert p.page.url.partition("?")[2] == "lang=fr&go=1", "the language stays chosen"
        assert await p.page.locator("meta[http-equiv=refresh]").count() == 1
        assert "pas encore de réponse" in await p.press("J’ai validé")
        await c.settle()
        await p.page.get_by_text("Paiement reçu").wait_for(timeout=60_000)  # by itself
        assert "MTN MoMo" in await p.text("receipt")

    story(tmp_path, "approve", tell, "fedapay")


def test_declined_on_the_phone_and_paid_with_another_number(tmp_path: Path) -> None:
    """Why it failed is said in words for the payer; the next try pays."""

    async def tell(c: Counter, p: Phone) -> None:
        c.sandbox.bank.set_payer("+2290197808081", Payer("declines", Reason.INSUFFICIENT_FUNDS))
        url = await offered(c)
        await p.open(url)
        await by_number(p, OTHER)
        await c.settle()
        said = await p.press("J’ai validé")
        assert "refusé" in said or "insuffisant" in said
        assert "Essais restants : 4" in said
        await by_number(p)
        await c.settle()
        assert "Paiement reçu" in await p.press("J’ai validé")
        assert len(c.sandbox.bank.charged()) == 1

    story(tmp_path, "decline", tell, "fedapay")


def test_expired_and_a_number_that_is_none(tmp_path: Path) -> None:
    """A wrong number is said beside the field; after the hour nothing can be paid any more."""

    async def tell(c: Counter, p: Phone) -> None:
        url = await offered(c)
        await p.open(url)
        await p.fill("Numéro qui paie", "12")
        said = await p.press("Payer par mobile money")
        assert "Ce n’est pas un numéro de téléphone" in said
        assert await p.page.get_by_label("Numéro qui paie").input_value() == "12"
        await c.go_on(61 * MINUTE_MS)
        await p.fill("Numéro qui paie", NUMBER)
        assert "Cette demande a expiré" in await p.press("Payer par mobile money")

    story(tmp_path, "expired", tell, "fedapay")


def test_an_answer_that_was_lost_tells_the_payer_not_to_pay_again(tmp_path: Path) -> None:
    """Unknown is a state of its own, with words of its own; there is no form to pay with."""

    async def tell(c: Counter, p: Phone) -> None:
        c.till.app.client.limit_ms = 300
        c.sandbox.trouble.on("fedapay", "timeout_after")
        c.sandbox.trouble.on("fedapay", "silence")
        c.sandbox.trouble.on("fedapay", "error_5xx_before", "fetch")
        url = await offered(c)
        await p.open(url)
        said = await by_number(p)
        assert "Ne payez pas une deuxième fois" in said and "Numéro qui paie" not in said

    story(tmp_path, "unknown", tell, "fedapay")


@pytest.mark.parametrize(("width", "zoom"), [(320, 1), (360, 2)], ids=["320 pixels", "text at 200 %"])
def test_small_screens_and_large_text(tmp_path: Path, width: int, zoom: int) -> None:
    """Nothing sticks out, with the longest words that a shop may have."""

    async def tell(c: Counter, p: Phone) -> None:
        long = "Tissupagnewaxhollandaisvéritable" * 6
        url = await offered(c, description=long, amount_minor=1_234_567, return_url="")
        await p.open(url)
        await p.fill("Numéro qui paie", NUMBER)
        await p.press("Payer par mobile money")
        assert "Validez" in await p.press("Payer 1")
        await c.settle()
        assert "Paiement reçu" in await p.press("J’ai validé")

    story(tmp_path, f"small{width}x{zoom}", tell, "fedapay", "stripe", width=width, zoom=zoom)


def _display(action: str) -> str:
    return " ".join(json.loads(action)["display_text"].split())


def test_a_link_from_a_poster_to_the_receipt(tmp_path: Path) -> None:
    """The poster, the link, an amount of one's own and mobile money, on the smallest screen."""

    async def tell(c: Counter, p: Phone) -> None:
        assert c.till.merchant is not None
        app, who = c.till.app, Whose(c.till.merchant.id, False)
        draft = LinkDraft(currency="XOF", min_minor=500, max_minor=50_000, description="Table 12", country="BJ")
        path = f"{c.till.url}/l/{await app.db.write(links.create, who, draft, c.by)}"
        assert "Scannez pour payer" in await p.open(path + "/print")
        drawn = await p.page.locator("svg").bounding_box()
        assert drawn is not None and drawn["width"] >= 250 and drawn["width"] == drawn["height"]
        await p.open(path)
        await p.fill("Quel montant", "5.000")
        assert "Écrivez un montant de" in await p.press("Payer")
        await p.fill("Quel montant", "5 000")
        await p.press("Payer")
        await by_number(p)
        await c.settle()
        assert "Paiement reçu" in await p.press("J’ai validé")

    story(tmp_path, "link", tell, "fedapay", width=320)
