"""What the calling halves share: proof by HTTP status, addresses for the payer, amounts, numbers and names."""

from __future__ import annotations

import pytest

from service.payments.facts import Fact, Kind, Told
from service.providers import called
from service.providers.base import NotFinal, NotKnown, Request, Unclear
from service.providers.calls import Call, Facts, Given, Lost, NotSent, RefundRefused
from tests.support.corpora import strings


def test_only_the_table_s_statuses_prove_that_nothing_was_sent() -> None:
    """401, 403, 404, 405, 422 and 429; the first two are for a person."""
    proof = {status: one for status in range(100, 600) if isinstance(one := called.turned_away(status), NotSent)}
    assert {status: one.alert for status, one in proof.items()} == {
        401: True, 403: True, 404: False, 405: False, 422: False, 429: False,
    }  # fmt: skip
    assert all(called.turned_away(status) is None for status in range(200, 300))
    rest = set(range(100, 600)) - set(range(200, 300)) - set(proof)
    assert all(isinstance(called.turned_away(status), Lost) for status in rest)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example", "https://a.example/", "https://a.example:8443/pay?x=1#y", "https://A.example?x",
        "http://127.0.0.1:8000/pay", "http://localhost/pay", "http://[::1]:1/",
    ],
)  # fmt: skip
def test_where_a_payer_can_be_sent(url: str) -> None:
    """HTTPS, and plain HTTP on this machine for the sandbox."""
    assert called.link(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *(text for text in strings() if text != "http://[::1]:1/"),
        "http://a.example/", "http://127.0.0.1.evil.example/", "http://localhost@evil.example/", "https://", "https:///x",
        "https://u:p@a.example/", "https://a.example\\@evil.example/", "https://a.example/ x", "https://a.example/\n",
        "HTTPS://a.example /", "//a.example/", "javascript:alert(1)", "data:text/html,x", "https://é.example/",
        "https://a.example/" + "a" * 2000, None, 7, b"https://a.example/", ["https://a.example/"],
    ],
)  # fmt: skip
def test_where_no_payer_is_sent(url: object) -> None:
    """Other schemes, a user name before the host, anything that is not one printable line."""
    assert called.link(url) is None


def test_amounts_in_whole_major_units() -> None:
    """No fraction is rounded away."""
    assert [called.whole(*pair) for pair in ((1000, "XAF"), (1000, "EUR"), (1050, "EUR"), (0, "XAF"), (-1, "XAF"))] == [
        *(1000, 10, None, None, None),
    ]


def test_numbers() -> None:
    """E.164, in ASCII digits."""
    assert called.digits("+237650000001") == called.digits("237650000001") == "237650000001"
    for phone in (
        "",
        "+",
        "++237650000001",
        "+0650000001",
        "+237 650000001",
        "+2376٥0000001",
        "+12345",
        "+" + "1" * 16,
    ):
        assert called.digits(phone) is None


@pytest.mark.parametrize("text", strings())
def test_words_that_every_encoder_takes(text: str) -> None:
    """Cut, and without NUL or half a pair."""
    kept = called.text(text, 50)
    assert len(kept.encode().decode()) <= 50 and "\x00" not in kept


def test_the_newest_credential_that_is_not_empty() -> None:
    """An empty one is none."""
    assert called.credential({"key": ("", " ", "b", "a")}, "key") == "b"
    assert called.credential({"key": ()}, "key") == called.credential({}, "key") == ""


def test_a_question_is_a_call() -> None:
    """All of it."""
    asked = Request("POST", "/x", {"a": "b"}, form={"c": "d", "e": "f"})
    assert called.call(asked) == Call("POST", "/x", {"a": "b"}, form=(("c", "d"), ("e", "f")))
    assert called.call(Request("GET", "/x")) == Call("GET", "/x")


def test_their_name_is_not_ours() -> None:
    """Our reference is an alias of the payment too, and no provider's id."""
    assert called.theirs(Given("ours", ("ours", "one", "two"), 1, "XAF")) == "one"
    assert called.theirs(Given("ours", ("ours",), 1, "XAF")) is None


def test_another_sum() -> None:
    """What is not said is not another."""
    for fact, other in (
        (Fact(Kind.PENDING, "m"), False),
        (Fact(Kind.PENDING, "m", asked_minor=5, currency="XAF"), False),
        (Fact(Kind.PENDING, "m", asked_minor=6, currency="XAF"), True),
        (Fact(Kind.PENDING, "m", asked_minor=5, currency="XOF"), True),
        (Fact(Kind.PENDING, "m", currency="XOF"), True),
    ):
        assert called.other_amount(Told(("m",), (fact,)), 5, "XAF") is other


def test_a_definite_no() -> None:
    """Failed, cancelled and expired are; nothing else is."""
    for kind in Kind:
        fact = Fact(kind, "m")
        no = kind in (Kind.FAILED, Kind.CANCELED, Kind.EXPIRED)
        assert called.said_no(Told(("m",), (fact,))) == (fact if no else None)


def test_not_known_is_not_believed_where_it_is_not_documented() -> None:
    """Everything else is passed on."""
    assert called.never_unknown(NotKnown()) == Unclear("not_known")
    assert called.never_unknown(NotFinal()) == NotFinal()


def test_what_turns_a_refund_away() -> None:
    """At the door it may be sent again; what the provider read and would not do is refused."""
    assert called.not_refunded(NotSent("rate_limited")) == NotSent("rate_limited")
    assert called.not_refunded(called.CREDENTIALS_WRONG) == NotSent("credentials", alert=True)
    assert called.not_refunded(NotSent("unsupported")) == RefundRefused("unsupported")
    assert called.not_refunded(Lost("provider_error")) == Lost("provider_error")


def test_times_as_lists_take_them() -> None:
    """Whole seconds, UTC."""
    assert called.rfc3339(1_794_000_000_999) == "2026-11-06T21:20:00Z"
    assert called.rfc3339(0) == "1970-01-01T00:00:00Z"


def test_facts_are_what_they_were_declared_as() -> None:
    """A list of words, or a number."""
    facts: Facts = {"words": ("a", "b"), "number": 5}
    assert (called.words(facts, "words"), called.number(facts, "number")) == (("a", "b"), 5)
