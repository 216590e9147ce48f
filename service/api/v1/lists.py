"""
Lists, the newest first, a page at a time. A cursor is the id of the last row that was seen, written so that nobody
counts with it; an id does as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, Select

from service.api.problems import Wrong
from service.api.v1.reading import ID_CHARACTERS_MAX

LIMIT = 50
LIMIT_MAX = 100

Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="At most so many.")]
After = Annotated[
    str,
    Meta(
        max_length=2 * ID_CHARACTERS_MAX,
        description="Where to go on: `next` of the answer before. Nothing: the newest.",
    ),
]


class PageQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every list takes."""

    limit: Limit = LIMIT
    after: After = ""

    @property
    def before(self) -> str:
        """The id that the page begins behind, empty for the newest. Raises Wrong: bad_cursor."""
        if not self.after.startswith("cur_"):
            return self.after
        coded = self.after.removeprefix("cur_")
        try:
            found = base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode("ascii")
        except (binascii.Error, ValueError):
            raise Wrong("bad_cursor", "after", "after: this was never given as `next` here.") from None
        if cursor(found) != self.after:
            raise Wrong("bad_cursor", "after", "after: this was never given as `next` here.")
        return found


def cursor(identifier: str) -> str:
    """The cursor behind a row; nothing behind nothing."""
    return "cur_" + base64.urlsafe_b64encode(identifier.encode()).decode().rstrip("=") if identifier else ""


Fetch = Callable[[str, int], Sequence[Any]]
"""`fetch(before, limit)`: at most so many rows, the newest first, older than an id (empty: the newest)."""


def page(
    query: PageQuery, fetch: Fetch, public: Callable[[Any], Any] = lambda row: row, *, key: str = "id"
) -> dict[str, Any]:
    """
    The answer. `next` is always there and goes into the next request's `after`; `more`: there is something behind it.
    `key` is the field of a row that `fetch` goes on behind.
    """
    found = fetch(query.before, query.limit)
    last = found[-1][key] if found else query.before
    more = len(found) == query.limit and bool(fetch(last, 1))
    return {"data": [public(row) for row in found], "next": cursor(last), "more": more}


def rows(tx: Connection, query: Select[Any], key: ColumnElement[Any], before: str, limit: int) -> list[dict[str, Any]]:
    """A `Fetch` over one query, by its key."""
    if before:
        query = query.where(key < before)
    return [dict(row) for row in tx.execute(query.order_by(key.desc()).limit(limit)).mappings()]
