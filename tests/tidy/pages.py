"""
The pages of docs/ that are made from the code: states, events, settings, commands, metrics.

`python -m tests.tidy.pages` writes them; test_generated_docs.py compares them with what stands there. What is said here
in words is said nowhere else; every table, diagram and example is read from the code that does it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Template

import click
from click.testing import CliRunner
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from sqlalchemy import select

from outbox.policy import STANDARD_MS
from outbox.webhook import sign, sign_plain
from service.application import build
from service.callbacks.process import ASK, DEFERRED
from service.callbacks.tables import callbacks
from service.cli import caisse
from service.config import FIELDS, Field, Settings
from service.escrow.payout_rows import TALLY
from service.escrow.states import MACHINES as OF_ESCROW
from service.escrow.states import Payout
from service.ids import Ids
from service.merchants.audit import By
from service.merchants.events import CATALOGUE, ON_REQUEST, WEBHOOK
from service.merchants.merchants import create
from service.merchants.tables import events
from service.metrics import Metrics, _Bound
from service.orders.states import MACHINES as OF_ORDERS
from service.payments.rules import STATUSES, Problem
from service.payments.states import MACHINES as OF_PAYMENTS
from service.payments.states import Row, mermaid
from service.providers import PROVIDERS
from service.providers.base import Incoming
from service.sandbox.builder import build as build_callback
from service.topics import CALLBACK_RETRIES_MS
from tests.tidy.house import ROOT

HOW = "python -m tests.tidy.pages"
MADE = f"<!-- Made from the code by make docs ({HOW}). Change the code, or that module, not this page. -->"
HELP_WIDTH = 100


def pages() -> dict[str, str]:
    """Every page by its path from the root."""
    makers: Mapping[str, Callable[[], str]] = {
        "docs/states.md": states,
        "docs/events.md": events_page,
        "docs/settings.md": settings,
        "docs/commands.md": commands,
        "docs/metrics.md": metrics,
    }
    return {name: make() for name, make in makers.items()}


def page(text: str, **parts: str) -> str:
    """The words of a page with its `${parts}` put in; the first line is the title, and the remark comes after it."""
    title, _, rest = Template(text.lstrip("\n")).substitute(parts).partition("\n")
    return f"{title}\n\n{MADE}\n{rest.rstrip()}\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell does not end it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def words(of: Iterable[str]) -> str:
    """`this`, `that`."""
    return ", ".join(map(code, of))


def pretty(body: str) -> str:
    """JSON for reading."""
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)


def code(word: str) -> str:
    """`word`."""
    return f"`{word}`"


# --- states -------------------------------------------------------------------------------------------

STATES = """
# The machines

Every machine is one table of rows in `service/payments/states.py`, read by the code that moves things and by the
tests that try every pair. What has no row is ignored, counted (`illegal_transitions_total`) and logged; it never
raises. The same from the command line: `caisse states`, `caisse states --mermaid`.

A payment's own status is computed from its attempts: money first, then the best attempt that is still alive, and an
end only when no attempt can still succeed. It is one of ${statuses}.

${machines}
"""

MACHINES = {**OF_PAYMENTS, **OF_ORDERS, **OF_ESCROW}
MACHINE_SENTENCES = {
    "attempt": """
A payment attempt is one try to get the money at one provider. Its state is computed anew from all its facts and
steps, so the order in which they arrive does not matter; money wins over every end. One that somebody else started
begins as `submitting`; one of ours as `created`, and is `submitting` before a byte is sent.
""",
    "refund": """
A refund, ours or one that was made at the provider. Providers send no times with them, so the order is by rank alone.
""",
    "order": """
What is to be paid and handed over. Expiry asks the provider first: `expiring` takes no new attempts, and the stock is
free again in the transaction that says `expired`, once every attempt is dead by the provider's word.
""",
    "session": """
One buyer's checkout. It never ends while an attempt of it could still take money.
""",
    "hold": """
The money of one paid order, held for whom it is for: held = releasable + released + refunded + frozen, always. What is
frozen is released by nobody; what was never delivered is never released by itself.
""",
    "payout": """
Money that is paid out, under one reference for ever. From `requested` until its end it is reserved, so that two
payouts over one balance cannot both be met; one that failed, came back or was called off gives it back. What nobody
knows is asked about or decided by a person, and never sent under another reference.
""",
    "dispute": """
A dispute or chargeback. While it is open or lost the payment carries the exception `disputed`; only `won` takes it
away.
""",
    "callback": """
A kept callback: verified, on disk and answered 200. What did not verify is in quarantine and has no state.
""",
    "delivery": """
One event on its way to one endpoint. `processing` is not stored: it is derived from a claim whose lease is not over,
so a crash leaves nothing stuck.
""",
}


def states() -> str:
    """docs/states.md"""
    assert set(MACHINE_SENTENCES) == set(MACHINES), "a machine without its sentence, or the other way round"
    machines = [
        f"## {name}\n{MACHINE_SENTENCES[name]}\n```mermaid\n{mermaid(rows)}\n```\n\n"
        + table(["from", "what happens", "to", "note"], map(_state_row, rows))
        for name, rows in MACHINES.items()
    ]
    return page(STATES, statuses=words(STATUSES), machines="\n\n".join(machines))


def _state_row(row: Row) -> Sequence[str]:
    return words(row.states), code(row.what), code(row.to) if row.to else "*stays*", row.note


# --- events -------------------------------------------------------------------------------------------

EXAMPLE_AT_MS = 1_795_251_600_000
EXAMPLE_SECRET = "whsec_Y2Fpc3NlIGlzIEZyZW5jaCBmb3IgdGhlIHRpbGwhISE="
EXAMPLE_PROVIDER = "stripe"

PAYMENT_FIELDS = {
    "id": "`pay_…`, the same in every event about it.",
    "status": f"One of {words(STATUSES)}.",
    "exceptions": f"What is odd about it, beside the status; usually empty. Any of {words(Problem)}.",
    "origin": "`external`: somebody else started it and caisse learnt of it from a callback.",
    "live": "`false` for test money.",
    "amount": "What was asked, in minor units (5000 is 5 000 XOF, or 50.00 EUR).",
    "currency": "ISO 4217, upper case.",
    "amount_captured": "What has come, in minor units.",
    "amount_refunded": "What has gone back, in minor units.",
    "fee": "The provider's fee in minor units, `null` where it does not say.",
    "provider": f"One of {words(PROVIDERS)}.",
    "provider_reference": "The provider's own id of the payment.",
    "method": "`card`, `mobile_money`, … as far as the provider says.",
    "reference": "Your own reference, as the provider passed it on.",
    "order": "The order that it pays for, or `null`.",
    "metadata": "What was attached to the payment where it was started.",
    "failure_reason": "Why it failed, in one vocabulary for all providers; otherwise `null`.",
    "created_at": "When caisse first knew of it. Times are RFC 3339, UTC, with milliseconds.",
    "updated_at": "When it last changed.",
    "paid_at": "When the money came, by the provider's clock where it says so.",
}

PYTHON = '''
import base64, hashlib, hmac, time

def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """`headers` with lower-case names, `body` as it came: verify first, parse afterwards."""
    stamp = headers["webhook-timestamp"]
    if abs(time.time() - int(stamp)) > 300:
        return False
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(wanted, given) for given in headers["webhook-signature"].split())
'''.strip("\n")

PHP = """
function verified(string $secret, array $headers, string $body): bool {
    $stamp = $headers['webhook-timestamp'];
    if (abs(time() - (int) $stamp) > 300) return false;
    $key = base64_decode(substr($secret, strlen('whsec_')));
    $signed = $headers['webhook-id'] . '.' . $stamp . '.' . $body;
    $wanted = 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true));
    foreach (explode(' ', $headers['webhook-signature']) as $given)
        if (hash_equals($wanted, $given)) return true;
    return false;
}   // $body is file_get_contents('php://input'); names of $headers in lower case
""".strip("\n")

EVENTS = """
# Events: what your application is told

A webhook is a `POST` with one event as JSON. Answer 2xx within ten seconds, and do the work afterwards. Whatever else
is answered, or nothing, is tried again.

## All types

${types}

An endpoint gets all of them unless it was added with `--events`, a comma-separated list; what is *on request* has to
be named there.

## What to act on

Deliver on `payment.succeeded` and on nothing else. `payment.attention` means that something about the money is wrong:
it is not the amount or currency that was asked for, it came twice, or too late. Do not deliver by yourself;
`exceptions` says why, and a person looks (`caisse payments show pay_…`). It is [not called a
success](adr/0003-attention-instead-of-succeeded.md), so that an application which only knows `payment.succeeded`
never ships for the wrong money.

## One event, as it is sent

```http
${request}
```

```json
${succeeded}
```

The body is sent in one line, without the breaks and indents that are put in here for reading. The secret of this
example is `${secret}`.

## The payment

${fields}

`merged_into` is there only when two payments were found to be one: the id of the one that goes on. New fields may be
added; the ones above keep their names.

## A provider's callback, passed on

`provider.event` is for an endpoint that asks for it by name, such as `--events payment.succeeded,provider.event`.
`body` is the callback's body as text, as it was kept; parse it as you would the provider's own. It may hold personal
data.

```json
${passed_on}
```

## Is it genuine?

Any [Standard Webhooks](https://www.standardwebhooks.com) library tells you. Without one, in Python:

```python
${python}
```

In PHP:

```php
${php}
```

While a secret is being rotated `webhook-signature` carries one signature for each live secret, separated by spaces.
The plain header beside it, `X-Caisse-Signature: sha256=…`, is the hex HMAC-SHA256 of the body alone; its key is the
secret as it is written, with its `whsec_`. It covers no time, so prefer the other one.

## Repeats, order, retries

- The same event may come more than once, always with the same `webhook-id` (which is the event's `id`). Remember the
  ids for a week, and answer 2xx to what you know already.
- Events of one payment may overtake each other. `sequence` counts them within the payment, from 1: drop what is not
  greater than the last one you worked on. `provider.event` and `endpoint.test` take no part in that count.
- What is not answered 2xx is tried again ${retries} times over about ${days} days, after ${delays}; each is varied a
  little. The schedule `short` is the first five retries alone.
- A 410 means *never again*: the endpoint is disabled, and what it is owed from then on is held until somebody enables
  it.
"""


def events_page() -> str:
    """docs/events.md"""
    bodies = asyncio.run(_example())
    succeeded = bodies["payment.succeeded"]
    payment = json.loads(succeeded)["data"]["payment"]
    assert list(payment) == list(PAYMENT_FIELDS), "the payment object has other fields than the table"
    types = [(code(name) + (" *(on request)*" if name in ON_REQUEST else ""), text) for name, text in CATALOGUE.items()]
    return page(
        EVENTS,
        types=table(["type", "meaning"], types),
        request=_request(succeeded),
        succeeded=pretty(succeeded),
        secret=EXAMPLE_SECRET,
        fields=table(["field", "meaning"], [(code(name), text) for name, text in PAYMENT_FIELDS.items()]),
        passed_on=pretty(bodies["provider.event"]),
        python=PYTHON,
        php=PHP,
        retries=str(len(STANDARD_MS)),
        days=f"{sum(STANDARD_MS) / 86_400_000:.0f}",
        delays=_delays(STANDARD_MS),
    )


def _delays(delays_ms: Sequence[int]) -> str:
    said = [
        f"{ms // 1000} s" if ms < 60_000 else f"{ms / 60_000:g} min" if ms < 3_600_000 else f"{ms / 3_600_000:g} h"
        for ms in delays_ms
    ]
    counted = [(word, len(list(group))) for word, group in itertools.groupby(said)]
    return ", ".join(f"{number} × {word}" if number > 1 else word for word, number in counted)


def _request(body: str) -> str:
    headers = sign(json.loads(body)["id"], EXAMPLE_AT_MS // 1000, body.encode(), [EXAMPLE_SECRET])
    headers["x-caisse-signature"] = sign_plain(body.encode(), EXAMPLE_SECRET)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\n".join(["POST /hooks HTTP/1.1", "content-type: application/json", *lines])


async def _example() -> dict[str, str]:
    """One real callback through the real parts, with a clock and luck of our own: the events' bodies by type."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            "CAISSE_DATABASE_URL": f"sqlite:///{directory}/caisse.db",
            "CAISSE_STRIPE_WEBHOOK_SECRETS": "whsec_of_the_example",
            "CAISSE_STRIPE_SECRET_KEY": "sk_test_of_the_example",
        }
        luck = itertools.count(0x5EED << 60, 0x9E3779B97F4A7C15)
        ids = Ids(lambda: EXAMPLE_AT_MS, lambda: next(luck) % (1 << 80))
        settings_ = Settings.read(environment=environment, directory=directory)
        app = build(settings_, clock=lambda: EXAMPLE_AT_MS, ids=ids)
        await app.open()
        try:
            hand = By("docs", EXAMPLE_AT_MS, ids)
            url = "https://shop.example.com/hooks"
            wanted = "*,provider.event"
            await app.db.write(
                lambda tx: create(tx, "Chez Awa", False, hand, app.seal, app.revive_waiting, url, wanted)
            )
            await app.reload_registry()
            built = build_callback(
                EXAMPLE_PROVIDER,
                "payment_intent.succeeded",
                settings_.credentials[EXAMPLE_PROVIDER],
                EXAMPLE_AT_MS,
                {"reference": "CMD-1042", "amount": "5000", "currency": "XOF", "live": "false"},
            )
            account = app.registry.by_id(EXAMPLE_PROVIDER, "acc_stripe")
            assert account is not None
            headers = [(name.lower().encode(), value.encode()) for name, value in built.headers.items()]
            await app.intake.receive(account, Incoming(built.method, headers, b"", built.body))
            await app.db.write(lambda tx: app.processor.process(tx, list(tx.execute(select(callbacks.c.id)).scalars())))
            rows = await app.db.read(lambda tx: list(tx.execute(select(events).order_by(events.c.position)).all()))
        finally:
            await app.close()
    return {row.type: bytes(row.body).decode() for row in rows}


# --- settings -----------------------------------------------------------------------------------------

SETTINGS = """
# Settings

Settings are read once, at the start, from a TOML file (`--config`, otherwise `caisse.toml` when it is there) and from
the environment, which wins. Everything has a default but the keys of the providers you use. An unknown name stops the
start with a sentence that names it. `caisse doctor --settings` shows what is set and where it came from, and never a
secret's value.

In the file a name is written in lower case and without `CAISSE_`, a provider's inside its table. A list is an array
there and comma-separated in the environment; where several values may be live they are written newest first.

```toml
mode = "production"
public_url = "https://pay.example.com"

[stripe]
secret_key = "sk_live_…"
webhook_secrets = ["whsec_new…", "whsec_old…"]
```

## General

${general}

Read and checked, but without effect until the part that needs them is built: ${later}.

${providers}

## The default accounts

A provider's settings make its *default account*, which belongs to the first merchant. A provider with nothing set is
off (404); one that is half set refuses its callbacks (401) and shows in `/readyz`. Further accounts are stored in the
database: `caisse account add`.
"""

LATER = ("admin_password", "smtp_url", "mail_from")


def settings() -> str:
    """docs/settings.md"""
    general = [entry for entry in FIELDS if not entry.table]
    later = [entry.environment for entry in general if entry.name in LATER]
    providers = [
        f"## {provider.title}\n\n" + _settings_table([entry for entry in FIELDS if entry.table == name])
        for name, provider in PROVIDERS.items()
    ]
    return page(SETTINGS, general=_settings_table(general), later=words(later), providers="\n\n".join(providers))


def _settings_table(entries: Iterable[Field]) -> str:
    heads = ["name", "default", "meaning", "secret", "list"]
    return table(heads, [_setting_row(entry) for entry in entries])


def _setting_row(entry: Field) -> Sequence[str]:
    default = code(entry.default) if entry.default else "–"
    return code(entry.environment), default, entry.meaning, "yes" if entry.secret else "", "yes" if entry.many else ""


# --- commands -----------------------------------------------------------------------------------------

COMMANDS = """
# Commands

Commands work before the first start, beside the running service, which then does the writing, and without it; only
`callback send` needs somebody to answer. `--json` prints for programs. The exit status is 0 done, 1 it did not work,
2 wrong usage; of `serve` also 70: the storage failed.

${commands}
"""


def commands() -> str:
    """docs/commands.md"""
    return page(COMMANDS, commands="\n\n".join(_help(path) for path, _ in _walk(caisse, ())))


def _help(path: Sequence[str]) -> str:
    result = CliRunner().invoke(caisse, [*path, "--help"], prog_name="caisse", terminal_width=HELP_WIDTH)
    assert result.exit_code == 0, result.output
    said = "\n".join(line.rstrip() for line in result.output.strip("\n").splitlines())
    return f"{'##' if len(path) < 2 else '###'} {' '.join(['caisse', *path])}\n\n```text\n{said}\n```"


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    # Cached for whoever asks first, who may have come without the settings of its group: then it knows no -h.
    command._help_option = None
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _walk(below, (*path, name))


# --- metrics ------------------------------------------------------------------------------------------

METRICS = """
# Metrics

`GET /metrics` in Prometheus' text form; with `CAISSE_METRICS_TOKEN` set it asks for that bearer token. No label ever
holds an id: each has a closed set of values, and what is not in it is counted as `other`. A histogram also has
`_bucket`, `_sum` and `_count`.

${families}

## Values of the labels

`provider` and `gateway` are ${providers}. `route` is a template, such as `/webhooks/{provider}`. `queue` is a topic
of the outbox: ${queues}.

${values}
"""
SAID_IN_WORDS = ("provider", "gateway", "route", "queue")


def metrics() -> str:
    """docs/metrics.md"""
    counted = Metrics(PROVIDERS)
    counted.watch_storage(lambda: (object(), True))
    counted._tallied.totals = {f"{TALLY}{next(iter(PROVIDERS))}:{Payout.PAID}": 1}  # labels are seen in a sample
    closed = {bound.metric: bound.closed for bound in vars(counted).values() if isinstance(bound, _Bound)}
    families, values = [], []
    for collector in dict.fromkeys(counted.registry._collector_to_names):
        ours = collector if isinstance(collector, MetricWrapperBase) else None
        labels = ours._labelnames if ours else ()
        for family in ours.describe() if ours else collector.collect():
            name = code(family.name + ("_total" if family.type == "counter" else ""))
            families.append((name, family.type, words(labels or _labels(family)), family.documentation))
            for label, among in zip(labels, closed.get(collector, ()), strict=False):
                if label not in SAID_IN_WORDS:
                    values.append((name, code(label), words(sorted(among))))
    return page(
        METRICS,
        families=table(["name", "type", "labels", "meaning"], families),
        providers=words(PROVIDERS),
        queues=words((*CALLBACK_RETRIES_MS, DEFERRED, ASK, WEBHOOK)),
        values=table(["name", "label", "values"], values),
    )


def _labels(family: Metric) -> Sequence[str]:
    """Of a family that is made when it is asked for."""
    return [name for sample in family.samples[:1] for name in sample.labels]


def main() -> None:
    """Write the pages that differ and say which."""
    for name, text in pages().items():
        path = ROOT / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            sys.stdout.write(f"written: {name}\n")


if __name__ == "__main__":
    main()
