"""Answers to faults: problem+json (RFC 9457), one place that knows the HTTP numbers."""

from __future__ import annotations

from http import HTTPStatus

import msgspec


def problem(status: int, code: str, detail: str) -> bytes:
    """The body: `type` is a stable word, `detail` one sentence that names what is wrong."""
    return msgspec.json.encode(
        {"type": f"urn:caisse:{code}", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    )


PROBLEM_TYPE = b"application/problem+json"
