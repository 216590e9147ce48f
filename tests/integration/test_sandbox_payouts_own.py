"""What is one provider's own when the sandbox pays out, what people and scripts see of it, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from service.providers import PROVIDERS
from service.providers.base import NotKnown, Unclear
from service.providers.calls import Lost
from service.providers.payouts import PayoutRefused, PayoutTold
from service.sandbox import treasury as treasuries
from service.sandbox.merchant import Counters
from service.sandbox.screen import Outflow, Snapshot, Sums, draw, line
from service.sandbox.treasury import START_MINOR, Fate, Payout, Treasury
from service.sandbox.trouble import PAYOUT, Trouble
from tests.support.clock import Clock
from tests.support.sandbox_payouts import BY_REFERENCE, OTP, PAYEES, REFERENCE, TEST_NUMBERS, Till, play

SIX = tuple(PROVIDERS)

# --- one provider's own -------------------------------------------------------------------------------


def test_paystack_wants_a_code_when_that_is_switched_on() -> None:
    """A wrong one may be typed again, the right one sends it; nobody is paid before."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on("paystack", "payout_otp", times=1)
        sent = await t.send("paystack")
        assert isinstance(sent, PayoutTold) and sent.stage == "otp"
        await t.sandbox.tick(2)
        assert t.paid() == [] and t.held("paystack") == START_MINOR
        wrong = await t.finalize("paystack", "000000", names=sent.names)
        assert isinstance(wrong, PayoutTold) and wrong.stage == "otp"
        right = await t.finalize("paystack", OTP, names=sent.names)
        assert isinstance(right, PayoutTold) and right.stage == "in_transit"
        await t.sandbox.tick(2)
        assert isinstance(await t.finalize("paystack", OTP, names=sent.names), Lost)  # asked about: it is paid
        assert (await t.ask("paystack")).stage == "paid" and len(t.paid()) == 1

    play(story)


def test_a_code_that_nobody_hands_in_is_the_end() -> None:
    """After half an hour it is abandoned, which is told by nothing, and pays nobody."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on("paystack", "payout_otp", times=1)
        sent = await t.send("paystack")
        t.clock.advance(30 * 60_000)
        await t.sandbox.tick(2)
        assert (await t.ask("paystack")).stage == "failed" and t.got == []
        assert isinstance(await t.finalize("paystack", OTP, names=sent.names), Lost)
        assert t.paid() == []

    play(story)


def test_a_fee_is_told_and_paid_from_the_float() -> None:
    """Paystack says its fee with the transfer that has arrived."""

    async def story(t: Till) -> None:
        t.sandbox.treasury.fee = lambda payout: 25
        await t.send("paystack")
        await t.sandbox.tick(2)
        assert (await t.ask("paystack")).fee_minor == 25 and t.held("paystack") == START_MINOR - 1525

    play(story)


def test_the_same_wallet_is_the_same_recipient() -> None:
    """Paystack gives one recipient for one account, however often it is asked; and it may be used again."""

    async def story(t: Till) -> None:
        first = await t.send("paystack")
        second = await t.send("paystack", reference="caisse-0123abcd-po-2")
        assert first.recipient and first.recipient == second.recipient
        again = await t.send("paystack", reference="caisse-0123abcd-po-3", recipient=first.recipient)
        assert isinstance(again, PayoutTold)
        other = await t.send("paystack", reference="caisse-0123abcd-po-4", recipient="RCP_nobody")
        assert isinstance(other, PayoutRefused) and other.reason == "bad_account"

    play(story)


@pytest.mark.parametrize(("number", "stage"), list(zip(TEST_NUMBERS, ("paid", "failed", "in_transit"), strict=True)))
def test_moneroos_test_numbers_mean_what_its_payouts_say(number: str, stage: str) -> None:
    """…161 succeeds, …162 fails, …163 is pending for ever: not as with payments."""

    async def story(t: Till) -> None:
        sent = await t.send("moneroo", payee=replace(PAYEES["moneroo"], number=f"+{number}"))
        t.clock.advance(10**9)
        await t.sandbox.tick(3)
        assert (await t.ask("moneroo", names=sent.names)).stage == stage
        assert len(t.paid()) == (stage == "paid")

    play(story)


def test_a_payout_that_was_never_started_is_started_by_the_next_try() -> None:
    """FedaPay's creation moves nothing: the start is lost before it arrives, and the second try starts the same one."""

    async def story(t: Till) -> None:
        t.sandbox.trouble.on("fedapay", "error_5xx_before", "payout", times=1)
        assert isinstance(await t.send("fedapay"), Lost)
        assert await t.ask("fedapay") == Unclear("not_started")
        sent = await t.send("fedapay")
        assert isinstance(sent, PayoutTold) and len(t.sandbox.treasury.books()) == 1

    play(story)


@pytest.mark.parametrize("provider", BY_REFERENCE)
def test_nobody_knows_what_was_never_sent(provider: str) -> None:
    """The provider's own words for it, which our adapter believes."""

    async def story(t: Till) -> None:
        assert await t.ask(provider) == NotKnown()

    play(story)


# --- by hand ------------------------------------------------------------------------------------------

DOORS = {
    "stripe": ("/stripe/v1/payouts", "/stripe/v1/transfers"),
    "paystack": ("/paystack/transfer", "/paystack/transferrecipient", "/paystack/transfer/finalize_transfer"),
    "fedapay": ("/fedapay/v1/payouts", "/fedapay/v1/payouts/start"),
    "monetbil": ("/monetbil/v1/payouts/withdrawal", "/monetbil/payment/v1/payouts/withdrawal"),
    "moneroo": ("/moneroo/v1/payouts/initialize",),
    "ebilling": ("/ebilling/shap/api/v1/merchant/auth", "/ebilling/shap/api/v1/merchant/payout"),
}
ODD = (
    b"",
    b"{}",
    b"[]",
    b"[[[[",
    b"\xff\xfe",
    b'{"amount": 1e400, "currency": {"iso": []}, "recipient": [], "payout": "{", "payouts": [1, null], "mode": {}}',
    b'{"payout": {"amount": true}, "api_id": 1, "api_secret": null, "source": "balance", "recipient": {}}',
    b"amount=9&currency=eur&destination=nobody",
    b"service_key=key-1&service_secret=secret-1&phonenumber=x&amount=-1&operator=CM_MTNMOBILEMONEY&processing_number=1",
)


@pytest.mark.parametrize("provider", SIX)
def test_odd_requests_pay_nobody_and_never_break_it(provider: str) -> None:
    """With a good key and without: the provider's own no, the book empty; a missing mode is FedaPay's 500."""

    async def story(t: Till) -> None:
        for body in ODD:
            for key in ("", f"sk_live_{provider}", "pvk_live_1"):
                kind = "application/json" if body[:1] in b"{[\xff" else "application/x-www-form-urlencoded"
                headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
                for path in DOORS[provider]:
                    method = "PUT" if path.endswith("/start") else "POST"
                    status, _ = await t.fetch(method, path, data=body, headers=headers)
                    assert status < 500 or path == "/fedapay/v1/payouts", (path, body)
        await t.sandbox.tick(2)
        assert t.sandbox.treasury.paid_out() == [] and t.sandbox.treasury.floats() == []

    play(story)


def test_a_start_is_an_object_or_a_bare_list_and_is_done_once() -> None:
    """Both forms of FedaPay's documentation; a second start, and one with a stranger in it, start nothing."""

    async def story(t: Till) -> None:
        headers = {"Authorization": "Bearer sk_live_fedapay"}
        for number, bare in enumerate((False, True)):
            t.sandbox.trouble.on("fedapay", "error_5xx_before", "payout", times=1)
            await t.send("fedapay", reference=f"po-{number}")
            one = {"id": int(t.sandbox.treasury.of("fedapay")[0].id)}
            for wanted, status in (([one, {"id": 1}], 404), ([one, one], 404), ([one], 200), ([one], 422)):
                body = wanted if bare else {"payouts": wanted}
                said = await t.fetch("PUT", "/fedapay/v1/payouts/start", json=body, headers=headers)
                assert said[0] == status, (bare, wanted)
        await t.sandbox.tick(2)
        assert [one.reference for one in t.sandbox.treasury.paid_out()] == ["po-0", "po-1"]

    play(story)


def test_monetbil_wants_its_secret_with_each_withdrawal() -> None:
    """Anybody may know the service key: without the secret it pays nobody, by either address."""

    async def story(t: Till) -> None:
        form = {"service_key": "key-1", "service_secret": "secret-2", "phonenumber": "237670000001", "amount": "1500"}
        form |= {"operator": "CM_MTNMOBILEMONEY", "processing_number": REFERENCE}
        for path in DOORS["monetbil"]:
            _, text = await t.fetch("POST", path, data=form)
            assert json.loads(text)["success"] is False and t.paid() == []
        _, text = await t.fetch("POST", path, data=form | {"service_secret": "secret-1"})
        assert json.loads(text)["success"] is True and len(t.paid()) == 1

    play(story)


def test_shaps_token_lapses_and_is_its_own() -> None:
    """After two hours it opens nothing; the shared key of the bills never did."""

    async def story(t: Till) -> None:
        shap = "/ebilling/shap/api/v1/merchant"
        said = {"api_id": "api-1", "api_secret": "api-secret-1"}
        _, text = await t.fetch("POST", f"{shap}/auth", json=said)
        token = json.loads(text)["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert (await t.fetch("GET", f"{shap}/balance", headers=headers))[0] == 200
        t.clock.advance(2 * 3_600_000)
        assert (await t.fetch("GET", f"{shap}/balance", headers=headers))[0] == 401
        for wrong in ({"api_id": "api-1", "api_secret": "shared-1"}, {"api_id": "shop", "api_secret": "shared-1"}):
            assert (await t.fetch("POST", f"{shap}/auth", json=wrong))[0] == 401

    play(story)


def test_the_counter_shows_payouts_and_sets_floats() -> None:
    """Books and floats for scripts, a page for people, escaped; what makes no sense is a 400 with a sentence."""

    async def story(t: Till) -> None:
        said = {"provider": "monetbil", "currency": "XAF", "purse": "CM_MTNMOBILEMONEY", "minor": 2000}
        assert (await t.fetch("POST", "/_sandbox/float", json=said))[0] == 200
        await t.send("monetbil", reference="<b>caisse</b>")
        _, page = await t.fetch("GET", "/_sandbox/payouts")
        assert "1 500 XAF" in page and ": 500 XAF" in page and "Versé" in page
        assert "<b>caisse" not in page and "&lt;b&gt;caisse" in page
        _, books = await t.fetch("GET", "/_sandbox/books")
        assert [one["paid_minor"] for one in json.loads(books)["payouts"]] == [1500]
        assert json.loads(books)["floats"][0]["minor"] == 500
        for wrong in ({"provider": "paypal"}, {"currency": "xaf"}, {"minor": -1}, {"minor": True}, {"colour": "red"}):
            status, text = await t.fetch("POST", "/_sandbox/float", json=said | wrong)
            assert status == 400 and json.loads(text)["error"]

    play(story)


# --- the book itself ----------------------------------------------------------------------------------


def begin(treasury: Treasury, id_: str = "1", **more: Any) -> Payout:
    """500 XOF, entered and not sent."""
    return treasury.begin(Payout(id_, "paystack", "main", 500, "XOF", f"r{id_}", names={"code": f"TRF_{id_}"}, **more))


def test_whatever_is_done_again_pays_once() -> None:
    """Sent, settled and handed in a code again: the float has paid once, and each step is told once."""
    treasury, words = Treasury(Clock()), list[str]()
    treasury.heard.append(lambda moved: words.append(moved.word))
    payout = begin(treasury)
    treasury.settle()
    assert treasury.paid_out() == [] and treasury.floats() == []
    for _ in range(2):
        treasury.send(payout)
        treasury.settle()
    treasury.send(payout)
    assert words == ["created", "queued", "in_transit", "paid"]
    assert treasury.paid_out("r1") == [payout] == treasury.paid_out() and treasury.paid_out("r2") == []
    assert treasury.float_minor("paystack", "main", "XOF") == START_MINOR - 500
    assert treasury.books()[0]["paid_minor"] == 500


def test_a_fate_that_never_ends_is_no_payout() -> None:
    """On its way for ever; even at once it waits for nobody, and a slow one is not at once."""
    clock = Clock()
    treasury = Treasury(clock)
    for number, fate in enumerate((Fate(slow_ms=None), Fate(slow_ms=10))):
        treasury.send(begin(treasury, str(number)), at_once=True, fate=fate)
    treasury.settle()
    assert treasury.paid_out() == []
    clock.advance(10)
    treasury.settle()
    assert [one.id for one in treasury.paid_out()] == ["1"]


def test_the_oldest_is_forgotten_with_all_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no longer settled; the newer ones stay."""
    monkeypatch.setattr(treasuries, "PAYOUTS_MAX", 2)
    treasury = Treasury(Clock())
    for number in range(3):
        treasury.send(begin(treasury, str(number)))
    treasury.settle()
    assert [treasury.find("paystack", name) for name in ("0", "TRF_0")] == [None, None]
    assert treasury.by_reference("paystack", "main", "r0") is None
    assert [one.id for one in treasury.paid_out()] == ["1", "2"] and treasury.find("paystack", "TRF_2")


def test_troubles_of_payouts_are_for_payouts() -> None:
    """Asked for with another operation they would never strike, so that is refused."""
    trouble = Trouble(("stripe",))
    for kind in PAYOUT:
        with pytest.raises(ValueError, match="payout"):
            trouble.on("stripe", kind, "refund")
        trouble.on("stripe", kind)
    assert {rule.operation for rule in trouble.rules()} == {"payout"}


def test_the_screen_says_how_much_was_paid_out() -> None:
    """Under the payments, in the picture and in the line, once there is something to say."""
    empty = Snapshot(0, [], 0, 0, Sums(), Sums(), Sums(), Sums(), 0, Outflow(), Counters(), 0, 0, 0, 0)
    seen = replace(empty, paid_out=Sums(3, {"XOF": 4500}))
    for height in (24, 40):
        shown = Console(width=120, height=height, record=True, file=io.StringIO())
        shown.print(draw(seen, ["a", "b"], 120, height))
        assert "3 paid out" in shown.export_text()
    assert "paid out 3" in line(seen) and "paid out" not in line(empty)
