"""`caisse routes …`"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from service.cli import show
from service.cli.run import run
from service.errors import Refusal

FILE_BYTES_MAX = 900_000
"""What the running process takes in one command, less the rest of the command."""

_COLUMNS = ("id", "priority", "merchant", "conditions", "weight", "providers", "enabled", "note")
_NOTHING = (
    "There is no route: every capable gateway is used, in the default order. Add one: caisse routes add --providers …"
)


@click.group()
def routes() -> None:
    """Which provider takes a payment: list, set, simulate, add, change, remove, order."""


@routes.command("list")
@click.option("--merchant", help="Only those that this merchant's payments meet.")
@show.as_json
def list_(merchant: str | None, json_: bool) -> None:
    """Routes in the order in which they are looked at; the lowest priority first."""
    _list(run("routes.list", merchant=merchant), json_)


def _fields(command: Any) -> Any:
    """The options that say what a route is."""
    options = (
        click.option("--providers", help="The chain: names or account ids, comma-separated, in order."),
        click.option("--currency", help="Only these, comma-separated; an empty text for any, as with the next three."),
        click.option("--country", help="Only these, such as CI,SN."),
        click.option("--method", help="card or mobile_money."),
        click.option("--operator", help="Only these, such as mtn,moov."),
        click.option("--min-amount", type=int, help="At least so much, in minor units."),
        click.option("--max-amount", type=int, help="At most so much, in minor units."),
        click.option("--any-amount", is_flag=True, help="Without limits of the amount."),
        click.option("--priority", type=int, help="The lowest is looked at first."),
        click.option("--weight", type=int, help="Its share among routes of the same priority."),
        click.option(
            "--soft-decline-failover/--no-soft-decline-failover", default=None,
            help="Whether a card's soft decline goes on to the next provider.",
        ),
        click.option("--enabled/--disabled", default=None, help="Whether it counts."),
        click.option("--note", help="For people."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in options.items() if value is not None and name != "any_amount"}
    return {"min_amount": None, "max_amount": None} | fields if options.get("any_amount") else fields


@routes.command()
@_fields
@click.option("--merchant", help="Only this merchant's payments; otherwise everybody's.")
@show.as_json
def add(json_: bool, **options: Any) -> None:
    """Add a route; without --priority it comes last."""
    show.fields(run("routes.add", fields=_given(options)), json_)


@routes.command()
@click.argument("route")
@_fields
@show.as_json
def change(route: str, json_: bool, **options: Any) -> None:
    """Change what is given of a route."""
    show.fields(run("routes.change", route=route, fields=_given(options)), json_)


@routes.command()
@click.argument("route")
@show.as_json
def remove(route: str, json_: bool) -> None:
    """Delete a route."""
    show.fields(run("routes.remove", route=route), json_)


@routes.command()
@click.argument("groups", nargs=-1, required=True, metavar="ROUTE[,ROUTE…] …")
@show.as_json
def order(groups: tuple[str, ...], json_: bool) -> None:
    """Give all routes their places, the first first; those joined by a comma share payments by weight."""
    _list(run("routes.order", groups=[group.split(",") for group in groups]), json_)


@routes.command("set")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@show.as_json
def set_(file: str, dry_run: bool, json_: bool) -> None:
    """Replace the whole list by a TOML or JSON file, all or nothing.

    TOML: a table [[routes]] for each. JSON: a list, or what `routes list --json` printed. A route with an id changes
    that one; without priorities the order of the file counts.
    """
    answer = run("routes.set", routes=_read(file), dry_run=dry_run)
    if json_:
        show.dump(answer)
        return
    for rule in answer["added"]:
        click.echo(f"+ {_line(rule)}")
    for one in answer["changed"]:
        click.echo(f"~ {_line(one['after'])}")
        for name, before in one["before"].items():
            after = one["after"][name]
            if name != "version" and before != after:
                click.echo(f"    {name.replace('_', ' ')}: {show.word(before)} → {show.word(after)}")
    for rule in answer["removed"]:
        click.echo(f"- {_line(rule)}")
    counts = f"{len(answer['added'])} added, {len(answer['changed'])} changed, {len(answer['removed'])} removed"
    would = "Nothing was done; it would be: " if dry_run else ""
    click.echo(f"{would}{counts}, {answer['unchanged']} unchanged.")


@routes.command()
@click.option("--amount", type=int, help="In minor units.")
@click.option("--currency", default="", help="Such as XOF.")
@click.option("--country", default="", help="Such as CI; nothing where nobody knows.")
@click.option("--method", default="", help="card or mobile_money.")
@click.option("--operator", default="", help="Such as mtn; nothing where the payer chooses at the provider.")
@click.option("--providers", default="", help="As if the request named this chain, comma-separated.")
@click.option("--merchant", help="Whose payment; otherwise the first merchant's.")
@click.option("--live/--test", default=None, help="Real money or not; otherwise what the merchant has accounts for.")
@click.option("--no-phone", is_flag=True, help="The payer's phone number is not known.")
@click.option("--no-email", is_flag=True, help="No e-mail address is known.")
@click.option("--no-name", is_flag=True, help="The payer's name is not known.")
@click.option("--embedded", is_flag=True, help="The merchant's own page confirms.")
@click.option("--payment", default="simulated", show_default=True, help="An id, for its share by weight.")
@click.option("--draft", type=click.Path(exists=True, dir_okay=False), help="Try these rules, a file as for `set`.")
@click.option(
    "--replay", type=click.IntRange(0, 10_000), default=0, help="Also look where the newest N payments would go."
)
@show.as_json
def simulate(
    providers: str, no_phone: bool, no_email: bool, no_name: bool, draft: str | None, json_: bool, **given: Any
) -> None:
    """Which gateways a payment would be offered to, and why not the others. Nothing is stored or sent.

    Exit status 0 also where nobody would take it.
    """
    answer = run(
        "routes.simulate",
        progress_of="Replaying" if given["replay"] else None,
        providers=[name.strip() for name in providers.split(",") if name.strip()],
        phone=not no_phone,
        email=not no_email,
        name=not no_name,
        draft=_read(draft) if draft else None,
        **given,
    )
    if json_:
        show.dump(answer)
        return
    if "explanation" in answer:
        _explain(answer)
    if "replay" in answer:
        _replayed(answer["replay"])


# --- showing ------------------------------------------------------------------------------------------


def _list(rules: list[dict[str, Any]], json_: bool) -> None:
    if json_:
        show.dump(rules)
        return
    shown = [{**rule, "merchant": rule["merchant"] or "all", "conditions": _conditions(rule)} for rule in rules]
    show.rows(shown, False, _COLUMNS, _NOTHING)


def _conditions(rule: dict[str, Any]) -> str:
    told = [" or ".join(rule[name]) for name in ("currency", "country", "method", "operator") if rule[name]]
    if rule["min_amount"] is not None:
        told.append(f"from {rule['min_amount']}")
    if rule["max_amount"] is not None:
        told.append(f"up to {rule['max_amount']}")
    return ", ".join(told) or "any"


def _line(rule: dict[str, Any]) -> str:
    whose = f"{rule['merchant']}, " if rule["merchant"] else ""
    return show.printable(f"{rule['id'] or 'new'}  {whose}{_conditions(rule)} → {', '.join(rule['providers'])}")


def _explain(answer: dict[str, Any]) -> None:
    from service.routing.words import decided, gateway_reason, more, rule_reason

    it = answer["explanation"]
    mode = "live" if answer["live"] else "test"
    click.echo(f"{decided(it)} ({mode}, {answer['merchant']}{', draft rules' if answer['draft'] else ''})")
    if it["rules"]:
        click.echo()
        rules = [
            {"rule": one["place"], "id": one["id"], "taken": one["taken"], "why": rule_reason(one["why"], one["taken"])}
            for one in it["rules"]
        ]
        show.rows(rules, False, ("rule", "id", "taken", "why"), "")
    click.echo()
    gateways = [{**one, "why": gateway_reason(one)} for one in it["gateways"]]
    show.rows(gateways, False, ("place", "provider", "account", "why"), "This merchant has no account at any provider.")
    for sentence in more(it):
        click.echo(sentence)


def _replayed(answer: dict[str, Any]) -> None:
    click.echo()
    click.echo(
        f"Of {answer['looked']:,} payments {answer['same']:,} would go where they went, {answer['elsewhere']:,} "
        f"elsewhere, {answer['nowhere']:,} nowhere; of {answer['skipped']:,} the method is not known."
    )
    if answer["moves"]:
        moves = [{**move, "to": move["to"] or "nowhere"} for move in answer["moves"]]
        show.rows(moves, False, ("from", "to", "count", "samples"), "")


# --- files --------------------------------------------------------------------------------------------


def _read(file: str) -> list[Any]:
    """The rules of a file: TOML by its ending, else JSON."""
    path = Path(file)
    if path.stat().st_size > FILE_BYTES_MAX:
        raise Refusal("too_large", f"{path.name} is larger than {FILE_BYTES_MAX // 1000} kB.")
    try:
        text = path.read_bytes().decode()
        read = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        reason = " ".join(str(error).split())[:200]
        raise Refusal("unreadable", f"{path.name} cannot be read as {kind}: {reason}.") from None
    rules = read.get("routes") if isinstance(read, dict) and set(read) == {"routes"} else read
    if rules == {} and path.suffix == ".toml":
        return []  # an empty file
    if not isinstance(rules, list):
        raise Refusal("bad_route", f"{path.name} must hold a list of routes; in TOML, a table [[routes]] for each.")
    return rules
