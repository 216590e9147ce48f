"""Whose wallet a number may be: suggestions and warnings, and almost never a refusal."""

from __future__ import annotations

import pytest
from phonenumbers import carrierdata

from service.errors import Refusal
from service.providers.calls import OPERATORS
from service.routing.operators import PREFIXES, WARNINGS, read_phone, suggest

DIALLED = {
    "BF": 226, "BJ": 229, "CD": 243, "CG": 242, "CI": 225, "CM": 237, "GA": 241, "GH": 233, "GN": 224, "KE": 254,
    "ML": 223, "MW": 265, "NE": 227, "NG": 234, "RW": 250, "SN": 221, "TG": 228, "TZ": 255, "UG": 256, "ZM": 260,
}  # fmt: skip
CARRIERS = {
    "mtn": {"MTN", "MTN Cameroon", "Areeba"}, "moov": {"Moov", "Moov Africa", "Sotelma"}, "orange": {"Orange"},
    "airtel": {"Airtel", "Warid", "at"}, "celtiis": {"Celtiis"}, "free": {"Yas"}, "togocel": {"Togo Telecom"},
    "vodafone": {"Telecel"}, "mpesa": {"Safaricom", "Vodacom"},
}  # fmt: skip
"""Whose networks our operators' wallets are on, in the words of libphonenumber."""

LIKELY = [
    ("07 07 12 34 56", "CI", "+2250707123456", "orange"),
    ("05-04-12-34-56", "CI", "+2250504123456", "mtn"),
    ("+225 01 02 03 04 05", "", "+2250102030405", "moov"),
    ("00225 0707123456", "", "+2250707123456", "orange"),
    ("77 000 00 00", "SN", "+221770000000", "orange"),
    ("76 123 45 67", "SN", "+221761234567", "free"),
    ("01 97 00 00 01", "BJ", "+2290197000001", "mtn"),
    ("01 41 00 00 01", "BJ", "+2290141000001", "celtiis"),
    ("90 12 34 56", "TG", "+22890123456", "togocel"),
    ("70 12 34 56", "BF", "+22670123456", "moov"),
    ("76 12 34 56", "ML", "+22376123456", "orange"),
    ("6 70 00 00 00", "CM", "+237670000000", "mtn"),
    ("6 95 00 00 00", "CM", "+237695000000", "orange"),
    ("074 12 34 56", "GA", "+24174123456", "airtel"),
    ("066 12 34 56", "GA", "+24166123456", "moov"),
    ("+241 077 12 34 56", "", "+24177123456", "airtel"),
    ("055 123 4987", "GH", "+233551234987", "mtn"),
    ("020 123 4567", "GH", "+233201234567", "vodafone"),
    ("+241 (0)62 12 34 56", "", "+24162123456", "moov"),
    ("0712 345 678", "KE", "+254712345678", "mpesa"),
    ("0757 345 678", "KE", "+254757345678", "mpesa"),  # in the middle of Airtel's
    ("0750 345 678", "KE", "+254750345678", "airtel"),
    ("96.12.34.56", "NE", "+22796123456", "airtel"),
]


@pytest.mark.parametrize(("text", "country", "e164", "operator"), LIKELY, ids=str)
def test_a_number_suggests_its_operator(text: str, country: str, e164: str, operator: str) -> None:
    """By prefix, however it is written; nothing to warn of."""
    phone = read_phone(text, country)
    assert (phone.e164, phone.operators[0].operator, phone.operators[0].confidence) == (e164, operator, "likely")
    assert phone.warnings == ()


def test_where_numbers_are_ported_the_others_are_possible_too() -> None:
    """Côte d'Ivoire and Senegal; Wave has no prefix and is offered on every number there. Cameroon ports nothing."""
    told = [(one.operator, one.confidence) for one in suggest("0707123456", "CI")]
    assert told[0] == ("orange", "likely")
    assert set(told[1:]) == {("wave", "possible"), ("mtn", "possible"), ("moov", "possible")}
    assert ("wave", "possible") in [(one.operator, one.confidence) for one in suggest("+221761234567")]
    assert [one.operator for one in suggest("670000000", "CM")] == ["mtn"]


ODD = [
    ("64000001", "BJ", "+22964000001", ("old_number",)),  # FedaPay's sandbox: succeeds there
    ("66000001", "BJ", "+22966000001", ("old_number",)),
    ("+22964000001", "BJ", "+22964000001", ("old_number",)),
    ("07 12 34 56", "GA", "+24107123456", ("old_number",)),
    ("4149518161", "CI", "+2254149518161", ("not_valid", "no_operator")),  # Moneroo's sandbox
    ("27 21 12 34 56 78", "CI", "+225272112345678", ("not_valid", "no_operator")),
    ("+33 6 12 34 56 78", "CI", "+33612345678", ("other_country",)),
    ("+221 33 800 00 00", "SN", "+221338000000", ("fixed_line",)),
]


@pytest.mark.parametrize(("text", "country", "e164", "warnings"), ODD, ids=str)
def test_an_odd_number_is_taken_with_a_warning(text: str, country: str, e164: str, warnings: tuple[str, ...]) -> None:
    """The library says that these are no numbers, and some of them pay: they pass as they were written."""
    phone = read_phone(text, country)
    assert (phone.e164, phone.warnings) == (e164, warnings)
    assert all(WARNINGS[word] for word in phone.warnings)


def test_an_old_number_still_suggests_whose_it_was() -> None:
    """Benin before 2024 and Gabon before 2019; the number itself is not rewritten."""
    assert suggest("64000001", "BJ")[0].operator == "moov"
    assert suggest("97000001", "BJ")[0].operator == "mtn"
    assert suggest("07123456", "GA")[0].operator == "airtel"
    assert suggest("02123456", "GA")[0].operator == "moov"


def test_another_operator_than_the_prefix_says_is_a_warning_but_for_wave() -> None:
    """Ported numbers exist; and Wave is on anybody's number."""
    assert read_phone("0707123456", "CI", "mtn").warnings == ("other_operator",)
    assert read_phone("0707123456", "CI", "orange").warnings == ()
    assert read_phone("0707123456", "CI", "wave").warnings == ()
    assert read_phone("+14149518161", "", "mtn").warnings == ()


NONE = [
    *(("", "CI"), ("hello", "CI"), ("07ABC12345", "CI"), ("12", "CI"), ("+", "CI"), ("0" * 41, "CI")),
    *(("1" * 16, "CI"), ("+999123456789", "CI"), ("07 07 12 34 56", ""), ("0707123456", "XX"), ("0707123456", "ci")),
    *(("++2250707123456", ""), ("0707123456;ext=5", "CI"), ("\ud800", "CI"), ("07\x00", "CI"), ("=cmd|1", "CI")),
]


@pytest.mark.parametrize(("text", "country"), NONE, ids=lambda one: ascii(one)[:20])
def test_what_is_no_phone_number_is_refused(text: str, country: str) -> None:
    """With a sentence that shows one; letters are not dialled, and without a country a + is needed."""
    with pytest.raises(Refusal) as refused:
        read_phone(text, country)
    assert refused.value.code == "bad_phone" and "+229" in refused.value.sentence
    assert suggest(text, country) == []


def test_digits_of_other_scripts_are_digits() -> None:
    """A payer's keyboard may be Arabic, or a page may have put invisible marks into what was copied."""
    assert read_phone("٠٧٠٧١٢٣٤٥٦", "CI").e164 == "+2250707123456"
    assert read_phone("\u202a+225\u00a007\u201107\u2009123456\u202c").e164 == "+2250707123456"
    assert read_phone("＋２２５ ０７０７１２３４５６").e164 == "+2250707123456"


@pytest.mark.parametrize("country", sorted(set(PREFIXES) - {"GA"}))
def test_our_prefixes_are_the_carriers_that_the_library_knows(country: str) -> None:
    """Each prefix of ours is, or lies in, one of a network of that operator; a slip of the pen does not pass."""
    for operator, prefixes in PREFIXES[country].items():
        assert operator in OPERATORS
        for prefix in prefixes.split():
            whole = f"{DIALLED[country]}{prefix}"
            lengths = range(len(whole), len(str(DIALLED[country])), -1)
            held = next((whole[:n] for n in lengths if whole[:n] in carrierdata.CARRIER_DATA), None)
            assert held is not None, f"{country} {prefix}"
            assert carrierdata.CARRIER_DATA[held]["en"] in CARRIERS[operator], f"{country} {prefix}"


def test_no_prefix_is_two_operators() -> None:
    """The longest prefix decides, so two may nest, but not be the same."""
    for table in PREFIXES.values():
        every = [prefix for prefixes in table.values() for prefix in prefixes.split()]
        assert len(every) == len(set(every))
