"""Answers to faults: problem+json (RFC 9457). The domain knows words, this is the one place that knows the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

PROBLEM_TYPE = b"application/problem+json"

STATUS: Mapping[str, int] = {
    "unauthorized": 401,
    "missing_scope": 403,
    "not_found": 404,
    "too_many_polls": 429,
    "storage": 503,
}
"""Of the words that are not simply a bad request."""

HEADERS: Mapping[str, Mapping[str, str]] = {
    "unauthorized": {"WWW-Authenticate": 'Bearer realm="caisse"'},
    "bad_body": {"Connection": "close"},  # what is still coming is not read
    "too_many_polls": {"Retry-After": "5"},
    "storage": {"Retry-After": "5"},
}


class Problem(msgspec.Struct):
    """What is wrong. `type` is for programs and stays as it is, `detail` is one sentence for people."""

    type: str
    title: str
    status: int
    detail: str


def problem(status: int, code: str, detail: str) -> bytes:
    """The body: `type` is a stable word, `detail` one sentence that names what is wrong."""
    return msgspec.json.encode(Problem(f"urn:caisse:{code}", HTTPStatus(status).phrase, status, detail))
