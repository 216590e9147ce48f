"""
Whose wallet a phone number may be: a suggestion, never a decision. The payer chooses.

Numbers are ported (in `PORTED` countries a prefix says who gave the number out, not who has it), Wave has wallets on
anybody's numbers, and every numbering plan grows. So nothing here refuses a number that could be dialled: what looks
odd is a warning beside the field. The library's own verdict is no more than that, too: `phonenumbers` is wrong for some
of Gabon and does not know the numbers of the providers' sandboxes.

Sources of `PREFIXES`: the carrier tables of libphonenumber 9.0 (as in `phonenumbers`), reduced to operators with a
wallet; Côte d'Ivoire's ten digits since 31 January 2021 (ARTCI: 01 Moov, 05 MTN, 07 Orange); Benin's 01 before every
number since 30 November 2024 (ARCEP Bénin); Gabon's nine digits, alone since 6 April 2024 (ARCEP Gabon: 074 and 077
Airtel, 062, 065 and 066 Moov; abroad without the 0; 060 and 076 are [unv]). The rest is [3p].
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberType

from service.errors import Refusal
from service.providers.calls import OPERATORS

PREFIXES: Final[Mapping[str, Mapping[str, str]]] = {
    "BF": {"orange": "04 05 06 07 4 54 55 56 57 64 65 66 67 74 75 76 77",
           "moov": "01 02 03 50 51 52 53 60 61 62 63 70 71 72 73"},
    "BJ": {"mtn": "0142 0146 015 0161 0162 0166 0167 0169 0190 0191 0196 0197",
           "moov": "0145 0155 0158 0160 0163 0164 0165 0168 0194 0195 0198 0199",
           "celtiis": "0128 014 0192 0193"},
    "CD": {"orange": "80 84 85 89", "airtel": "96 97 98 99", "mpesa": "81 82 83 86"},
    "CG": {"mtn": "06", "airtel": "04 05"},
    "CI": {"orange": "07", "mtn": "05", "moov": "01"},
    "CM": {"mtn": "650 651 652 653 654 67 680 681 682 683", "orange": "64 655 656 657 658 659 686 687 688 689 69"},
    "GA": {"airtel": "74 76 77", "moov": "60 62 65 66"},
    "GH": {"mtn": "24 25 53 54 55 59", "vodafone": "20 50", "airtel": "23 26 27 56 57"},
    "GN": {"mtn": "66", "orange": "61 62"},
    "KE": {"mpesa": "11 70 71 72 74 757 758 759 768 769 79", "airtel": "10 135 136 137 138 139 73 75 76 78"},
    "ML": {"orange": "200 7 82 83 84 85 90 91 92 93 94", "moov": "2079 217 6 89 95 96 97 98 99"},
    "MW": {"airtel": "9"},
    "NE": {"airtel": "77 86 87 88 89 96 97 98 99", "moov": "74 84 85 94 95"},
    "NG": {"mtn": "7025 7026 703 704 706 707 803 806 810 813 814 816 903 906 910 913 916",
           "airtel": "701 708 802 808 812 901 902 904 907 911 912"},
    "RW": {"mtn": "78 79", "airtel": "72 73"},
    "SN": {"orange": "71 77 78", "free": "76"},
    "TG": {"togocel": "70 71 72 73 90 91 92 93", "moov": "78 79 96 97 98 99"},
    "TZ": {"mpesa": "72 74 75 76 79", "airtel": "60 66 68 69 78"},
    "UG": {"mtn": "724 737 76 77 78 79", "airtel": "70 730 731 732 74 75"},
    "ZM": {"mtn": "56 76 96", "airtel": "57 77 97"},
}  # fmt: skip
"""By country and operator, how national numbers begin, as they follow the calling code. The longest counts."""

PORTED: Final = frozenset({"CI", "SN", "GH", "KE", "NG", "RW", "TZ"})
"""Where a number may have gone to another operator. Mission B1 for CI and SN [docs], the others [unv]."""

WITHOUT_PREFIX: Final[Mapping[str, tuple[str, ...]]] = {"CI": ("wave",), "SN": ("wave",)}
"""Wallets on anybody's number, where a provider of ours takes them (mission B1)."""

CHARACTERS_MAX: Final = 40
DIGITS_MIN, DIGITS_MAX = 6, 15
"""Of an E.164 number with its country; ITU says at most 15."""

Confidence = Literal["likely", "possible"]
Warning_ = Literal["not_valid", "old_number", "other_country", "fixed_line", "no_operator", "other_operator"]

WARNINGS: Final[Mapping[Warning_, str]] = {
    "not_valid": "This is not how numbers of that country look, as far as we know.",
    "old_number": "Numbers like this one were replaced by longer ones.",
    "other_country": "The number is of another country than the payment.",
    "fixed_line": "This looks like a fixed line, which has no wallet.",
    "no_operator": "We know no mobile-money operator with numbers like this one.",
    "other_operator": "Numbers like this one are usually another operator's.",
}
"""A warning stands beside the number; none of them keeps anybody from paying."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An operator and how far to trust it: `likely` by the prefix, `possible` where numbers are ported or have none."""

    operator: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Phone:
    """A number as it may be dialled. `country` is its own (ISO 3166-1), empty where nobody knows it."""

    e164: str
    country: str
    operators: tuple[Suggestion, ...] = ()
    warnings: tuple[Warning_, ...] = ()


def read_phone(text: str, country: str = "", operator: str = "") -> Phone:
    """
    A number as people write it; without + or 00 it is one of `country`. `operator` is what the payer chose.

    Refusal `bad_phone` for what is no phone number at all; everything else odd about it is a warning.
    """
    written = _plain(text)
    if written.startswith("00"):
        written = "+" + written[2:]
    if not written.startswith("+") and country not in phonenumbers.SUPPORTED_REGIONS:
        raise Refusal("bad_phone", "Write the number with + and its country, for example +229 01 97 00 00 01.")
    try:
        number = phonenumbers.parse(written, country or None)
    except NumberParseException:
        raise _no_phone() from None
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if not DIGITS_MIN <= len(e164) - 1 <= DIGITS_MAX:
        raise _no_phone()
    national = phonenumbers.national_significant_number(number)
    its = phonenumbers.region_code_for_number(number) or _only_country(number.country_code or 0)
    found = _suggestions(national, its)
    return Phone(e164, its, found, tuple(_warnings(number, national, its, country, operator, found)))


def suggest(phone: str, country: str = "") -> list[Suggestion]:
    """The operators whose wallet may be on this number, the likeliest first; none for what is no phone number."""
    try:
        return list(read_phone(phone, country).operators)
    except Refusal:
        return []


# --- the number ---------------------------------------------------------------------------------------

_MARKS: Final = re.compile(r"[\s().\-/\u00ad\u200b-\u200f\u2010-\u2015\u202a-\u202e\u2060-\u2069]")
_DIALLED: Final = re.compile(r"\+?[0-9]+", re.ASCII)


def _plain(text: str) -> str:
    """Digits and a leading +, whatever stood between them and in whichever script they were written."""
    if len(text) > CHARACTERS_MAX:
        raise _no_phone()
    folded = "".join(str(unicodedata.decimal(letter)) if letter.isdecimal() else letter for letter in text)
    bare = _MARKS.sub("", unicodedata.normalize("NFKC", folded))
    if not _DIALLED.fullmatch(bare):  # letters too: `phonenumbers` would dial them
        raise _no_phone()
    return bare


def _no_phone() -> Refusal:
    return Refusal("bad_phone", "This is no phone number; one looks like +229 01 97 00 00 01.")


def _only_country(calling_code: int) -> str:
    regions = phonenumbers.region_codes_for_country_code(calling_code)
    return regions[0] if len(regions) == 1 and regions[0] != "001" else ""


def _warnings(
    number: phonenumbers.PhoneNumber,
    national: str,
    its: str,
    country: str,
    operator: str,
    found: tuple[Suggestion, ...],
) -> list[Warning_]:
    warnings: list[Warning_] = []
    likely = {one.operator for one in found if one.confidence == "likely"}
    if _is_old(national, its):
        warnings.append("old_number")
    elif not likely and not phonenumbers.is_valid_number(number):
        warnings.append("not_valid")
    if country and its and its != country:
        warnings.append("other_country")
    if not likely and phonenumbers.number_type(number) == PhoneNumberType.FIXED_LINE:
        warnings.append("fixed_line")
    elif not likely and its in PREFIXES:
        warnings.append("no_operator")
    if operator and likely and operator not in likely and operator not in WITHOUT_PREFIX.get(its, ()):
        warnings.append("other_operator")
    return warnings


# --- the operator -------------------------------------------------------------------------------------

_BY_PREFIX: Final[Mapping[str, Mapping[str, str]]] = {
    country: {prefix: operator for operator, prefixes in table.items() for prefix in prefixes.split()}
    for country, table in PREFIXES.items()
}
_LONGEST: Final = max(len(prefix) for table in _BY_PREFIX.values() for prefix in table)

_OLD: Final[Mapping[str, re.Pattern[str]]] = {
    "BJ": re.compile(r"(?!0)\d{8}"),  # before 01 was put in front
    "CI": re.compile(r"\d{8}"),
    "GA": re.compile(r"0[24567]\d{6}"),
}
"""National numbers of plans that have ended."""

_RENEWED: Final[Mapping[str, Mapping[str, str]]] = {
    "BJ": {"": "01"},
    "GA": {"04": "74", "07": "77", "02": "62", "05": "65", "06": "66"},
}
"""How an old number begins today, for the suggestion alone: the number itself stays as it was written."""


def _is_old(national: str, country: str) -> bool:
    return country in _OLD and _OLD[country].fullmatch(national) is not None


def _suggestions(national: str, country: str) -> tuple[Suggestion, ...]:
    if country not in PREFIXES:
        return ()
    if _is_old(national, country):
        for old, new in _RENEWED.get(country, {}).items():
            if national.startswith(old):
                national = new + national[len(old) :]
                break
    table = _BY_PREFIX[country]
    found = next((table[national[:n]] for n in range(_LONGEST, 0, -1) if national[:n] in table), None)
    likely = [Suggestion(found, "likely")] if found else []
    others = [*WITHOUT_PREFIX.get(country, ()), *(PREFIXES[country] if country in PORTED else ())]
    return (*likely, *(Suggestion(name, "possible") for name in others if name != found))


assert all(operator in OPERATORS for table in PREFIXES.values() for operator in table)
