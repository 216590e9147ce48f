"""`caisse init`: the few questions of a first day, a settings file that is never overwritten, and a real test."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from service.cli import show

if TYPE_CHECKING:
    from service.config import Settings
    from service.providers.base import Credential, Provider

TOKEN_BYTES = 24


@click.command()
@click.option("--mode", type=click.Choice(["development", "staging", "production"]), help="staging: sandbox keys.")
@click.option("--provider", help="The provider you use.")
@click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE", help="One of its credentials, for example secret_key=…"
)
@click.option("--base-url", default="", help="Its API, if it is not the usual one: a test host, or `caisse sandbox`.")
@click.option("--webhook-url", help="Where your application takes events.")
@click.option(
    "--public-url", help="How providers reach this machine; empty: they cannot, payments are found by asking."
)
@click.option("--name", help="The merchant's name.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the options, and the defaults for the rest.")
@click.option("--no-test", is_flag=True, help="Do not try the key at the provider.")
@show.as_json
def init(
    mode: str | None,
    provider: str | None,
    given: tuple[str, ...],
    base_url: str,
    webhook_url: str | None,
    public_url: str | None,
    name: str | None,
    yes: bool,
    no_test: bool,
    json_: bool,
) -> None:
    """Write caisse.toml, create the first merchant, and try the key; one provider and its key are enough to start.

    Exit status 1 also when all is written and the provider refuses the key, or is not reached.
    """
    from service.config import DEFAULT_FILE, Settings
    from service.errors import Refusal
    from service.merchants.endpoints import checked_url
    from service.providers import PROVIDERS
    from service.seal import key_file

    config = click.get_current_context().find_root().params.get("config")
    path = Path(config or DEFAULT_FILE).absolute()
    if path.exists():
        raise Refusal(
            "exists", f"{path} is there already and stays as it is; edit it, or name another file with --config."
        )
    database = path.with_name("caisse.db")
    if database.exists() and not key_file(database.resolve()).exists():
        raise Refusal("exists", f"{database} is there already, sealed with keys that the new file would not have.")

    def ask(text: str, default: str) -> str:
        return default if yes else str(click.prompt(text, default=default, show_default=bool(default), err=True))

    mode = mode or ask("Mode (development, staging, production)", "development")
    provider = provider or ask(f"Which provider do you use ({', '.join(PROVIDERS)})", next(iter(PROVIDERS)))
    if provider not in PROVIDERS:
        raise click.BadParameter(f"there are {', '.join(PROVIDERS)}", param_hint="--provider")
    credentials = _given(PROVIDERS[provider], given)
    _ask_key(PROVIDERS[provider], credentials, yes)
    if public_url is None:
        reach = "How do providers reach this machine (https://…; empty: they cannot, payments are found by asking)"
        public_url = ask(reach, "")
    _ask_secret(PROVIDERS[provider], credentials, public_url, yes)
    if webhook_url is None:
        webhook_url = ask("Where does your application take events (URL; empty: nowhere yet)", "")
    if webhook_url:
        checked_url(webhook_url)  # before anything is written: a second run would be refused
    name = name or ask("Your shop's name", "shop")

    with_key = not key_file(database.resolve()).exists()
    text = _toml(mode, database, public_url, provider, base_url, credentials, PROVIDERS[provider], with_key=with_key)
    _write(path, text)
    try:
        read = Settings.read(path)
    except Exception:
        path.unlink()  # nothing has used it yet
        raise
    answer = _create(read, path, provider, name, webhook_url, test=not no_test)
    if json_:
        show.dump(answer)
    else:
        _tell(answer, provider, public_url)
    if answer["test"] and answer["test"]["state"] == "fail":
        sys.exit(1)


def _create(read: Settings, path: Path, provider: str, name: str, webhook_url: str, *, test: bool) -> dict[str, Any]:
    from service.cli.run import run
    from service.errors import Refusal

    try:
        made = run("merchant.create", read=read, name=name, webhook_url=webhook_url or None)
        checked = run("doctor", read=read, network=test)
    except Refusal as refusal:
        # The file stays: its master key may have sealed something already.
        raise Refusal(
            refusal.code,
            f"{path} is written, but: {refusal.sentence} Go on with `caisse merchant create NAME --webhook-url URL`.",
        ) from None
    tried = next((one for one in checked["connections"] if one["provider"] == provider), None)
    wrong = [check for check in checked["checks"] if check["state"] == "fail"]
    if tried is not None:
        wrong = [check for check in wrong if check["sentence"] != tried["sentence"]]
    return {**made, "config": str(path), "addresses": checked["addresses"], "test": tried, "wrong": wrong}


def _tell(answer: dict[str, Any], provider: str, public_url: str) -> None:
    click.echo(f"\nWritten: {answer['config']} (it holds your keys; only you can read it)")
    click.echo(f"merchant         {answer['id']}")
    click.echo(f"API key          {answer['api_key']}")
    if endpoint := answer["endpoint"]:
        click.echo(f"webhook secret   {endpoint['secret']}   (verifies what caisse sends to {endpoint['url']})")
    click.echo("Keep them now; they are not shown again.\n")
    if public_url:
        for entry in answer["addresses"]:
            click.echo(f"Paste at {entry['provider']}: {entry['address']}")
            if entry["paste"]:
                click.echo(f"  {entry['paste']}")
    else:
        click.echo(_polling(provider))
        for entry in answer["addresses"]:
            # This machine's own address would be of no use there.
            click.echo(f"To paste at {entry['provider']} then: <public_url>{urlsplit(entry['address']).path}")
    for check in answer["wrong"]:
        click.echo(f"Still wrong: {check['check']}: {check['sentence']}")
    tried = answer["test"]
    if tried is None:
        click.echo("\nNot tried: `caisse doctor --network` asks the provider with your key.")
    else:
        click.echo(f"\nTried: {tried['sentence']}")
        if tried["state"] != "ok":
            click.echo("All is written; put that right, and try again with `caisse doctor --network`.")
    click.echo("\nNext: `caisse serve`, and beside it `caisse callback send` for a first, real, signed callback.")


def _polling(provider: str) -> str:
    """What no public address means."""
    from service.providers import CALLS, PROVIDERS

    title, calls = PROVIDERS[provider].title, CALLS[provider]
    lines = [
        f"No public address: {title} cannot call you, so payments are found by asking it (polling): half a minute",
        "after each was sent, then less and less often for a month, and whenever you ask for one (`caisse payments",
        "sync`, the API, a session's verify).",
        "Works: payments, their failures and refunds that go through caisse, webhooks to you, the feed of events.",
        "Does not: payments made past caisse, refunds and disputes begun at the provider, news within seconds.",
    ]
    if calls.find is None:
        lines.append(
            f"And if {title}'s answer to a new payment is lost on the way, nobody can ask for it: it stays unknown,\n"
            "and is put before you (`caisse attention list`)."
        )
    lines.append("To hear at once, set public_url in the file (a tunnel will do) and paste the address there.")
    return "\n".join(lines)


# --- credentials ----------------------------------------------------------------------------------------


def _given(provider: Provider, given: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    known = [credential.name for credential in provider.credentials]
    for item in given:
        name, written, value = item.partition("=")
        if name not in known or not written:
            raise click.BadParameter(f"{provider.title} takes {', '.join(known)}, as NAME=VALUE", param_hint="--set")
        found.setdefault(name, []).append(value)
    return found


def _ask_key(provider: Provider, found: dict[str, list[str]], yes: bool) -> None:
    """What calls the provider: with it payments can be made and asked about."""
    for credential in provider.credentials:
        if credential.calls and credential.name not in found and not yes:
            _prompt(provider, credential, found)


def _ask_secret(provider: Provider, found: dict[str, list[str]], public_url: str, yes: bool) -> None:
    """What verifies its callbacks. Where none can come it is made up, if nothing else needs it."""
    from service.commands.connections import POLLING_ONLY

    with_key = any(credential.calls and credential.name in found for credential in provider.credentials)
    for credential in provider.credentials:
        if credential.calls or credential.optional or credential.name in found:
            continue
        if provider.capabilities.token_in_path:
            found[credential.name] = [secrets.token_urlsafe(TOKEN_BYTES)]  # ours to choose: it is the address's end
        elif not public_url and with_key and provider.capabilities.signature_header is not None:
            # The provider makes the real one when it is told an address. Monetbil's, a field's, also signs its page.
            found[credential.name] = [POLLING_ONLY + secrets.token_urlsafe(TOKEN_BYTES)]
        elif not yes:
            _prompt(provider, credential, found)


def _prompt(provider: Provider, credential: Credential, found: dict[str, list[str]]) -> None:
    where = f" ({credential.where.rstrip('.')}; empty: later)" if credential.where else ""
    text = f"{provider.title} {credential.name.replace('_', ' ')}{where}"
    value = str(click.prompt(text, hide_input=True, default="", show_default=False, err=True))
    if value.strip():
        found[credential.name] = [value.strip()]


# --- the file -------------------------------------------------------------------------------------------


def _toml(
    mode: str,
    database: Path,
    public_url: str,
    provider: str,
    base_url: str,
    credentials: dict[str, list[str]],
    known: Provider,
    *,
    with_key: bool,
) -> str:
    from service.commands.connections import POLLING_ONLY
    from service.seal import new_master_key

    many = {credential.name for credential in known.credentials if credential.many}
    lines = [
        "# Settings of caisse; `caisse doctor --settings` lists them all. Secrets are in here: keep it to yourself.",
        f"mode = {_quoted(mode)}",
        f"database_url = {_quoted(f'sqlite:///{database}')}",
        f"public_url = {_quoted(public_url)}" if public_url else '# public_url = "https://pay.example.com"',
    ]
    if with_key:
        key = base64.b64encode(new_master_key()).decode()
        lines += ["# Seals stored secrets. Without it they cannot be read: back it up, apart from the database.",
                  f"master_keys = [{_quoted(key)}]"]  # fmt: skip
    lines += ["", f"[{provider}]"]
    if base_url:
        lines.append(f"base_url = {_quoted(base_url)}")
    for credential in known.credentials:
        values = credentials.get(credential.name)
        if values and values[0].startswith(POLLING_ONLY):
            lines.append(f"# Made up: nobody calls back without a public address. Then: {credential.where}")
        if not values:
            lines.append(f"# {credential.name} = …  {credential.where}".rstrip())
        elif credential.name in many:
            lines.append(f"{credential.name} = [{', '.join(map(_quoted, values))}]")
        else:
            lines.append(f"{credential.name} = {_quoted(values[0])}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
