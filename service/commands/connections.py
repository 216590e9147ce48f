"""
Does the provider answer, does it take our key, and what time is it there? One harmless question for each account.

It is asked about a payment that does not exist, or for the newest ones, through the client and the conversations that
payments use: what is proved here holds for them. Nothing is made and nothing is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from service.ids import Clock
from service.merchants.accounts import Entry
from service.payments.client import Client
from service.providers import PROVIDERS, called, strict
from service.providers.base import Unclear
from service.providers.calls import Broken, Call, Calls, Given, Listing, Response, broken_ask
from service.routing.gateways import missing

if TYPE_CHECKING:
    from service.application import Application

State = Literal["ok", "warn", "fail"]
Word = Literal[
    "works", "reached", "refused", "unreachable", "limited", "trouble", "odd", "no_key", "test_key", "live_key"
]
T = TypeVar("T")

LIMIT_MS: Final = 8_000
"""For all questions to one account; a person waits for it."""
CONNECTIONS_MAX: Final = 50
AT_ONCE: Final = 10
SINCE_MS: Final = 60_000
POLLING_ONLY: Final = "polling-only-"
"""
How a secret begins that `caisse init` makes up where there is no public address: nobody knows it, so every callback is
refused, and the account is complete all the same.
"""
NOBODY: Final = "caisse-asks-whether-you-answer"
"""A reference, and a provider's name, that no payment has."""

STATES: Mapping[Word, State] = {
    "works": "ok",
    "reached": "ok",
    "refused": "fail",
    "unreachable": "fail",
    "limited": "warn",
    "trouble": "fail",
    "odd": "warn",
    "no_key": "warn",
    "test_key": "fail",
    "live_key": "warn",
}
LIVE_KEYS: Final = ("sk_live_", "rk_live_")
"""How keys begin that move money: Stripe, Paystack, FedaPay [SDK]."""
_KNOWS_US: Final = frozenset({"not_known", "not_in_list"})
"""Reasons of an Unclear that a provider gives to whom it has let in."""
_WHY: Mapping[str, str] = {
    "dns": "its name is not found: is the address right, and does this machine have a name server?",
    "refused": "the connection is refused: is the address right, and does anything listen there?",
    "tls": "its certificate is not accepted: is the address right, and is this machine's clock?",
    "connect_timeout": "no connection comes about: does a firewall let this machine out?",
    "timeout": f"no answer within {LIMIT_MS // 1000} s: try again; then look at the provider's own status page.",
    "time_limit": f"no answer within {LIMIT_MS // 1000} s: try again; then look at the provider's own status page.",
    "bad_address": "that is no address that can be called.",
}


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it. `offset_ms`: our clock minus theirs, by their Date header (whole seconds); None: not told."""

    account_id: str
    provider: str
    base_url: str
    word: Word
    sentence: str
    status: int | None = None
    took_ms: int | None = None
    offset_ms: int | None = None

    @property
    def state(self) -> State:
        """How bad it is."""
        return STATES[self.word]

    def shown(self) -> dict[str, Any]:
        """For people and programs; no secret is in it."""
        return {
            "account": self.account_id,
            "provider": self.provider,
            "base_url": self.base_url,
            "result": self.word,
            "state": self.state,
            "sentence": self.sentence,
            "http_status": self.status,
            "took_ms": self.took_ms,
            "clock_offset_ms": self.offset_ms,
        }


async def tried(app: Application, limit_ms: int = LIMIT_MS) -> tuple[list[Tried], int]:
    """Ask every account, `AT_ONCE` at a time; how many beyond `CONNECTIONS_MAX` were not asked."""
    entries = list(app.registry)
    seats = asyncio.Semaphore(AT_ONCE)

    async def one(entry: Entry) -> Tried:
        async with seats:
            return await ask(app.client, app.calls[entry.provider], entry, app.clock, limit_ms)

    some = entries[:CONNECTIONS_MAX]
    return list(await asyncio.gather(*map(one, some))), len(entries) - len(some)


async def ask(client: Client, calls: Calls, entry: Entry, clock: Clock, limit_ms: int = LIMIT_MS) -> Tried:
    """Ask one account, by one way after the other until an answer is plain. Never raises for what the provider does."""
    title = PROVIDERS[entry.provider].title
    found = Tried(entry.id, entry.provider, entry.base_url, "no_key", "")
    if lacking := missing(entry.provider, entry.credentials):
        sentence = f"{title} cannot be asked, and no payment can be made there, without {' and '.join(lacking)}."
        return replace(found, sentence=sentence)
    began = time.monotonic()
    for question in _questions(calls, clock()):
        heard = Heard(clock)
        left_ms = limit_ms - round((time.monotonic() - began) * 1000)
        talk = heard.overhear(question(entry))
        said = await client.run(entry.provider, entry.base_url, talk, broken_ask, max(left_ms, 0))
        if not heard.status and not heard.broken:
            continue  # it cannot be asked by a name that is none of its own
        word = _word(said, heard, entry, _needs_key(question, entry))
        why = heard.broken or (said.reason if isinstance(said, Unclear) else "")
        found = replace(
            found,
            word=word,
            sentence=_sentence(word, f"{title} ({entry.base_url})", entry, heard.status, why),
            status=heard.status or None,
            took_ms=round((time.monotonic() - began) * 1000),
            offset_ms=heard.offset_ms,
        )
        if word != "odd":
            break
    return found


# --- the questions --------------------------------------------------------------------------------------

Question = Callable[[Entry], Generator[Call, Response, Any]]


def _questions(calls: Calls, now_ms: int) -> list[Question]:
    """The ways to ask, the plainest first: a list is answered 200 or not at all."""
    # Asked about now: a list that is read back to when it was made is short.
    given = Given(NOBODY, (f"{NOBODY}-1",), 100, "XOF", since_ms=now_ms)
    ways: list[Question] = []
    if list_ := calls.list:
        ways.append(lambda entry: list_(Listing(now_ms - SINCE_MS, now_ms), entry.credentials))
    if find := calls.find:
        ways.append(lambda entry: find(given, entry.live, entry.credentials))
    return [*ways, lambda entry: calls.fetch(given, entry.live, entry.credentials)]


def _first(talk: Generator[Call, Response, Any]) -> Call | None:
    try:
        return next(talk)
    except StopIteration:
        return None
    finally:
        talk.close()


def _needs_key(question: Question, entry: Entry) -> bool:
    """Whether the question says who asks. Monetbil's is answered to anybody."""
    return _first(question(entry)) != _first(question(replace(entry, credentials={})))


@dataclass(slots=True)
class Heard:
    """What came back in a conversation: the last status (0: none), what broke after it, and the clocks' difference."""

    clock: Clock
    status: int = 0
    broken: str = ""
    offset_ms: int | None = None

    def overhear(self, talk: Generator[Call, Response, T]) -> Generator[Call, Response, T]:
        """The same conversation."""
        try:
            call = next(talk)
            while True:
                try:
                    response = yield call
                except Broken as broken:
                    self.broken = broken.reason
                    call = talk.throw(broken)
                else:
                    self.status, self.broken = response.status, ""
                    if theirs_ms := strict.http_date_ms(response.headers.get("date")):
                        self.offset_ms = self.clock() - theirs_ms
                    call = talk.send(response)
        except StopIteration as end:
            result: T = end.value
            return result


# --- what came back -------------------------------------------------------------------------------------


def _word(said: Any, heard: Heard, entry: Entry, with_key: bool) -> Word:
    if heard.broken or not heard.status:
        return "unreachable"
    if heard.status in (401, 403):
        return "refused"
    if heard.status == 429:
        return "limited"
    if heard.status >= 500:
        return "trouble"
    if isinstance(said, Unclear) and said.reason not in _KNOWS_US:
        return "odd"
    if not with_key:
        return "reached"
    keys = [called.credential(entry.credentials, name) for name in _key_names(entry)]
    if entry.live and any(key.startswith(called.TEST_KEYS) for key in keys):
        return "test_key"
    return "live_key" if not entry.live and any(key.startswith(LIVE_KEYS) for key in keys) else "works"


def _key_names(entry: Entry) -> list[str]:
    return [one.name for one in PROVIDERS[entry.provider].credentials if one.calls]


def _sentence(word: Word, at: str, entry: Entry, status: int, why: str) -> str:
    names = " and ".join(_key_names(entry))
    where = f"[{entry.provider}] in the settings or CAISSE_{entry.provider.upper()}_…"
    if entry.stored:
        where = f"`caisse account rotate {entry.id}`"
    match word:
        case "works":
            return f"{at} answers and takes the key."
        case "reached":
            return f"{at} answers. It answers this to anybody: whether the key is right shows with the first payment."
        case "test_key":
            return f"{at} takes the key, but it is a test key, and this account is for real money: put in the live one."
        case "live_key":
            return f"{at} takes the key, but it is a live key, and this account is for test money: payers would pay."
        case "refused":
            return (
                f"{at} refuses the key (HTTP {status}): copy {names} once more, all of it ({where}), and see that key "
                "and address belong together: where test keys have a host of their own, set base_url to it."
            )
        case "unreachable":
            return f"{at} is not reached: {_WHY.get(why, f'the connection broke ({why}): try again.')}"
        case "limited":
            return f"{at} says that we ask too often (HTTP 429): wait a minute, then try again."
        case "trouble":
            return f"{at} has trouble of its own (HTTP {status}): try again, then look at its status page."
        case "odd":
            return f"{at} answers with what we do not understand (HTTP {status}, {why}): is the address right?"
        case "no_key":
            return ""
