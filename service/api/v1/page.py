"""
`/v1/docs`: the OpenAPI document as one page for people, made here. It has no script and fetches nothing, so it reads
without a network, and its policy forbids everything but its own style.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:0 auto;padding:1rem}
h2{margin-top:2.5rem;border-bottom:1px solid;padding-bottom:.2rem}
h3{margin:1.8rem 0 .2rem;font-size:1.05rem}
code,pre{font:.9em/1.4 ui-monospace,monospace}
table{border-collapse:collapse;width:100%;margin:.4rem 0}
td,th{border-top:1px solid #8885;padding:.2rem .6rem .2rem 0;text-align:left;vertical-align:top}
td:first-child{white-space:nowrap}
summary{cursor:pointer}
.m{display:inline-block;min-width:4.2rem;font-weight:600}
nav a{margin-right:.8rem}
"""
_HEAD = """\
<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">
<title>caisse API</title><style>{style}</style></head><body><h1>caisse API {version}</h1><p>{about}</p>
<p>Every request brings <code>Authorization: Bearer ck_…</code>. The same for programs:
<a href=/v1/openapi.json>openapi.json</a>.</p><nav>{links}</nav>
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page(document: Mapping[str, Any]) -> bytes:
    """The page, UTF-8."""
    components = document["components"]["schemas"]
    info = document["info"]
    tags = [tag["name"] for tag in document["tags"]]
    links = "".join(f'<a href="#{tag}">{tag}</a>' for tag in [*tags, "faults", "shapes"])
    parts = [
        _HEAD.format(style=_STYLE, version=escape(info["version"]), about=_words(info["description"]), links=links)
    ]
    for tag in tags:
        parts.append(f'<h2 id="{tag}">{tag}</h2>')
        for path, methods in document["paths"].items():
            parts += [_operation(path, method, op) for method, op in methods.items() if op["tags"] == [tag]]
    parts.append("<h2 id=faults>Faults</h2><p>All of them are problem+json.</p>")
    parts.append(_table((status, "", words) for status, words in sorted(_faults(document).items())))
    parts.append("<h2 id=shapes>Shapes</h2>")
    parts += [_shape(name, shape) for name, shape in components.items()]
    parts.append("</body></html>")
    return "".join(parts).encode()


def _faults(document: Mapping[str, Any]) -> dict[str, str]:
    """Every status from 400 on, and what it means; it means the same everywhere."""
    operations = [op for methods in document["paths"].values() for op in methods.values()]
    answers = [answer for op in operations for answer in op["responses"].items()]
    return {status: answer["description"] for status, answer in answers if status >= "400"}


def _operation(path: str, method: str, op: Mapping[str, Any]) -> str:
    said = [
        f'<h3 id="{op["operationId"]}"><span class=m>{method.upper()}</span><code>{escape(path)}</code></h3>',
        f"<p><b>{_words(op['summary'])}.</b> {_words(op['description'])}</p>",
    ]
    asked = [one for one in op.get("parameters", ()) if one["in"] == "query"]
    if asked:
        said.append(_table((one["name"], _type(one["schema"]), one.get("description", "")) for one in asked))
    if "requestBody" in op:
        said.append(f"<p>Body: {_type(op['requestBody']['content']['application/json']['schema'])}</p>")
    good = next(status for status in op["responses"] if status < "300")
    content = op["responses"][good].get("content")
    shown = " or ".join(_type(one["schema"]) for one in (content or {}).values())
    said.append(f"<p>Answer {good}{': ' + shown if shown else ''}</p>")
    return "".join(said)


def _shape(name: str, shape: Mapping[str, Any]) -> str:
    required = shape.get("required", ())
    words = f"<p>{_words(shape['description'])}</p>" if shape.get("description") else ""
    rows = (
        (field, _type(of) + (" (needed)" if field in required else ""), of.get("description", ""))
        for field, of in shape.get("properties", {}).items()
    )
    return f'<h3 id="s-{name}">{name}</h3>{words}{_table(rows)}'


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Names, types (markup already) and words."""
    cells = (f"<tr><td><code>{escape(a)}</code><td>{b}<td>{_words(c)}" for a, b, c in rows)
    return f"<table>{''.join(cells)}</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#s-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return escape(" | ".join(map(str, schema["enum"])))
    if "const" in schema:
        return escape(str(schema["const"]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" {low if low is not None else '…'} to {high}" if high is not None else ""
    most = f", at most {schema['maxLength']}" if "maxLength" in schema else ""
    default = schema.get("default")
    given = f", {escape(str(default))} unless given" if default not in (None, "", {}, []) else ""
    return f"{escape(kind)}{bounds}{most}{given}"


def _words(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
