"""docs/providers.md, made from the code: `python -m tests.support.provider_page` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.payments import money
from service.providers import CALLS, PAYOUTS, PROVIDERS, overrides
from service.providers.calls import Calls, Channel, Facts
from service.providers.payouts import PayoutChannel, Payouts
from tests.support.beliefs import BELIEFS, PAYOUT_BELIEFS, Belief

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

[providers.fedapay.payout_channels.orange-ci]   # the same of ways to pay out
currency = "XOF"
code = "orange_ci"

[providers.fedapay.payout_facts]
payout_start_field = ""
```

A fact that payments and payouts believe alike is one: what `facts` says of it holds for payouts too, unless
`payout_facts` says otherwise.

Weights: **SDK** an official library or plugin, **docs** an official page, **3p** other people's code, **unv** nobody.
`make contract` asks real sandboxes, where their keys are in the environment, and says which beliefs it settled.

Needs are what a payment has to bring. A *direct* way keeps the payer on the merchant's page (a code by SMS, an approval
on the phone); an *embedded* one is confirmed by the merchant's own page.
"""


def page() -> str:
    """All of it."""
    rows = (_can(name, calls) for name, calls in CALLS.items())
    parts = [HEAD, "\n## What each can do\n\n", *_table(("", *_ABLE.values()), rows)]
    parts += ["\n## What each can do to pay out\n\n"]
    parts += _table(("", *_PAYS.values()), (_pays(name, payouts) for name, payouts in PAYOUTS.items()))
    for name, calls in CALLS.items():
        provider = PROVIDERS[name]
        parts += [f"\n## {provider.title}\n\nBase URL `{provider.base_url}`.\n\n"]
        parts += _table(("ways", "currency", "code", "least", "most", "step", "needs", ""), _ways(calls))
        parts += ["\n"]
        header = ("believed", "weight", "unless set", f"below `[providers.{name}]`")
        parts += _table(header, _believed(BELIEFS[name], "facts.", calls.facts))
        parts += ["\n"]
        parts += _table(("ways to pay out", "currency", "code", "least", "most", "step"), _out(PAYOUTS[name]))
        parts += ["\n"]
        header = ("believed of payouts", *header[1:])
        parts += _table(header, _believed(PAYOUT_BELIEFS[name], "payout_facts.", PAYOUTS[name].facts))
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


_PAYS = {
    "ask": "asked about",
    "by_reference": "found by our reference",
    "finalize": "codes (OTP)",
    "float_": "balance",
    "idempotent": "repeated by key",
}


def _pays(name: str, payouts: Payouts) -> tuple[str, ...]:
    can: Mapping[str, object] = {"by_reference": payouts.ask and not payouts.by_name_only}
    return (PROVIDERS[name].title, *("yes" if can.get(word, getattr(payouts, word, None)) else "no" for word in _PAYS))


def _out(payouts: Payouts) -> Iterator[Sequence[str]]:
    """One row for all ways to pay out that differ by their names alone."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for one in payouts.channels:
        shown = (one.currency if one.operator else "", *_code_and_limits(one))
        alike.setdefault(shown, []).append(overrides.payout_name(one))
    for shown, names in alike.items():
        yield (", ".join(f"`{name}`" for name in names), *shown)


def _ways(calls: Calls) -> Iterator[Sequence[str]]:
    """One row for all ways that differ by their names alone."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for one in calls.channels:
        alike.setdefault(_limits(one), []).append(overrides.name(one))
    for limits, names in alike.items():
        yield (", ".join(f"`{name}`" for name in names), *limits)


def _limits(one: Channel) -> tuple[str, ...]:
    how = "embedded" if one.embedded else "direct" if one.direct else ""
    # A way without an operator has its currency in its name, and stands in one row with its like.
    currency = one.currency if one.operator else ""
    return (currency, *_code_and_limits(one), ", ".join(sorted(one.needs)), how)


def _code_and_limits(one: Channel | PayoutChannel) -> tuple[str, ...]:
    most = "" if one.max_minor is None else _major(one.max_minor, one.currency)
    code = f"`{one.code}`" if one.code else ""
    return code, _major(one.min_minor, one.currency), most, _major(one.step_minor, one.currency)


def _major(amount_minor: int, currency: str) -> str:
    return f"{money.to_major(amount_minor, currency):f}"


def _believed(beliefs: Sequence[Belief], below: str, facts: Facts) -> Iterator[Sequence[str]]:
    for belief in beliefs:
        fact = belief.setting.removeprefix(below)
        value = facts.get(fact) if fact != belief.setting else None
        shown = "" if value is None else f"`{', '.join(value) if isinstance(value, tuple) else value}`"
        yield belief.says, belief.weight, shown if shown != "``" else "empty", f"`{belief.setting}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
