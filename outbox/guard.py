"""
The guard on outgoing requests: whom we refuse to call, however the address is spelled.

What counts is the address really dialled. It is checked when the socket is made, after every name has been resolved,
and again for each new connection: a name that points elsewhere the second time is judged the second time. A number
that is not written the one usual way (127.1, 0x7f000001, 0177.0.0.1) is refused unread: two readers would disagree.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeVar, cast

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.tracing import Trace

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
LookUp = Callable[..., list[Any]]
"""Finds the addresses of a name: arguments, answer and exceptions are those of `socket.getaddrinfo`. May block."""

T = TypeVar("T")

RECEIVED_BYTES_MAX = 192 * 1024
"""64 kB of body are read; the rest is for what stands before it and for what the system had buffered by then."""
LOOKUPS_MAX = 64
"""Names looked up at a time, each in a thread of its own."""
ADDRESSES_MAX = 8
"""Of a name with more (all are judged) the first are dialled, or one webhook would knock at a thousand doors."""
LOOPBACK = ("127.0.0.0/8", "::1/128")

# The special-purpose registries of IANA, v4 and v6, and what is public by number only. Python's `is_global` is not
# enough: it lets multicast, NAT64 of metadata addresses and fec0::/10 through. One entry of the registries is open:
# 64:ff9b::/96, through which a network without IPv4 reaches the rest of the world, is judged by the address inside.
FORBIDDEN_V4 = tuple(
    IPv4Network(cidr)
    for cidr in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server: a public number that is not on the internet
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved
        "255.255.255.255/32",  # broadcast
    )
)
FORBIDDEN_V6 = tuple(
    IPv6Network(cidr)
    for cidr in (
        "::/96",  # unspecified, loopback, v4-compatible
        "64:ff9b:1::/48",  # local NAT64
        "100::/64",  # discard
        "100:0:0:1::/64",  # dummy
        "2001::/23",  # IETF: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # private; AWS's metadata
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_6TO4 = IPv6Network("2002::/16")
# No name of the internet ends in a number: such a host is an address, whole or broken, or none at all. An escape is
# for a reader who undoes it.
_NO_NAME = re.compile(r"[:%]|(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.*$")

# A webhook goes to a web server: 80, 443, or a port that needs no privileges, but for those where something else
# is known to listen (databases and the like, and the ones that browsers refuse).
_PORTS_LOW = frozenset({80, 443})
_PORT_HIGH_MIN = 1024
# fmt: off
_PORTS_REFUSED = frozenset({
    1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432,
    5672, 5900, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 9200, 9300, 10080, 10250, 11211,
    27017, 27018, 27019,
})
# fmt: on

_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("outbox_plain_http", default=False)


class Forbidden(OSError):
    """The guard refused. `reason` is a fixed word, never the address: what a name points to is not the caller's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Guard:
    """
    Judges addresses (`check_url` when they are entered, for a friendly sentence; `connector()` when they are dialled,
    which is what protects).

    `https_only`: plain http only to `allow_cidrs` (in production). `allow_cidrs`: networks that may be called although
    they are special; default loopback, where a merchant's shop on the same machine is. `own_ports`: where we listen
    ourselves: never called on any address of this machine, or a webhook could speak to our own control. `look_up`
    finds the addresses of names, in threads.
    """

    def __init__(
        self,
        *,
        allow_cidrs: Iterable[str] = LOOPBACK,
        own_ports: Collection[int] = (),
        https_only: bool = True,
        look_up: LookUp = socket.getaddrinfo,
    ) -> None:
        self.allowed: tuple[Network, ...] = tuple(ip_network(cidr) for cidr in allow_cidrs)
        self.own_ports = frozenset(own_ports)
        self.https_only = https_only
        self.look_up = look_up

    def check_url(self, url: str) -> str | None:
        """
        None, or why this URL is refused, in a fixed word: bad_url, scheme, user_info, port, own_port,
        forbidden_address, https_required. A name is not resolved here: it is judged each time it is dialled.
        """
        try:
            return self._check(yarl.URL(url))
        except ValueError:
            return "bad_url"

    def check_address(self, host: str, port: int, *, plain: bool = False) -> str | None:
        """None, or why this address may not be dialled: forbidden_address, own_port, https_required."""
        try:
            faces = _faces(_literal(host))
        except ValueError:
            return "forbidden_address"
        if port in self.own_ports and any(_is_ours(face) for face in faces):
            return "own_port"
        if any(faces[0] in network for network in self.allowed):
            return None
        if any(_is_special(face) for face in faces):
            return "forbidden_address"
        return "https_required" if plain and self.https_only else None

    def connector(self, limit: int = 0) -> aiohttp.TCPConnector:
        """A connector that dials nothing forbidden. `limit`: connections at a time, 0 for no limit of its own."""
        return _Connector(self, limit)

    def _check(self, url: yarl.URL) -> str | None:
        host, port = url.raw_host, url.port  # raw is what is dialled: full-width digits are plain ones there
        if not host or port is None:
            return "bad_url"
        if url.scheme not in ("http", "https"):
            return "scheme"
        if url.user is not None or url.password is not None:
            return "user_info"
        if not (port in _PORTS_LOW or port >= _PORT_HIGH_MIN) or port in _PORTS_REFUSED:
            return "port"
        try:
            _literal(host)
        except ValueError:
            return "bad_url" if _NO_NAME.search(host) else None
        return self.check_address(host, port, plain=url.scheme == "http")


class _Connector(aiohttp.TCPConnector):
    def __init__(self, guard: Guard, limit: int) -> None:
        # A short DNS cache is safe because every socket is judged by the number it dials.
        super().__init__(resolver=_Resolver(guard), socket_factory=self._make_socket, limit=limit, ssl=_tls())
        self._factory = cast(Any, partial(_Protocol, loop=asyncio.get_running_loop()))
        self._guard = guard

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        # Through a proxy it would be the proxy that dials.
        reason = "proxy" if req.proxy else self._guard._check(req.url)  # noqa: SLF001 - one module
        if reason:
            raise Forbidden(reason)
        # The socket is made in this task or in one it begins, so it can see what the connection is for.
        token = _plain.set(req.url.scheme == "http")
        try:
            return await super().connect(req, traces, timeout)
        finally:
            _plain.reset(token)

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, where = info
        reason = self._guard.check_address(where[0], where[1], plain=_plain.get())
        if reason:
            raise Forbidden(reason)
        return socket.socket(family=family, type=kind, proto=proto)

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        await self._resolver.close()


class _Protocol(ResponseHandler):
    """
    Ends a connection that has sent more than any answer needs. The body is bounded by whoever reads it; what comes
    before it is not: a flood of `100 Continue` is parsed message by message on our one event loop. What came within the
    limit is still read: the status may stand at the head of one large piece.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._got = 0

    def set_response_params(self, **parameters: Any) -> None:
        self._got = 0  # another request on this connection
        super().set_response_params(**parameters)

    def data_received(self, data: bytes) -> None:
        room = RECEIVED_BYTES_MAX - self._got
        self._got += len(data)
        if room > 0:
            super().data_received(data[:room])
        if len(data) > room and self.transport is not None:
            self.transport.abort()


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Certificates are verified, and nobody makes us shake hands again and again: each time costs our loop 1 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class _Resolver(AbstractResolver):
    """
    Refuses a name if any of its addresses is forbidden: half good is a trick.

    The event loop's own threads are few (uvloop looks up two names at a time): two names whose servers never answer
    would keep everybody's webhooks waiting, so each lookup has its own.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._seats = asyncio.Semaphore(LOOKUPS_MAX)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        ask = partial(self._guard.look_up, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        async with self._seats:
            infos = await _in_a_thread(ask)
        for _, _, _, _, where in infos:
            reason = self._guard.check_address(where[0], port)
            if reason:
                raise Forbidden(reason)
        return [
            ResolveResult(
                hostname=host,
                host=f"{where[0]}%{where[3]}" if len(where) > 3 and where[3] else where[0],
                port=port,
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, proto, _, where in infos[:ADDRESSES_MAX]
        ]

    async def close(self) -> None:
        pass


async def _in_a_thread(ask: Callable[[], T]) -> T:
    """What `ask` returns or raises, from a new thread. Whoever gives up waiting leaves it; it holds no process."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def give(how: Callable[[Any], None], what: Any) -> None:
        if not answer.done():
            how(what)

    def run() -> None:
        how: Callable[[Any], None] = answer.set_result
        what: Any
        try:
            what = ask()
        except Exception as failure:  # noqa: BLE001 - it is raised where it is waited for
            how, what = answer.set_exception, failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(give, how, what)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return await answer


def _faces(address: Address) -> tuple[Address, ...]:
    """The address as the kernel dials it, and the v4 one that a v6 one carries for a translator on the way."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address in _NAT64 or address in _COMPATIBLE:
        return (address, IPv4Address(int(address) & 0xFFFF_FFFF))
    if address in _6TO4:
        return (address, IPv4Address(int(address) >> 80 & 0xFFFF_FFFF))
    return (address,)


def _is_special(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in FORBIDDEN_V4)
    if address in _NAT64:
        return False  # what it carries is judged
    return address not in _GLOBAL_UNICAST or any(address in network for network in FORBIDDEN_V6)


@lru_cache(maxsize=1024)
def _literal(host: str) -> Address:
    """The address that a host is written as; raises ValueError for a name. The same few hosts come again and again."""
    address = ip_address(host)
    if "%" in host and not address.is_link_local:
        raise ValueError("Only a link-local address has a zone; who dials it could take another for a name.")
    return address


def _is_ours(address: Address) -> bool:
    """Whether this machine answers at the address: one can bind to it. Sends nothing."""
    try:
        # By way of getaddrinfo, which reads the zone of a link-local address; nothing is asked for a number.
        family, *_, where = socket.getaddrinfo(str(address), 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(where)
    except OSError:
        return address.is_loopback
    return True
