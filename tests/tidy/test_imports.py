"""The picture of docs/architecture.md, proved on the imports: one row per rule, and a planted wrong import for each."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from tests.tidy.house import Import, imports, module_name, python_files, text, under

OURS = ("service", "outbox", "scheduler")
PURE_STDLIB = (
    *("__future__", "base64", "binascii", "collections", "dataclasses", "datetime", "decimal", "enum", "functools"),
    *(
        "difflib",
        "hashlib",
        "hmac",
        "inspect",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "string",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
    ),
)
"""What a pure module may use of the standard library: nothing that reads, writes, waits or rolls dice."""

SIX = ("stripe", "paystack", "fedapay", "monetbil", "moneroo", "ebilling")


def provider_of(name: str) -> str | None:
    """Whose file a module (or something in it) is: `stripe`, `stripe_calls` and `stripe_wire` are Stripe's."""
    module = name.removeprefix("service.providers.").split(".")[0] if under(name, "service.providers") else ""
    return next((one for one in SIX if module == one or module.startswith(f"{one}_")), None)


SUBJECTS = (
    *("callbacks", "payments", "orders", "escrow", "routing", "providers", "merchants", "mail", "jobs", "pay"),
    "commands",
)
ROUTING = tuple(f"service.routing.{one}" for one in ("rules", "explain", "failover", "words", "simulate", "draft"))
RULES = ("service.payments.facts", "service.payments.money", "service.payments.states", "service.payments.rules")


@dataclass(frozen=True)
class Rule:
    """`who` may import what `allowed` says; `planted` is a (module, import) that must be caught."""

    name: str
    who: Callable[[str], bool]
    allowed: Callable[[str], bool]
    planted: tuple[str, str]
    because: str


def inside(*prefixes: str, but: Iterable[str] = ()) -> Callable[[str], bool]:
    return lambda name: under(name, *prefixes) and not under(name, *but)


def only(*prefixes: str) -> Callable[[str], bool]:
    return lambda name: under(name, *prefixes)


def nothing_of(*prefixes: str, but: Iterable[str] = ()) -> Callable[[str], bool]:
    return lambda name: not under(name, *prefixes) or under(name, *but)


BUILDERS = ("service.application", "service.cli", "service.commands", "service.sandbox")

RULES_OF_IMPORT = [
    Rule(
        "what becomes of an order is pure",
        inside("service.orders.rules", "service.orders.states"),
        only("service.orders.rules", "service.orders.states", *RULES, *PURE_STDLIB),
        ("service.orders.rules", "sqlalchemy"),
        "what an order becomes is a function of values",
    ),
    Rule(
        "payments know no orders",
        inside("service.payments", "service.callbacks"),
        nothing_of("service.orders"),
        ("service.payments.book", "service.orders.follow"),
        "orders follow payments",
    ),
    Rule(
        "orders know no provider's file",
        inside("service.orders"),
        nothing_of("service.providers", "service.callbacks", "service.routing", but=("service.providers.calls",)),
        ("service.orders.settle", "service.providers.stripe"),
        "what a provider says comes through payments",
    ),
    Rule(
        "routing chooses by values and asks nobody",
        inside(*ROUTING),
        only(
            *ROUTING,
            "service.errors",
            "service.payments.facts",
            "service.payments.money",
            "service.providers",
            "msgspec",
            "bisect",
            *PURE_STDLIB,
        ),
        ("service.routing.rules", "sqlalchemy"),
        "the simulator is the same function as the real thing",
    ),
    Rule(
        "the rules of payments import the rules' words and no I/O",
        inside(*RULES),
        only(*RULES, *PURE_STDLIB),
        ("service.payments.rules", "sqlalchemy"),
        "what a payment becomes is a function of values",
    ),
    Rule(
        "providers import the rules' words, each other's contract and no I/O",
        inside("service.providers"),
        only("service.payments.facts", "service.payments.money", "service.providers", "msgspec", *PURE_STDLIB),
        ("service.providers.stripe", "service.database"),
        "a provider's file is tables and pure functions",
    ),
    *(
        Rule(
            f"{one} knows no other provider",
            lambda name, one=one: provider_of(name) == one,  # type: ignore[misc]
            lambda what, one=one: provider_of(what) in (None, one),  # type: ignore[misc]
            (f"service.providers.{one}_calls", f"service.providers.{SIX[SIX.index(one) - 1]}_wire"),
            "one provider, one listening and one calling half",
        )
        for one in SIX
    ),
    Rule(
        "the outbox knows neither the scheduler nor the service",
        inside("outbox"),
        nothing_of("service", "scheduler"),
        ("outbox.queue", "service.database"),
        "what we owe and how it is paid; nothing about payments",
    ),
    Rule(
        "the scheduler knows neither the outbox nor the service",
        inside("scheduler"),
        nothing_of("service", "outbox"),
        ("scheduler.runner", "outbox.queue"),
        "time, and nothing else",
    ),
    Rule(
        "the outbox and the scheduler tell the world through their hook",
        inside("outbox", "scheduler"),
        nothing_of("structlog", "prometheus_client", "litestar", "rich", "click"),
        ("outbox.dispatcher", "prometheus_client"),
        "one frozen record a happening; metrics, logs and alerts listen",
    ),
    Rule(
        "the API imports neither the dashboard nor the CLI",
        inside("service.api"),
        nothing_of("service.dashboard", "service.cli", "service.application"),
        ("service.api.callbacks", "service.cli.render"),
        "the doors import subjects, never each other",
    ),
    Rule(
        "the dashboard imports neither the API nor the CLI",
        inside("service.dashboard"),
        nothing_of("service.api", "service.cli", "service.application"),
        ("service.dashboard.pages", "service.api.errors"),
        "the doors import subjects, never each other",
    ),
    Rule(
        "the CLI imports neither the API nor the dashboard",
        inside("service.cli"),
        nothing_of("service.api", "service.dashboard"),
        ("service.cli.payments", "service.api.errors"),
        "the doors import subjects, never each other",
    ),
    Rule(
        "no subject calls back up",
        inside(*(f"service.{subject}" for subject in SUBJECTS), but=("service.commands",)),
        nothing_of("service.api", "service.dashboard", "service.cli", "service.application", "service.commands"),
        ("service.callbacks.take", "service.api.callbacks"),
        "imports point inward",
    ),
    Rule(
        "application.py alone builds things",
        lambda name: under(name, "service") and not under(name, *BUILDERS),
        nothing_of("service.application"),
        ("service.merchants.accounts", "service.application.build"),
        "parts are handed down, never fetched",
    ),
    Rule(
        "the product imports no test",
        inside(*OURS),
        nothing_of("tests", "pytest", "hypothesis", "stripe", "svix", "standardwebhooks"),
        ("service.sandbox.merchant", "standardwebhooks"),
        "official libraries are oracles in tests",
    ),
    Rule(
        "sqlite3 is known to the one writer alone",
        inside(
            *OURS,
            but=(
                *("service.database", "service.sqlite", "service.lock", "service.migrations", "outbox.queue"),
                "service.logs",  # names SQLite's own error code in a log line
            ),
        ),
        nothing_of("sqlite3", "aiosqlite"),
        ("service.callbacks.take", "sqlite3"),
        "one place knows SQLite from Postgres",
    ),
]

OUR_IMPORTS = [found for path in python_files(*OURS) for found in imports(module_name(path), text(path))]


HANDED_DOWN = "service.application.Application"
"""Whoever is handed the application may name its type, for the type checker alone: that builds and fetches nothing."""


def broken(rule: Rule, found: Iterable[Import]) -> list[str]:
    return [
        str(one)
        for one in found
        if rule.who(one.of) and not rule.allowed(one.what) and not (one.typing and one.what == HANDED_DOWN)
    ]


@pytest.mark.parametrize("rule", RULES_OF_IMPORT, ids=lambda rule: rule.name)
def test_the_imports_are_as_drawn(rule: Rule) -> None:
    """No module imports what its place in the picture forbids."""
    assert broken(rule, OUR_IMPORTS) == [], rule.because


@pytest.mark.parametrize("rule", RULES_OF_IMPORT, ids=lambda rule: rule.name)
def test_a_planted_import_is_caught(rule: Rule) -> None:
    """The control: a rule that lets its own example through proves nothing."""
    module, what = rule.planted
    package, _, name = what.rpartition(".")
    source = f"def late():\n    from {package} import {name}\n" if package else f"import {what}\n"
    assert len(broken(rule, imports(module, source))) == 1


def test_there_is_something_to_prove() -> None:
    """The walk reads our packages: it finds the import that every table makes."""
    assert any(one.of.startswith("service.") and one.what.startswith("sqlalchemy") for one in OUR_IMPORTS)


# --- names that only one place may say ----------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A dotted call or attribute that only `places` may use."""

    words: tuple[str, ...]
    places: tuple[str, ...]
    planted: str
    because: str


WORDS = [
    Word(
        ("os.environ", "os.getenv", "os.environb", "os.putenv"),
        ("service.config",),
        "import os\nvalue = os.environ['CAISSE_MODE']",
        "settings are read once, in config.py",
    ),
    Word(
        ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
        ("service.ids", "service.config", "service.sandbox"),  # the sandbox plays other people, with their own clocks
        "import time\nnow = time.time()",
        "the clock is handed in; `service.ids.now_ms` is the system's",
    ),
    Word(
        ("random.random", "random.randint", "random.choice", "random.uniform", "random.shuffle", "random.randrange"),
        (),
        "import random\ndelay = random.random()",
        "luck is a seeded random.Random that is handed in",
    ),
    Word(
        ("asyncio.get_event_loop", "asyncio.set_event_loop"),
        (),
        "import asyncio\nloop = asyncio.get_event_loop()",
        "nothing finds its loop by accident",
    ),
]


def spoken(source: str, words: Iterable[str]) -> list[tuple[int, str]]:
    """Uses of these dotted names, also by `from time import time`."""
    tree = ast.parse(source)
    direct = {f"{one.what}" for one in imports("", source)}
    found = [(0, word) for word in words if word in direct]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            found += [(node.lineno, word) for word in words if dotted == word or dotted.endswith(f".{word}")]
    return found


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.words[0])
def test_a_word_is_said_in_its_place_alone(word: Word) -> None:
    """The environment, the clock and luck enter through one door each."""
    said = [
        f"{path}:{line} says {what}"
        for path in python_files(*OURS)
        if not under(module_name(path), *word.places)
        for line, what in spoken(text(path), word.words)
    ]
    assert said == [], word.because


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.words[0])
def test_a_planted_word_is_heard(word: Word) -> None:
    """The control for the rule above."""
    assert spoken(word.planted, word.words)
    package, _, name = word.words[0].rpartition(".")
    assert spoken(f"from {package} import {name}", word.words)
