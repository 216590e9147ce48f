"""
Reading what a request brings, strictly: the body by its declared shape, the query by its own, and nothing beside them.

A misspelt field must not become no field, nor the last of two the one that counts, nor 50.0 an amount of money.
Every no names the field (`Wrong.field`) and says what would be right.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request

from service.api.problems import Wrong
from service.errors import Refusal
from service.providers import strict
from service.providers.base import Parked

BODY_BYTES_MAX: Final = 64 * 1024
BODY_DEADLINE_S: Final = 5.0
QUERY_FIELDS_MAX: Final = 100
ID_CHARACTERS_MAX: Final = 200

T = TypeVar("T", bound=msgspec.Struct)


# --- the body -----------------------------------------------------------------------------------------


async def raw_body(request: Request[Any, Any, Any]) -> bytes:
    """The body as it came. Raises Refusal: bad_content_type, compressed, too_large, too_slow, incomplete."""
    headers = request.headers
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refusal("compressed", "Send the body as it is: compressed bodies are not taken.")
    length = headers.get("content-length", "").strip()
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > BODY_BYTES_MAX):
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while True:
                message: Any = await request.receive()
                if message["type"] != "http.request":
                    raise Refusal("incomplete", "The connection ended before the body did.")
                body += message["body"]
                if len(body) > BODY_BYTES_MAX:
                    raise _too_large()
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refusal("too_slow", f"The body has to be here within {BODY_DEADLINE_S:g} s.") from None
    if body and not _is_json(headers.get("content-type", "")):
        raise Refusal("bad_content_type", "The body is JSON: send it with Content-Type: application/json.")
    return bytes(body)


def decode(raw: bytes, shape: type[T]) -> T:
    """The body in its shape. Raises Wrong and Refusal: bad_json, bad_field."""
    found = strict.document(raw or b"{}")
    if isinstance(found, Parked):
        raise Refusal("bad_json", f"The body is no JSON object that can be read: {_UNREADABLE[found.reason]}.")
    return _shaped(found, shape, "bad_field", "bad_json", strictly=True)


_UNREADABLE: Mapping[str, str] = {
    "unreadable:empty": "it is empty",
    "unreadable:too_deep": "it is nested too deeply",
    "unreadable:not_utf8": "it is not UTF-8",
    "unreadable:duplicate_key": "a name stands twice in one object",
    "unreadable:not_json": "it is no JSON",
    "unreadable:not_an_object": "it is not an object",
    "unreadable:bad_character": "a NUL or half a surrogate pair is in it",
}


def _is_json(content_type: str) -> bool:
    media, _, parameters = content_type.lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('" ')
    return media.strip() == "application/json" and charset in ("", "utf-8", "utf8")


def _too_large() -> Refusal:
    return Refusal("too_large", f"A body has at most {BODY_BYTES_MAX} bytes.")


# --- the query ----------------------------------------------------------------------------------------


def query(raw: bytes, shape: type[T], many: Container[str] = ()) -> T:
    """The query in its shape; the fields in `many` may be repeated, and are lists. Raises Refusal: bad_query."""
    try:
        fields = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise Refusal("bad_query", f"The query has more than {QUERY_FIELDS_MAX} fields.") from None
    known = {field.encode_name for field in msgspec.structs.fields(shape)}
    found: dict[str, Any] = {}
    for name, value in fields:
        if name not in known:
            raise Wrong("bad_query", name[:60], f"{name[:60]!r} is nothing that can be asked for here.")
        if name in many:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Wrong("bad_query", name, f"{name}: it is there more than once.")
        else:
            found[name] = value
    return _shaped(found, shape, "bad_query", "bad_query", strictly=False)


def checked_id(given: str, what: str) -> str:
    """An id from the path. What cannot be one is not found, like any other that is not there."""
    if not 0 < len(given) <= ID_CHARACTERS_MAX or not given.isascii() or not given.isprintable():
        raise not_found(what)
    return given


def not_found(what: str) -> Refusal:
    """The same words for what is not there and for what is another merchant's."""
    return Refusal("not_found", f"There is no such {what}, or it is not this key's to see.")


# --- shapes -------------------------------------------------------------------------------------------

_FIELD = re.compile(r" - at (?:key in )?`\$\.?(.*?)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`$", re.DOTALL)
_MONEY = re.compile(r"(^|_)(amount|price)(_|$)")


# `after` is excepted below: a cursor that was never given is refused as one by whoever reads it.


def _shaped(found: Mapping[str, Any], shape: type[T], code: str, whole: str, *, strictly: bool) -> T:
    try:
        value = msgspec.convert(found, shape, strict=strictly)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _FIELD.search(text)
        said, path = (text[: at.start()], at.group(1)) if at else (text, "")
        raise _named(said, path, code, whole) from None
    if (field := _odd_text({**found, "after": ""}, "")) is not None:
        raise Wrong(code, field[:60], f"{field[:60]}: control characters and a line break at the end are not taken.")
    return value


def _named(said: str, path: str, code: str, whole: str) -> Refusal:
    if match := _UNKNOWN.match(said):
        field = _joined(path, match.group(1))
        return Wrong(code, field, f"{field}: there is no such field.")
    if match := _MISSING.match(said):
        field = _joined(path, match.group(1))
        return Wrong(code, field, f"{field}: it is missing.")
    if not path:
        return Refusal(whole, f"{said.replace('`', '')}.")
    name = re.split(r"[.\[]", path)[0] if path.endswith("]") else path.rpartition(".")[2]
    if "got `decimal`" in said and _MONEY.search(name):
        return Wrong(code, path, f"{path} must be an integer of minor units.")
    words = said.replace("`decimal`", "a number with a point").replace("`", "")
    return Wrong(code, path, f"{path}: {words[:1].lower()}{words[1:]}.")


def _joined(path: str, name: str) -> str:
    return f"{path}.{name[:60]}" if path else name[:60]


def _odd_text(value: object, path: str) -> str | None:
    """
    Where a string has a control character, or a line break at its end, which a pattern's `$` overlooks. Line breaks
    and tabs inside are text.
    """
    match value:
        case str():
            odd = value.endswith("\n") or (not value.isprintable() and any(map(_is_control, value)))
            return (path or "body") if odd else None
        case Mapping():
            for key, one in value.items():
                if (found := _odd_text(key, path) or _odd_text(one, f"{path}.{key}" if path else key)) is not None:
                    return found
        case list():
            for number, one in enumerate(value):
                if (found := _odd_text(one, f"{path}[{number}]")) is not None:
                    return found
        case _:
            pass
    return None


def _is_control(character: str) -> bool:
    return (character < " " and character not in "\n\t") or "\x7f" <= character <= "\x9f"
