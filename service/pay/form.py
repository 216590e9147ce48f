"""
What a buyer's browser sends: a small form, read strictly; the token that says that we gave it out; how often it comes.

The page's address is the buyer's key: it has 80 random bits, and people send it to each other. So the token keeps out
what was never shown a page, and old forms; it is not a login.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request

from service.errors import Refusal
from service.ids import Clock
from service.seal import Seal, SealError, bound_to

BODY_BYTES_MAX: Final = 4 * 1024
BODY_DEADLINE_S: Final = 5.0
FIELDS_MAX: Final = 20
FIELD_CHARACTERS_MAX: Final = 300
FORM_MS: Final = 24 * 3_600_000
"""How long a form that we gave out is taken: as long as the longest session."""
SUBJECTS_MAX: Final = 10_000


async def read(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The form's fields; of a name that stands twice, neither. Raises Refusal: bad_form, too_large, too_slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Refusal("bad_form", "A form is sent as application/x-www-form-urlencoded.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while True:
                message: Any = await request.receive()
                if message["type"] != "http.request":
                    raise Refusal("bad_form", "The connection ended before the form did.")
                body += message["body"]
                if len(body) > BODY_BYTES_MAX:
                    raise Refusal("too_large", f"A form has at most {BODY_BYTES_MAX} bytes.")
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refusal("too_slow", f"The form has to be here within {BODY_DEADLINE_S:g} s.") from None
    return fields(bytes(body))


def fields(raw: bytes) -> dict[str, str]:
    """Of a form or a query. Raises Refusal bad_form for what is no UTF-8, has a NUL or is too much."""
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise Refusal("bad_form", "The form cannot be read.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found or "\0" in value or len(value) > FIELD_CHARACTERS_MAX:
            raise Refusal("bad_form", "The form has a field twice, or one that is too long.")
        found[name] = value.strip()
    return found


class Tokens:
    """Given into each form, bound to what the form is about; a time, sealed, so nothing is kept."""

    def __init__(self, seal: Seal, clock: Clock) -> None:
        self._seal, self._clock = seal, clock

    def give(self, subject: str) -> str:
        """For a form about this session or link."""
        return base64.urlsafe_b64encode(self._seal.seal(str(self._clock()), _bound(subject))).decode()

    def check(self, subject: str, given: Mapping[str, str]) -> None:
        """Raises Refusal bad_form."""
        try:
            sealed = base64.b64decode(given.get("token", "").encode(), altchars=b"-_", validate=True)
            at_ms = int(self._seal.open(sealed, _bound(subject)))
        except (SealError, ValueError, binascii.Error):
            raise Refusal("bad_form", "The form was not given out here.") from None
        if self._clock() - at_ms > FORM_MS:
            raise Refusal("bad_form", "The form is too old.")


def _bound(subject: str) -> str:
    return bound_to("page", subject, "form")


class Pace:
    """At most `most` forms about one subject in `within_ms`. In memory; of many subjects the oldest is forgotten."""

    def __init__(self, most: int, within_ms: int, clock: Clock) -> None:
        self._most, self._within_ms, self._clock = most, within_ms, clock
        self._times: OrderedDict[str, deque[int]] = OrderedDict()

    def take(self, subject: str) -> None:
        """Raises Refusal too_fast."""
        now_ms = self._clock()
        times = self._times.setdefault(subject, deque())
        self._times.move_to_end(subject)
        while len(self._times) > SUBJECTS_MAX:
            self._times.popitem(last=False)
        while times and times[0] <= now_ms - self._within_ms:
            times.popleft()
        if len(times) >= self._most:
            raise Refusal("too_fast", "Too many forms in a short time.")
        times.append(now_ms)
