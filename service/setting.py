"""One setting: what may be written for it, and how that is read."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PREFIX = "CAISSE_"
MASTER_KEY_BYTES = 32

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadSetting(Exception):
    """A setting is wrong: one sentence that names it and says what is wanted, never a secret's value."""


class _Wrong(ValueError):
    """What a parser raises; the reader adds the setting's name."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting. `default` is written as one would write it; empty means: not set."""

    name: str  # in Settings, and in the file's top level or its provider's table
    parse: Callable[[str], Any]
    default: str
    meaning: str
    secret: bool = False
    many: bool = False
    table: str = ""  # the provider's table in the file

    @property
    def environment(self) -> str:
        """The variable's name."""
        return PREFIX + (f"{self.table}_{self.name}" if self.table else self.name).upper()

    @property
    def key(self) -> str:
        """Where it stands in the file, also what `Settings.sources` is keyed by."""
        return f"{self.table}.{self.name}" if self.table else self.name

    def read(self, raw: Any, name: str) -> Any:
        """
        What was written, parsed; BadSetting says `name`. An empty single value is the same as none, an empty list is
        an empty list.
        """
        items = [item.strip() for item in self._items(raw, name)]
        if self.many:
            return tuple(self._parsed(item, name) for item in items if item)
        item = items[0] or self.default
        return self._parsed(item, name) if item else None

    def _items(self, raw: Any, name: str) -> list[str]:
        """What was written, as text: TOML may use its own numbers, truth values and arrays."""
        if isinstance(raw, bool):
            return [str(raw).lower()]
        if isinstance(raw, int):
            return [str(raw)]
        if isinstance(raw, str):
            return raw.split(",") if self.many else [raw]
        if isinstance(raw, list) and self.many and all(isinstance(item, str) for item in raw):
            return raw
        raise BadSetting(f"{name} must be {'a list of texts' if self.many else 'a single value'}.")

    def _parsed(self, item: str, name: str) -> Any:
        try:
            return self.parse(item)
        except _Wrong as wrong:
            shown = "" if self.secret else f", not {item[:80]!r}" if str(wrong).startswith("must") else ""
            raise BadSetting(f"{name} {wrong}{shown}.") from None


# --- what may be written: each takes the text, and returns the value or raises _Wrong ----------------


def text(value: str) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise _Wrong("must not contain control characters")
    return value


def one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in words:
            raise _Wrong(f"must be one of {', '.join(words)}")
        return value.lower()

    return parse


def whole_number(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) or int(value) > 65_535:
        raise _Wrong("must be a whole number from 0 to 65535")
    return int(value)


port = whole_number


def days(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) or int(value) > 36_500:
        raise _Wrong("must be a whole number of days from 0 (for ever) to 36500")
    return int(value)


def switch(value: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise _Wrong("must be true or false")
    return words[value.lower()]


def url(*schemes: str, bare: bool = False) -> Callable[[str], str]:
    """`bare`: other paths are joined to it, so it ends without a slash and carries no query."""

    def parse(value: str) -> str:
        wanted = f"must be an address beginning with {' or '.join(scheme + '://' for scheme in schemes)}"
        try:
            parts = urlsplit(text(value))
            port_is_fine = parts.port is None or parts.port > 0
        except ValueError:
            raise _Wrong(wanted) from None
        if parts.scheme not in schemes or not parts.hostname or not port_is_fine or " " in value:
            raise _Wrong(wanted)
        if bare and (parts.query or parts.fragment or "@" in parts.netloc):
            raise _Wrong("must be an address without user, query or fragment")
        return value.rstrip("/") if bare else value

    return parse


def host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_%-]+", value, re.ASCII):
        raise _Wrong("must be a host name or an address to listen on")
    return value


def database_url(value: str) -> str:
    scheme, _, path = value.partition("://")
    if scheme.startswith("postgres"):
        raise _Wrong("asks for PostgreSQL, which is not built yet: use sqlite:///caisse.db")
    if scheme != "sqlite" or not path.startswith("/") or len(path) < 2 or path.endswith("/"):
        raise _Wrong("must look like sqlite:///caisse.db (or sqlite:////var/lib/caisse/caisse.db)")
    if "?" in path or "#" in path or ":memory:" in path or path.startswith("/file:"):
        raise _Wrong("must name a plain file: no memory database and no options")
    return text(value)


def timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise _Wrong("must be a time zone such as Europe/Paris or Africa/Abidjan") from None
    return value


def network(value: str) -> Network:
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise _Wrong("must be networks such as 127.0.0.0/8 or 10.1.2.0/24") from None


def master_key(value: str) -> bytes:
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise _Wrong(f"must be keys of {MASTER_KEY_BYTES} random bytes in base64 (`openssl rand -base64 32`)")
    return key


_RESERVED_HEADERS = frozenset(
    ("host", "content-type", "content-length", "connection", "transfer-encoding", "user-agent", "accept-encoding")
)


def header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value, re.ASCII):
        raise _Wrong("must be a header's name such as X-Caisse-Signature")
    if value.lower() in _RESERVED_HEADERS or value.lower().startswith("webhook-"):
        raise _Wrong("is a header that the request carries already; choose another name")
    return value


def mail_address(value: str) -> str:
    if not re.search(r"[^@\s<>]+@[^@\s<>]+", text(value)):
        raise _Wrong("must hold an e-mail address")
    return value


def path_token(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]+", value, re.ASCII):
        raise _Wrong("must be made of letters, digits, '-', '_', '.' and '~', because it is part of an address")
    return value
