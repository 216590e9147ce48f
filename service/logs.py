"""
Logs: one JSON object a line on stderr, a fixed word and then fields.

Redaction is by allow-list: a field whose name is not in `FIELDS` keeps its name and loses its value, so that a secret
can only be logged by somebody who adds its name here. Bodies are never logged. What libraries say is kept only for the
loggers in `QUOTED`: the others quote addresses (an eBilling address is a secret) and the objects they failed on.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any, TextIO

import structlog
import structlog.typing

Log = structlog.typing.FilteringBoundLogger
"""What is handed to whoever logs."""

REDACTED = "[redacted]"
VALUE_CHARACTERS_MAX = 300
FRAMES_MAX = 12
CAUSES_MAX = 4

FIELDS = frozenset(
    """
    account_id actor after_ms age_ms amount_minor api_key_id at_ms attempt_id attempts backlog batch bytes callback_id
    client code commits component count currency database delay_ms delivery_id destination due duration_ms endpoint_id
    error event_id event_type exit_status facts failed field file from_version grace_ms held host http_status
    in_flight job key_id kind level lease_ms limit limit_ms logger message_id method missing mode name number offset_ms
    oldest_due_age_ms open outcome payment_id payments pid policy port provider public_url quarantine_id queue reason
    received repeated reruns result retry_after_ms route rows scheduler seconds sequence settings signal size
    sqlite_error state status step subject_id sweep_ms timestamp to_version topic total
    tries unknown url_host version waiting wal_bytes what where worker writable
    """.split()  # noqa: SIM905 - read as a list of words
)
"""Names whose values may be seen. None of them ever holds a body, a whole address, or what a person typed."""

QUOTED = ("uvicorn.error", "granian", "_granian", "alembic.runtime.migration")
"""Loggers of libraries whose text is known to be harmless. Not their access logs: those hold addresses."""

OUR_PACKAGES = ("service", "outbox", "scheduler", "caisse")
"""They log a word, then fields, here also where they use the standard library's logging and `extra`."""

_WORD = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_SECRET = re.compile(
    r"(?:\b(?:sk|rk|pk|ck|pvk|wh|whsec)_[A-Za-z0-9_+/=-]{6,})"  # keys as the six providers and we write them
    r"|(?:\b(?:\d[ -]?){12,18}\d\b)"  # as long as a card number
    r"|(?:(?<=://)[^/@\s]+@)",  # user:password@ in an address
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OURS = frozenset(("event", "level", "timestamp", "exception"))


def logger() -> Log:
    """A logger; it follows whatever `configure` says last."""
    log: Log = structlog.get_logger()
    return log


def configure(level: str = "info", *, human: bool | None = None, stream: TextIO | None = None) -> None:
    """
    Route structlog and the standard library's logging to `stream` (stderr).

    `human`: coloured lines instead of JSON; by default when stderr is a terminal. The process has one stderr, so this
    is the one piece of state that belongs to the process; calling it again replaces it.
    """
    target = stream or sys.stderr
    for_people = target.isatty() if human is None else human
    chain: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        safe_exception,
        redact,
        _word_first,
    ]
    render: Any = (
        structlog.dev.ConsoleRenderer(colors=target.isatty(), event_key="event", pad_event_to=28)
        if for_people
        else structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=True)
    )
    structlog.configure(
        processors=[*chain, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,  # tests and the CLI configure more than once
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(_Formatter(render, chain))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.INFO))  # libraries' debug lines quote everything
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # seven lines at every migration
    for name in ("uvicorn.access", "granian.access", "aiohttp.access"):
        logging.getLogger(name).disabled = True
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk behind stderr must not print the record's arguments


class _Formatter(logging.Formatter):
    """Brings a library's record through the same processors."""

    def __init__(self, render: Any, chain: list[Any]) -> None:
        super().__init__()
        self._render = render
        self._chain = chain[1:]  # the level is the record's own

    def format(self, record: logging.LogRecord) -> str:
        ours = _under(record.name, OUR_PACKAGES)
        said: MutableMapping[str, Any] = {"event": record.msg if ours else "library.said"}
        said["level"] = record.levelname.lower()
        if ours:
            said.update((key, value) for key, value in vars(record).items() if key not in _RECORD)
        else:
            said.update(logger=record.name, where=f"{record.module}:{record.funcName}:{record.lineno}")
        if record.exc_info:
            said["exc_info"] = record.exc_info
        for processor in self._chain:
            said = processor(None, record.levelname.lower(), said)
        if not ours:
            # After redaction, because the text is nobody's field: kept for the quoted loggers, and scrubbed even there.
            said["text"] = _clip(record.getMessage()) if _under(record.name, QUOTED) else REDACTED
        return str(self._render(None, record.levelname.lower(), said))


_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _under(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def redact(logger: Any, name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor: known names pass, with their values cut and scrubbed; other names lose their values."""
    for key in list(fields):
        value = fields[key]
        if key == "event":
            # An f-string here would go around the list of names.
            fields[key] = value if isinstance(value, str) and _WORD.fullmatch(value) else REDACTED
        elif key in _OURS:
            continue
        elif key not in FIELDS:
            fields[key] = REDACTED
        elif value is None or isinstance(value, bool | int | float):
            continue
        elif isinstance(value, str):
            fields[key] = _clip(value)
        elif isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, str) for item in value):
            fields[key] = [_clip(item) for item in list(value)[:20]]
        else:
            fields[key] = REDACTED
    return fields


def _word_first(logger: Any, name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor: when, how grave and what, before the fields."""
    first = {key: fields[key] for key in ("timestamp", "level", "event") if key in fields}
    return {**first, **fields}


def safe_exception(logger: Any, name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor: `exc_info` becomes types and places. No messages (they quote values) and no local variables."""
    given = fields.pop("exc_info", None)
    fields.pop("stack_info", None)
    error: BaseException | None = None
    if isinstance(given, BaseException):
        error = given
    elif isinstance(given, tuple):
        error = given[1]
    elif given:
        error = sys.exc_info()[1]
    if error is not None:
        fields["exception"] = describe(error)
    return fields


def describe(error: BaseException) -> Mapping[str, Any]:
    """An exception without what it says: its type, where it was raised, and what caused it."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) <= CAUSES_MAX:
        chain.append(_type(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    described: dict[str, Any] = {"type": chain[0], "frames": _frames(error.__traceback__)}
    if len(chain) > 1:
        described["caused_by"] = chain[1:]
    if isinstance(error, BaseExceptionGroup):
        described["group"] = [_type(member) for member in error.exceptions[:CAUSES_MAX]]
    return described


def _type(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    original = getattr(error, "orig", error)  # SQLAlchemy wraps the driver's
    if isinstance(original, sqlite3.Error) and getattr(original, "sqlite_errorname", None):
        return f"{name} [{original.sqlite_errorname}]"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} [errno {error.errno}]"
    return name


def _frames(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-FRAMES_MAX:]
    return [f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}" for frame in frames]


def _clip(text: str) -> str:
    scrubbed = _SECRET.sub(REDACTED, text[: VALUE_CHARACTERS_MAX * 4])
    return scrubbed if len(scrubbed) <= VALUE_CHARACTERS_MAX else scrubbed[:VALUE_CHARACTERS_MAX] + "…"
