"""
The one place where all parts meet: built from settings, opened, started, stopped.

`open` is enough for a command (lock, database, seal, accounts); `start` adds the outbox, the HTTP server, the control
door and the heartbeat. Parts are handed to each other here and know nothing of how they came about.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import aiohttp
import structlog
import uvloop
from sqlalchemy import Connection, insert, select

from outbox.dispatcher import Dispatcher, Happened
from outbox.guard import Guard
from outbox.queue import Queue
from outbox.webhook import open_session
from scheduler import Job, Scheduler
from service import __version__, migrations
from service.api.site import Site
from service.callbacks.intake import Intake
from service.callbacks.process import NO_MERCHANT, Processor, revive
from service.config import Settings
from service.control import Server as ControlServer
from service.control import serve as serve_control
from service.database import Database
from service.escrow.holds import Holds
from service.escrow.pay_out import Payer
from service.escrow.payouts import Payouts
from service.escrow.refund_payouts import follow as follow_payout
from service.escrow.refund_payouts import open_payout
from service.feed import Feed
from service.heartbeat import Heartbeat
from service.ids import Clock, Ids, now_ms
from service.jobs.jobs import jobs as every_job
from service.jobs.watch import JobWatch
from service.ledger.backfill import backfill
from service.ledger.payments import follow as follow_ledger
from service.ledger.verify import Verifier
from service.lock import Lock
from service.merchants.accounts import Registry, ensure_defaults
from service.merchants.audit import By
from service.merchants.events import WEBHOOK
from service.merchants.tables import installation
from service.metrics import Metrics
from service.orders.checkout import Checkout
from service.orders.expire import AFTER_START_MS
from service.orders.follow import Follow, refund_ended
from service.orders.sessions import ended
from service.payments.circuit import Circuits
from service.payments.client import LIMIT_MS, Client
from service.payments.desk import Desk
from service.payments.heard import Context, ours
from service.payments.legs import Surroundings
from service.payments.refund_send import Refunder
from service.payments.refunds import Refunds
from service.payments.sync import Syncer
from service.providers import PROVIDERS
from service.retention import Pruner
from service.routing.live import Routes
from service.schema import outbox_tables, scheduler_tables
from service.seal import Seal, bound_to, load_keys
from service.topics import topics
from service.watch import Watch

log: Any = structlog.get_logger()

T = TypeVar("T")

STORAGE_FAILED = 70
OPEN_WAIT_MS = 3_000
"""A command line may have the database for a moment; another service is told of after this."""
GRACE_MS = 12_000
"""How long a stop waits for webhooks in flight: a little longer than one may take."""
JOBS_GRACE_MS = 3_000
"""And for scheduled jobs, which are made of short pieces: the next process goes on where this one was."""

Jobs = Callable[["Application"], Sequence[Job]]


class Application:
    """One caisse. Attributes are its parts; commands and pages use them, and build none of their own."""

    def __init__(
        self, settings: Settings, *, clock: Clock = now_ms, ids: Ids | None = None, jobs: Jobs = every_job
    ) -> None:
        self.settings = settings
        self._jobs = jobs
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
        self.calls = settings.calls
        self.failed = asyncio.Event()
        self.rotating = asyncio.Lock()  # the master keys
        self.port = settings.port
        self._http: aiohttp.ClientSession | None = None
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
                await backfill(self.db, self.clock)
            except BaseException:
                await self.db.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self.refunds = Refunds(self.queue, self.calls, self.settings.duplicates, open_payout, refund_ended)
        # Refunds first: an order asks whether the money went back by us; the ledger last: it asks both.
        followers = self.refunds.follow, Follow(self.give_back, self.settings.duplicates), follow_ledger
        mine = ours(self.installation)
        self.payouts = Payouts(self.queue, self.accounts, self.settings.payouts, mine, self._payout_moved)
        self.holds = Holds(self.queue, self.payouts.pay_out)
        self.processor = Processor(
            self.queue, self.ids, self.clock, mine, followers, self.settings.providers,
            frozenset(self.settings.ask_first), self.payouts.wake,
        )  # fmt: skip
        self.circuits = Circuits(self.clock)
        self.routes = Routes(self.accounts, self.calls, self.circuits.opened)
        self.client = Client(self.metrics.called)
        self.syncer = Syncer(
            self.db, self.queue, self.processor, self.client, self.accounts, self.calls, self.ids, self.clock,
            self.watch.tell, self.watch.reported, self.metrics.asked,
        )  # fmt: skip
        surroundings = Surroundings(self.settings.public_url or "")
        self.desk = Desk(
            self.db, self.syncer, self.client, self.accounts, self.calls, self.routes.choose, self.ids, self.clock,
            mine, surroundings, self.circuits, self._may_begin, self.told,
        )  # fmt: skip
        self.refunder = Refunder(
            self.db, self.queue, self.syncer, self.client, self.accounts, self.calls, self.ids, self.clock,
            open_payout, refund_ended,
        )  # fmt: skip
        self.payer = Payer(
            self.db, self.queue, self.syncer, self.client, self.accounts, self.settings.payouts, self.ids, self.clock,
            surroundings.called_back_at, self._payout_moved,
        )  # fmt: skip
        self.checkout = Checkout(self.db, self.desk, self.queue, self.ids, self.clock)
        self.verifier = Verifier(self.db, self.queue, self.ids, self.clock)
        self.pruner = Pruner(self.queue, self.settings, self.clock)
        self._job_watch = JobWatch(self.db, self.metrics, self.ids, self.clock)
        # Here and not in `start`, because a command line runs jobs by hand; only a service starts its clock.
        self.scheduler = Scheduler(
            self.db, scheduler_tables, self._jobs(self), self.clock, self.ids, self._job_watch,
            process=f"{socket.gethostname()}:{os.getpid()}", quiet_ms=AFTER_START_MS,
        )  # fmt: skip
        self.feed = Feed(self.db)
        self.intake = Intake(self.db, self.queue, self.seal, self.ids, self.clock, self._accepted)

    async def close(self) -> None:
        """Close what `open` opened, once what was sent is written down."""
        await self.scheduler.stop(0)
        await self._job_watch.close()
        await self.desk.close(LIMIT_MS / 1000)
        await self.client.close()
        await self.db.close()
        self._lock.release()

    async def reload_registry(self) -> None:
        """Accounts were added or changed: intake sees them from now on."""
        self.registry = await self.db.read(Registry.load, self.settings, self.seal)
        for name in PROVIDERS:
            self.metrics.secrets_missing(name, any(e.missing for e in self.registry if e.provider == name))

    def accounts(self) -> Registry:
        """The accounts as they are now."""
        return self.registry

    def give_back(self, tx: Connection, payment_id: str, by: By) -> None:
        """To its payer, what an order or a session has no use for."""
        self.refunds.create(tx, payment_id, None, "its order was over, or paid already", by)

    def _payout_moved(self, tx: Connection, was: Mapping[str, Any], context: Context) -> None:
        """A refund that is made by it follows."""
        follow_payout(tx, self.refunder, was, context)

    def nudge(self) -> None:
        """Something was committed that the outbox should look at now, and whoever waits for events."""
        self.feed.nudge()
        if self.dispatcher is not None:
            self.dispatcher.nudge()

    def told(self) -> None:
        """Something about a payment was committed: webhooks at once; what else was promised, its topic hears of."""
        self.feed.nudge()
        if self.dispatcher is not None:
            self.dispatcher.nudge(WEBHOOK)

    @staticmethod
    def _may_begin(tx: Connection, payment: Mapping[str, Any]) -> bool:
        """Whether a payment's order or session still takes an attempt."""
        return not ended(tx, payment["session_id"], payment["order_id"])

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
            self._http = open_session(self.guard)
            owed = topics(self, self._http)
            self.metrics.know_queues(topic.policy.topic for topic in owed)
            self.dispatcher = Dispatcher(self.db, self.queue, owed, self.clock, Random(), self._happened)  # noqa: S311 - jitter
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
            self.scheduler.start()
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
            if self._http is not None:
                stops.push_async_callback(self._http.close)
            if self.dispatcher is not None:
                stops.push_async_callback(self.dispatcher.stop, grace_ms)
            if self._heartbeat is not None:
                stops.push_async_callback(self._heartbeat.stop)
            if self._control is not None:
                self._lock.publish(None, None)
                stops.push_async_callback(self._control.close)
            if self._site is not None:
                stops.push_async_callback(self._site.stop)
            stops.push_async_callback(self.scheduler.stop, min(grace_ms, JOBS_GRACE_MS))
        log.info("service.stopped")

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


def build(settings: Settings, *, clock: Clock = now_ms, ids: Ids | None = None, jobs: Jobs = every_job) -> Application:
    """An application that is not open yet; `jobs` are others for demonstrations and tests."""
    return Application(settings, clock=clock, ids=ids, jobs=jobs)


SWITCH_INTERVAL_S = 0.0005
"""
How long a thread may hold the interpreter while another wants it. Python's 5 ms made the writer's thread wait ten times
in each transaction, once for every statement that had let go of it.
"""


GARBAGE_AFTER = 20_000
"""
New objects until Python looks for cycles among them. Its 700 made it look several times in each transaction, and walk
through all that was ever imported now and then: both hold everybody up, and a batch makes no cycles.
"""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program that serves: on uvloop, with threads that give way quickly and little collecting of garbage."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, 20, 20)
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
