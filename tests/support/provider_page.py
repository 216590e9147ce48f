"""docs/providers.md, made from the code: `python -m tests.support.provider_page` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from service.payments import money
from service.providers import CALLS, PROVIDERS, overrides
from service.providers.calls import Calls, Channel, Facts
from tests.support.beliefs import BELIEFS

PAGE = Path("docs/providers.md")

HEAD = """# The six providers

What each can do, the ways to be paid through it with their limits, and what nobody official says of it. This page is
made from the code (`python -m tests.support.provider_page`), and a test compares.

A base URL is `CAISSE_<PROVIDER>_BASE_URL`. Everything else that is believed can be set in the settings file, below
`[providers.<name>]`:

```toml
[providers.paystack.channels.orange-ci]   # a way of the tables below; what is not said stays
code = "orange"                           # the provider's own word for it
min_minor = 100                           # least, most and step, in minor units of its currency
max_minor = 1_000_000
step_minor = 5

[providers.paystack.channels.moov-ci]     # a wallet that there is no way for yet: operator-country
currency = "XOF"
code = "moov"
direct = true                             # the payer stays on the merchant's page

[providers.fedapay.channels.celtiis-bj]
off = true

[providers.ebilling.facts]
portal_url = "https://staging.billing-easy.net"
```

Weights: **SDK** an official library or plugin, **docs** an official page, **3p** other people's code, **unv** nobody.
`make contract` asks real sandboxes, where their keys are in the environment, and says which beliefs it settled.

Needs are what a payment has to bring. A *direct* way keeps the payer on the merchant's page (a code by SMS, an approval
on the phone); an *embedded* one is confirmed by the merchant's own page.
"""


def page() -> str:
    """All of it."""
    rows = (_can(name, calls) for name, calls in CALLS.items())
    parts = [HEAD, "\n## What each can do\n\n", *_table(("", *_ABLE.values()), rows)]
    for name, calls in CALLS.items():
        provider = PROVIDERS[name]
        parts += [f"\n## {provider.title}\n\nBase URL `{provider.base_url}`.\n\n"]
        parts += _table(("ways", "currency", "code", "least", "most", "step", "needs", ""), _ways(calls))
        parts += ["\n"]
        header = ("believed", "weight", "unless set", f"below `[providers.{name}]`")
        parts += _table(header, _believed(name, calls.facts))
    return "".join(parts)


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows)]


_ABLE = {
    "find": "found by our reference",
    "otp": "codes (OTP)",
    "cancel": "cancel",
    "refund": "refund",
    "refunds": "refunds asked about",
    "list": "listed",
    "idempotent": "repeated by key",
}


def _can(name: str, calls: Calls) -> tuple[str, ...]:
    return (PROVIDERS[name].title, *("yes" if getattr(calls, word) else "no" for word in _ABLE))


def _ways(calls: Calls) -> Iterator[Sequence[str]]:
    """One row for all ways that differ by their names alone."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for one in calls.channels:
        alike.setdefault(_limits(one), []).append(overrides.name(one))
    for limits, names in alike.items():
        yield (", ".join(f"`{name}`" for name in names), *limits)


def _limits(one: Channel) -> tuple[str, ...]:
    how = "embedded" if one.embedded else "direct" if one.direct else ""
    most = "" if one.max_minor is None else _major(one.max_minor, one.currency)
    code = f"`{one.code}`" if one.code else ""
    least, step = _major(one.min_minor, one.currency), _major(one.step_minor, one.currency)
    # A way without an operator has its currency in its name, and stands in one row with its like.
    return (one.currency if one.operator else "", code, least, most, step, ", ".join(sorted(one.needs)), how)


def _major(amount_minor: int, currency: str) -> str:
    return f"{money.to_major(amount_minor, currency):f}"


def _believed(name: str, facts: Facts) -> Iterator[Sequence[str]]:
    for belief in BELIEFS[name]:
        fact = belief.setting.removeprefix("facts.")
        value = facts.get(fact) if fact != belief.setting else None
        shown = "" if value is None else f"`{', '.join(value) if isinstance(value, tuple) else value}`"
        yield belief.says, belief.weight, shown if shown != "``" else "empty", f"`{belief.setting}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
