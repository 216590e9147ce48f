"""`caisse sandbox`"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import click

from service.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.sandbox.desk import Account

TICK_MS = 250
PAGE = "Pages: {url}/_sandbox/phone/NUMBER, {url}/_sandbox/books, {url}/_sandbox/payouts, {url}/_sandbox/trouble"

MADE_UP: Mapping[str, Mapping[str, Sequence[str]]] = {
    "stripe": {"secret_key": ["sk_test_sandbox"], "webhook_secrets": ["whsec_sandbox"]},
    "paystack": {"secret_keys": ["sk_test_sandbox"]},
    "fedapay": {"secret_key": ["sk_sandbox_sandbox"], "webhook_secrets": ["wh_sandbox_sandbox"]},
    "monetbil": {"service_key": ["service_sandbox"], "service_secrets": ["secret_sandbox"]},
    "moneroo": {"secret_key": ["pvk_sandbox_sandbox"], "webhook_secrets": ["moneroo_sandbox"]},
    "ebilling": {
        "username": ["sandbox"],
        "shared_key": ["shared_sandbox"],
        "callback_tokens": ["token-of-the-sandbox"],
        "shap_id": ["shap_sandbox"],
        "shap_secret": ["shap_secret_sandbox"],
    },
}
"""Keys of nobody, by caisse's names for them; they are printed, because whoever tries the sandbox needs them."""


@click.command()
@click.option("--port", default=8090, show_default=True, type=click.IntRange(1, 65_000), help="The first port.")
@click.option(
    "--callbacks",
    metavar="URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Where caisse listens: callbacks go to URL/webhooks/PROVIDER.",
)
@click.option("--ports-each", is_flag=True, help="A port for each provider, so that one can refuse connections.")
@click.option("--json", "json_", is_flag=True, help="Print the addresses and keys as one line of JSON.")
def sandbox(port: int, callbacks: str, ports_each: bool, json_: bool) -> None:
    """The six providers' APIs on this machine, with made-up keys and money that is none.

    Runs in the foreground until Ctrl-C. Payers wait for a person: on the hosted pages, and on the page of their phone.
    """
    from service.sandbox.bank import Payer
    from service.sandbox.teller import Sandbox

    async def run() -> None:
        running = Sandbox(
            accounts(callbacks),
            port=port,
            ports="each" if ports_each else "one",
            every_ms=TICK_MS,
            anybody=Payer(does="waits"),
        )
        try:
            bases = await running.start()
        except OSError as error:
            await running.stop()
            raise Refusal("cannot_start", f"The sandbox cannot listen on port {port}: {error.strerror}.") from error
        settings = {f"CAISSE_{name.upper()}_BASE_URL": base for name, base in bases.items()}
        for name in bases:
            settings |= {f"CAISSE_{name.upper()}_{one.upper()}": ",".join(MADE_UP[name][one]) for one in MADE_UP[name]}
        if json_:
            click.echo(json.dumps({"url": running.url, "settings": settings}))
        else:
            for setting, value in sorted(settings.items()):
                click.echo(f"{setting}={value}")
            click.echo(
                f'In caisse.toml, for payouts: [providers.ebilling.payout_facts] shap_url = "{bases["ebilling"]}"'
            )
            click.echo(PAGE.format(url=running.url))
            click.echo("Ctrl-C stops it.")
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        await running.stop()
        if not json_:
            click.echo("Stopped.")

    asyncio.run(run())


def accounts(callbacks: str) -> list[Account]:
    """One account at each provider, whose callbacks go to the caisse at this address."""
    from service.sandbox.desk import Account

    base = callbacks.rstrip("/")
    found = []
    for name, credentials in MADE_UP.items():
        token = credentials.get("callback_tokens", ())
        url = f"{base}/webhooks/{name}" + (f"/{token[0]}" if token else "")
        found.append(Account(name, credentials, url, live=False))
    return found
