"""`caisse callback send`: what a provider would send, signed with the secret from the settings."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from service.cli import show
from service.cli.run import Progress, bar, settings

if TYPE_CHECKING:
    from service.sandbox.builder import Built

REPEAT_MAX = 100_000
IN_FLIGHT = 16
LIMIT_S = 15.0


@click.group()
def callback() -> None:
    """Real, signed callbacks, to try an integration."""


@callback.command()
@click.argument("provider")
@click.argument("event")
@click.option("--to", help="Another address than this service's.")
@click.option(
    "--set", "given", multiple=True, metavar="FIELD=VALUE", help="amount=1500, reference=…, or a path: data.object.x=1."
)
@click.option("--repeat", type=click.IntRange(1, REPEAT_MAX), default=1, show_default=True, help="Send each so often.")
@click.option("--shuffle", is_flag=True, help="In any order.")
@show.as_json
def send(
    provider: str, event: str, to: str | None, given: tuple[str, ...], repeat: int, shuffle: bool, json_: bool
) -> None:
    """Send a callback as PROVIDER would; several EVENTs about one payment are separated by commas.

    Exit status 1 when one was not answered with 200. An event of `help` lists what there is.
    """
    from service.errors import Refusal
    from service.ids import now_ms
    from service.sandbox.builder import FIELDS, build, events

    read = settings()
    fields: dict[str, str] = {}
    for item in given:
        name, written, value = item.partition("=")
        if not written:
            raise click.BadParameter(f"{item!r} is not FIELD=VALUE", param_hint="--set")
        fields[name] = value
    at_ms = now_ms()
    fields.setdefault("live", str(read.live).lower())
    fields.setdefault("reference", f"CMD-{at_ms}")  # once for all of them: they speak of one payment
    try:
        if event == "help":
            _list(provider, events(provider), FIELDS, json_)
            return
        credentials = read.credentials.get(provider, {})
        built = [build(provider, name.strip(), credentials, at_ms, fields) for name in event.split(",")]
    except ValueError as error:
        raise Refusal("not_built", str(error)) from None
    waiting = [one for one in built for _ in range(repeat)]
    if shuffle:
        random.Random().shuffle(waiting)  # noqa: S311 - an order of sending
    with bar("Sending" if len(waiting) > 1 else None) as progress:
        answers = asyncio.run(_send(waiting, read.own_url, to, progress))
    answer = {
        "to": to or f"{read.own_url}/webhooks/{provider}",
        "payment": built[0].payment,
        "reference": fields["reference"],
        "sent": len(waiting),
        "answers": {str(status): count for status, count in sorted(answers.items())},
    }
    show.fields(answer, json_)
    if set(answers) != {"200"}:
        if "no answer" in answers:
            click.echo(f"caisse: Nothing answers at {answer['to']}; is `caisse serve` running?", err=True)
        elif "401" in answers:
            click.echo(
                "caisse: It was not verified: the running service has other secrets than these settings.", err=True
            )
        sys.exit(1)


async def _send(waiting: list[Built], own_url: str, to: str | None, progress: Progress | None) -> Counter[str]:
    import aiohttp

    answers: Counter[str] = Counter()
    queue = iter(waiting)

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        for built in queue:
            # Somebody else's address is taken as it is; only what stands in the query is part of the callback.
            _, asked, query = built.path_suffix.partition("?")
            url = to + asked + query if to else own_url + built.path_suffix
            try:
                async with session.request(
                    built.method, url, data=built.body, headers=dict(built.headers), allow_redirects=False
                ) as response:
                    await response.read()
                    answers[str(response.status)] += 1
            except (aiohttp.ClientError, TimeoutError):
                answers["no answer"] += 1
            if progress is not None:
                progress(sum(answers.values()), len(waiting))

    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(min(IN_FLIGHT, len(waiting)))))
    return answers


def _list(provider: str, names: tuple[str, ...], fields: Any, json_: bool) -> None:
    if json_:
        show.dump({"provider": provider, "events": list(names), "fields": dict(fields)})
        return
    click.echo(f"Events of {provider}:")
    for name in names:
        click.echo(f"  {name}")
    click.echo("\nFields for --set, beside any path with a point in it:")
    for name, meaning in fields.items():
        click.echo(f"  {name:<10} {meaning}")
