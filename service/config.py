"""
Settings: read once, from a TOML file and the environment, and frozen.

`FIELDS` is the one description: `doctor`, the documentation and the error messages read it; how one of them is read
stands in `setting.py`. The environment is looked at nowhere else. What a provider needs comes from the provider's own
file, so a new provider brings its settings along.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from service.providers import CALLS, PAYOUTS, PROVIDERS, overrides
from service.providers.base import Credential, Credentials, Provider
from service.providers.calls import Calls
from service.providers.payouts import Payouts
from service.setting import (
    PREFIX,
    BadSetting,
    Field,
    Network,
    database_url,
    days,
    header_name,
    host,
    mail_address,
    master_key,
    network,
    one_of,
    path_token,
    port,
    switch,
    text,
    timezone,
    url,
    whole_number,
)

__all__ = ["DEFAULT_FILE", "FIELDS", "BadSetting", "DefaultAccount", "Field", "Settings"]

DEFAULT_FILE = "caisse.toml"
FILE_BYTES_MAX = 256 * 1024


# --- the description --------------------------------------------------------------------------------


class _Switchable(Field):
    """A setting whose empty value means off, where that of the others means the default."""

    def read(self, raw: Any, name: str) -> Any:
        """None when it was written empty."""
        return None if isinstance(raw, str) and not raw.strip() else super().read(raw, name)


ASKABLE = tuple(name for name, provider in PROVIDERS.items() if provider.question is None)
"""Providers whose callbacks are believed; those of the others have always been hints."""

_ALL_PLAIN = (
    Field("mode", one_of("development", "staging", "production"), "development",
          "development, staging (production's rules with the providers' sandbox keys) or production"),
    Field("database_url", database_url, "sqlite:///caisse.db", "where everything is kept: one SQLite file"),
    Field("host", host, "127.0.0.1", "the address to listen on"),
    Field("port", port, "8080", "the port to listen on; 0 takes a free one"),
    Field("public_url", url("https", "http", bare=True), "",
          "how the outside reaches this service; the addresses to paste at providers begin with it"),
    Field("master_keys", master_key, "", "keys that seal stored secrets, newest first; "
          "when not set, a key file is made beside the database", secret=True, many=True),
    Field("admin_password", text, "", "the operator's password for the dashboard", secret=True),
    Field("timezone", timezone, "Europe/Paris", "the zone of nightly and weekly work"),
    Field("metrics_token", text, "", "the bearer token that /metrics asks for; not set: open", secret=True),
    Field("heartbeat_url", url("https", "http"), "", "called every minute while work moves", secret=True),
    Field("smtp_url", url("smtp", "smtps"), "", "the mail server: smtp://user:password@host:587", secret=True),
    Field("mail_from", mail_address, "", "the sender of e-mails"),
    Field("allow_private_cidrs", network, "127.0.0.0/8,::1/128",
          "private networks that webhooks may be sent to, also by plain http", many=True),
    Field("return_origins", url("https", "http", bare=True), "",
          "where buyers may be sent back to, such as https://shop.example; nothing: any https address of the internet",
          many=True),
    Field("signature_header", header_name, "X-Caisse-Signature", "the header of the plain signature on webhooks"),
    Field("keep_deliveries_days", days, "90", "how many days a delivered event is kept, with its deliveries and "
          "their tries; `GET /v1/events` goes back as far; 0: for ever, here and below"),
    Field("keep_work_days", days, "90", "how many days ended work on callbacks and answered questions are kept"),
    Field("keep_callback_bodies_days", days, "365", "how many days the bodies of callbacks that were worked on are "
          "kept: a dispute comes up to 120 days after the payment, and its file may be asked for long after that"),
    Field("keep_callbacks_days", days, "0", "how many days the rows of such callbacks are kept; without its row a late "
          "copy of a callback is worked on again, which changes nothing but counts as new"),
    Field("keep_quarantine_days", days, "90", "how many days callbacks that failed verification are kept"),
    _Switchable("backup_dir", text, "backups", "where the nightly backups go; beside the database file unless it is a "
                "whole path; empty: there are none. The master keys are not in them"),
    Field("keep_backups", whole_number, "7", "how many backups are kept there, the newest; 0: all of them"),
    Field("ask_first", one_of(*ASKABLE), "",
          "providers of which a signed callback about money that came in is only a hint: nothing counts as paid until "
          "the provider has answered a question of ours", many=True),
    Field("duplicates", one_of("ask", "auto"), "ask",
          "what becomes of money that came twice: `ask` puts it before a person, `auto` gives the younger back"),
    Field("log_level", one_of("debug", "info", "warning", "error"), "info", "the least that is logged"),
)  # fmt: skip


def _credential_field(provider: str, credential: Credential, in_path: bool) -> Field:
    return Field(
        credential.name,
        path_token if in_path and credential.verifies else text,
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
        fields.append(Field("base_url", url("https", "http", bare=True), provider.base_url, where, table=name))
    fields.append(
        Field(
            "allow_unsigned",
            switch,
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
    return_origins: tuple[str, ...]
    signature_header: str
    log_level: str
    keep_deliveries_days: int
    keep_work_days: int
    keep_callback_bodies_days: int
    keep_callbacks_days: int
    keep_quarantine_days: int
    backup_dir: str | None
    keep_backups: int
    ask_first: tuple[str, ...]
    duplicates: Literal["ask", "auto"]
    monetbil_allow_unsigned: bool
    base_urls: Mapping[str, str]
    calls: Mapping[str, Calls]  # with what `[providers]` in the file knows better
    payouts: Mapping[str, Payouts]  # likewise
    providers: Mapping[str, Provider]
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
        try:
            calls = overrides.apply(CALLS, (written or {}).get("providers", {}))
            payouts = overrides.apply_payouts(PAYOUTS, (written or {}).get("providers", {}))
        except overrides.BadOverride as wrong:
            raise BadSetting(f"{path}: {wrong}") from None
        return cls(
            **plain,
            monetbil_allow_unsigned=bool(read["monetbil.allow_unsigned"]),
            base_urls={name: read[f"{name}.base_url"] for name in PROVIDERS},
            calls=calls,
            payouts=payouts,
            providers=overrides.listening(PROVIDERS, calls),
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
    def backup_path(self) -> Path | None:
        """Where the nightly backups go; None: there are none."""
        return None if self.backup_dir is None else self.database_path.parent / self.backup_dir

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
        return (
            ", ".join(str(item) for item in value) if isinstance(value, tuple) else str("" if value is None else value)
        )


# --- reading ----------------------------------------------------------------------------------------


def _as_list(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if value else ()


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    for name in sorted(given):
        if name not in _BY_ENVIRONMENT:
            raise BadSetting(f"{name} is not a setting of caisse{_nearest(name, _BY_ENVIRONMENT)}.")
    return given


def _nearest(name: str, known: Iterable[str]) -> str:
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
        if key == "providers":
            values[key] = value  # tables of their own: what providers' files only believe
        elif isinstance(value, dict) and (value or key in PROVIDERS):
            values |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            values[key] = value
    known = {entry.key for entry in FIELDS} | {"providers"}
    for key in values:
        if key not in known:
            raise BadSetting(f"{_toml(key)} in {path} is not a setting of caisse{_nearest(key, sorted(known))}.")
    return values


def _toml(key: str) -> str:
    table, dot, name = key.rpartition(".")
    return f"{name} in [{table}]" if dot else name


def _value(entry: Field, given: Mapping[str, str], written: Mapping[str, Any] | None, path: Path) -> Any:
    if entry.environment in given:
        raw, name = given[entry.environment], entry.environment
    elif written is not None and entry.key in written:
        raw, name = written[entry.key], f"{_toml(entry.key)} in {path}"
    else:
        raw, name = entry.default, entry.environment
    return entry.read(raw, name)
