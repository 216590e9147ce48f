"""
Whether a kept body speaks of a person: by phone number, e-mail address or name, however they are spelled and escaped.

Pure. It reads text and not structure, because bodies are JSON, forms, JSON inside of both, and what nobody can parse.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import Refusal

GIVEN_MAX = 20
CHARACTERS_MAX = 200
UNFOLDINGS = 4
"""A body may be JSON inside of JSON inside of a form; deeper than this nobody has seen one."""

_ESCAPED = re.compile(r"((?:\\u[0-9A-Fa-f]{4})+)|\\(.)|((?:%[0-9A-Fa-f]{2})+)", re.DOTALL)
_WHITE = {"n": " ", "r": " ", "t": " ", "b": " ", "f": " "}
_DIGITS = re.compile(r"[0-9](?:[0-9 ().\-/\u2010-\u2015]*[0-9])?")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_PHONE = re.compile(r"(?:\+|00)([1-9][0-9]{9,14})")
_NATIONAL_DIGITS_MIN = 8
_WRITTEN_DIGITS_MAX = 20


NEAR = 80
"""Characters between the words of a name: as far apart as two fields of one JSON object, their own names included."""


@dataclass(frozen=True, slots=True)
class Person:
    """Made by `read`. Whoever is named by any of these is meant. Its repr tells nothing."""

    phones: tuple[str, ...]  # international, digits alone
    emails: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]  # words
    _spellings: frozenset[str]

    @classmethod
    def read(cls, phones: Sequence[str], emails: Sequence[str], names: Sequence[str]) -> Person:
        """Refuses what would mean nobody, or too many."""
        given = [*phones, *emails, *names]
        if not given:
            raise Refusal("nobody", "Say who: --phone, --email or --name.")
        if len(given) > GIVEN_MAX or any(len(one) > CHARACTERS_MAX for one in given):
            raise Refusal("too_much", f"At most {GIVEN_MAX} of them, of at most {CHARACTERS_MAX} characters each.")
        digits = sorted({_phone(phone) for phone in phones})
        addresses = sorted({_folded(email.strip()) for email in emails})
        if not all(_EMAIL.fullmatch(address) for address in addresses):
            raise Refusal("bad_email", "An e-mail address looks like awa@example.com.")
        words = sorted({tuple(re.findall(r"\w+", _folded(name))) for name in names})
        if any(len(name) < 2 for name in words):
            raise Refusal("bad_name", "A name has at least two words: one alone would mean strangers, too.")
        return cls(tuple(digits), tuple(addresses), tuple(words), frozenset(s for d in digits for s in _spellings(d)))

    def named_in(self, *parts: bytes) -> bool:
        """Whether any of these bodies, queries or texts names the person."""
        return any(part and self._named(_plain(bytes(part))) for part in parts)

    def _named(self, text: str) -> bool:
        if any(email in text and _alone(email, text, r"[\w.+%-]", r"\.?\w|-") for email in self.emails):
            return True
        if any(all(word in text for word in name) and _together(name, text) for name in self.names):
            return True
        return bool(self.phones) and any(
            spelled in self._spellings for run in _DIGITS.findall(text) for spelled in _numbers(run)
        )

    def without(self, value: Any) -> Any:
        """A JSON value with every text or number that names the person emptied."""
        match value:
            case dict():
                return {key: self.without(item) for key, item in value.items()}
            case list():
                return [self.without(item) for item in value]
            case str():
                return "" if self.named_in(value.encode(errors="replace")) else value
            case int() | float() if not isinstance(value, bool):
                return None if self.named_in(str(value).encode()) else value
            case _:
                return value

    def digest(self, installation: str) -> str:
        """
        What the audit trail says instead. Whoever knows the person can compute it again; whoever does not would have to
        try all phone numbers at a twentieth of a second each, which is why it is no plain hash.
        """
        told = "\n".join([*self.phones, *self.emails, *(" ".join(name) for name in self.names)])
        salt = f"caisse person {installation}".encode()
        return hashlib.scrypt(told.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=16).hex()

    def __repr__(self) -> str:
        return f"Person({len(self.phones)} phones, {len(self.emails)} e-mails, {len(self.names)} names)"


def _phone(written: str) -> str:
    found = _PHONE.fullmatch(re.sub(r"[\s().\-/]", "", unicodedata.normalize("NFKC", written)))
    if found is None:
        raise Refusal("bad_phone", "A phone number begins with + and the country, for example +229 97 00 00 01.")
    return found[1]


def _spellings(digits: str) -> set[str]:
    """With and without the country's one to three digits, each also behind 0 or 00."""
    whole = {digits}
    # Benin put 01 before every number in 2024; both are written.
    if digits.startswith("22901") and len(digits) == 13:
        whole.add("229" + digits[5:])
    elif digits.startswith("229") and len(digits) == 11:
        whole.add("22901" + digits[3:])
    national = {number[cut:] for number in whole for cut in (1, 2, 3) if len(number) - cut >= _NATIONAL_DIGITS_MIN}
    return whole | {"00" + number for number in whole} | national | {"0" + number for number in national}


def _numbers(run: str) -> list[str]:
    """The numbers that a run of digits may be: its groups, and those that stand beside each other, together."""
    groups = re.findall(r"[0-9]+", run)
    found: list[str] = []
    for first in range(len(groups)):
        joined = ""
        for group in groups[first : first + _WRITTEN_DIGITS_MAX]:
            joined += group
            if len(joined) > _WRITTEN_DIGITS_MAX:
                break
            if len(joined) >= _NATIONAL_DIGITS_MIN:
                found.append(joined)
    return found


def _together(words: Sequence[str], text: str) -> bool:
    """Whether the words stand near each other: anywhere in a body, "data object" would be everybody's name."""
    first, *others = ([found.start() for found in re.finditer(rf"(?<!\w){re.escape(w)}(?!\w)", text)] for w in words)
    return any(all(_nearest(here, places) <= NEAR for places in others) for here in first)


def _nearest(here: int, places: Sequence[int]) -> float:
    at = bisect_left(places, here)
    return min((abs(there - here) for there in places[max(0, at - 1) : at + 1]), default=float("inf"))


def _alone(word: str, text: str, before: str, behind: str) -> bool:
    return re.search(f"(?<!{before}){re.escape(word)}(?!{behind})", text) is not None


def _plain(body: bytes) -> str:
    """All that a body says, without its escapes; a form's + is read as a space as well as a +."""
    text = _decoded(body)
    texts = {_unfolded(text)}
    if "+" in text:
        texts.add(_unfolded(text.replace("+", " ")))
    return "\n".join(_folded(one) for one in sorted(texts))


def _unfolded(text: str) -> str:
    for _ in range(UNFOLDINGS):
        plainer = _ESCAPED.sub(_unescaped, text)
        if plainer == text:
            break
        text = plainer
    return text


def _unescaped(found: re.Match[str]) -> str:
    units, letter, octets = found.groups()
    if units:
        return bytes.fromhex(units.replace("\\u", "")).decode("utf-16-be", "replace")
    if octets:
        return _decoded(bytes.fromhex(octets.replace("%", "")))
    return _WHITE.get(letter, letter)


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")  # a form of a provider that is not on UTF-8


def _folded(text: str) -> str:
    """Small letters without accents: Koné is Kone, as many keyboards write it."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter)).casefold()
