"""The buyer's page over HTTP: every state and its weight, forms that are wrong, old or hostile, what is never on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.merchants.tables import merchants
from service.orders import sessions
from service.orders.owner import Whose
from service.orders.sessions import NewSession, Offer
from service.orders.tables import sessions as session_table
from service.pay import words
from service.pay.form import BODY_BYTES_MAX, FORM_MS
from service.pay.page import FORMS_MOST
from service.payments.desk import OTP_TRIES_MAX
from service.payments.facts import Reason
from service.payments.tables import attempts, payments
from service.providers.calls import Customer
from service.routing.operators import PREFIXES, WARNINGS
from service.sandbox.bank import Payer
from tests.support import corpora
from tests.support.paying import BUYER, Counter, counter

MINUTE_MS = 60_000
PAGE_BYTES_MAX = 50_000  # mission E6: all of a page, and a page is one response
NUMBER = "+229 01 97 80 80 80"
WALLET = {"do": "wallet", "phone": NUMBER, "country": "BJ", "operator": "mtn"}


@dataclass
class Got:
    """An answer. `text` is what can be read."""

    status: int
    body: str
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        """Without markup, spaces folded."""
        inside = re.sub(r"<style>.*?</style>|<[^>]+>", " ", self.body, flags=re.DOTALL)
        return " ".join(unescape(inside).split())

    @property
    def token(self) -> str:
        """Of the first form."""
        found = re.search(r'name="token" value="([^"]+)"', self.body)
        return found[1] if found else ""


@dataclass
class Buyer:
    """A browser without a screen: follows nothing by itself, and holds each page to what holds for all of them."""

    c: Counter
    made: NewSession

    @property
    def path(self) -> str:
        """The page's address."""
        return f"/pay/{self.made.id}"

    async def get(self, path: str = "") -> Got:
        """A page."""
        async with self.c.till.client.get(self.c.till.url + (path or self.path), allow_redirects=False) as answer:
            return await self._got(answer)

    async def post(self, form: Mapping[str, str], path: str = "", **more: Any) -> Got:
        """A form with the token of the page as it is now, unless it brings one."""
        given = {"token": (await self.get(self.path)).token, **form}
        url = self.c.till.url + (path or self.path)
        async with self.c.till.client.post(url, data=given, allow_redirects=False, **more) as answer:
            return await self._got(answer)

    async def _got(self, answer: Any) -> Got:
        body = await answer.text()
        got = Got(answer.status, body, answer.headers)
        assert len(body.encode()) + sum(len(k) + len(v) for k, v in answer.headers.items()) <= PAGE_BYTES_MAX
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        for word in (self.made.client_secret, BUYER.name, BUYER.email, BUYER.phone, "<script", " style=", "onclick"):
            assert word not in body, word
        return got


async def offered(c: Counter, **more: Any) -> Buyer:
    """A new session's buyer."""
    assert c.till.merchant is not None
    app, who = c.till.app, Whose(c.till.merchant.id, False)
    offer = {"currency": "XOF", "amount_minor": 5_000, "country": "BJ", "description": "Pagne", "customer": BUYER}
    made = await app.db.write(sessions.create, app.queue, who, Offer(**offer | more), c.by)
    app.nudge()
    return Buyer(c, made)


def story(tmp_path: Path, tell: Callable[[Counter], Awaitable[None]], *providers: str, **more: Any) -> None:
    """Run it in front of these providers."""

    async def run() -> None:
        async with counter(tmp_path, *(providers or ("fedapay",)), **more) as c:
            await tell(c)

    asyncio.run(run())


# --- every state --------------------------------------------------------------------------------------

STATES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # the session's row, the payment's, what the page says
    ({"state": "open"}, {"status": "failed", "failure_reason": "wrong_pin"}, "Le code secret était faux"),
    ({"state": "open"}, {"status": "canceled"}, "Cet essai a été annulé"),
    ({"state": "open"}, {"status": "failed", "failure_reason": "new_word"}, "refusé sans autre précision"),
    ({}, {"status": "pending"}, "Paiement en cours"),
    ({}, {"status": "authorized"}, "Paiement en cours"),
    ({}, {"status": "unknown"}, "Ne payez pas une deuxième fois"),
    ({"state": "expiring"}, {"status": "pending"}, "Le délai est dépassé"),
    ({"state": "canceling"}, {"status": "pending"}, "ne payez pas une deuxième fois"),
    ({"state": "complete", "paid_at_ms": 1_700_000_000_000}, {"status": "succeeded"}, "14 novembre 2023 à 23:13 (CET)"),
    (
        {"state": "complete", "paid_at_ms": 1_700_000_000_000},
        {"status": "partially_refunded"},
        "Une partie vous a été rendue",
    ),
    ({"state": "complete", "paid_at_ms": 1}, {"status": "refunded"}, "Paiement remboursé"),
    ({}, {"status": "succeeded", "exceptions": "under"}, "La boutique vérifie votre paiement"),
    ({"state": "expired", "ended_by": "time"}, {"status": "succeeded", "exceptions": "late"}, "après la fin du délai"),
    ({"state": "canceled"}, {"status": "succeeded", "exceptions": "late"}, "Ne payez pas une deuxième fois"),
    (
        {"state": "expired", "ended_by": "tries"},
        {"status": "failed", "failure_reason": "limit_reached"},
        "Le plafond de ce compte est atteint",
    ),
    ({"state": "expired", "ended_by": "time"}, {"status": "expired"}, "Cette demande a expiré"),
    ({"state": "canceled"}, {"status": "canceled"}, "Cette demande a été annulée"),
]
ACTIONS: list[tuple[str, str]] = [
    ('{"type": "otp", "display_text": "Tapez *144# <b>\\n& le code"}', "Tapez *144# <b> & le code"),
    ('{"type": "otp", "display_text": ""}', "Votre opérateur demande un code"),
    ('{"type": "approve_on_phone", "display_text": "Dial 1"}', "Dial 1"),
    ('{"type": "approve_on_phone", "display_text": ""}', "Entrez-y votre code secret, jamais ici"),
    ('{"type": "redirect", "url": "https://provider.example/p?a=1&b=2"}', "Aller à la page de paiement"),
    ('{"type": "redirect", "url": "javascript:alert(1)"}', "Payez sur la page sécurisée"),
    ('{"type": "redirect", "url": "https://x.example/\\"><script>"}', "Payez sur la page sécurisée"),
    ('{"type": "confirm", "client_secret": "pi_secret_of_the_shop"}', "Paiement en cours"),
    ("null", "Paiement en cours"),
]


def test_every_state_has_its_words_and_fits_into_50_kb(tmp_path: Path) -> None:
    """
    Whatever state a session, its payment and what the payer has to do are in: French and English, within the weight,
    in words of their own, and without a secret. A status that has no face would be a KeyError, hence a 500.
    """

    async def tell(c: Counter) -> None:
        c.sandbox.trouble.on("fedapay", "silence")
        buyer = await offered(c, return_url="https://shop.example/back")
        await buyer.post(WALLET)
        (row,) = await c.till.rows(payments)

        async def put(session: Mapping[str, Any], payment: Mapping[str, Any], attempt: Mapping[str, Any]) -> None:
            def work(tx: Any) -> None:
                tx.execute(update(session_table).values(**{"state": "processing", "ended_by": None} | dict(session)))
                tx.execute(update(payments).values(**{"exceptions": "", "failure_reason": None} | dict(payment)))
                if attempt:
                    tx.execute(update(attempts).values(**attempt))

            await c.till.app.db.write(work)

        for session, payment, sentence in STATES:
            await put(session, payment, {})
            french, english = await buyer.get(), await buyer.get(buyer.path + "?lang=en")
            assert (french.status, english.status) == (200, 200)
            assert sentence in french.text, (session, payment, french.text)
            assert french.text != english.text and "é" not in english.text.replace("Français", "")
        for action, sentence in ACTIONS:
            await put({}, {"status": "requires_action"}, {"action": action})
            got = await buyer.get(buyer.path + "?go=1")
            assert got.status == 200 and sentence in got.text, (action, got.text)
            assert "javascript:" not in got.body and "pi_secret" not in got.body
        assert row.session_id == buyer.made.id

    story(tmp_path, tell)


def test_the_page_leads_to_the_provider_once(tmp_path: Path) -> None:
    """After the form it goes there by itself; whoever comes back to the address later is not thrown out again."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        sent = await buyer.post({"do": "card"})
        assert (sent.status, sent.headers["Location"]) == (303, f"{buyer.path}?go=1")
        there = await buyer.get(sent.headers["Location"])
        assert re.search(r'http-equiv="refresh" content="0;url=http://127.0.0.1:\d+/stripe/pay/', there.body)
        assert 'http-equiv="refresh"' not in (await buyer.get()).body

    story(tmp_path, tell, "stripe")


def test_coming_back_asks_the_provider_at_once(tmp_path: Path) -> None:
    """No callback comes: the way back asks, whatever the provider hung on the address, also by POST; 30 s ask too."""

    async def tell(c: Counter) -> None:
        c.sandbox.trouble.on("stripe", "silence")
        for method in ("GET", "POST"):
            buyer = await offered(c)
            await buyer.post({"do": "card"})
            (row,) = await c.till.rows(payments, payments.c.session_id == buyer.made.id)
            await c.pay(row.id)
            assert (await c.payment(row.id)).status == "requires_action"
            url = f"{c.till.url}{buyer.path}/back?status=failed&id=1&id=2"
            async with c.till.client.request(method, url, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, buyer.path)
            assert "Paiement reçu" in (await buyer.get()).text
        late = await offered(c)
        await late.post({"do": "card"})
        (row,) = await c.till.rows(payments, payments.c.session_id == late.made.id)
        await c.pay(row.id)
        assert "Paiement reçu" not in (await late.get()).text
        c.clock.ahead_ms += 31_000
        assert "Paiement reçu" in (await late.get()).text

    story(tmp_path, tell, "stripe")


def test_a_page_does_not_wait_for_a_slow_provider(tmp_path: Path) -> None:
    """Two seconds at most, and then what we know: a question that hangs must not hang the page."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        await buyer.post({"do": "card"})
        gate = asyncio.Event()

        async def slow(_: str, limit_ms: int = 15_000) -> bool:
            assert limit_ms == 2_000
            return await gate.wait()

        c.till.app.desk.sync = slow  # type: ignore[method-assign]
        got = await asyncio.wait_for(buyer.post({"do": "check"}), 30)
        assert (got.status, got.headers["Location"]) == (303, f"{buyer.path}?asked=1")
        assert "pas encore de réponse" in (await buyer.get(got.headers["Location"])).text
        gate.set()

    story(tmp_path, tell, "stripe")


# --- forms --------------------------------------------------------------------------------------------


def test_forms_that_were_not_given_out_here_do_nothing(tmp_path: Path) -> None:
    """Without a token, with another page's, an old or a broken one: a page that says so, and no payment."""

    async def tell(c: Counter) -> None:
        buyer, other = await offered(c), await offered(c)
        token = (await buyer.get()).token
        for wrong in ("", "x", "é", token[:-4], token + "A", (await other.get()).token, "=" * 200):
            got = await buyer.post({**WALLET, "token": wrong})
            assert got.status == 400 and "Rien n’a été fait" in got.text, wrong
            assert f'href="{buyer.path}"' in got.body
        c.clock.ahead_ms += FORM_MS + 1
        assert (await buyer.post({**WALLET, "token": token})).status == 400
        assert await c.till.count(payments) == 0

    story(tmp_path, tell)


@pytest.mark.parametrize(
    ("form", "status", "sentence"),
    [
        ({**WALLET, "phone": "12ab"}, 422, "pas un numéro de téléphone"),
        ({**WALLET, "phone": ""}, 422, "pas un numéro de téléphone"),
        ({**WALLET, "country": "FR"}, 422, "Choisissez un des pays"),
        ({**WALLET, "operator": "wave"}, 422, "Choisissez un des comptes"),
        ({**WALLET, "operator": ""}, 422, "Choisissez un des comptes"),
        ({"do": "wallet", "phone": NUMBER, "country": "BJ"}, 422, "Choisissez un des comptes"),
        ({"do": "otp", "code": "1"}, 303, ""),
        ({"do": "check"}, 303, ""),
        ({"do": "give_up"}, 422, "ne peut pas être annulé"),
        ({"do": "nothing"}, 400, "Rien n’a été fait"),
        ({}, 400, "Rien n’a été fait"),
        ({**WALLET, "more": "x" * 301}, 400, "Rien n’a été fait"),
        ({**WALLET, "phone": "a\0b"}, 400, "Rien n’a été fait"),
        ({**WALLET, "big": "x" * BODY_BYTES_MAX}, 413, "Réessayez"),
    ],
)
def test_a_wrong_form_is_said_on_the_page_and_begins_nothing(
    tmp_path: Path, form: dict[str, str], status: int, sentence: str
) -> None:
    """What was chosen and is not offered, what is no number, what is no form: in words, never a 5xx."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        got = await buyer.post(form)
        assert got.status == status and sentence in got.text, got.text
        assert await c.till.count(payments) == 0

    story(tmp_path, tell)


def test_bodies_that_are_no_forms(tmp_path: Path) -> None:
    """JSON, multipart, bytes that are no UTF-8, a field twice: 400 and a page."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        kind = "application/x-www-form-urlencoded"
        for body, media in ((b"{}", "application/json"), (b"do=card&do=otp", kind), (b"a=%ff", kind), (b"\xff", kind),
                            (b"&".join(b"a%d=1" % n for n in range(30)), kind), (b"", "")):  # fmt: skip
            headers = {"Content-Type": media}
            async with c.till.client.post(c.till.url + buyer.path, data=body, headers=headers) as answer:
                assert answer.status == 400 and "Rien n’a été fait" in await answer.text(), body
        for path in ("/pay/ses_nobody", "/pay/%00", f"/pay/{'x' * 500}", "/pay/%F0%9F%92%B8", "/pay/ses_nobody/back"):
            async with c.till.client.get(c.till.url + path) as answer:
                assert answer.status == 404 and "Il n’y a rien à cette adresse" in await answer.text(), path

    story(tmp_path, tell)


def test_naughty_strings_in_every_field_are_refused_or_shown_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is a 5xx, and none becomes markup."""
    monkeypatch.setattr("service.pay.page.FORMS_MOST", 100_000)

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        token = (await buyer.get()).token
        for number, text in enumerate(corpora.strings()):
            clean = text.encode(errors="replace").decode()[:290]
            forms = [
                {**WALLET, "operator": "", "phone": clean},
                {"do": "number", "country": "BJ", "phone": clean},
                {**WALLET, "operator": clean},
                {**WALLET, "country": clean, "operator": ""},
                {"do": clean},
            ]
            for form in forms if text in corpora.OWN_STRINGS else [forms[number % len(forms)]]:
                async with c.till.client.post(
                    c.till.url + buyer.path, data={"token": token, **form}, allow_redirects=False
                ) as answer:
                    body = await answer.text()
                    assert answer.status in (200, 400, 404, 422), (answer.status, form)
                    assert "<script" not in body.lower() and "<img" not in body.lower()
        assert await c.till.count(payments) == 0

    story(tmp_path, tell)


def test_hostile_words_of_a_shop_stay_words(tmp_path: Path) -> None:
    """A description and a merchant's name are shown as they are, and never as markup."""

    async def tell(c: Counter) -> None:
        evil = '"><img src=x onerror=alert(1)>{{7*7}}</title></style>'
        await c.till.app.db.write(lambda tx: tx.execute(update(merchants).values(name=evil)))
        buyer = await offered(c, description=evil)
        got = await buyer.get()
        assert "<img" not in got.body and got.text.count(evil) >= 2

    story(tmp_path, tell)


def test_many_forms_in_a_minute_are_too_many(tmp_path: Path) -> None:
    """A page that is hammered says so; another session's is not touched; a minute later it works again."""

    async def tell(c: Counter) -> None:
        buyer, other = await offered(c), await offered(c)
        form = {"do": "number", "country": "BJ", "phone": NUMBER}
        came = [(await buyer.post(form)).status for _ in range(FORMS_MOST + 1)]
        assert came == [200] * FORMS_MOST + [429]
        assert (await other.post(form)).status == 200
        c.clock.ahead_ms += MINUTE_MS
        assert (await buyer.post(form)).status == 200

    story(tmp_path, tell)


def test_a_code_that_is_none_or_went_nowhere_is_said_beside_the_field(tmp_path: Path) -> None:
    """None at all, one that the provider never got, too many: in words, and with the field where there is a point."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c, currency="GHS", country="GH")
        sent = await buyer.post({"do": "wallet", "country": "GH", "phone": "+233201234567", "operator": "vodafone"})
        assert sent.status == 303
        for wrong in ("", "12-34", "x" * 21):
            got = await buyer.post({"do": "otp", "code": wrong})
            assert got.status == 422 and "1 à 20 chiffres" in got.text and 'name="code"' in got.body
        c.sandbox.trouble.on("paystack", "refuse")
        got = await buyer.post({"do": "otp", "code": "123456"})
        assert got.status == 422 and "le code n’a pas servi" in got.text and 'name="code"' in got.body
        c.sandbox.trouble.off()
        await c.till.app.db.write(lambda tx: tx.execute(update(attempts).values(otp_tries=OTP_TRIES_MAX)))
        got = await buyer.post({"do": "otp", "code": "123456"})
        assert got.status == 422 and "Trop de codes" in got.text and 'name="code"' not in got.body
        over = await buyer.get()
        assert "Trop de codes" in over.text and "Vérifier maintenant" in over.text, "no dead end"

    story(tmp_path, tell, "paystack")


# --- choosing -----------------------------------------------------------------------------------------


def test_only_what_can_be_paid_is_offered(tmp_path: Path) -> None:
    """By the providers there are, the session's methods, its country and its amount; nothing at all is said, too."""

    async def tell(c: Counter) -> None:
        assert "Payer par carte" not in (await (await offered(c, methods=("mobile_money",))).get()).text
        assert "Numéro qui paie" not in (await (await offered(c, methods=("card",))).get()).text
        everywhere = await (await offered(c, country="")).get()
        assert everywhere.text.index("Bénin") < everywhere.text.index("Burkina") < everywhere.text.index("Togo")
        nowhere = await (await offered(c, currency="USD", country="US")).get()
        assert "Aucun moyen de paiement" in nowhere.text and "<form" not in nowhere.body

    story(tmp_path, tell)


def test_the_numbers_own_operator_comes_first_and_any_may_be_chosen(tmp_path: Path) -> None:
    """Suggested by the number, whatever country the field said; an odd number is warned of, not refused."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c, country="")
        got = await buyer.post({"do": "number", "country": "BJ", "phone": "+225 05 45 00 00 01"})
        assert got.status == 200 and re.search(r'value="mtn" required checked>MTN MoMo<small>proposé', got.body)
        assert 'name="country" value="CI"' in got.body and "Orange Money" in got.text and "Wave" in got.text
        odd = await buyer.post({"do": "number", "country": "BJ", "phone": "66 00 00 01"})
        assert odd.status == 200 and "ancien format" in odd.text
        assert "checked" in odd.body and "+229 66000001" in odd.text.replace("+229 66 00 00 01", "+229 66000001")
        assert NUMBER.replace(" ", "") not in (await buyer.get()).body

    story(tmp_path, tell)


def test_an_address_is_asked_for_where_the_way_needs_one(tmp_path: Path) -> None:
    """Paystack wants an e-mail: the field is there when the shop gave none, and what is no address is refused."""

    async def tell(c: Counter) -> None:
        more: dict[str, Any] = {"currency": "GHS", "country": "GH", "methods": ("mobile_money",)}
        known = await offered(c, **more)
        form = {"do": "wallet", "country": "GH", "phone": "+233551234987", "operator": "mtn"}
        assert 'name="email"' not in (await known.post({**form, "do": "number"})).body
        buyer = await offered(c, **more, customer=Customer())
        assert 'name="email"' in (await buyer.post({**form, "do": "number"})).body
        for wrong in ("", "awa", "@x.y", "a b@x.y", "a@b"):
            got = await buyer.post({**form, "email": wrong})
            assert got.status == 422 and "adresse e-mail" in got.text and "+233 55 123 4987" in got.text
        assert (await buyer.post({**form, "email": "kofi@shop.example"})).status == 303
        free = await offered(c, methods=("mobile_money",), customer=Customer())
        assert 'name="email"' not in (await free.post({**WALLET, "do": "number"})).body

    story(tmp_path, tell, "paystack", "fedapay")


def test_two_pages_of_one_session_begin_one_payment(tmp_path: Path) -> None:
    """A double tap, or a second phone with the same link: both end on the page that waits."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        came = await asyncio.gather(*(buyer.post(WALLET) for _ in range(6)))
        assert {got.status for got in came} == {303}
        assert await c.till.count(payments) == 1

    story(tmp_path, tell, anybody=Payer("waits"))


def test_tries_end_and_the_page_says_why(tmp_path: Path) -> None:
    """The last failed try closes it: the reason, what to do, and no form."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c, tries=1, return_url="https://shop.example/back#top")
        await buyer.post(WALLET)
        await c.settle()
        await c.go_on(MINUTE_MS)
        got = await buyer.get()
        assert "Le paiement n’a pas abouti" in got.text and "<form" not in got.body
        assert f'href="https://shop.example/back?session={buyer.made.id}#top"' in got.body
        assert (await buyer.post({**WALLET, "token": "x"})).status == 400

    story(tmp_path, tell, anybody=Payer("declines", Reason.NO_WALLET))


def test_what_was_given_up_can_be_paid_another_way(tmp_path: Path) -> None:
    """Cancelled at the provider first, by the buyer's hand in the audit trail; then it is open again."""

    async def tell(c: Counter) -> None:
        buyer = await offered(c)
        await buyer.post({"do": "card"})
        assert (await buyer.post({"do": "give_up"})).status == 303
        got = await buyer.get()
        assert "Cet essai a" in got.text and "Essais restants : 4" in got.text
        (charge,) = c.sandbox.bank.of("stripe")
        assert charge.state in ("canceled", "expired")

    story(tmp_path, tell, "stripe")


# --- the words ----------------------------------------------------------------------------------------


def test_every_reason_and_warning_has_its_sentence() -> None:
    """A new reason, warning or country without words would be a 500 in a buyer's hand."""
    assert set(Reason) <= set(words.REASONS)
    assert set(WARNINGS) == set(words.WARNINGS)
    assert set(PREFIXES) <= set(words.COUNTRIES)


@pytest.mark.parametrize("table", ["WORDS", "REASONS", "WARNINGS", "REFUSED", "COUNTRIES"])
def test_both_languages_say_the_same(table: str) -> None:
    """The same names are filled in, and nothing is left untranslated or without an end."""
    for name, (french, english) in getattr(words, table).items():
        assert re.findall(r"\{(\w+)\}", french) == re.findall(r"\{(\w+)\}", english), name
        assert french and english
        if table in ("REASONS", "WARNINGS") or name.endswith("_plain"):
            assert french.endswith(".") and english.endswith("."), name
