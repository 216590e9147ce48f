"""
One process per database: an flock beside the file, and in it where that process can be asked.

`<database>.lock.json` (mode 0600) holds {"pid", "address", "token", "version"}. The kernel gives the lock back when the
process ends, however it ends; what a dead process left in the file is simply written over.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path

POLL_MS = 20
READ_MS = 500
"""A holder needs far less than this between taking the lock and writing its name into it."""


class Held(Exception):
    """Another process has this database open."""

    def __init__(self, pid: int | None, address: str | None, token: str | None, version: str) -> None:
        super().__init__(f"Another process has this database open (pid {pid or 'unknown'}).")
        self.pid = pid
        self.address = address
        self.token = token
        self.version = version


class Lock:
    """The held lock. Made by `acquire`; a child process that inherits its descriptor keeps it held."""

    def __init__(self, descriptor: int, version: str) -> None:
        self._descriptor: int | None = descriptor
        self._version = version
        self.publish(None, None)

    @classmethod
    def acquire(cls, path: Path, wait_ms: int = 0, version: str = "") -> Lock:
        """
        Take the lock of the database at `path`, waiting (and blocking this thread) for at most `wait_ms`.

        Raises Held with what the holder published; its address and token are None while no control server runs there.
        """
        # The real name, so that two links to one database are one lock. No link at the end: it is not ours to follow.
        name = Path(f"{Path(path).resolve()}.lock.json")
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # the token is as good as a password, whoever made the file
            until_s = time.monotonic() + wait_ms / 1000
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= until_s:
                        raise _holder(descriptor) from None
                    time.sleep(POLL_MS / 1000)
                else:
                    return cls(descriptor, version)
        except BaseException:
            os.close(descriptor)
            raise

    def publish(self, address: str | None, token: str | None) -> None:
        """Say where this process takes commands, or with None that it takes none."""
        if self._descriptor is None:
            return
        holder = {"pid": os.getpid(), "address": address, "token": token, "version": self._version}
        # Emptied first, then written at once: a reader sees nothing, which it waits out, or all of it.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> Held:
    until_s = time.monotonic() + READ_MS / 1000
    while True:
        with suppress(ValueError, KeyError, TypeError):
            found = json.loads(os.pread(descriptor, 65_536, 0))
            return Held(found["pid"], found["address"], found["token"], found["version"])
        if time.monotonic() >= until_s:
            return Held(None, None, None, "")
        time.sleep(POLL_MS / 1000)
