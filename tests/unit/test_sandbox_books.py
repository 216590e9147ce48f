"""The sandbox's bank and its trouble, without any socket: what is charged, how often, and what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from service.payments.facts import Reason
from service.sandbox import bank as banks
from service.sandbox.bank import OTP_TRIES, PROMPT_MS, Bank, Charge, Payer, Refund
from service.sandbox.trouble import KINDS, RULES_MAX, Trouble
from tests.support.clock import Clock

PHONE = "+225 07 00 00 00 01"


class Told:
    """A bank with its clock, and what it told its listeners."""

    def __init__(self, **more: Any) -> None:
        self.clock = Clock()
        self.bank = Bank(self.clock, **more)
        self.words: list[str] = []
        self.bank.heard.append(lambda happening: self.words.append(happening.word))

    def begin(self, id_: str = "1", **more: Any) -> Charge:
        return self.bank.begin(
            Charge(**{"id": id_, "provider": "paystack", "account": "main", "amount_minor": 500, "currency": "XOF",
                      "reference": f"r{id_}", "phone": PHONE} | more)
        )  # fmt: skip


def test_whatever_is_done_again_takes_the_money_once() -> None:
    """Paid is paid: another press, a late decline and a lapse change nothing."""
    told = Told()
    charge = told.begin()
    assert told.bank.pay(charge) and not told.bank.pay(charge) and not told.bank.pay(charge, late=True)
    assert not told.bank.decline(charge) and not told.bank.cancel(charge) and not told.bank.expire(charge)
    assert (charge.captured_minor, charge.state) == (500, "succeeded")
    assert told.words == ["begun", "succeeded"]
    assert told.bank.charged("r1") == [charge] == told.bank.charged() and told.bank.charged("r2") == []


@pytest.mark.parametrize("end", ["cancel", "expire", "decline"])
def test_what_is_dead_is_paid_only_late(end: str) -> None:
    """A payer comes too late, but the operator may still do what happens in life."""
    told = Told()
    charge = told.begin()
    getattr(told.bank, end)(charge)
    assert not told.bank.pay(charge) and told.bank.charged() == []
    assert told.bank.pay(charge, late=True) and told.bank.charged() == [charge]


def test_the_payer_of_the_number_decides_when_asked() -> None:
    """By number however it is written, after their time, also changed while it waits."""
    told = Told(anybody=Payer("waits"))
    told.bank.set_payer("2250700000001", Payer("declines", Reason.NO_WALLET, after_ms=1_000))
    first, second, other = told.begin("1"), told.begin("2"), told.begin("3", phone="2250700000002")
    for charge in (first, second, other):
        told.bank.ask(charge, "approval")
    assert told.bank.waiting(PHONE) == [first, second]
    told.clock.advance(999)
    told.bank.settle()
    assert first.live
    told.clock.advance(1)
    told.bank.settle()
    assert (first.state, first.reason) == ("failed", Reason.NO_WALLET)
    assert other.live
    told.bank.set_payer("2250700000002", Payer())
    told.bank.settle()
    assert other.state == "succeeded"


def test_a_page_waits_for_its_visitor_however_willing_the_payer() -> None:
    """Only a person on the page pays there; settling never does."""
    told = Told()
    charge = told.begin()
    told.bank.ask(charge, "page")
    told.clock.advance(PROMPT_MS * 10)
    told.bank.settle()
    assert charge.live


def test_codes_are_wrong_as_often_as_the_payer_says() -> None:
    """`wrong_otps` right codes are called wrong; real wrong ones end it after `OTP_TRIES`."""
    told = Told()
    told.bank.set_payer(PHONE, Payer(otp="4711", wrong_otps=2))
    charge = told.begin()
    told.bank.ask(charge, "otp")
    assert [told.bank.code(charge, "4711") for _ in range(3)] == ["wrong", "wrong", "right"]
    assert charge.captured_minor == 500
    told.bank.set_payer(PHONE, Payer(otp="4711"))
    second = told.begin("2")
    told.bank.ask(second, "otp")
    assert [told.bank.code(second, "0") for _ in range(OTP_TRIES)] == ["wrong"] * (OTP_TRIES - 1) + ["too_often"]
    assert (second.state, second.reason) == ("failed", Reason.WRONG_PIN)


def test_the_owner_of_a_right_code_may_still_be_declined() -> None:
    """The code is right and the wallet empty."""
    told = Told(anybody=Payer("declines", Reason.INSUFFICIENT_FUNDS))
    charge = told.begin()
    told.bank.ask(charge, "otp")
    assert told.bank.code(charge, "123456") == "right"
    assert (charge.state, charge.reason, told.bank.charged()) == ("failed", Reason.INSUFFICIENT_FUNDS, [])


def test_refunds_arrive_one_step_at_a_time() -> None:
    """Pending, succeeded, and failed where the bank sends it back; then nothing moves any more."""
    told = Told()
    charge = told.begin()
    told.bank.pay(charge)
    told.bank.settle()
    refund = told.bank.refund(charge, Refund("7", 200, fails_later=True))
    states = []
    for _ in range(4):
        states.append((refund.state, charge.refunded_minor))
        told.bank.settle()
    assert states == [("pending", 200), ("succeeded", 200), ("failed", 0), ("failed", 0)]
    assert told.words == ["begun", "succeeded", "refund", "refund", "refund"]


def test_the_oldest_is_forgotten_with_all_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The books are bounded, and nothing of a forgotten charge is found or moves."""
    monkeypatch.setattr(banks, "CHARGES_MAX", 2)
    told = Told()
    for id_ in "123":
        told.begin(id_, names={"intent": f"pi_{id_}"})
    bank = told.bank
    assert [book["id"] for book in bank.books()] == ["2", "3"]
    assert bank.find("paystack", "1") is None and bank.find("paystack", "pi_1") is None
    assert bank.by_reference("paystack", "main", "r1") is None
    assert bank.find("paystack", "pi_3") is bank.find("paystack", "3") is not None


def test_trouble_strikes_where_and_as_often_as_it_was_told() -> None:
    """By provider, operation and count, in the order of the rules; off is off."""
    trouble = Trouble(("stripe", "paystack"))
    trouble.on("stripe", "reset", "refund", times=2)
    trouble.on("*", "reset")
    assert [bool(trouble.take("stripe", "refund", "reset")) for _ in range(3)] == [True, True, False]
    assert trouble.take("stripe", "create", "timeout_after") is None
    assert trouble.take("paystack", "create", "timeout_after", "reset") is not None
    trouble.on("paystack", "silence")
    trouble.off("*", "reset")
    assert [rule.kind for rule in trouble.rules()] == ["reset", "silence"][1:]
    trouble.off("paystack")
    assert trouble.rules() == ()


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("paypal", "reset"), {}),
        (("stripe", "rain"), {}),
        (("stripe", "reset", "dance"), {}),
        (("stripe", "reset"), {"times": 0}),
        (("stripe", "refuse"), {"times": 1}),
        (("stripe", "refuse", "create"), {}),
        (("stripe", "late"), {"delay_ms": -1}),
        (("stripe", "wrong_amount"), {"minor": 10**15}),
        (("stripe", "silence", "create"), {}),
    ],
)
def test_trouble_that_makes_no_sense_is_refused_with_a_sentence(arguments: Any, more: Any) -> None:
    """Nothing is switched on."""
    trouble = Trouble(("stripe",))
    with pytest.raises(ValueError, match=r"\.$"):
        trouble.on(*arguments, **more)
    assert trouble.rules() == ()


def test_rules_are_bounded_and_every_kind_can_be_switched_on() -> None:
    """All kinds by their usual operation; one more than the limit is refused."""
    trouble = Trouble(("stripe",))
    for kind in KINDS:
        trouble.on("stripe", kind)
    for _ in range(RULES_MAX - len(KINDS)):
        trouble.on("stripe", "reset")
    with pytest.raises(ValueError, match="already"):
        trouble.on("stripe", "reset")


def test_time_that_is_up_counts_without_settling_too() -> None:
    """A page and a prompt that have lapsed take no money from whoever comes a moment too late."""
    told = Told()
    page, prompt, code = told.begin("1", expires_ms=told.clock.now_ms + 10), told.begin("2"), told.begin("3")
    told.bank.ask(page, "page")
    told.bank.ask(prompt, "approval")
    told.bank.ask(code, "otp")
    told.clock.advance(PROMPT_MS)
    assert not told.bank.pay(page) and not told.bank.pay(prompt)
    assert told.bank.code(code, "123456") == "too_often"
    assert [charge.state for charge in (page, prompt, code)] == ["expired", "failed", "failed"]
    assert prompt.reason is Reason.TIMED_OUT and told.bank.charged() == []
