"""Where a buyer may be sent back to: an open redirect on a payments host is a gift to whoever writes phishing mails."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from service.errors import Refusal
from service.payments.wish import URL_MAX

_LOCAL = ("localhost", "local", "internal", "home.arpa", "lan")
_PORTS = {"http": 80, "https": 443}


def check_return_url(url: str, *, strict: bool, allowed: Sequence[str] = ()) -> str:
    """
    The address as it is, or Refusal bad_return_url; an empty one is none. `allowed`: origins such as
    https://shop.example, and then no other passes. Without them, under `strict` (production's rules): https, and no
    address of this machine or a private network. Names are not looked up: it is the buyer's browser that goes there.
    """
    if not url:
        return ""
    refused = Refusal("bad_return_url", "return_url: an address such as https://shop.example/thanks.")
    if len(url) > URL_MAX or not url.isascii() or any(ord(character) < 33 or character == "\\" for character in url):
        raise refused
    try:
        origin = _origin(url)
    except ValueError:
        raise refused from None
    if "@" in urlsplit(url).netloc:
        raise Refusal("bad_return_url", "return_url: without user name and password.")
    scheme, host, _ = origin
    if allowed:
        if origin not in {_origin(one) for one in allowed}:
            raise Refusal("bad_return_url", f"return_url: only {', '.join(allowed)[:500]}.")
    elif strict and (scheme != "https" or _is_private(host)):
        raise Refusal("bad_return_url", "return_url: https, and no address of a private network.")
    return url


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host:
        raise ValueError(url)
    return parts.scheme, host, parts.port or _PORTS[parts.scheme]


def _is_private(host: str) -> bool:
    last = host.rpartition(".")[2]
    if host in _LOCAL or last in _LOCAL or host.endswith(".home.arpa"):
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:
        # A number that is not written the one usual way (127.1, 0x7f000001) is an address to a browser all the same.
        return last.isdigit() or last.startswith("0x") or "." not in host
