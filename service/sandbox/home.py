"""
The demonstration's directory: made-up secrets, ports, the settings made of them, and the refusal of anything real.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.config import Settings
from service.errors import Refusal
from service.lock import Lock
from service.providers import PROVIDERS

MARK = "# Written by `caisse dev` at each start, with made-up secrets. Nothing real belongs here."
PORTS = {
    "service": 8080, "sandbox": 8090, "shop": 8091, "books": 8092, "stock": 8093, "courier": 8094,
    **{name: number for number, name in enumerate(PROVIDERS, 8101)},
}  # fmt: skip
START_S = 30.0


class CannotStart(Refusal):
    """The demonstration cannot be started here."""

    def __init__(self, sentence: str) -> None:
        super().__init__("cannot_start", sentence)


@dataclass(slots=True)
class Home:
    """The directory: made-up secrets and ports (`dev.json`), settings made from them, the database, the log."""

    directory: Path
    secrets: dict[str, str]
    ports: dict[str, int]
    shop: dict[str, str] = field(default_factory=dict)  # merchant, endpoint, secret, api_key
    neighbours: dict[str, dict[str, str]] = field(default_factory=dict)  # name -> endpoint, secret

    @property
    def config(self) -> Path:
        """The settings of the service."""
        return self.directory / "caisse.toml"

    @property
    def database(self) -> Path:
        """Everything that caisse keeps."""
        return self.directory / "caisse.db"

    @property
    def log(self) -> Path:
        """What the service logs; the terminal belongs to the screen."""
        return self.directory / "caisse.log"

    @property
    def book(self) -> Path:
        """What the sandbox knows, kept so that questions of the last run are still answered."""
        return self.directory / "providers.json"

    def save(self) -> None:
        """Write it all, readable by the owner alone."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {"secrets": self.secrets, "ports": self.ports, "shop": self.shop, "neighbours": self.neighbours}
        write(self.directory / "dev.json", json.dumps(kept, indent=1))
        write(self.config, _toml(self))

    def settings(self) -> Settings:
        """The settings from the directory alone: nothing of the environment may lead us to another database."""
        return Settings.read(self.config, environment={})


def prepare(directory: Path) -> Home:
    """Make the directory or find it again. A directory or an environment that smells of production is refused."""
    config, kept = directory / "caisse.toml", directory / "dev.json"
    if config.exists() and not config.read_text("utf-8", "replace").startswith(MARK):
        raise CannotStart(f"{config} was not written by `caisse dev`; choose another --directory.")
    if not config.exists() and directory.is_dir() and any(directory.glob("*.db")) and not kept.exists():
        raise CannotStart(f"{directory} holds a database that `caisse dev` did not make; choose another --directory.")
    home = Home(directory.resolve(), _new_secrets(), dict(PORTS))
    if home.database.exists():
        # Before a port is changed under somebody who runs here already.
        Lock.acquire(home.database).release()
    if kept.exists():
        try:
            found = json.loads(kept.read_text("utf-8"))
            home.secrets |= {name: str(value) for name, value in found["secrets"].items()}
            home.ports |= {name: int(value) for name, value in found["ports"].items() if name in PORTS}
            home.shop = {name: str(value) for name, value in found["shop"].items()}
            home.neighbours = {name: dict(value) for name, value in found.get("neighbours", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CannotStart(f"{kept} cannot be read; remove the directory to begin anew.") from error
    taken: set[int] = set()
    for name, port in home.ports.items():
        home.ports[name] = _free(port, taken)
        taken.add(home.ports[name])
    return home


@contextlib.contextmanager
def one_start_at_a_time() -> Iterator[None]:
    """
    Hold this machine's only place for demonstrations that are starting.

    Between finding a port free and listening on it another one could find it free too, and the server's sockets are of
    the kind that two processes may share: each would get some of the other's callbacks.
    """
    path = Path(tempfile.gettempdir()) / f"caisse-dev-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        until_s = time.monotonic() + START_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise CannotStart("Another `caisse dev` on this machine is starting and does not finish.") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def refuse_production(settings: Settings, where: str) -> None:
    """Stop before anything is touched when the settings around us are those of a real installation."""
    if settings.strict:
        raise CannotStart(f"{where} says mode {settings.mode}; the demonstration runs beside no real installation.")


def _new_secrets() -> dict[str, str]:
    word = secrets.token_hex
    return {
        "stripe_secret_key": f"sk_test_{word(16)}",
        "stripe_webhook_secret": f"whsec_{word(16)}",
        "paystack_secret_key": f"sk_test_{word(20)}",
        "fedapay_secret_key": f"sk_sandbox_{word(12)}",
        "fedapay_webhook_secret": f"wh_sandbox_{word(12)}",
        "monetbil_service_key": word(16),
        "monetbil_service_secret": word(32),
        "moneroo_secret_key": f"pvk_sandbox_{word(12)}",
        "moneroo_webhook_secret": word(16),
        "ebilling_username": "boutique",
        "ebilling_shared_key": word(16),
        "ebilling_callback_token": word(20),
        "ebilling_shap_id": word(8),
        "ebilling_shap_secret": word(16),
        "admin_password": word(6),
    }


def _toml(home: Home) -> str:
    base = {name: f"http://127.0.0.1:{home.ports[name]}/{name}" for name in PROVIDERS}
    own = home.secrets
    tables: dict[str, dict[str, Any]] = {
        "stripe": {
            "secret_key": own["stripe_secret_key"],
            "webhook_secrets": [own["stripe_webhook_secret"]],
            "base_url": base["stripe"],
        },
        "paystack": {"secret_keys": [own["paystack_secret_key"]], "base_url": base["paystack"]},
        "fedapay": {
            "secret_key": own["fedapay_secret_key"],
            "webhook_secrets": [own["fedapay_webhook_secret"]],
            "base_url": base["fedapay"],
        },
        "monetbil": {
            "service_key": own["monetbil_service_key"],
            "service_secrets": [own["monetbil_service_secret"]],
            "base_url": base["monetbil"],
        },
        "moneroo": {
            "secret_key": own["moneroo_secret_key"],
            "webhook_secrets": [own["moneroo_webhook_secret"]],
            "base_url": base["moneroo"],
        },
        "ebilling": {
            "username": own["ebilling_username"],
            "shared_key": own["ebilling_shared_key"],
            "callback_tokens": [own["ebilling_callback_token"]],
            "shap_id": own["ebilling_shap_id"],
            "shap_secret": own["ebilling_shap_secret"],
            "base_url": base["ebilling"],
        },
        # Where its payers are sent is no part of its API's address, nor is where it pays out.
        "providers.ebilling.facts": {"portal_url": base["ebilling"], "test_portal_url": base["ebilling"]},
        "providers.ebilling.payout_facts": {"shap_url": base["ebilling"], "test_shap_url": base["ebilling"]},
    }
    top = {
        "mode": "development",
        "database_url": f"sqlite:///{home.database}",
        "host": "127.0.0.1",
        "port": home.ports["service"],
        "public_url": f"http://127.0.0.1:{home.ports['service']}",
        "admin_password": own["admin_password"],
        "timezone": "Africa/Abidjan",
        "log_level": "warning",
    }
    lines = [MARK, *(f"{name} = {json.dumps(value)}" for name, value in top.items())]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def write(path: Path, text: str) -> None:
    """Replace the file in one step, so that an interrupted start leaves the old one."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text, "utf-8")
    fresh.replace(path)


def _free(wanted: int, taken: set[int]) -> int:
    """The port itself when nobody has it, otherwise any free one."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
            if found not in taken:
                return found
    raise CannotStart("No free port was found on 127.0.0.1.")
