"""doctor, migrate: is everything as it must be, and what to do where it is not. Never prints a secret."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from service import __version__, migrations
from service.commands import connections
from service.commands.accounts import address
from service.merchants import endpoints
from service.merchants.accounts import Entry
from service.merchants.tables import merchants
from service.metrics import measure
from service.providers import PROVIDERS
from service.routing import gateways
from service.seal import key_file

if TYPE_CHECKING:
    from service.application import Application

State = Literal["ok", "warn", "fail"]

DISK_FREE_BYTES_MIN = 200 << 20
WAL_BYTES_MAX = 256 << 20
DUE_MS_MAX = 120_000
OFFSET_MS_MAX = 5_000
"""Signatures with a time are refused beyond 300 s; half a minute off is a broken clock already."""
TOKEN_CHARACTERS_MIN = 24


class Findings(list[dict[str, str]]):
    """What was looked at, in order."""

    def say(self, check: str, state: State, sentence: str) -> None:
        """One line of the report."""
        self.append({"check": check, "state": state, "sentence": sentence})


async def look(app: Application, *, network: bool = False) -> dict[str, Any]:
    """Look at settings, secrets, database, disk, queue and endpoints; `network` also asks the providers."""
    found = Findings()
    _settings(app, found)
    _accounts(app, found)
    await _database(app, found)
    await _queue(app, found)
    await _endpoints(app, found)
    tried: list[dict[str, Any]] = []
    if network:
        tried = await _network(app, found)
    else:
        found.say("connections", "ok", "Not tried; `caisse doctor --network` asks each provider with its key.")
        found.say("clock", "ok", "Not compared; `caisse doctor --network` compares it with the providers' clocks.")
    addresses = [
        {
            "account": entry.id,
            "provider": entry.provider,
            "address": address(app, entry),
            "paste": PROVIDERS[entry.provider].paste,
        }
        for entry in app.registry
    ]
    return {"version": __version__, "checks": list(found), "connections": tried, "addresses": addresses}


async def migrated(app: Application) -> dict[str, Any]:
    """The database's revision; opening it has brought it up to date."""
    return {"revision": await migrations.current(app.db), "newest": migrations.head()}


def _settings(app: Application, found: Findings) -> None:
    settings = app.settings
    where = f"read from {settings.file} and the environment" if settings.file else "from the environment alone"
    found.say("settings", "ok", f"Mode {settings.mode}, {where}.")
    if settings.file is not None and stat.S_IMODE(settings.file.stat().st_mode) & 0o077:
        found.say("settings", "warn", f"{settings.file} can be read by others: run `chmod 600 {settings.file}`.")
    if settings.public_url is None:
        found.say(
            "public_url", "warn" if settings.strict else "ok",
            "CAISSE_PUBLIC_URL is not set: the addresses below work on this machine only.",
        )  # fmt: skip
    elif settings.strict and settings.public_url.startswith("http://"):
        found.say("public_url", "warn", "CAISSE_PUBLIC_URL begins with http://; providers will want https.")
    else:
        found.say("public_url", "ok", f"Reached at {settings.public_url}.")
    if settings.master_keys:
        found.say("master_keys", "ok", f"{len(settings.master_keys)} from the settings.")
    else:
        path = key_file(settings.database_path.resolve())
        found.say("master_keys", "ok", f"In {path}: back it up apart from the database, stored secrets need it.")
    if settings.strict and not settings.metrics_token:
        found.say("metrics_token", "warn", "CAISSE_METRICS_TOKEN is not set: /metrics is open to whoever reaches it.")
    if settings.monetbil_allow_unsigned:
        found.say("monetbil", "warn", "Callbacks without `sign` are taken; they only make us ask Monetbil.")


def _accounts(app: Application, found: Findings) -> None:
    if not len(app.registry):
        names = ", ".join(PROVIDERS)
        found.say(
            "providers", "fail", f"No provider is configured; set the keys of one of {names} (`caisse init` asks)."
        )
    for entry in app.registry:
        provider = PROVIDERS[entry.provider]
        label = _label(entry)
        for name in entry.missing:
            credential = next(c for c in provider.credentials if c.name == name)
            use = (
                "verify its callbacks"
                if credential.verifies
                else "ask it about payments"
                if credential.calls
                else "use it"
            )
            how = "set " + f"CAISSE_{entry.provider}_{name}".upper()
            if entry.stored:
                how = f"`caisse account rotate {entry.id} {name}`"
            found.say(label, "fail", f"{name} is missing, so we cannot {use}: {how}. {credential.where}".rstrip())
        if made_up := _made_up(entry):
            if app.settings.public_url is None:
                found.say(label, "ok", f"Polling only: its payments are found by asking; {made_up} is made up.")
            else:
                found.say(label, "fail", f"{made_up} is made up, so its callbacks are refused: put the real one there.")
        if provider.capabilities.token_in_path:
            tokens = [t for c in provider.credentials if c.verifies for t in entry.credentials.get(c.name, ())]
            if any(len(token) < TOKEN_CHARACTERS_MIN for token in tokens):
                found.say(
                    label,
                    "warn",
                    f"A callback token has fewer than {TOKEN_CHARACTERS_MIN} characters; it can be guessed.",
                )
        if not entry.missing:
            lacking = gateways.missing(entry.provider, entry.credentials)
            if lacking:
                sentence = f"It only listens: without {' and '.join(lacking)} no payment can be made or asked about."
                found.say(label, "warn", sentence)
            money = "live" if entry.live else "test"
            owner = "" if entry.merchant_id else "; callbacks wait until a merchant is there (`caisse merchant create`)"
            found.say(label, "ok" if entry.merchant_id else "warn", f"Complete, {money} money{owner}.")


def _made_up(entry: Entry) -> str:
    """The credential that stands there so that nothing else has to: no callback can be verified by it."""
    held = entry.credentials.items()
    return next((name for name, values in held if values and values[0].startswith(connections.POLLING_ONLY)), "")


async def _database(app: Application, found: Findings) -> None:
    path = app.settings.database_path
    health = app.db.health
    if health.writable:
        found.say("database", "ok", f"{path} opens and is writable, revision {await migrations.current(app.db)}.")
    else:
        found.say("database", "fail", f"{path} cannot be written: {health.reason}")
    disk = os.statvfs(path.resolve().parent)
    free = disk.f_bavail * disk.f_frsize
    state: State = "ok" if free >= DISK_FREE_BYTES_MIN else "warn"
    found.say("disk", state, f"{free >> 20:,} MiB free beside the database.")
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > WAL_BYTES_MAX:
        found.say("wal", "warn", f"The write-ahead log has {size >> 20:,} MiB: a long read holds back its checkpoint.")
    if not await app.db.read(lambda tx: tx.execute(select(merchants.c.id).limit(1)).scalar()):
        found.say("merchant", "warn", "There is no merchant yet: `caisse merchant create NAME --webhook-url URL`.")


async def _queue(app: Application, found: Findings) -> None:
    seen = await app.db.read(measure, app.queue, app.clock())
    due_ms = max((seen.now_ms - b.oldest_due_at_ms for b in seen.backlog.values() if b.oldest_due_at_ms), default=0)
    dead = sum(backlog.dead for backlog in seen.backlog.values())
    held = sum(backlog.held for backlog in seen.backlog.values())
    if due_ms > DUE_MS_MAX:
        why = "is `caisse serve` running?" if app.dispatcher is None else "look into the log."
        found.say("queue", "warn", f"Work has been due for {due_ms // 1000:,} s: {why}")
    else:
        found.say("queue", "ok", f"Nothing is late; {held} held, {dead} given up.")
    if seen.quarantined:
        sentence = f"{seen.quarantined} callbacks were not verified: `caisse callbacks list --status quarantined`."
        found.say("quarantine", "warn", sentence)
    if seen.attention:
        found.say("attention", "warn", f"{seen.attention} matters wait for a person.")


async def _endpoints(app: Application, found: Findings) -> None:
    rows = await app.db.read(endpoints.listed)
    for row in rows:
        refused = app.guard.check_url(row["url"])
        if row["status"] != "enabled":
            found.say(row["id"], "warn", f"Disabled: {row['disabled_reason']}; `caisse endpoint enable {row['id']}`.")
        elif refused:
            found.say(row["id"], "fail", f"Its address is refused by the guard ({refused}): nothing reaches it.")
        else:
            found.say(row["id"], "ok", "Enabled; try it with `caisse endpoint test`.")


async def _network(app: Application, found: Findings) -> list[dict[str, Any]]:
    """Ask each account's provider with its key, and compare its clock with ours."""
    some, left = await connections.tried(app)
    for one in some:
        entry = app.registry.get(one.account_id)
        found.say(_label(entry) if entry else one.provider, one.state, one.sentence)
    if left:
        found.say("providers", "warn", f"{left} more accounts were not asked; {len(some)} are asked at once.")
    offsets = [one.offset_ms for one in some if one.offset_ms is not None]
    if offsets:
        # The one that is nearest to ours: a single provider's clock may be wrong, ours is when all differ.
        offset_ms = min(offsets, key=abs)
        state: State = "ok" if abs(offset_ms) <= OFFSET_MS_MAX else "fail"
        advice = "" if state == "ok" else ": switch on time synchronisation (`timedatectl set-ntp true`)"
        found.say("clock", state, f"About {offset_ms / 1000:+.0f} s from the providers' clocks{advice}.")
    elif some:
        found.say("clock", "warn", "Not compared: no provider said what time it is there.")
    return [one.shown() for one in some]


def _label(entry: Entry) -> str:
    return entry.id if entry.stored else entry.provider
