"""
`caisse dev`: the whole thing on one machine, with traffic. What `make run` starts.

The service runs in this process on its real port, as it would for a merchant; beside it the sandbox: the six
providers' APIs, a sample shop and its neighbours, a player of the six providers, and a screen. All it keeps
lies in one directory of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from sqlalchemy import Connection, select, update

from service import logs
from service.application import STORAGE_FAILED, Application, build, run
from service.commands import endpoints as endpoint_commands
from service.commands import merchants as merchant_commands
from service.config import BadSetting, Settings
from service.database import StorageError
from service.errors import Refusal
from service.ids import now_ms
from service.jobs.jobs import jobs
from service.lock import Held
from service.merchants.tables import endpoints
from service.providers import PROVIDERS
from service.sandbox.bank import Payer
from service.sandbox.closing import check, last_position
from service.sandbox.desk import Account
from service.sandbox.home import Home, one_start_at_a_time, prepare, refuse_production, write
from service.sandbox.look import Look, see
from service.sandbox.merchant import Shop, Trouble
from service.sandbox.neighbours import EVENTS, Cycle, Listener, neighbours
from service.sandbox.player import Player
from service.sandbox.rows import recovery
from service.sandbox.screen import lines, watch
from service.sandbox.stall import Stall
from service.sandbox.stories import Teller
from service.sandbox.summary import Ended, sayer, summarise
from service.sandbox.teller import Sandbox
from service.sandbox.truths import Book, Entry
from service.schema import outbox_tables

CYCLE = Cycle()
SAVE_S = 10.0
TICK_MS = 250
DRAIN_S = 6.0
"""How long the end waits for the queue to empty; retries that are due later are left waiting, as in a real stop."""


class StorageFailed(Exception):
    """The disk gave out under the database."""


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


async def demonstrate(home: Home, options: Options, console: Console, starting: contextlib.ExitStack) -> Ended:
    """
    Start everything, play until told to stop, stop everything, and look back.

    `starting` is closed when everything listens: another demonstration may look for its ports then.
    """
    stop, hurry = asyncio.Event(), asyncio.Event()
    _stop_on_signals(stop, hurry)
    luck = random.Random(options.seed)  # noqa: S311 - it decides what is played, nothing secret
    settings = home.settings()
    async with contextlib.AsyncExitStack() as cleanup:
        port, ports = home.ports["sandbox"], {name: home.ports[name] for name in PROVIDERS}
        sandbox = Sandbox(_accounts(settings), port=port, ports=ports, every_ms=TICK_MS, anybody=Payer("waits"))
        await sandbox.start()
        cleanup.push_async_callback(sandbox.stop)
        book = _load_book(home.book, sandbox)
        trouble = Trouble(options.failures, rng=random.Random(luck.random()))  # noqa: S311
        shop = Shop(trouble=trouble, port=home.ports["shop"])
        listeners = [Listener("shop", shop), *neighbours(home.ports, CYCLE)]
        for listener in listeners:
            await listener.shop.start()
            cleanup.push_async_callback(listener.shop.stop)
        app = build(settings, jobs=partial(jobs, quiet=False))
        for listener in listeners:
            _remember(home, listener)  # what the last run still owed is delivered at once
        await app.start()
        cleanup.push_async_callback(app.stop)
        starting.close()
        await _open_shop(app, home, listeners)
        since = await app.db.read(last_position)

        player = Player(
            settings.own_url,
            settings.credentials,
            iter(Teller(random.Random(luck.random()))),  # noqa: S311
            random.Random(luck.random()),  # noqa: S311
            rate=options.rate,
            book=book,
        )
        stall = Stall(settings.own_url, home.shop["api_key"], sandbox)
        look = Look(app, listeners, player, lambda command: _look_command(home, command), sandbox.treasury, stall)
        _introduce(console, home, settings, shop, options)
        playing = asyncio.create_task(player.run(stop))
        failing = asyncio.create_task(app.failed.wait())
        keeping = asyncio.create_task(_keep_book(book, home.book, stop))
        selling = asyncio.create_task(stall.run(stop))
        for task in (playing, failing):
            task.add_done_callback(lambda _: stop.set())
        if options.duration_s is not None:
            asyncio.get_running_loop().call_later(options.duration_s, stop.set)
        try:
            await watch(console, look, _heading(home, settings), stop, options.plain)
        finally:
            stop.set()
            failing.cancel()
            await asyncio.gather(playing, keeping, selling)
        if app.failed.is_set():
            raise StorageFailed
        for listener in listeners:
            listener.shop.let_go()  # nobody waits ten seconds for the one that hangs
        await _drain(app, listeners, hurry)
        last = await look()
        if options.plain or not console.is_terminal:
            for text in lines(last):
                sayer(console)(text)
        closing = await app.db.read(
            check,
            outbox_tables,
            tuple(player.acknowledged),
            since,
            listeners,
            deadline_ms=60_000,
        )
    refused = sum(listener.shop.counters.refused for listener in listeners)
    offered = [recovery(replace(row, manner=""), now_ms()) for row in last.rows]
    commands = [_look_command(home, command) for command in offered if command]
    return Ended(closing, player.played, shop.counters, refused, commands, stall.sales)


async def _open_shop(app: Application, home: Home, listeners: Sequence[Listener]) -> None:
    """
    Create the shop's merchant and the neighbours' endpoints once; a later run finds them again, and tells caisse if
    they have moved.
    """
    shop, *others = listeners
    if not await _known(app, shop):
        made = await merchant_commands.create(
            app, name="Boutique de démonstration", webhook_url=shop.shop.url, actor="dev"
        )
        home.shop = {
            "merchant": made["id"],
            "api_key": made["api_key"],
            "endpoint": made["endpoint"]["id"],
            "secret": made["endpoint"]["secret"],
        }
        home.neighbours = {}
        home.save()
    for listener in others:
        if listener.name in home.neighbours and await _known(app, listener):
            continue
        added = await endpoint_commands.add(
            app,
            merchant=home.shop["merchant"],
            url=listener.shop.url,
            events=EVENTS,
            schedule=listener.schedule,
            actor="dev",
        )
        home.neighbours[listener.name] = {"endpoint": added["id"], "secret": added["secret"]}
        home.save()
    for listener in listeners:
        _remember(home, listener)


async def _known(app: Application, listener: Listener) -> bool:
    found = await app.db.write(_move, listener.endpoint, listener.shop.url)
    if found == "disabled":
        await endpoint_commands.enable(app, endpoint=listener.endpoint, send_held=True, actor="dev")
    return bool(found)


def _remember(home: Home, listener: Listener) -> None:
    """Give a listener the endpoint and the secret that it was made with, if it was."""
    kept = home.shop if listener.name == "shop" else home.neighbours.get(listener.name, {})
    if "secret" in kept:
        listener.endpoint, listener.shop.secrets = kept["endpoint"], [kept["secret"]]


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


async def _drain(app: Application, listeners: Sequence[Listener], hurry: asyncio.Event) -> None:
    """Wait a little for what is due now; what is due later waits for the next start."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + DRAIN_S
    while loop.time() < until_s and not hurry.is_set():
        seen = await app.db.read(see, outbox_tables, now_ms(), listeners)
        if not seen.busy:
            return
        await asyncio.sleep(0.1)


def _accounts(settings: Settings) -> list[Account]:
    """An account at each provider, called back as if our address stood in its dashboard."""
    found = []
    for name, credentials in settings.credentials.items():
        token = "/" + credentials["callback_tokens"][0] if name == "ebilling" else ""
        found.append(Account(name, credentials, f"{settings.own_url}/webhooks/{name}{token}", live=False))
    return found


def _load_book(path: Path, sandbox: Sandbox) -> Book:
    book = Book(sandbox)
    if path.exists():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            for provider, payment_id, entry in json.loads(path.read_text("utf-8")):
                book.write(provider, payment_id, Entry(**entry))
    return book


async def _keep_book(book: Book, path: Path, stop: asyncio.Event) -> None:
    """Save now and then, so that after a crash the sandbox still knows what will be asked about."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SAVE_S)
        text = json.dumps(book.dump(), ensure_ascii=False)
        await asyncio.to_thread(write, path, text)


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
    say = sayer(console)
    say("caisse dev: the service, six providers that call it, a shop that sometimes fails")
    say(f"  service    {settings.own_url}   /webhooks/<provider>, /readyz, /metrics")
    say(f"  shop       {shop.url}; beside it books is well, stock never answers, courier is down now and then")
    say(f"  API key    {home.shop.get('api_key', '')}")
    say(f"  operator   password {home.secrets['admin_password']}")
    say(f"  kept in    {home.directory}   the service's log is {home.log.name}")
    say(f"  look at it {_look_command(home, 'payments list')}")
    say(f"  played     {options.rate:g} callbacks a second, the shop fails {options.failures:.0%}, seed {options.seed}")


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
                ended = run(demonstrate(home, options, console, starting))
    except Held as held:
        raise click.ClickException(f"{held} Stop it first, or choose another --directory.") from None
    except (Refusal, BadSetting, StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except StorageFailed:
        # Nothing can be kept any more, as in `caisse serve`: the status says why.
        os._exit(STORAGE_FAILED)
    summarise(ended, console)
    if ended.closing.lost or ended.played.refused or ended.refused:
        raise SystemExit(1)
