"""`caisse doctor`"""

from __future__ import annotations

import sys

import click

from service.cli import show
from service.cli.run import run, settings

_MARKS = {"ok": "ok", "warn": "look", "fail": "WRONG"}


@click.command()
@click.option(
    "--network",
    is_flag=True,
    help="Also ask each provider something harmless with its key, and compare the clock with theirs.",
)
@click.option(
    "--settings", "list_settings", is_flag=True, help="Only list every setting, its value and where it is from."
)
@show.as_json
def doctor(network: bool, list_settings: bool, json_: bool) -> None:
    """Look at settings, secrets, database, disk and queue; print what to paste at each provider.

    With --network each account's connection is tried, at most 8 seconds each: does the provider answer, does it take
    the key? Nothing is made there. Never prints a key. An eBilling address holds a secret token: it is the address
    itself. Exit status 1 when something is wrong.
    """
    if list_settings:
        show.rows(settings().shown(), json_, ("name", "value", "from", "meaning"), "")
        return
    found = run("doctor", network=network)
    failed = any(check["state"] == "fail" for check in found["checks"])
    if json_:
        show.dump({**found, "ok": not failed})
    else:
        shown = [{**check, "state": _MARKS[check["state"]]} for check in found["checks"]]
        show.rows(shown, False, ("state", "check", "sentence"), "")
        for entry in found["addresses"]:
            click.echo(f"\n{entry['provider']}: paste {entry['address']}")
            if entry["paste"]:
                click.echo(f"  {entry['paste']}")
    if failed:
        sys.exit(1)
