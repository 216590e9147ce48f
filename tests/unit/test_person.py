"""Whether a body names a person: every spelling and every escape is found, and nobody else is."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest

from service.errors import Refusal
from service.person import Person

PHONE = Person.read(["+229 97 00 00 01"], [], [])
EMAIL = Person.read([], ["Awa.Kone@Example.com"], [])
NAME = Person.read([], [], ["Awa Koné"])


@pytest.mark.parametrize(
    "body",
    [
        b'{"phone":"+22997000001"}',
        b'{"phone":"0022997000001"}',
        b'{"phone":"22997000001"}',
        b'{"phone":"97000001"}',
        b'{"phone":97000001}',
        b'{"phone":22997000001,"amount":5000}',
        b'{"phone":"+229 97 00 00 01"}',
        b'{"phone":"97-00-00-01"}',
        b'{"phone":"(229) 97.00.00.01"}',
        b'{"phone":"+2290197000001"}',
        b'{"phone":"0197000001"}',
        b'{"phone":"\\u002b22997000001"}',
        b'{"note":"call 97 00 00 01 at 10 30"}',
        b"msisdn=22997000001&amount=5000",
        b"msisdn=%2B22997000001",
        b"msisdn=%2B229+97+00+00+01",
        b"msisdn=+22997000001",
        json.dumps({"body": json.dumps({"phone": "\u002b22997000001"})}).encode(),
        json.dumps({"body": json.dumps({"deeper": json.dumps({"phone": "97000001"})})}).encode(),
        b'\xff{"phone":"97000001',
    ],
)
def test_a_phone_number_is_found_however_it_is_written(body: bytes) -> None:
    """With and without its country, +, 00, spaces, as a number, escaped once and twice, in what nobody can parse."""
    assert PHONE.named_in(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"phone":"+22997000002"}',
        b'{"phone":"+22897000001"}',
        b'{"id":"970000012"}',
        b'{"id":"1970000013"}',
        b'{"id":3229970000019}',
        b'{"a":97,"b":"000001"}',
        b'{"amount":9700,"fee":"0001"}',
        b"a=9700&b=0001",
        b"",
    ],
)
def test_another_number_is_not_taken_for_it(body: bytes) -> None:
    """A longer number that holds it, the same in another country, digits of two fields."""
    assert not PHONE.named_in(body)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("+2250700000001", "0700000001"),
        ("+24177000001", "077000001"),
        ("+33612345678", "06 12 34 56 78"),
        ("00221771234567", "77 123 45 67"),
        ("+22901 97 00 00 01", "97000001"),
    ],
)
def test_the_way_a_country_writes_it(given: str, written: str) -> None:
    """National numbers with and without their zero."""
    assert Person.read([given], [], []).named_in(json.dumps({"phone": written}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"email":"awa.kone@example.com"}',
        b'{"email":"AWA.KONE@EXAMPLE.COM"}',
        b'{"email":"awa.kone\\u0040example.com"}',
        b"email=awa.kone%40example.com&x=1",
        b'{"to":"Awa <awa.kone@example.com>."}',
        json.dumps({"body": urlencode({"email": "awa.kone@example.com"})}).encode(),
    ],
)
def test_an_address_is_found_in_any_case(body: bytes) -> None:
    """Small and capital letters, escaped or not."""
    assert EMAIL.named_in(body)


@pytest.mark.parametrize(
    "body",
    [
        b'"x.awa.kone@example.com"',
        b'"awa.kone@example.com.bj"',
        b'"awa.kone@example.como"',
        b'"awa+kone@example.com"',
    ],
)
def test_another_address_is_not(body: bytes) -> None:
    """One that holds it, or only resembles it."""
    assert not EMAIL.named_in(body)


def test_an_address_with_a_plus_is_found_in_json_and_in_a_form() -> None:
    """A form's + is a space, an address's is a +: both readings are searched."""
    person = Person.read([], ["payer+1@example.com"], [])
    assert person.named_in(b'{"email":"payer+1@example.com"}')
    assert person.named_in(urlencode({"email": "payer+1@example.com"}).encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"Awa Koné"}'.encode(),
        b'{"name":"KONE Awa"}',
        b'{"name":"Awa Kon\\u00e9"}',
        b'{"name":"Awa Kone\\u0301"}',
        b'{"first_name":"awa","last_name":"kon\\u00e9"}',
        b"customername=Awa+Kon%C3%A9",
        b"customername=Awa+Kon%E9",
        "customername=Awa Koné".encode("latin-1"),
        quote('{"name":"Awa Koné"}').encode(),
        json.dumps({"body": json.dumps({"name": "Awa Koné"})}).encode(),
    ],
)
def test_a_name_is_found_with_and_without_accents(body: bytes) -> None:
    """In one field or two, in either order, in UTF-8, Latin-1 and JSON's escapes."""
    assert NAME.named_in(body)


@pytest.mark.parametrize("body", [b'{"name":"Awa Konate"}', b'{"name":"Hawa Kone"}', b'{"name":"Awa"}'])
def test_another_name_is_not(body: bytes) -> None:
    """Half of it, or another that holds it."""
    assert not NAME.named_in(body)


@pytest.mark.parametrize(
    ("phones", "emails", "names", "code"),
    [
        ([], [], [], "nobody"),
        (["97000001"], [], [], "bad_phone"),
        (["+229 97x"], [], [], "bad_phone"),
        ([], ["awa"], [], "bad_email"),
        ([], [], ["Awa"], "bad_name"),
        ([], [], ["a b"] * 21, "too_much"),
        ([], [], ["a " + "b" * 200], "too_much"),
    ],
)
def test_what_would_mean_nobody_or_too_many_is_refused(
    phones: list[str], emails: list[str], names: list[str], code: str
) -> None:
    """Each with its own word, and without repeating the person."""
    with pytest.raises(Refusal) as refused:
        Person.read(phones, emails, names)
    assert refused.value.code == code


def test_emptied_values_and_no_others() -> None:
    """The text that names the person is emptied, numbers become null, the rest stays as it was."""
    person = Person.read(["+22997000001"], ["a@b.co"], ["Awa Koné"])
    value = {"id": 7, "list": ["97000001", "x"], "n": 97000001, "deep": {"name": "awa kone", "ok": True, "none": None}}
    assert person.without(value) == {
        "id": 7,
        "list": ["", "x"],
        "n": None,
        "deep": {"name": "", "ok": True, "none": None},
    }


def test_the_digest_is_the_same_for_the_same_person_here_and_nowhere_else() -> None:
    """However the number was typed; another installation has another; neither it nor the repr tells the person."""
    one, two = Person.read(["+229 97 00 00 01"], [], []), Person.read(["0022997000001"], [], [])
    assert one.digest("i1") == two.digest("i1") != two.digest("i2")
    assert "97" not in repr(one)


def test_the_words_of_a_name_stand_near_each_other() -> None:
    """Ordinary words, far apart in a body, are nobody's name; two fields of one object are."""
    person = Person.read((), (), ("Awa Kon\u00e9",))
    assert person.named_in(b'{"first_name": "Awa", "middle": null, "last_name": "Kon\\u00e9"}')
    assert not person.named_in(b'{"shop": "Chez Awa", "note": "' + b"x" * 200 + '", "customer": "Kon\u00e9"}'.encode())
