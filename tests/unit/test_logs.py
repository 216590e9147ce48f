"""Logs: a word, then fields; what is not on the list is not seen."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service import logs

SECRET = "hunter2-very-secret"


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Logging belongs to the process: leave it as it was."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


class Lines:
    def __init__(self, level: str = "debug") -> None:
        self.stream = io.StringIO()
        logs.configure(level, human=False, stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def last(self) -> dict[str, Any]:
        return dict(json.loads(self.text.splitlines()[-1]))


def test_a_known_field_passes_and_an_unknown_one_keeps_only_its_name() -> None:
    """The list decides, not a guess about what looks secret."""
    lines = Lines()
    logs.logger().info("callback.parked", callback_id="cb_1", reason="unreadable", password=SECRET, body=SECRET)
    assert lines.last["event"] == "callback.parked"
    assert (lines.last["callback_id"], lines.last["reason"]) == ("cb_1", "unreadable")
    assert (lines.last["password"], lines.last["body"]) == ("[redacted]", "[redacted]")
    assert lines.last["level"] == "info"
    assert SECRET not in lines.text


@pytest.mark.parametrize(
    "value", [{"secret": SECRET}, b"hunter2-very-secret", [1, SECRET], object(), SystemError(SECRET)]
)
def test_only_plain_values_pass(value: object) -> None:
    """A known name is no way in for a whole object."""
    lines = Lines()
    logs.logger().info("word", reason=value)
    assert lines.last["reason"] == "[redacted]"
    assert SECRET not in lines.text


def test_a_sentence_in_place_of_the_word_is_not_logged() -> None:
    """An f-string would go around the list."""
    lines = Lines()
    logs.logger().info(f"the key is {SECRET}")
    assert lines.last["event"] == "[redacted]"


def test_values_are_cut_and_scrubbed() -> None:
    """Long ones are cut; keys, card numbers and passwords in addresses are taken out even of known fields."""
    lines = Lines()
    logs.logger().info(
        "word",
        reason="x" * 5_000,
        error="sk_live_51H8abcdefgh and whsec_MfKQ9r8GKYqrTwjU and 4242 4242 4242 4242",
        url_host="smtp://user:pw@mail.example",
    )
    assert len(lines.last["reason"]) == logs.VALUE_CHARACTERS_MAX + 1
    assert lines.last["error"] == "[redacted] and [redacted] and [redacted]"
    assert lines.last["url_host"] == "smtp://[redacted]mail.example"
    logs.logger().info("word", payment_id="pay_01JD2Q8Z7C4B9X0V5T6R3N1M2K", at_ms=1_795_165_200_000)
    assert lines.last["payment_id"] == "pay_01JD2Q8Z7C4B9X0V5T6R3N1M2K"
    assert lines.last["at_ms"] == 1_795_165_200_000


def test_an_exception_is_its_type_and_its_places() -> None:
    """What an exception says may quote what it failed on; its frames have locals. Neither is logged."""
    lines = Lines()

    def fail(password: str) -> None:
        try:
            raise KeyError(password)
        except KeyError as error:
            raise ValueError(f"wrong: {password}") from error

    try:
        fail(SECRET)
    except ValueError:
        logs.logger().exception("work.raised", callback_id="cb_1")
    found = lines.last["exception"]
    assert (found["type"], found["caused_by"]) == ("ValueError", ["KeyError"])
    assert found["frames"][-1].startswith("unit/test_logs.py:")
    assert SECRET not in lines.text


def test_an_error_of_the_storage_keeps_its_code() -> None:
    """The one thing an operator needs of it, and it quotes nothing."""
    lines = Lines()
    logs.logger().error("storage.failed", exc_info=OSError(28, SECRET))
    assert lines.last["exception"]["type"] == "OSError [errno 28]"
    assert SECRET not in lines.text


@pytest.mark.parametrize("name", ["aiohttp.client", "asyncio", "litestar", "httpx", "uvicorn.access", "granian.access"])
def test_what_libraries_say_is_kept_out(name: str) -> None:
    """They quote addresses, and an eBilling address is a secret."""
    lines = Lines()
    logging.getLogger(name).warning("POST /webhooks/ebilling/%s", SECRET, extra={"reason": SECRET})
    logging.getLogger(name).error("raised", exc_info=ValueError(SECRET))
    assert SECRET not in lines.text
    if lines.text:
        assert lines.last["text"] == "[redacted]"
        assert lines.last["logger"] == name


def test_a_quoted_library_keeps_its_text() -> None:
    """The server's own words are needed when it does not start."""
    lines = Lines()
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 12)
    assert lines.last["text"] == "Started server process [12]"
    assert lines.last["event"] == "library.said"


def test_our_own_packages_may_use_the_standard_logging() -> None:
    """The outbox knows no structlog: a word and `extra` give the same line, through the same list."""
    lines = Lines()
    logging.getLogger("outbox.dispatcher").error("outbox.raised", extra={"topic": "webhook", "body": SECRET})
    assert lines.last["event"] == "outbox.raised"
    assert (lines.last["topic"], lines.last["body"]) == ("webhook", "[redacted]")
    assert "lineno" not in lines.last


def test_the_level_is_kept_and_libraries_never_debug() -> None:
    """`debug` is for our own words; libraries' debug lines quote everything."""
    lines = Lines("warning")
    logs.logger().info("word")
    logging.getLogger("service.x").info("word")
    assert lines.text == ""
    lines = Lines("debug")
    logging.getLogger("asyncio").debug("Using selector")
    assert lines.text == ""
    logs.logger().debug("word")
    assert lines.last["event"] == "word"


def test_the_console_format_is_redacted_too() -> None:
    """A developer's terminal is recorded and pasted as well."""
    stream = io.StringIO()
    logs.configure("info", human=True, stream=stream)
    logs.logger().info("callback.kept", provider="stripe", password=SECRET)
    assert "callback.kept" in stream.getvalue()
    assert "stripe" in stream.getvalue()
    assert SECRET not in stream.getvalue()
