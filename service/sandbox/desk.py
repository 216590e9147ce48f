"""
What a provider's file in `service.sandbox.api` is made of, and what it is handed: the contract of the six.

A file is one `Api`: a table of routes, each with a plain function `handle(desk, account, asked) -> Said`, which reads
the request strictly, changes the `Bank` (or the `Treasury`) and says what the provider would say. It is never
asynchronous and opens no socket: trouble, sockets, pages and callbacks are the `Sandbox`'s. What the provider would
refuse is `raise Turned(said)`, in the provider's own error shape.
"""

from __future__ import annotations

import hmac
import json
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from service.ids import Clock
from service.payments import money
from service.sandbox.bank import Bank, Charge, Happening
from service.sandbox.treasury import Moved, Payout, Treasury
from service.sandbox.trouble import Operation, Trouble

Choice = Literal["pay", "fail", "abandon"]
FIELDS_MAX: Final = 500
MEMORY_MAX: Final = 10_000
PAGE_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Account:
    """
    A merchant's account at a provider, by the names that caisse gives the credentials (newest value first).

    `callback_url` is what stands in the provider's dashboard: the whole address, for those that are not told one with
    each payment. Empty: nowhere. `live` is what its callbacks and answers say of themselves.
    """

    provider: str
    credentials: Mapping[str, Sequence[str]] = field(repr=False)
    callback_url: str = ""
    name: str = "main"
    live: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: the path behind the provider's prefix, `parts` the named groups of its route, names lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    parts: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any] | None:
        """The JSON object in the body; floats stay floats, so that they can be refused. None for anything else."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def form(self) -> dict[str, str] | None:
        """The fields of a form, each name once; None for what is none."""
        return _fields(self.body.decode("utf-8", "replace"))

    def queries(self) -> dict[str, str]:
        """The fields of the query."""
        return _fields(self.query) or {}

    def bearer(self) -> str:
        """The key behind `Authorization: Bearer`, empty where there is none."""
        word, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if word.lower() == "bearer" else ""


def _fields(text: str) -> dict[str, str] | None:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        return None
    return dict(pairs) if len(dict(pairs)) == len(pairs) else None


@dataclass(frozen=True, slots=True)
class Said:
    """An answer; `body` as bytes, text (HTML) or anything that JSON can write."""

    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def raw(self) -> tuple[bytes, str]:
        """The bytes and their content type."""
        if isinstance(self.body, bytes):
            return self.body, "application/octet-stream"
        if isinstance(self.body, str):
            return self.body.encode(), "text/html; charset=utf-8"
        return json.dumps(self.body).encode(), "application/json; charset=utf-8"


class Turned(Exception):
    """The provider refuses the request and says so."""

    def __init__(self, said: Said) -> None:
        super().__init__(said.status)
        self.said = said


class Desk:
    """What handlers work with: the two books, the accounts, new ids, addresses of pages, and a bounded memory."""

    def __init__(
        self,
        bank: Bank,
        treasury: Treasury,
        trouble: Trouble,
        accounts: Sequence[Account],
        clock: Clock,
        luck: random.Random,
        base_url: Callable[[str], str],
    ) -> None:
        self.bank, self.treasury, self.trouble = bank, treasury, trouble
        self.accounts, self.clock = tuple(accounts), clock
        self.base_url = base_url  # of a provider: http://127.0.0.1:8090/stripe
        self._luck = luck
        self._memory: dict[str, OrderedDict[str, Any]] = {}

    def account(self, provider: str, name: str, value: str) -> Account | None:
        """The account that has this value among its credentials of this name."""
        given = value.encode("utf-8", "replace")
        for account in self.accounts:
            values = account.credentials.get(name, ()) if account.provider == provider else ()
            if value and any(hmac.compare_digest(given, known.encode()) for known in values):
                return account
        return None

    def account_of(self, charge: Charge | Payout) -> Account | None:
        """The account that a charge or a payout belongs to."""
        fitting = (one for one in self.accounts if (one.provider, one.name) == (charge.provider, charge.account))
        return next(fitting, None)

    def page(self, charge: Charge) -> str:
        """Where a person pays this charge."""
        return f"{self.base_url(charge.provider)}/pay/{charge.id}"

    def letters(self, length: int = 24) -> str:
        """The end of a new id: letters and digits."""
        return "".join(self._luck.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789", k=length))

    def digits(self, length: int = 10) -> str:
        """A new number that does not begin with 0."""
        return self._luck.choice("123456789") + "".join(self._luck.choices("0123456789", k=length - 1))

    def remember(self, provider: str, key: str, value: Any) -> None:
        """Keep what a provider keeps (an idempotency key's answer); the oldest is forgotten."""
        kept = self._memory.setdefault(provider, OrderedDict())
        kept[key] = value
        while len(kept) > MEMORY_MAX:
            kept.popitem(last=False)

    def recall(self, provider: str, key: str) -> Any:
        """What was kept, None for nothing."""
        kept = self._memory.get(provider)
        return kept.get(key) if kept else None


@dataclass(frozen=True, slots=True)
class Route:
    """
    `pattern` is a regular expression over the whole path behind the prefix, with named groups. `enter`: where this
    address has another door than the rest of the API (SHAP's tokens).
    """

    operation: Operation
    method: str
    pattern: str
    handle: Callable[[Desk, Account, Asked], Said]
    enter: Callable[[Desk, Asked], Account] | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """
    A callback to be sent: what `service.sandbox.builder` needs. The signature is made at each try.

    A whole object is put in by its path: `{"data.object": {…}}`, so that a callback says what an answer would say.
    """

    event: str
    fields: Mapping[str, Any]


def no_replay(desk: Desk, account: Account, asked: Asked) -> Said | None:
    """For providers that keep no answers by key."""
    return None


def no_keep(desk: Desk, account: Account, asked: Asked, said: Said) -> None:
    """For providers that keep no answers by key."""


def any_2xx(status: int) -> bool:
    """How most providers see that a callback was taken."""
    return 200 <= status < 300


@dataclass(frozen=True, slots=True)
class Api:
    """
    One provider.

    `enter` finds the account that asks, or raises `Turned`. `error(status, words)` is its error shape. `letters` says
    which callbacks a happening causes, in their order, `payout_letters` the same of a payout. `back` is where the
    browser goes after the page. `replay` and `keep` are its idempotency: an answer kept under the request's key, seen
    before and after trouble.
    """

    name: str
    routes: tuple[Route, ...]
    enter: Callable[[Desk, Asked], Account]
    error: Callable[[int, str], Said]
    letters: Callable[[Desk, Happening], Sequence[Letter]]
    back: Callable[[Desk, Charge, Choice], str]
    replay: Callable[[Desk, Account, Asked], Said | None] = no_replay
    keep: Callable[[Desk, Account, Asked, Said], None] = no_keep
    taken: Callable[[int], bool] = any_2xx
    payout_letters: Callable[[Desk, Moved], Sequence[Letter]] = lambda desk, moved: ()

    def paying(self, routes: Sequence[Route], letters: Callable[[Desk, Moved], Sequence[Letter]]) -> Api:
        """The same with the half that pays out, which stands in a file of its own."""
        return replace(self, routes=(*self.routes, *routes), payout_letters=letters)


# --- what several files say in the same way -------------------------------------------------------------


def integer(value: object) -> int | None:
    """A whole number as JSON has it: 5000, not 5000.0, "5000" or true."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def major(amount_minor: int, currency: str) -> int:
    """An amount in whole major units; the sandbox's providers of whole francs never hold another."""
    return int(money.to_major(amount_minor, currency))


def utc(at_ms: int | None, shape: str = "%Y-%m-%dT%H:%M:%S") -> str | None:
    """A time as text with milliseconds, None for never."""
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime(shape) + f".{at_ms % 1000:03}Z"
