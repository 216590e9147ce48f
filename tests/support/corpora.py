"""
Hostile inputs: a small collection of our own that is always here, and the published ones where they lie beside the
repository. Also the six providers' signatures over any bytes, made here once more, so that no test asks the product's
own code whether it is right.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from tests.support.service import ALL, stripe_signature

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
JSON_SUITE = CORPORA / "json_test_suite"
STRINGS = CORPORA / "blns.json"

OWN_STRINGS = (
    "", " ", "\x00", "a\x00b", "\x1b[2J\x1b]0;owned\x07", "\r\nX-Injected: 1", "\u202etxt.exe", "\ufeff", "\ufffe",
    "\ud800", "\udcff", "\U0001f600" * 50, "e\u0301" * 200,
    "Z\u0351\u036b\u0313\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA\u0334\u0335\u031c\u0330\u0354\u036b\u0357\u0362L",
    "' OR 1=1 --", "\"; DROP TABLE payments; --", "%s%n%x", "{0.__class__}", "{{7*7}}", "${jndi:ldap://a.example/a}",
    "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "../../../../etc/passwd", "--help", "-", "@file", "9" * 400,
    "1e400", "NaN", "-0", "0x10", "\uff11\uff12\uff13", "true", "null", "[]", "{}", "a" * 10_000,
    "http://169.254.169.254/", "http://[::1]:1/", "http://user:pw@a.example/", "javascript:alert(1)",
    "http://" + "a" * 300, "http://[", "http://a.example:99999/", "\u00e9vt_1", "evt_%00", "pay_\u2028", "_" * 64,
    "*,*,*,", "a,b,c", "\u06dd", "\ufdfd",
)  # fmt: skip
"""Each breaks something somewhere: terminals, SQL, templates, spreadsheets, parsers of addresses and numbers."""

OWN_JSON = {
    "n_empty": b"", "n_bom": b"\xef\xbb\xbf{}", "n_utf16": '{"a":1}'.encode("utf-16"), "n_nul": b'{"a":1}\x00',
    "n_deep": b"[" * 100_000, "n_deep_objects": b'{"a":' * 50_000, "n_nan": b"[NaN]", "n_comment": b"{}//",
    "n_cut": b'{"a', "n_bad_utf8": b'{"a":"\xff"}', "n_two": b"{}{}", "n_trailing": b'{"a":1,}',
    "n_newline": b'["a\nb"]', "y_empty": b"{}", "i_huge_number": b'{"a":' + b"9" * 5_000 + b"}",
    "i_overflow": b'{"a":1e400}', "i_surrogate": b'{"a":"\\ud800"}', "i_twice": b'{"a":1,"a":2}',
    "y_nul_escape": b'{"a":"\\u0000"}', "y_space": b" " * 10_000 + b"{}", "y_text": b'"a"', "y_number": b"0",
    "y_keys": b"{" + b",".join(b'"%d":0' % n for n in range(5_000)) + b"}",
}  # fmt: skip
"""By the suite's own convention: `y_` is JSON, `n_` is none, `i_` may be taken either way."""


def strings() -> list[str]:
    """Our own and, where it is here, the big list of naughty strings."""
    more = json.loads(STRINGS.read_text(encoding="utf-8")) if STRINGS.exists() else []
    return list(dict.fromkeys([*OWN_STRINGS, *more]))


def json_texts() -> dict[str, bytes]:
    """Name: bytes. Our own and, where it is here, JSONTestSuite."""
    more = {path.stem: path.read_bytes() for path in sorted(JSON_SUITE.glob("*.json"))} if JSON_SUITE.exists() else {}
    return more | OWN_JSON


def skip_without_corpora() -> None:
    """Say aloud that only our own collection was tried."""
    if not (JSON_SUITE.exists() and STRINGS.exists()):
        pytest.skip("../shared/corpora is not here: only the small collection of our own was tried")


def signed(provider: str, body: bytes, now_s: int | None = None) -> tuple[str, dict[str, str]]:
    """Where a body goes and the headers that make it genuine. Monetbil signs inside its form: `monetbil_form`."""
    stamp = int(time.time()) if now_s is None else now_s
    path, headers = f"/webhooks/{provider}", {"Content-Type": "application/json"}
    match provider:
        case "stripe":
            headers["Stripe-Signature"] = stripe_signature(body, at_s=stamp)
        case "paystack":
            headers["X-Paystack-Signature"] = _hmac(ALL["paystack_secret_keys"], body, "sha512")
        case "fedapay":
            over = f"{stamp}.".encode() + body
            headers["X-Fedapay-Signature"] = f"t={stamp},s={_hmac(ALL['fedapay_webhook_secrets'], over, 'sha256')}"
        case "moneroo":
            headers["X-Moneroo-Signature"] = _hmac(ALL["moneroo_webhook_secrets"], body, "sha256")
        case "ebilling":
            path += f"/{ALL['ebilling_callback_tokens']}"
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        case _:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
    return path, headers


def form(fields: Mapping[bytes, bytes]) -> bytes:
    """Percent-encoded, any bytes."""
    return b"&".join(f"{quote_from_bytes(name)}={quote_from_bytes(fields[name])}".encode() for name in fields)


def monetbil_form(fields: Mapping[bytes, bytes]) -> bytes:
    """A form with Monetbil's `sign` in it: the MD5 of the secret and the values in the order of their names."""
    others = {name: value for name, value in fields.items() if name != b"sign"}
    over = ALL["monetbil_service_secrets"].encode() + b"".join(others[name] for name in sorted(others))
    return form({**others, b"sign": hashlib.md5(over, usedforsecurity=False).hexdigest().encode()})


def _hmac(secret: str, over: bytes, digest: str) -> str:
    return hmac.new(secret.encode(), over, digest).hexdigest()
