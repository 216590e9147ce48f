"""
`caisse dev`: the whole thing on one machine, with traffic. What `make run` starts.

The service runs in this process on its real port, as it would for a merchant; beside it the sandbox: a stand-in for the
providers that are asked, a sample shop, a player of the six providers, and a screen. Everything it keeps lies in one
directory of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import secrets
import signal
import socket
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlalchemy import Connection, Integer, case, cast, func, select, update

from outbox.tables import Tables
from service import logs
from service.application import STORAGE_FAILED, Application, build
from service.callbacks.tables import callbacks
from service.commands import endpoints as endpoint_commands
from service.commands import merchants as merchant_commands
from service.config import BadSetting, Settings
from service.database import StorageError
from service.errors import Refusal
from service.ids import now_ms
from service.lock import Held, Lock
from service.merchants.events import WEBHOOK
from service.merchants.tables import endpoints, events
from service.payments.tables import payments
from service.providers import PROVIDERS
from service.sandbox.merchant import Counters, Receipt, Shop, Trouble
from service.sandbox.player import Played, Player, Teller
from service.sandbox.screen import Inflow, Outflow, Rates, Snapshot, Sums, grouped, line, money, time_of_day, watch
from service.sandbox.standin import Book, Entry, Keys, StandIn
from service.schema import outbox_tables

MARK = "# Written by `caisse dev` at each start, with made-up secrets. Nothing real belongs here."
PORTS = {"service": 8080, "standin": 8090, "shop": 8091}
START_S = 30.0
SAVE_S = 10.0
DRAIN_S = 6.0
"""How long the end waits for the queue to empty; retries that are due later are left waiting, as in a real stop."""


class CannotStart(Refusal):
    """The demonstration cannot be started here."""

    def __init__(self, sentence: str) -> None:
        super().__init__("cannot_start", sentence)


class StorageFailed(Exception):
    """The disk gave out under the database."""


# --- the directory ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Home:
    """The directory: made-up secrets and ports (`dev.json`), settings made from them, the database, the log."""

    directory: Path
    secrets: dict[str, str]
    ports: dict[str, int]
    shop: dict[str, str] = field(default_factory=dict)  # merchant, endpoint, secret, api_key, port it was made for

    @property
    def config(self) -> Path:
        """The settings of the service."""
        return self.directory / "caisse.toml"

    @property
    def database(self) -> Path:
        """Everything that caisse keeps."""
        return self.directory / "caisse.db"

    @property
    def log(self) -> Path:
        """What the service logs; the terminal belongs to the screen."""
        return self.directory / "caisse.log"

    @property
    def book(self) -> Path:
        """What the stand-in knows, kept so that questions of the last run are still answered."""
        return self.directory / "providers.json"

    def save(self) -> None:
        """Write it all, readable by the owner alone."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {"secrets": self.secrets, "ports": self.ports, "shop": self.shop}
        _write(self.directory / "dev.json", json.dumps(kept, indent=1))
        _write(self.config, _toml(self))

    def settings(self) -> Settings:
        """The settings from the directory alone: nothing of the environment may lead us to another database."""
        return Settings.read(self.config, environment={})


def prepare(directory: Path) -> Home:
    """Make the directory or find it again. A directory or an environment that smells of production is refused."""
    config, kept = directory / "caisse.toml", directory / "dev.json"
    if config.exists() and not config.read_text("utf-8", "replace").startswith(MARK):
        raise CannotStart(f"{config} was not written by `caisse dev`; choose another --directory.")
    if not config.exists() and directory.is_dir() and any(directory.glob("*.db")) and not kept.exists():
        raise CannotStart(f"{directory} holds a database that `caisse dev` did not make; choose another --directory.")
    home = Home(directory.resolve(), _new_secrets(), dict(PORTS))
    if home.database.exists():
        # Before a port is changed under somebody who runs here already.
        Lock.acquire(home.database).release()
    if kept.exists():
        try:
            found = json.loads(kept.read_text("utf-8"))
            home.secrets |= {name: str(value) for name, value in found["secrets"].items()}
            home.ports |= {name: int(value) for name, value in found["ports"].items()}
            home.shop = {name: str(value) for name, value in found["shop"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CannotStart(f"{kept} cannot be read; remove the directory to begin anew.") from error
    taken: set[int] = set()
    for name, port in home.ports.items():
        home.ports[name] = _free(port, taken)
        taken.add(home.ports[name])
    return home


@contextlib.contextmanager
def one_start_at_a_time() -> Iterator[None]:
    """
    Hold this machine's only place for demonstrations that are starting.

    Between finding a port free and listening on it another one could find it free too, and the server's sockets are of
    the kind that two processes may share: each would get some of the other's callbacks.
    """
    path = Path(tempfile.gettempdir()) / f"caisse-dev-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        until_s = time.monotonic() + START_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise CannotStart("Another `caisse dev` on this machine is starting and does not finish.") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def refuse_production(settings: Settings, where: str) -> None:
    """Stop before anything is touched when the settings around us are those of a real installation."""
    if settings.strict:
        raise CannotStart(f"{where} says mode {settings.mode}; the demonstration runs beside no real installation.")


def _new_secrets() -> dict[str, str]:
    word = secrets.token_hex
    return {
        "stripe_secret_key": f"sk_test_{word(16)}",
        "stripe_webhook_secret": f"whsec_{word(16)}",
        "paystack_secret_key": f"sk_test_{word(20)}",
        "fedapay_secret_key": f"sk_sandbox_{word(12)}",
        "fedapay_webhook_secret": f"wh_sandbox_{word(12)}",
        "monetbil_service_key": word(16),
        "monetbil_service_secret": word(32),
        "moneroo_secret_key": f"pvk_sandbox_{word(12)}",
        "moneroo_webhook_secret": word(16),
        "ebilling_username": "boutique",
        "ebilling_shared_key": word(16),
        "ebilling_callback_token": word(20),
        "admin_password": word(6),
    }


def _toml(home: Home) -> str:
    base = f"http://127.0.0.1:{home.ports['standin']}"
    own = home.secrets
    tables: dict[str, dict[str, Any]] = {
        "stripe": {
            "secret_key": own["stripe_secret_key"],
            "webhook_secrets": [own["stripe_webhook_secret"]],
            "base_url": f"{base}/stripe",
        },
        "paystack": {"secret_keys": [own["paystack_secret_key"]], "base_url": f"{base}/paystack"},
        "fedapay": {
            "secret_key": own["fedapay_secret_key"],
            "webhook_secrets": [own["fedapay_webhook_secret"]],
            "base_url": f"{base}/fedapay",
        },
        "monetbil": {
            "service_key": own["monetbil_service_key"],
            "service_secrets": [own["monetbil_service_secret"]],
            "base_url": f"{base}/monetbil",
        },
        "moneroo": {
            "secret_key": own["moneroo_secret_key"],
            "webhook_secrets": [own["moneroo_webhook_secret"]],
            "base_url": f"{base}/moneroo",
        },
        "ebilling": {
            "username": own["ebilling_username"],
            "shared_key": own["ebilling_shared_key"],
            "callback_tokens": [own["ebilling_callback_token"]],
            "base_url": f"{base}/ebilling",
        },
    }
    top = {
        "mode": "development",
        "database_url": f"sqlite:///{home.database}",
        "host": "127.0.0.1",
        "port": home.ports["service"],
        "public_url": f"http://127.0.0.1:{home.ports['service']}",
        "admin_password": own["admin_password"],
        "timezone": "Africa/Abidjan",
        "log_level": "warning",
    }
    lines = [MARK, *(f"{name} = {json.dumps(value)}" for name, value in top.items())]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, so that an interrupted start leaves the old one."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text, "utf-8")
    fresh.replace(path)


def _free(wanted: int, taken: set[int]) -> int:
    """The port itself when nobody has it, otherwise any free one."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
            if found not in taken:
                return found
    raise CannotStart("No free port was found on 127.0.0.1.")


# --- looking ----------------------------------------------------------------------------------------

_PAID = ("succeeded", "partially_refunded", "refunded")
_PENDING = ("pending", "requires_action", "unknown", "authorized")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one read of the database found."""

    callbacks: Mapping[tuple[str, str], tuple[int, int]]  # (provider, status) -> rows, times seen
    payments: Sequence[tuple[str, str, int, int, int, int]]  # status, currency, count, asked, captured, refunded
    disputed: int
    outflow: Outflow
    due: int
    oldest_due_ms: int
    busy: int  # callbacks and questions that are due: what the end waits for
    took_ms: int


def see(tx: Connection, tables: Tables, at_ms: int) -> Seen:
    """Everything the screen shows of the database."""
    began_ms = now_ms()
    found = {
        (row[0], row[1]): (row[2], row[3])
        for row in tx.execute(
            select(callbacks.c.provider, callbacks.c.status, func.count(), func.sum(callbacks.c.seen_count)).group_by(
                callbacks.c.provider, callbacks.c.status
            )
        )
    }
    paid = [
        (row[0], row[1], row[2], row[3] or 0, row[4] or 0, row[5] or 0)
        for row in tx.execute(
            select(
                payments.c.status,
                payments.c.currency,
                func.count(),
                func.sum(payments.c.amount_minor),
                func.sum(payments.c.captured_minor),
                func.sum(payments.c.refunded_minor),
            )
            .where(payments.c.merged_into.is_(None))
            .group_by(payments.c.status, payments.c.currency)
        )
    ]
    disputed = tx.execute(
        select(func.count()).select_from(payments).where(payments.c.exceptions.contains("disputed"))
    ).scalar_one()
    m = tables.messages.c
    tried = case((m.tries > 0, 1), else_=0)
    resting = case((m.claim == m.settled_claim, 1), else_=0)
    is_due = cast(m.due_at_ms <= at_ms, Integer)
    pending = {
        row[0]: row
        for row in tx.execute(
            select(
                m.topic,
                func.count(),
                func.sum(tried),
                func.sum(is_due),
                func.min(m.due_at_ms),
                func.min(case(((m.tries > 0) & (m.claim == m.settled_claim), m.due_at_ms))),
                func.sum(case(((is_due == 1) | (resting == 0), 1), else_=0)),
            )
            .where(m.state == "pending")
            .group_by(m.topic)
        )
    }
    ended = {
        row[0]: row[1]
        for row in tx.execute(
            select(m.state, func.count()).where(m.topic == WEBHOOK, m.state != "pending").group_by(m.state)
        )
    }
    webhook = pending.get(WEBHOOK)
    next_retry_s = None
    if webhook is not None and webhook[5] is not None:
        next_retry_s = max(0.0, (webhook[5] - at_ms) / 1000)
    outflow = Outflow(
        delivered=ended.get("done", 0),
        waiting=(webhook[1] - webhook[2] if webhook is not None else 0) + ended.get("held", 0),
        retrying=webhook[2] if webhook is not None else 0,
        dead=ended.get("dead", 0),
        next_retry_s=next_retry_s,
    )
    due = sum(row[3] for row in pending.values())
    oldest = min((row[4] for row in pending.values()), default=at_ms)
    busy = sum(row[6] for topic, row in pending.items() if topic != "deferred")
    return Seen(found, paid, disputed, outflow, due, max(0, at_ms - oldest), busy, now_ms() - began_ms)


class Look:
    """Makes snapshots: one cheap read at most twice a second, and fewer when the tables have grown large."""

    def __init__(self, app: Application, shop: Shop, player: Player) -> None:
        self._app, self._shop, self._player = app, shop, player
        self._began_ms = now_ms()
        self._rates = Rates()
        self._seen: Seen | None = None
        self._next_ms = 0
        self._lines: list[tuple[str, str, str]] = []
        self._told = 0

    async def __call__(self) -> Snapshot:
        """Now."""
        at_ms = now_ms()
        if self._seen is None or at_ms >= self._next_ms:
            # A read that the busy database did not answer in time shows the last picture once more.
            with contextlib.suppress(StorageError):
                self._seen = await self._app.db.read(see, outbox_tables, at_ms)
                self._next_ms = at_ms + max(450, 20 * self._seen.took_ms)
        seen = self._seen or Seen({}, (), 0, Outflow(), 0, 0, 0, 0)
        played, stats = self._player.played, self._app.db.stats
        self._tell()
        return Snapshot(
            elapsed_s=(at_ms - self._began_ms) / 1000,
            inflows=[self._inflow(name, seen, at_ms / 1000) for name in PROVIDERS],
            refused=played.refused,
            postponed=played.postponed,
            paid=_sums(seen, _PAID, 4),
            refunded=_sums(seen, _PAID[1:], 5),
            pending=_sums(seen, _PENDING, 3),
            unpaid=_sums(seen, ("failed", "canceled", "expired"), 3),
            disputed=seen.disputed,
            outflow=seen.outflow,
            shop=self._shop.counters,
            due=seen.due,
            oldest_due_s=seen.oldest_due_ms / 1000,
            commits_per_s=self._rates.of("commits", stats.commits, at_ms / 1000),
            wal_bytes=stats.wal_bytes,
            happened=self._lines,
        )

    def _inflow(self, name: str, seen: Seen, at_s: float) -> Inflow:
        rows = {status: found for (provider, status), found in seen.callbacks.items() if provider == name}
        count = {status: found[0] for status, found in rows.items()}
        received, times = sum(count.values()), sum(found[1] for found in rows.values())
        acknowledged = sum(
            number
            for (provider, status), number in self._player.played.answers.items()
            if provider == name and 200 <= status < 300
        )
        return Inflow(
            title=PROVIDERS[name].title,
            received=received,
            repeated=times - received,
            per_s=self._rates.of(name, acknowledged, at_s),
            processed=count.get("processed", 0),
            ignored=count.get("ignored", 0),
            parked=count.get("parked", 0),
            deferred=count.get("deferred", 0),
            dead=count.get("dead", 0),
            waiting=count.get("received", 0),
        )

    def _tell(self) -> None:
        """One sentence for each thing that the shop has newly heard and that is worth a line."""
        new = self._shop.recorded - self._told
        self._told = self._shop.recorded
        receipts = list(self._shop.receipts)
        for receipt in receipts[len(receipts) - min(new, len(receipts)) :]:
            said = sentence(receipt, self._player.payers)
            if said:
                self._lines.append((time_of_day(receipt.at_s), *said))
        del self._lines[:-60]


def _sums(seen: Seen, statuses: Sequence[str], column: int) -> Sums:
    count, minor = 0, dict[str, int]()
    for row in seen.payments:
        if row[0] in statuses:
            count += row[2]
            minor[row[1]] = minor.get(row[1], 0) + int(row[column])
    return Sums(count, minor)


_DELIVERED = {1: "webhook delivered", 2: "delivered on 2nd try", 3: "delivered on 3rd try"}
_TROUBLE = {"unavailable": "shop failed, retrying", "lost": "answer lost, retrying"}
_REASONS = {
    "insufficient_funds": "not enough money",
    "limit_reached": "limit reached",
    "wrong_pin": "wrong PIN",
    "timed_out": "no answer in time",
    "declined_by_user": "declined by the payer",
}


def sentence(receipt: Receipt, payers: Mapping[str, str]) -> tuple[str, str] | None:
    """Style and one line about a webhook that the shop got: "Paystack · 12 500 XOF paid by Orange Money → …"."""
    payment = receipt.payment
    kind = receipt.type.removeprefix("payment.")
    if not payment or kind in ("pending", "requires_action"):
        return None
    amount = money(int(payment.get("amount") or 0), str(payment.get("currency") or ""))
    back = money(int(payment.get("amount_refunded") or 0), str(payment.get("currency") or ""))
    names = (payment.get("provider_reference"), payment.get("reference"))
    payer = next((payers[name] for name in names if isinstance(name, str) and name in payers), "")
    reason = _REASONS.get(str(payment.get("failure_reason")), "")
    what, style = {
        "succeeded": (f"{amount} paid" + (f" by {payer}" if payer else ""), "green"),
        "failed": (f"{amount} not paid" + (f": {reason}" if reason else ""), ""),
        "canceled": (f"{amount} cancelled", ""),
        "expired": (f"{amount} not paid in time", ""),
        "refunded": (f"{amount} given back", ""),
        "partially_refunded": (f"{back} of {amount} given back", ""),
        "disputed": (f"{amount} disputed", "red"),
        "attention": (f"{amount} needs a look", "red"),
    }.get(kind, (f"{amount} {kind}", ""))
    title = PROVIDERS[payment["provider"]].title if payment.get("provider") in PROVIDERS else "?"
    if receipt.trouble in _TROUBLE:
        return "yellow", f"{title} · {what} → {_TROUBLE[receipt.trouble]}"
    delivered = _DELIVERED.get(receipt.tries, f"delivered on {receipt.tries}th try")
    return "bold green" if receipt.tries > 1 else style, f"{title} · {what} → {delivered}"


# --- the closing check ------------------------------------------------------------------------------


@dataclass(slots=True)
class Closing:
    """Whether anything was lost. Every number but the first three should be zero, or has an innocent name."""

    callbacks: int = 0
    worked_on: int = 0
    events: int = 0
    delivered: int = 0
    waiting: int = 0  # events whose next try is still to come
    unfinished: int = 0  # callbacks whose work, or whose question to the provider, is still to come
    aside: int = 0  # parked or deferred: kept for a person, or for what they wait for
    lost: list[str] = field(default_factory=list)


def check(
    tx: Connection,
    tables: Tables,
    acknowledged: Sequence[tuple[str, str]],
    since_position: int,
    shop_knows: frozenset[str] | None,
) -> Closing:
    """
    Follow every acknowledged callback to its end, every event to the shop.

    `shop_knows`: ids of the events that the shop has really got, None where it does not remember them all.
    """
    closing = Closing(callbacks=len(acknowledged))
    m = tables.messages.c
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for at in range(0, len(acknowledged), 400):
        some = acknowledged[at : at + 400]
        rows = tx.execute(
            select(callbacks.c.provider, callbacks.c.key, callbacks.c.status, callbacks.c.id).where(
                callbacks.c.account_id.in_(sorted({f"acc_{provider}" for provider, _ in some})),
                callbacks.c.key.in_([key for _, key in some]),
            )
        )
        found |= {(row[0], row[1]): (row[2], row[3]) for row in rows}
    pending, dead = _open_work(tx, tables)
    for name in acknowledged:
        status, id_ = found.get(name, ("", ""))
        if not status:
            closing.lost.append(f"{name[0]} callback {name[1][:60]}: acknowledged, not in the database")
        elif status == "dead" or id_ in dead:
            closing.lost.append(f"{name[0]} callback {id_}: given up")
        elif id_ in pending:
            closing.unfinished += 1
        elif status == "received":
            closing.lost.append(f"{name[0]} callback {id_}: kept, and nobody works on it")
        elif status in ("parked", "deferred"):
            closing.aside += 1
        closing.worked_on += status in ("processed", "ignored")
    states: dict[str, set[str]] = {}
    for row in tx.execute(
        select(events.c.id, m.state)
        .select_from(events.outerjoin(tables.messages, (m.subject == events.c.id) & (m.topic == WEBHOOK)))
        .where(events.c.position > since_position)
    ):
        states.setdefault(row[0], set()).add(row[1] or "none")
    closing.events = len(states)
    for event_id, said in states.items():
        if said & {"none", "dead"}:
            closing.lost.append(f"event {event_id}: {'given up' if 'dead' in said else 'promised to nobody'}")
        elif said == {"done"}:
            closing.delivered += 1
            if shop_knows is not None and event_id not in shop_knows:
                closing.lost.append(f"event {event_id}: recorded as delivered, the shop never got it")
        else:
            closing.waiting += 1
    return closing


def _open_work(tx: Connection, tables: Tables) -> tuple[set[str], set[str]]:
    """Ids of callbacks that somebody still works or asks for, and of those that were given up."""
    m = tables.messages.c
    pending, dead = set[str](), set[str]()
    for state, ids in (("pending", pending), ("held", pending), ("dead", dead)):
        rows = tx.execute(select(m.subject).where(m.state == state, m.topic.not_in((WEBHOOK, "deferred"))))
        ids |= {row[0] for row in rows}
    return pending, dead


def _last_position(tx: Connection) -> int:
    return int(tx.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one())


# --- running ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    directory: Path
    rate: float
    failures: float
    seed: int
    duration_s: float | None
    plain: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """What is said at the end."""

    closing: Closing
    played: Played
    shop: Counters


async def demonstrate(home: Home, options: Options, console: Console, starting: contextlib.ExitStack) -> Ended:
    """
    Start everything, play until told to stop, stop everything, and look back.

    `starting` is closed when everything listens: another demonstration may look for its ports then.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    _stop_on_signals(stop, hurry)
    luck = random.Random(options.seed)  # noqa: S311 - it decides what is played, nothing secret
    settings = home.settings()
    book = _load_book(home.book)
    own = home.secrets
    keys = Keys(
        own["moneroo_secret_key"], own["ebilling_username"], own["ebilling_shared_key"], own["monetbil_service_key"]
    )
    async with contextlib.AsyncExitStack() as cleanup:
        standin = StandIn(book, keys, port=home.ports["standin"])
        await standin.start()
        cleanup.push_async_callback(standin.stop)
        trouble = Trouble(options.failures, rng=random.Random(luck.random()))  # noqa: S311
        shop = Shop(trouble=trouble, port=home.ports["shop"])
        await shop.start()
        cleanup.push_async_callback(shop.stop)
        app = build(settings)
        await app.start()
        cleanup.push_async_callback(app.stop)
        starting.close()
        await _open_shop(app, home, shop)
        since = await app.db.read(_last_position)

        player = Player(
            settings.own_url,
            settings.credentials,
            iter(Teller(random.Random(luck.random()))),  # noqa: S311
            random.Random(luck.random()),  # noqa: S311
            rate=options.rate,
            book=book,
        )
        look = Look(app, shop, player)
        _introduce(console, home, settings, shop, options)
        playing = asyncio.create_task(player.run(stop))
        failing = asyncio.create_task(app.failed.wait())
        keeping = asyncio.create_task(_keep_book(book, home.book, stop))
        for task in (playing, failing):
            task.add_done_callback(lambda _: stop.set())
        if options.duration_s is not None:
            asyncio.get_running_loop().call_later(options.duration_s, stop.set)
        try:
            await watch(console, look, _heading(home, settings), stop, options.plain)
        finally:
            stop.set()
            failing.cancel()
            await asyncio.gather(playing, keeping)
        if app.failed.is_set():
            raise StorageFailed
        await _drain(app, hurry)
        if options.plain or not console.is_terminal:
            _sayer(console)(line(await look()))
        remembered = len(shop.ledger.seen) < shop.ledger.LIMIT
        closing = await app.db.read(
            check,
            outbox_tables,
            tuple(player.acknowledged),
            since,
            frozenset(shop.ledger.seen) if remembered else None,
            deadline_ms=60_000,
        )
    return Ended(closing, player.played, shop.counters)


async def _open_shop(app: Application, home: Home, shop: Shop) -> None:
    """Create the shop's merchant once; a later run finds it again, and tells caisse if the shop has moved."""
    url = shop.url
    if home.shop:
        found = await app.db.write(_move, home.shop["endpoint"], url)
        if found == "disabled":
            await endpoint_commands.enable(app, endpoint=home.shop["endpoint"], send_held=True, actor="dev")
        if found:
            shop.secrets = [home.shop["secret"]]
            return
    made = await merchant_commands.create(app, name="Boutique de démonstration", webhook_url=url, actor="dev")
    home.shop = {
        "merchant": made["id"],
        "api_key": made["api_key"],
        "endpoint": made["endpoint"]["id"],
        "secret": made["endpoint"]["secret"],
    }
    home.save()
    shop.secrets = [home.shop["secret"]]


def _move(tx: Connection, endpoint_id: str, url: str) -> str:
    """Point the endpoint to where the shop listens now; its status, or nothing when there is no such endpoint."""
    tx.execute(update(endpoints).where(endpoints.c.id == endpoint_id, endpoints.c.url != url).values(url=url))
    return tx.execute(select(endpoints.c.status).where(endpoints.c.id == endpoint_id)).scalar() or ""


def _stop_on_signals(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """The first Ctrl-C ends the play, the second one the waiting for the queue."""

    def asked() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)


async def _drain(app: Application, hurry: asyncio.Event) -> None:
    """Wait a little for what is due now; what is due later waits for the next start."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + DRAIN_S
    while loop.time() < until_s and not hurry.is_set():
        seen = await app.db.read(see, outbox_tables, now_ms())
        if not seen.busy:
            return
        await asyncio.sleep(0.1)


def _load_book(path: Path) -> Book:
    book = Book()
    if path.exists():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            for provider, payment_id, entry in json.loads(path.read_text("utf-8")):
                book.write(provider, payment_id, Entry(**entry))
    return book


async def _keep_book(book: Book, path: Path, stop: asyncio.Event) -> None:
    """Save now and then, so that after a crash the stand-in still knows what will be asked about."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SAVE_S)
        text = json.dumps(book.dump(), ensure_ascii=False)
        await asyncio.to_thread(_write, path, text)


def _heading(home: Home, settings: Settings) -> list[str]:
    return [
        f"[bold]caisse dev[/]  {settings.own_url}/webhooks/…",
        f"[dim]Elsewhere: {_look_command(home, 'payments list')}[/]",
    ]


def _look_command(home: Home, command: str) -> str:
    """How to look at it from another terminal, as short as it can be written."""
    config = home.config
    with contextlib.suppress(ValueError):
        config = config.relative_to(Path.cwd())
    program = Path(sys.argv[0])
    with contextlib.suppress(ValueError):
        program = program.resolve().relative_to(Path.cwd())
    shown = str(program) if program.name == "caisse" else "caisse"
    return f"{shown} --config {config} {command}"


def _introduce(console: Console, home: Home, settings: Settings, shop: Shop, options: Options) -> None:
    say = _sayer(console)
    say("caisse dev: the service, six providers that call it, and a shop that listens (and sometimes fails).")
    say(f"  service    {settings.own_url}   callbacks at /webhooks/<provider>, /healthz, /readyz, /metrics, /v1/docs")
    say(f"  shop       {shop.url}   API key {home.shop.get('api_key', '')}")
    say(f"  operator   password {home.secrets['admin_password']}")
    say(f"  kept in    {home.directory}   the service's log is {home.log.name}")
    say(f"  look at it {_look_command(home, 'payments list')}")
    say(f"  played     {options.rate:g} callbacks a second, the shop fails {options.failures:.0%}, seed {options.seed}")


def summarise(ended: Ended, console: Console) -> None:
    """The closing words."""
    say = _sayer(console)
    played, shop, closing = ended.played, ended.shop, ended.closing
    say("")
    say(
        f"Callbacks  {grouped(played.acknowledged)} acknowledged"
        f" ({grouped(played.repeats)} sent twice, {grouped(played.retries)} tried again)"
    )
    say(f"           {grouped(closing.worked_on)} of {grouped(closing.callbacks)} different ones worked on")
    say(f"Webhooks   {grouped(shop.verified)} verified by the shop, {grouped(shop.on_purpose)} failed on purpose")
    say(f"           {grouped(shop.retried)} got by a retry, {grouped(shop.repeat)} repeats dropped")
    say(
        f"Events     {grouped(closing.events)} told, {grouped(closing.delivered)} delivered,"
        f" {grouped(closing.waiting)} waiting for their next try"
    )
    for number, words in (
        (closing.unfinished, "callbacks have work or a question open; the next start goes on"),
        (closing.aside, "callbacks set aside (parked or deferred)"),
        (played.owed, "callbacks not acknowledged before the end"),
        (played.given_up, "callbacks that the player gave up"),
        (played.refused, "callbacks refused, which should not be"),
        (shop.refused, "webhooks that the shop could not verify, which should not be"),
    ):
        if number:
            say(f"           {grouped(number)} {words}")
    if closing.lost:
        say(f"LOST       {grouped(len(closing.lost))}:")
        for what in closing.lost[:20]:
            say(f"           {what}")
    else:
        say("Nothing was lost: every acknowledged callback was kept and worked on,")
        say("every event is delivered or waiting for its next try.")


def _sayer(console: Console) -> Any:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return say


# --- the command ------------------------------------------------------------------------------------


@click.command("dev")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("caisse-dev"),
    show_default=True,
    help="Where everything of the demonstration is kept; a second run goes on with it.",
)
@click.option("--rate", type=click.FloatRange(0.1, 2000), default=5.0, show_default=True, help="Callbacks a second.")
@click.option(
    "--failures",
    type=click.FloatRange(0.0, 0.95),
    default=0.15,
    show_default=True,
    help="The share of webhooks that the shop fails on purpose, to watch the retries.",
)
@click.option("--seed", type=int, default=None, help="The same seed plays the same stories.")
@click.option("--duration", type=click.FloatRange(min=0.1), default=None, help="End by itself after so many seconds.")
@click.option("--plain", is_flag=True, help="Lines instead of a screen (always so where the output is no terminal).")
def dev(directory: Path, rate: float, failures: float, seed: int | None, duration: float | None, plain: bool) -> None:
    """Run the whole thing here, with traffic: service, providers, a shop that sometimes fails. Ctrl-C ends it."""
    console = Console(soft_wrap=True)
    options = Options(directory, rate, failures, secrets.randbelow(10**6) if seed is None else seed, duration, plain)
    try:
        refuse_production(Settings.read(), "The environment, or the caisse.toml in this directory,")
        with contextlib.ExitStack() as starting:
            starting.enter_context(one_start_at_a_time())
            home = prepare(directory)
            home.save()
            with home.log.open("w", encoding="utf-8") as log:
                logs.configure(home.settings().log_level, human=False, stream=log)
                ended = asyncio.run(demonstrate(home, options, console, starting))
    except Held as held:
        raise click.ClickException(f"{held} Stop it first, or choose another --directory.") from None
    except (Refusal, BadSetting, StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except StorageFailed:
        # Nothing can be kept any more, as in `caisse serve`: the status says why.
        os._exit(STORAGE_FAILED)
    summarise(ended, console)
    closing = ended.closing
    if closing.lost or ended.played.refused or ended.shop.refused:
        raise SystemExit(1)
