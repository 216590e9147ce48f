"""
The one place where all parts meet: built from settings, opened, started, stopped.

`open` is enough for a command (lock, database, seal, accounts); `start` adds the outbox, the HTTP server, the control
door and the heartbeat. Parts are handed to each other here and know nothing of how they came about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

import aiohttp
import httpx
import structlog
import uvloop
from httpx_aiohttp import AiohttpTransport
from sqlalchemy import Connection, insert, select

from outbox.dispatcher import Dispatcher, Happened, Topic
from outbox.guard import Guard
from outbox.message import Done, Message, Outcome
from outbox.policy import STANDARD_MS, Policy
from outbox.queue import Queue
from outbox.webhook import Sender, open_session
from service import __version__, migrations
from service.api.site import Site
from service.callbacks.intake import Intake
from service.callbacks.process import ASK, DEFERRED, NO_MERCHANT, Processor, revive
from service.config import Settings
from service.control import Server as ControlServer
from service.control import serve as serve_control
from service.database import Database
from service.feed import Feed
from service.heartbeat import Heartbeat
from service.ids import Clock, Ids, now_ms
from service.lock import Lock
from service.merchants.accounts import Registry, ensure_defaults
from service.merchants.deliver import Deliverer
from service.merchants.events import WEBHOOK
from service.merchants.recovery import RECOVER, Recoverer
from service.merchants.tables import installation
from service.metrics import Metrics
from service.payments import ask
from service.payments.ask import Asker
from service.payments.book import ours
from service.providers import PROVIDERS
from service.retention import PRUNE, Pruner
from service.schema import outbox_tables
from service.seal import Seal, bound_to, load_keys
from service.watch import Watch

log: Any = structlog.get_logger()

T = TypeVar("T")

STORAGE_FAILED = 70
OPEN_WAIT_MS = 3_000
"""A command line may have the database for a moment; another service is told of after this."""
GRACE_MS = 12_000
"""How long a stop waits for webhooks in flight: a little longer than one may take."""

CALLBACK_RETRIES_MS = {
    "stripe": (10_000, 30_000, 60_000),
    "monetbil": (10_000, 30_000, 60_000),
    "payments": (10_000, 30_000, 90_000, 270_000, 810_000),
}
CALLBACK_BATCH = 50
"""Callbacks worked on in one transaction: few enough that intake never waits long behind them."""


class Application:
    """One caisse. Attributes are its parts; commands and pages use them, and build none of their own."""

    def __init__(self, settings: Settings, *, clock: Clock = now_ms, ids: Ids | None = None) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids or Ids(clock)
        self.queue = Queue(outbox_tables)
        self.metrics = Metrics(PROVIDERS)
        self.watch = Watch(self.metrics, clock)
        self.guard = Guard(
            allow_cidrs=[str(network) for network in settings.allow_private_cidrs],
            own_ports=[settings.port],
            https_only=settings.strict,
        )
        self.dispatcher: Dispatcher | None = None
        self.failed = asyncio.Event()
        self.rotating = asyncio.Lock()  # the master keys
        self.port = settings.port
        self._http: aiohttp.ClientSession | None = None
        self._asking: aiohttp.ClientSession | None = None
        self._control: ControlServer | None = None
        self._site: Site | None = None
        self._heartbeat: Heartbeat | None = None

    # --- opening

    async def open(self, wait_ms: int = 0) -> None:
        """
        Take the database's lock, open and migrate it, open the seal, load the accounts.

        Raises lock.Held, BadSetting-like sentences, StorageError, NewerDatabase, SealError; nothing stays open then.
        """
        path = self.settings.database_path
        self._lock = await asyncio.to_thread(Lock.acquire, path, wait_ms, __version__)
        try:
            loop = asyncio.get_running_loop()
            self.db = await Database.open(
                self.settings.database_url, on_storage_failure=lambda reason: self._storage_failed(loop, reason)
            )
            try:
                await migrations.migrate(self.db)
                fresh = await self.db.read(_is_fresh)
                self.seal = Seal(load_keys(self.settings.master_keys, self.db.path, fresh=fresh))
                self.installation = await self.db.write(_introduce, self.seal, secrets.token_hex(4))
                await self.db.write(ensure_defaults, self.settings, self.clock())
                await self.reload_registry()
            except BaseException:
                await self.db.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self.processor = Processor(self.queue, self.ids, self.clock, ours(self.installation))
        self.pruner = Pruner(self.queue, self.settings, self.clock)
        self.feed = Feed(self.db)
        self.intake = Intake(self.db, self.queue, self.seal, self.ids, self.clock, self._accepted)

    async def close(self) -> None:
        """Close what `open` opened."""
        await self.db.close()
        self._lock.release()

    async def reload_registry(self) -> None:
        """Accounts were added or changed: intake sees them from now on."""
        self.registry = await self.db.read(Registry.load, self.settings, self.seal)
        for name in PROVIDERS:
            self.metrics.secrets_missing(name, any(e.missing for e in self.registry if e.provider == name))

    def nudge(self) -> None:
        """Something was committed that the outbox should look at now, and whoever waits for events."""
        self.feed.nudge()
        if self.dispatcher is not None:
            self.dispatcher.nudge()

    def revive_waiting(self, tx: Connection, account_id: str) -> int:
        """The account has a merchant now: what waited for that is worked on, from this transaction's commit."""
        return revive(tx, self.queue, [(account_id, NO_MERCHANT)], self.clock())

    # --- serving

    async def start(self) -> None:
        """Open, and begin to serve on the settings' address. Raises OSError when the port is taken."""
        await self.open(wait_ms=OPEN_WAIT_MS)
        try:
            self.metrics.watch_storage(lambda: (self.db.stats, self.db.health.writable))
            self.port = _free_port(self.settings.host, self.settings.port)
            self.guard.own_ports = frozenset({self.port})
            await self.db.write(self.queue.forget_leases, self.clock())
            await self.db.write(self.pruner.ensure)
            self.dispatcher = self._build_dispatcher()
            self._site = Site(self)
            for entry in self.registry.half_set():
                log.warning("account.half_set", provider=entry.provider, account_id=entry.id, missing=entry.missing)
            await self._site.start(self.settings.host, self.port)
            self.dispatcher.start()
            self._control = await serve_control(self._command)
            own = {self.port, int(self._control.address.rpartition(":")[2])}
            self.guard.own_ports = frozenset(own)
            self._lock.publish(self._control.address, self._control.token)
            self._heartbeat = Heartbeat(self)
            self._heartbeat.start()
        except BaseException:
            await self.stop()
            raise
        log.info("service.started", port=self.port, pid=os.getpid(), version=__version__, mode=self.settings.mode)

    async def stop(self, grace_ms: int = GRACE_MS) -> None:
        """Stop taking, let what is in flight end, close. Loses nothing: what is not done is still owed."""
        # The last pushed goes first, and each is stopped whatever becomes of the others: a writer's thread that is not
        # closed would keep the process, and the lock, for ever.
        async with contextlib.AsyncExitStack() as stops:
            stops.push_async_callback(self.close)
            for session in (self._http, self._asking):
                if session is not None:
                    stops.push_async_callback(session.close)
            if self.dispatcher is not None:
                stops.push_async_callback(self.dispatcher.stop, grace_ms)
            if self._heartbeat is not None:
                stops.push_async_callback(self._heartbeat.stop)
            if self._control is not None:
                self._lock.publish(None, None)
                stops.push_async_callback(self._control.close)
            if self._site is not None:
                stops.push_async_callback(self._site.stop)
        log.info("service.stopped")

    def _build_dispatcher(self) -> Dispatcher:
        self._http = open_session(self.guard)
        deliverer = Deliverer(
            Sender(self._http, self.guard, self.clock, __version__),
            self.queue,
            self.seal,
            self.settings.signature_header,
            self.ids,
            self.clock,
            self.metrics,
            self.watch.reported,
        )
        # Providers are called where the settings say, without the guard: their addresses are the operator's own.
        self._asking = aiohttp.ClientSession(
            trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        client = httpx.AsyncClient(
            transport=AiohttpTransport(client=self._asking), timeout=ask.LIMIT_MS / 1000, trust_env=False
        )
        asker = Asker(
            lambda: self.registry,
            self.processor,
            client,
            self.ids,
            self.clock,
            self.watch.reported,
            self.metrics.asked,
            ours(self.installation),
        )
        recoverer = Recoverer(self.queue, self.clock)
        topics = [
            Topic(
                Policy(name, delays_ms, lease_ms=70_000, limit_ms=60_000, batch=CALLBACK_BATCH),
                work=self._work_on_callbacks(name),
                died=self.processor.died,
            )
            for name, delays_ms in CALLBACK_RETRIES_MS.items()
        ]
        topics += [
            Topic(
                Policy(DEFERRED, (60_000, 600_000), lease_ms=70_000, limit_ms=60_000), work=self._put_before_a_person
            ),
            Topic(
                Policy(ASK, ask.DELAYS_MS, ask.LEASE_MS, ask.LIMIT_MS, in_flight=16, per_destination=8),
                act=asker.act,
                load=asker.load,
                died=asker.died,
            ),
            Topic(
                Policy(PRUNE, (60_000, 600_000, 3_600_000), lease_ms=70_000, limit_ms=60_000, batch=1),
                work=self.pruner.work,
                died=self.pruner.died,
            ),
            Topic(
                Policy(WEBHOOK, STANDARD_MS, lease_ms=30_000, limit_ms=12_000, per_destination=4, breaker=True),
                act=deliverer.act,
                load=deliverer.load,
            ),
            # One at a time: a message is a whole transaction's work.
            Topic(
                Policy(RECOVER, (1_000, 10_000, 60_000), lease_ms=70_000, limit_ms=60_000, batch=1),
                work=recoverer.work,
                died=recoverer.died,
            ),
        ]
        self.metrics.know_queues(topic.policy.topic for topic in topics)
        return Dispatcher(self.db, self.queue, topics, self.clock, Random(), self._happened)  # noqa: S311 - jitter

    def _work_on_callbacks(self, topic: str) -> Callable[[Connection, Sequence[Message]], list[Outcome]]:
        def work(tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
            report = self.processor.process(tx, [message.subject for message in messages])
            self.watch.reported(topic, "", report)
            return [Done() for _ in messages]

        return work

    def _put_before_a_person(self, tx: Connection, messages: Sequence[Message]) -> list[Outcome]:
        self.watch.reported(DEFERRED, "", self.processor.overdue(tx, messages))
        return [Done() for _ in messages]

    def _happened(self, event: Happened) -> None:
        self.watch.happened(event)
        self.feed.nudge()

    def _accepted(self, topic: str) -> None:
        if self.dispatcher is not None:
            self.dispatcher.nudge(topic)

    async def _command(self, name: str, arguments: dict[str, Any], progress: Callable[..., None]) -> Any:
        from service.commands import run

        return await run(self, name, arguments, progress)

    def _storage_failed(self, loop: asyncio.AbstractEventLoop, reason: str) -> None:
        """Called on the writer's thread, once: the process ends with status 70 and the restart recovers."""
        log.error("storage.failed", reason=reason)
        loop.call_soon_threadsafe(self.failed.set)


def build(settings: Settings, *, clock: Clock = now_ms, ids: Ids | None = None) -> Application:
    """An application that is not open yet."""
    return Application(settings, clock=clock, ids=ids)


SWITCH_INTERVAL_S = 0.0005
"""
How long a thread may hold the interpreter while another wants it. Python's 5 ms made the writer's thread wait ten times
in each transaction, once for every statement that had let go of it.
"""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program that serves: on uvloop, and with threads that give way quickly."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return uvloop.run(main)


async def serve(settings: Settings, ready: Callable[[Application], None] = lambda _: None) -> int:
    """Serve until SIGTERM or SIGINT (returns 0), or until the storage fails (70)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)  # before the start, so that one that comes during it is heard
    app = build(settings)
    await app.start()
    ready(app)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(app.failed.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    if app.failed.is_set():
        # Nothing can be kept any more, so there is nothing to finish: out, and let the supervisor start us again.
        os._exit(STORAGE_FAILED)
    await app.stop()
    return 0


def _is_fresh(tx: Connection) -> bool:
    return tx.execute(select(installation.c.name).where(installation.c.name == "canary")).first() is None


def _introduce(tx: Connection, seal: Seal, candidate: str) -> str:
    """This installation's id, made once; and the proof that the master keys are the ones that sealed what is here."""
    rows = {row.name: row.value for row in tx.execute(select(installation))}
    if "id" not in rows:
        tx.execute(insert(installation), {"name": "id", "value": candidate.encode()})
        rows["id"] = candidate.encode()
    if "canary" in rows:
        seal.open(rows["canary"], bound_to("installation", "canary", "value"))
    else:
        value = seal.seal("caisse", bound_to("installation", "canary", "value"))
        tx.execute(insert(installation), {"name": "canary", "value": value})
    return bytes(rows["id"]).decode()


def _free_port(host: str, port: int) -> int:
    """
    The port to listen on (0: a free one). The server shares a taken port silently (SO_REUSEPORT), so it is asked here,
    without that option, whether somebody listens already. Raises OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))
        found: int = trial.getsockname()[1]
        return found
