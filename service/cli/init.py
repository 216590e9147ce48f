"""`caisse init`: the few questions of a first day, and a settings file that is never overwritten."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli import show

if TYPE_CHECKING:
    from service.providers.base import Provider

TOKEN_BYTES = 24


@click.command()
@click.option("--mode", type=click.Choice(["development", "staging", "production"]), help="staging: sandbox keys.")
@click.option("--provider", help="The provider you use.")
@click.option(
    "--set", "given", multiple=True, metavar="NAME=VALUE", help="One of its credentials, for example secret_key=…"
)
@click.option("--webhook-url", help="Where your application takes events.")
@click.option("--public-url", help="How providers reach this machine.")
@click.option("--name", help="The merchant's name.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the options, and the defaults for the rest.")
@show.as_json
def init(
    mode: str | None,
    provider: str | None,
    given: tuple[str, ...],
    webhook_url: str | None,
    public_url: str | None,
    name: str | None,
    yes: bool,
    json_: bool,
) -> None:
    """Write caisse.toml and create the first merchant; one provider and one key are enough to start."""
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
    credentials = _credentials(PROVIDERS[provider], given, yes)
    name = name or ask("Your shop's name", "shop")
    if webhook_url is None:
        webhook_url = ask("Where does your application take events (URL; empty: later)", "")
    if webhook_url:
        checked_url(webhook_url)  # before anything is written: a second run would be refused
    if public_url is None:
        public_url = ask("How do providers reach this machine (https://…; empty: not at all yet)", "")

    with_key = not key_file(database.resolve()).exists()
    text = _toml(mode, database, public_url, provider, credentials, PROVIDERS[provider], with_key=with_key)
    _write(path, text)
    try:
        read = Settings.read(path)
    except Exception:
        path.unlink()  # nothing has used it yet
        raise
    _create(read, path, name, webhook_url, json_)


def _create(read: object, path: Path, name: str, webhook_url: str, json_: bool) -> None:
    from service.cli.run import run
    from service.config import Settings
    from service.errors import Refusal

    assert isinstance(read, Settings)
    try:
        made = run("merchant.create", read=read, name=name, webhook_url=webhook_url or None)
        checked = run("doctor", read=read)
    except Refusal as refusal:
        # The file stays: its master key may have sealed something already.
        raise Refusal(
            refusal.code,
            f"{path} is written, but: {refusal.sentence} Go on with `caisse merchant create NAME --webhook-url URL`.",
        ) from None
    answer = {**made, "config": str(path), "addresses": checked["addresses"]}
    if json_:
        show.dump(answer)
        return
    click.echo(f"\nWritten: {path} (it holds your keys; only you can read it)")
    click.echo(f"merchant         {made['id']}")
    click.echo(f"API key          {made['api_key']}")
    if made["endpoint"]:
        click.echo(
            f"webhook secret   {made['endpoint']['secret']}   (verifies what caisse sends to {made['endpoint']['url']})"
        )
    click.echo("Keep them now; they are not shown again.\n")
    for entry in checked["addresses"]:
        click.echo(f"Paste at {entry['provider']}: {entry['address']}")
        if entry["paste"]:
            click.echo(f"  {entry['paste']}")
    if read.public_url is None:
        click.echo("No public address is set: providers cannot call you yet. Set public_url, or use a tunnel.")
    for check in checked["checks"]:
        if check["state"] == "fail":
            click.echo(f"Still wrong: {check['check']}: {check['sentence']}")
    click.echo("\nNext: `caisse serve`, and beside it `caisse callback send` for a first, real, signed callback.")


def _credentials(provider: Provider, given: tuple[str, ...], yes: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    known = {credential.name: credential for credential in provider.credentials}
    for item in given:
        name, written, value = item.partition("=")
        if name not in known or not written:
            raise click.BadParameter(f"{provider.title} takes {', '.join(known)}, as NAME=VALUE", param_hint="--set")
        found.setdefault(name, []).append(value)
    for name, credential in known.items():
        if name in found or credential.optional:
            continue
        if provider.capabilities.token_in_path and credential.verifies:
            found[name] = [secrets.token_urlsafe(TOKEN_BYTES)]  # ours to choose: it is the end of the address
        elif not yes:
            where = f" ({credential.where.rstrip('.')})" if credential.where else ""
            text = f"{provider.title} {name.replace('_', ' ')}{where}"
            value = click.prompt(text, hide_input=True, default="", show_default=False, err=True)
            if value.strip():
                found[name] = [value.strip()]
    return found


def _toml(
    mode: str,
    database: Path,
    public_url: str,
    provider: str,
    credentials: dict[str, list[str]],
    known: Provider,
    with_key: bool,
) -> str:
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
    for credential in known.credentials:
        values = credentials.get(credential.name)
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
