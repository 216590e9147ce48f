"""
Stored secrets are sealed: AES-256-GCM under a master key, bound to their table, row and column.

A sealed value that is copied into another row does not open there. Each value names the key that sealed it, so several
keys can be live: the newest seals, all of them open, and rotation may stop half way and go on later.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
KEYS_MAX = 16
_FORMAT = b"\x01"
_NONCE_BYTES = 12  # random: one key may seal 2^32 values, and a shop has a few hundred
_ID_BYTES = 4
PREFIX_BYTES = len(_FORMAT) + _ID_BYTES


class SealError(Exception):
    """A sealed value cannot be opened."""


class WrongKey(SealError):
    """This was sealed with a master key that is no longer among CAISSE_MASTER_KEYS; put that key back at the end."""

    def __init__(self) -> None:
        super().__init__(" ".join((type(self).__doc__ or "").split()))


class Tampered(SealError):
    """A sealed value was changed, or moved here from another row, and is not used."""

    def __init__(self) -> None:
        super().__init__(" ".join((type(self).__doc__ or "").split()))


class KeyFileError(SealError):
    """The key file cannot be used; the sentence says why."""


def new_master_key() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def bound_to(table: str, row: str, column: str) -> str:
    """The place a value is bound to."""
    return f"{table}:{row}:{column}"


class Seal:
    """Seals with the newest key, opens with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys: dict[bytes, AESGCM] = {}
        self.adopt(keys)

    def adopt(self, keys: Sequence[bytes]) -> None:
        """Take other keys, newest first; everybody who holds this seal has them at once."""
        if not keys or len(keys) > KEYS_MAX:
            raise KeyFileError(f"There must be between 1 and {KEYS_MAX} master keys.")
        self._keys = {_key_id(key): AESGCM(key) for key in keys}
        self._newest = _key_id(keys[0])

    @property
    def prefix(self) -> bytes:
        """What a value sealed with the newest key begins with: rotation looks for the ones that do not."""
        return _FORMAT + self._newest

    def seal(self, plaintext: str | bytes, bound: str) -> bytes:
        """Seal a text (or bytes) for one place."""
        clear = plaintext.encode() if isinstance(plaintext, str) else plaintext
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self.prefix + nonce + self._keys[self._newest].encrypt(nonce, clear, bound.encode())

    def open(self, sealed: bytes, bound: str) -> str:
        """The text that was sealed for this place."""
        return self.open_bytes(sealed, bound).decode()

    def open_bytes(self, sealed: bytes, bound: str) -> bytes:
        """The bytes that were sealed for this place."""
        sealed = bytes(sealed)
        body = sealed[PREFIX_BYTES:]
        if not sealed.startswith(_FORMAT) or len(body) < _NONCE_BYTES:
            raise Tampered
        key = self._keys.get(sealed[len(_FORMAT) : PREFIX_BYTES])
        if key is None:
            raise WrongKey
        try:
            return key.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], bound.encode())
        except InvalidTag:
            raise Tampered from None

    def __repr__(self) -> str:
        return f"Seal({len(self._keys)} keys)"


def _key_id(key: bytes) -> bytes:
    """Names a key without telling it."""
    return hashlib.sha256(b"caisse master key\x00" + key).digest()[:_ID_BYTES]


# --- the key file -----------------------------------------------------------------------------------


def key_file(database: Path) -> Path:
    """Where the keys are when CAISSE_MASTER_KEYS is not set."""
    return database.with_name(database.name + ".key")


def load_keys(configured: Sequence[bytes], database: Path, *, fresh: bool = True) -> tuple[bytes, ...]:
    """
    The configured keys, else those of the key file, newest first. It is made on first need, but only for a `fresh`
    database: beside one with sealed secrets a new key would be a decoy that opens nothing.
    """
    if configured:
        return tuple(configured)
    path = key_file(database)
    if not path.exists():
        if not fresh:
            raise KeyFileError(f"The key file {path} is missing: restore it from a backup, stored secrets need it.")
        # Two processes may come here at once: the first to create the file wins, both read what is in it.
        with contextlib.suppress(FileExistsError):
            write_keys(path, [new_master_key()], replace=False)
    return read_keys(path)


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a key file; it must be readable by its owner alone."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFileError(f"The key file {path} can be read by others: run `chmod 600 {path}`.")
        lines = path.read_text("ascii").split()
        keys = tuple(base64.b64decode(line, validate=True) for line in lines)
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, binascii.Error, ValueError):
        keys = ()
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise KeyFileError(f"The key file {path} is damaged: restore it from a backup, stored secrets need it.")
    return keys


def write_keys(path: Path, keys: Sequence[bytes], *, replace: bool = True) -> None:
    """Write a key file, mode 0600, whole or not at all: a crash leaves the old one."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(b"".join(base64.b64encode(key) + b"\n" for key in keys))
            handle.flush()
            os.fsync(handle.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)  # refuses to overwrite, unlike rename
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
