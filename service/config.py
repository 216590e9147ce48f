"""
Settings: read once, from a TOML file and the environment, and frozen.

`FIELDS` is the one description: `doctor`, the documentation and the error messages read it. The environment is looked
at nowhere else. What a provider needs comes from the provider's own file, so a new provider brings its settings along.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import os
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.providers import PROVIDERS
from service.providers.base import Credential, Credentials

PREFIX = "CAISSE_"
DEFAULT_FILE = "caisse.toml"
MASTER_KEY_BYTES = 32
FILE_BYTES_MAX = 256 * 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadSetting(Exception):
    """A setting is wrong: one sentence that names it and says what is wanted, never a secret's value."""


class _Wrong(ValueError):
    """What a parser raises; the reader adds the setting's name."""


# --- how a value is read ----------------------------------------------------------------------------


def _text(value: str) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise _Wrong("must not contain control characters")
    return value


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in words:
            raise _Wrong(f"must be one of {', '.join(words)}")
        return value.lower()

    return parse


def _port(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) or int(value) > 65_535:
        raise _Wrong("must be a whole number from 0 to 65535")
    return int(value)


def _switch(value: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise _Wrong("must be true or false")
    return words[value.lower()]


def _url(*schemes: str, bare: bool = False) -> Callable[[str], str]:
    """`bare`: other paths are joined to it, so it ends without a slash and carries no query."""

    def parse(value: str) -> str:
        wanted = f"must be an address beginning with {' or '.join(scheme + '://' for scheme in schemes)}"
        try:
            parts = urlsplit(_text(value))
            port_is_fine = parts.port is None or parts.port > 0
        except ValueError:
            raise _Wrong(wanted) from None
        if parts.scheme not in schemes or not parts.hostname or not port_is_fine or " " in value:
            raise _Wrong(wanted)
        if bare and (parts.query or parts.fragment or "@" in parts.netloc):
            raise _Wrong("must be an address without user, query or fragment")
        return value.rstrip("/") if bare else value

    return parse


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_%-]+", value, re.ASCII):
        raise _Wrong("must be a host name or an address to listen on")
    return value


def _database(value: str) -> str:
    scheme, _, path = value.partition("://")
    if scheme.startswith("postgres"):
        raise _Wrong("asks for PostgreSQL, which is not built yet: use sqlite:///caisse.db")
    if scheme != "sqlite" or not path.startswith("/") or len(path) < 2 or path.endswith("/"):
        raise _Wrong("must look like sqlite:///caisse.db (or sqlite:////var/lib/caisse/caisse.db)")
    if "?" in path or "#" in path or ":memory:" in path or path.startswith("/file:"):
        raise _Wrong("must name a plain file: no memory database and no options")
    return _text(value)


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise _Wrong("must be a time zone such as Europe/Paris or Africa/Abidjan") from None
    return value


def _network(value: str) -> Network:
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise _Wrong("must be networks such as 127.0.0.0/8 or 10.1.2.0/24") from None


def _master_key(value: str) -> bytes:
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


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value, re.ASCII):
        raise _Wrong("must be a header's name such as X-Caisse-Signature")
    if value.lower() in _RESERVED_HEADERS or value.lower().startswith("webhook-"):
        raise _Wrong("is a header that the request carries already; choose another name")
    return value


def _mail_address(value: str) -> str:
    if not re.search(r"[^@\s<>]+@[^@\s<>]+", _text(value)):
        raise _Wrong("must hold an e-mail address")
    return value


def _path_token(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]+", value, re.ASCII):
        raise _Wrong("must be made of letters, digits, '-', '_', '.' and '~', because it is part of an address")
    return value


# --- the description --------------------------------------------------------------------------------


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


_ALL_PLAIN = (
    Field("mode", _one_of("development", "staging", "production"), "development",
          "development, staging (production's rules with the providers' sandbox keys) or production"),
    Field("database_url", _database, "sqlite:///caisse.db", "where everything is kept: one SQLite file"),
    Field("host", _host, "127.0.0.1", "the address to listen on"),
    Field("port", _port, "8080", "the port to listen on; 0 takes a free one"),
    Field("public_url", _url("https", "http", bare=True), "",
          "how the outside reaches this service; the addresses to paste at providers begin with it"),
    Field("master_keys", _master_key, "", "keys that seal stored secrets, newest first; "
          "when not set, a key file is made beside the database", secret=True, many=True),
    Field("admin_password", _text, "", "the operator's password for the dashboard", secret=True),
    Field("timezone", _timezone, "Europe/Paris", "the zone of nightly and weekly work"),
    Field("metrics_token", _text, "", "the bearer token that /metrics asks for; not set: open", secret=True),
    Field("heartbeat_url", _url("https", "http"), "", "called every minute while work moves", secret=True),
    Field("smtp_url", _url("smtp", "smtps"), "", "the mail server: smtp://user:password@host:587", secret=True),
    Field("mail_from", _mail_address, "", "the sender of e-mails"),
    Field("allow_private_cidrs", _network, "127.0.0.0/8,::1/128",
          "private networks that webhooks may be sent to, also by plain http", many=True),
    Field("signature_header", _header_name, "X-Caisse-Signature", "the header of the plain signature on webhooks"),
    Field("log_level", _one_of("debug", "info", "warning", "error"), "info", "the least that is logged"),
)  # fmt: skip


def _credential_field(provider: str, credential: Credential, in_path: bool) -> Field:
    return Field(
        credential.name,
        _path_token if in_path and credential.verifies else _text,
        "",
        credential.where or "copied from the provider's dashboard",
        secret=True,
        many=credential.many,
        table=provider,
    )


def _provider_fields() -> tuple[Field, ...]:
    fields: list[Field] = []
    for name, provider in PROVIDERS.items():
        in_path = provider.capabilities.token_in_path
        fields += [_credential_field(name, credential, in_path) for credential in provider.credentials]
        where = f"the address of {provider.title}'s API"
        fields.append(Field("base_url", _url("https", "http", bare=True), provider.base_url, where, table=name))
    fields.append(
        Field(
            "allow_unsigned",
            _switch,
            "false",
            "take callbacks without `sign`; they only make us ask Monetbil",
            table="monetbil",
        )
    )
    return tuple(fields)


FIELDS: tuple[Field, ...] = _ALL_PLAIN + _provider_fields()
_BY_ENVIRONMENT = {entry.environment: entry for entry in FIELDS}


# --- the settings -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DefaultAccount:
    """The account a provider's settings make; it belongs to the first merchant."""

    provider: str
    live: bool
    base_url: str
    credentials: Credentials = field(repr=False)
    missing: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its row in `accounts`."""
        return f"acc_{self.provider}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; see `FIELDS` for what each one means. Secrets are not in its repr."""

    mode: str
    database_url: str
    host: str
    port: int
    public_url: str | None
    timezone: str
    mail_from: str | None
    allow_private_cidrs: tuple[Network, ...]
    signature_header: str
    log_level: str
    monetbil_allow_unsigned: bool
    base_urls: Mapping[str, str]
    master_keys: tuple[bytes, ...] = field(repr=False)
    admin_password: str | None = field(repr=False)
    metrics_token: str | None = field(repr=False)
    heartbeat_url: str | None = field(repr=False)
    smtp_url: str | None = field(repr=False)
    credentials: Mapping[str, Credentials] = field(repr=False)
    file: Path | None = None
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)  # key -> environment | file; else default

    @classmethod
    def read(
        cls,
        config: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | Path = ".",
    ) -> Settings:
        """Read the file (`config`, or caisse.toml in `directory` when it is there) and the environment, which wins."""
        path = Path(config) if config else Path(directory) / DEFAULT_FILE
        written = _file(path, required=bool(config))
        given = _environment(os.environ if environment is None else environment)
        read = {entry.key: _value(entry, given, written, path) for entry in FIELDS}
        plain = {entry.name: read[entry.key] for entry in _ALL_PLAIN}
        return cls(
            **plain,
            monetbil_allow_unsigned=bool(read["monetbil.allow_unsigned"]),
            base_urls={name: read[f"{name}.base_url"] for name in PROVIDERS},
            credentials={
                name: {c.name: _as_list(read[f"{name}.{c.name}"]) for c in provider.credentials}
                for name, provider in PROVIDERS.items()
            },
            file=path if written is not None else None,
            sources={
                entry.key: "environment" if entry.environment in given else "file"
                for entry in FIELDS
                if entry.environment in given or entry.key in (written or {})
            },
        )

    @property
    def live(self) -> bool:
        """Whether the default accounts move real money."""
        return self.mode == "production"

    @property
    def strict(self) -> bool:
        """Whether production's rules hold (staging has them too)."""
        return self.mode != "development"

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def own_url(self) -> str:
        """How a program on this machine reaches the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - only compared
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    def default_accounts(self) -> list[DefaultAccount]:
        """One for each provider with anything set; half set ones say what is missing and are refused by intake."""
        return [
            DefaultAccount(
                name, self.live, self.base_urls[name], self.credentials[name], provider.missing(self.credentials[name])
            )
            for name, provider in PROVIDERS.items()
            if any(self.credentials[name].values())
        ]

    def shown(self) -> list[dict[str, str]]:
        """Every setting for people: name, value (a secret only as set or not set), where it came from, meaning."""
        return [
            {
                "name": entry.environment,
                "value": self._show(entry),
                "from": self.sources.get(entry.key, "default"),
                "meaning": entry.meaning,
            }
            for entry in FIELDS
        ]

    def _show(self, entry: Field) -> str:
        if not entry.table:
            value = getattr(self, entry.name)
        elif entry.name == "base_url":
            value = self.base_urls[entry.table]
        elif entry.name == "allow_unsigned":
            value = self.monetbil_allow_unsigned
        else:
            value = self.credentials[entry.table][entry.name]
        if entry.secret:
            return "set" if value else "not set"
        if isinstance(value, bool):
            return str(value).lower()
        return ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value or "")


# --- reading ----------------------------------------------------------------------------------------


def _as_list(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    for name in sorted(given):
        if name not in _BY_ENVIRONMENT:
            raise BadSetting(f"{name} is not a setting of caisse{_nearest(name, _BY_ENVIRONMENT)}.")
    return given


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; the nearest one is {near[0]}" if near else "; `caisse doctor --settings` lists them all"


def _file(path: Path, required: bool) -> dict[str, Any] | None:
    """The file's values by `Field.key`, None when there is no file."""
    try:
        with path.open("rb") as handle:
            content = handle.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        if not required:
            return None
        raise BadSetting(f"--config names {path}, and there is no such file.") from None
    except OSError as error:
        raise BadSetting(f"The settings file {path} cannot be read: {error.strerror}.") from None
    if len(content) > FILE_BYTES_MAX:
        raise BadSetting(f"The settings file {path} is larger than {FILE_BYTES_MAX} bytes.")
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The decoder's own words may quote the line; only the place is taken from them.
        place = re.search(r"line \d+", str(error))
        raise BadSetting(f"The settings file {path} is not valid TOML{f' ({place[0]})' if place else ''}.") from None
    values: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            values |= {f"{key}.{inner}": item for inner, item in value.items()}
            if not value and key not in PROVIDERS:
                values[key] = value
        else:
            values[key] = value
    known = {entry.key for entry in FIELDS}
    for key in values:
        if key not in known:
            raise BadSetting(f"{_toml(key)} in {path} is not a setting of caisse{_nearest(key, sorted(known))}.")
    return values


def _toml(key: str) -> str:
    table, dot, name = key.rpartition(".")
    return f"{name} in [{table}]" if dot else name


def _value(entry: Field, given: Mapping[str, str], written: Mapping[str, Any] | None, path: Path) -> Any:
    """The parsed value; an empty single value is the same as none, an empty list is an empty list."""
    if entry.environment in given:
        raw, name = given[entry.environment], entry.environment
    elif written is not None and entry.key in written:
        raw, name = written[entry.key], f"{_toml(entry.key)} in {path}"
    else:
        raw, name = entry.default, entry.environment
    items = [item.strip() for item in _items(raw, entry, name)]
    if entry.many:
        return tuple(_parse(entry, item, name) for item in items if item)
    text = items[0] or entry.default
    return _parse(entry, text, name) if text else None


def _items(raw: Any, entry: Field, name: str) -> list[str]:
    """What was written, as text: TOML may use its own numbers, truth values and arrays."""
    if isinstance(raw, bool):
        return [str(raw).lower()]
    if isinstance(raw, int):
        return [str(raw)]
    if isinstance(raw, str):
        return raw.split(",") if entry.many else [raw]
    if isinstance(raw, list) and entry.many and all(isinstance(item, str) for item in raw):
        return raw
    raise BadSetting(f"{name} must be {'a list of texts' if entry.many else 'a single value'}.")


def _parse(entry: Field, text: str, name: str) -> Any:
    try:
        return entry.parse(text)
    except _Wrong as wrong:
        shown = "" if entry.secret else f", not {text[:80]!r}" if str(wrong).startswith("must") else ""
        raise BadSetting(f"{name} {wrong}{shown}.") from None
