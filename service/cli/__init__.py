"""
The command `caisse`: parses, calls one named command, and shows its answer.

Every subcommand's module is imported when it is used, so that `caisse --help` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

_COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Ask the first day's questions and write the settings."),
    "sandbox": ("sandbox", "Run the six providers' APIs on this machine, alone."),
    "serve": ("serve", "Run the service."),
    "dev": ("dev", "Run a demonstration: service, sandbox providers, a shop, live traffic."),
    "doctor": ("doctor", "Look whether everything is as it must be."),
    "merchant": ("merchant", "Merchants: create, list, disable."),
    "account": ("account", "Accounts at providers: add, list, rotate."),
    "endpoint": ("endpoint", "Where a merchant wants webhooks: add, list, show, change, disable, enable, …"),
    "keys": ("keys", "API keys and master keys: create, list, revoke, rotate-master."),
    "payments": ("payments", "Payments: list, show, explain, sync, decide."),
    "refunds": ("refunds", "Refunds: list, show, create, done, give-up, pay-out."),
    "escrow": ("escrow", "Delayed payout: show and set a merchant's terms."),
    "holds": ("holds", "Money held for sellers: list, show, release, unfreeze, buyer-link."),
    "beneficiaries": ("beneficiaries", "Whom money is held for: list, show, add, pay-to, approve, disable, …"),
    "payouts": ("payouts", "Money paid out: list, show, add, approve, cancel, retry, decide, otp."),
    "attention": ("attention", "What needs a person, and what can be done: list, act."),
    "routes": ("routes", "Which provider takes a payment: list, set, simulate, add, change, remove, order."),
    "callbacks": ("callbacks", "What providers sent: list, show, replay."),
    "events": ("events", "What merchants were told: list, show."),
    "deliveries": ("deliveries", "Webhooks: list, show, retry, recover."),
    "balances": ("balances", "What can be paid out, is in escrow, was paid out: list, statement."),
    "closing": ("closing", "The evening closing of a day, by provider."),
    "settlements": ("settlements", "What providers have sent to your bank: add, list."),
    "verify": ("verify", "Prove that the ledger adds up."),
    "jobs": ("jobs", "What the clock does by itself: list, show, runs, run, pause, resume."),
    "reconcile": ("reconcile", "Compare with what providers list."),
    "backup": ("backup", "Copy the database, also while the service runs."),
    "prune": ("prune", "Forget what is older than the settings say."),
    "erase": ("erase", "Erase one person."),
    "callback": ("callback", "Send a real, signed callback, as a provider would."),
    "states": ("states", "The machines: every state and what leads where."),
    "migrate": ("migrate", "Bring the database to this version's shape."),
}
"""Name: module in `service.cli` (the command in it has the same name), sentence."""


class _Late(click.Group):
    """A group that knows its commands' names and sentences, and imports them when they are called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Bytes that are not UTF-8 come as lone surrogates, which neither SQLite nor a terminal can write.
        for number, argument in enumerate(args, 1):
            if "\0" in argument or argument != argument.encode(errors="ignore").decode():
                raise click.UsageError(f"Argument {number} is no text: it has a NUL or bytes that are not UTF-8.", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"service.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1) if args else []
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None
            raise


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from service import __version__

        click.echo(f"caisse {__version__}")
        ctx.exit()


@click.command(cls=_Late, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(dir_okay=False), help="The settings file; otherwise caisse.toml when it is there."
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def caisse(config: str | None) -> None:
    """A self-hosted payments gateway: one process, one SQLite file.

    Exit status: 0 done, 1 it did not work, 2 wrong usage; `serve` also 70: the storage failed.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; never a traceback for what a person can put right."""
    try:
        return caisse.main(args=arguments, prog_name="caisse")
    except Exception as error:
        from service.cli.run import sentence_for

        sentence = sentence_for(error)
        if sentence is None:
            raise
        click.echo(f"caisse: {sentence}", err=True)
        sys.exit(1)
