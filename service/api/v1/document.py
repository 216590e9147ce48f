"""The OpenAPI document of /v1, made from the operations: what is documented is what decodes, checks and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from service import __version__
from service.api.problems import PROBLEM_TYPE, Problem
from service.api.v1.kit import PREFIX, Operation
from service.idempotency import KEY_CHARACTERS_MAX

MEANINGS: Mapping[int, str] = {
    400: "The request cannot be read, or is not what is described here; `detail` names what is wrong.",
    401: "No API key, or one that is wrong or revoked.",
    403: "The API key lacks the scope that `detail` names.",
    404: "There is no such thing, or it is not this key's to see.",
    405: "This address does not take this method.",
    408: "The body did not come in time.",
    409: "It is in no state for that now, or a request with this Idempotency-Key is being worked on.",
    413: "The body is too large.",
    415: "The body is not JSON, or is compressed.",
    422: "It was understood and cannot be done, or the Idempotency-Key was used for another request.",
    429: "Too many at once; try again after `Retry-After` seconds.",
    503: "The storage, or the provider, cannot be reached now; try again after `Retry-After` seconds.",
}
_ALWAYS = (400, 401, 403, 404, 429, 503)
_WITH_BODY = (408, 413, 415)
_POST = (409, 422)

_DESCRIPTION = (
    "The API for merchants' own software. Amounts are integers of minor units beside their currency (5000 XOF is "
    "5000, 12.50 EUR is 1250); times are RFC 3339 in UTC. Faults are problem+json (RFC 9457): `type` is for programs "
    "and stays as it is. Lists begin with the newest; `next` goes into the next request's `after`. Every POST takes "
    "an `Idempotency-Key`."
)

_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS_MAX, "pattern": "^[ -~]+$"},
    "description": "The same request with the same key is done once and answered the same for 24 hours at least, "
    "with `Idempotent-Replayed: true`. Another request with it is refused.",
}

_REF = "#/components/schemas/{name}"


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    operations = list(operations)
    shapes: list[Any] = [Problem]
    for op in operations:
        shapes += [shape for shape in (op.body, op.query, op.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_REF)
    # Some shapes are no components of their own (list[Payment]), so they are kept in the order they were asked for.
    of = dict(zip(map(repr, shapes), schemas, strict=True))
    queries = {_name(of, op.query) for op in operations if op.query is not None}
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        paths.setdefault(PREFIX + op.path, {})[op.method.lower()] = _operation(op, of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "caisse", "version": __version__, "description": _DESCRIPTION},
        "security": [{"apiKey": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(op.tag for op in operations)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "ck_live_… or ck_test_…"},
                "clientSecret": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A session's own, cs_…; of an order, the buyer's token.",
                },
            },
            "schemas": {name: schema for name, schema in sorted(components.items()) if name not in queries},
        },
    }


def statuses(op: Operation) -> Sequence[int]:
    """What it may be refused with."""
    more = {*_ALWAYS, *op.refuses}
    if op.method in ("POST", "PATCH"):
        more |= {*_WITH_BODY, *_POST}
    if op.method == "DELETE":
        more |= {409}
    return sorted(more)


def _operation(op: Operation, of: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    summary, description = op.words
    said: dict[str, Any] = {"operationId": op.id, "summary": summary, "tags": [op.tag]}
    said["description"] = " ".join(filter(None, (description, f"Scope: {op.scope}." if op.scope else "")))
    if not op.scope:
        said["security"] = [{"clientSecret": []}]
    parameters = [_path(name) for name in op.names]
    if op.query is not None:
        parameters += _query(op, components[_name(of, op.query)])
    if op.method == "POST":
        parameters.append(_KEY)
    if parameters:
        said["parameters"] = parameters
    if op.body is not None:
        required = bool(components[_name(of, op.body)].get("required"))
        said["requestBody"] = {"required": required, "content": {"application/json": {"schema": of[repr(op.body)]}}}
    good: dict[str, Any] = {"description": "Done" if op.answer is None else "What was asked for, or was made"}
    if op.answer is not None:
        good["content"] = _content(of[repr(op.answer)])
    if op.method == "POST":
        good["headers"] = {
            "Idempotent-Replayed": {
                "description": "`true`: nothing was done again.",
                "schema": {"type": "string", "const": "true"},
            }
        }
    problem = {PROBLEM_TYPE.decode(): {"schema": of[repr(Problem)]}}
    said["responses"] = {str(op.status): good} | {
        str(status): {"description": MEANINGS[status], "content": problem} for status in statuses(op)
    }
    return said


def _content(schema: Mapping[str, Any]) -> dict[str, Any]:
    """By media: a text with a `contentMediaType` is the whole body, all else is JSON."""
    either = schema.get("anyOf", [schema])
    if not any("contentMediaType" in one for one in either):
        return {"application/json": {"schema": schema}}
    return {one.get("contentMediaType", "application/json"): {"schema": one} for one in either}


def _name(of: Mapping[str, Any], shape: type[Any]) -> str:
    """Of a struct's component; two structs of one name in two files are told apart by theirs."""
    name: str = of[repr(shape)]["$ref"].rpartition("/")[2]
    return name


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query(op: Operation, shape: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, schema in shape["properties"].items():
        bare = {key: value for key, value in schema.items() if key != "description"}
        one: dict[str, Any] = {"name": name, "in": "query", "required": name in shape.get("required", ())}
        if "description" in schema:
            one["description"] = re.sub(r"\s+", " ", schema["description"])
        found.append({**one, "schema": bare})
    return found
