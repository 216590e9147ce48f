"""Every special-purpose range of IANA, in every spelling, as a literal and as what a name points to: refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.guard import Forbidden, Guard

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

CLOSED = Guard(allow_cidrs=())

# The two registries (iana-ipv4-special-registry, iana-ipv6-special-registry), row by row.
REGISTRY = [
    ("0.0.0.0/8", "this network", "RFC 791"),
    ("0.0.0.0/32", "this host", "RFC 1122"),
    ("10.0.0.0/8", "private use", "RFC 1918"),
    ("100.64.0.0/10", "shared address space", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122"),
    ("169.254.0.0/16", "link-local", "RFC 3927"),
    ("172.16.0.0/12", "private use", "RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments", "RFC 6890"),
    ("192.0.0.0/29", "IPv4 service continuity", "RFC 7335"),
    ("192.0.0.8/32", "IPv4 dummy address", "RFC 7600"),
    ("192.0.0.9/32", "port control protocol anycast", "RFC 7723"),
    ("192.0.0.10/32", "TURN anycast", "RFC 8155"),
    ("192.0.0.170/32", "NAT64/DNS64 discovery", "RFC 7050"),
    ("192.0.0.171/32", "NAT64/DNS64 discovery", "RFC 8880"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", "AS112-v4", "RFC 7535"),
    ("192.52.193.0/24", "AMT", "RFC 7450"),
    ("192.88.99.0/24", "6to4 relay anycast", "RFC 7526"),
    ("192.88.99.2/32", "6a44 relay anycast", "RFC 6751"),
    ("192.168.0.0/16", "private use", "RFC 1918"),
    ("192.175.48.0/24", "direct delegation AS112", "RFC 7534"),
    ("198.18.0.0/15", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("240.0.0.0/4", "reserved", "RFC 1112"),
    ("255.255.255.255/32", "limited broadcast", "RFC 919"),
    ("::1/128", "loopback", "RFC 4291"),
    ("::/128", "unspecified", "RFC 4291"),
    ("64:ff9b:1::/48", "translation, local use", "RFC 8215"),
    ("100::/64", "discard only", "RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    ("2001::/23", "IETF protocol assignments", "RFC 2928"),
    ("2001::/32", "Teredo", "RFC 4380"),
    ("2001:1::1/128", "port control protocol anycast", "RFC 7723"),
    ("2001:1::2/128", "TURN anycast", "RFC 8155"),
    ("2001:1::3/128", "DNS-SD registration anycast", "RFC 9665"),
    ("2001:2::/48", "benchmarking", "RFC 5180"),
    ("2001:3::/32", "AMT", "RFC 7450"),
    ("2001:4:112::/48", "AS112-v6", "RFC 7535"),
    ("2001:10::/28", "ORCHID", "RFC 4843"),
    ("2001:20::/28", "ORCHIDv2", "RFC 7343"),
    ("2001:30::/28", "drone remote ID", "RFC 9374"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4", "RFC 3056"),
    ("2620:4f:8000::/48", "direct delegation AS112", "RFC 7534"),
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "segment routing", "RFC 9602"),
    ("fc00::/7", "unique local", "RFC 4193"),
    ("fe80::/10", "link-local", "RFC 4291"),
]
# Two entries say what to do with the address inside, and are tested by what is in them: ::ffff:0:0/96 (RFC 4291), which
# the kernel dials as IPv4, and 64:ff9b::/96 (RFC 6052), which a translator does.

# What is special without being in the two registries.
BESIDE = [
    ("168.63.129.16/32", "a cloud's wire server", "its vendor's manual"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("::/96", "IPv4-compatible", "RFC 4291"),
    ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
    ("fec0::/10", "site-local", "RFC 3879"),
    ("ff00::/8", "multicast", "RFC 4291"),
    ("4000::/3", "not global unicast", "RFC 4291"),
    ("8000::/3", "not global unicast", "RFC 4291"),
    ("e000::/4", "not global unicast", "RFC 4291"),
    ("200::/7", "was for OSI", "RFC 4048"),
]
# Where clouds keep the keys of the machine that asks.
METADATA = [
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16",
    "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fe80::a9fe:a9fe",
]  # fmt: skip

ALL = [ip_network(cidr) for cidr, _, _ in REGISTRY + BESIDE]
IDS = [f"{cidr}-{name}" for cidr, name, _ in REGISTRY + BESIDE]
MAPPED, TRANSLATED = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")
GLOBAL = IPv6Network("2000::/3")


def samples(network: Network) -> list[Address]:
    """The first, a middle and the last address."""
    return sorted({network[0], network[network.num_addresses // 2], network[-1]})


def carried(v4: IPv4Address) -> Iterator[IPv6Address]:
    """The v6 addresses that lead to a v4 one."""
    number = int(v4)
    yield IPv6Address(0xFFFF << 32 | number)  # mapped
    yield IPv6Address(number)  # compatible
    yield IPv6Address(0xFFFF << 48 | number)  # translated
    yield IPv6Address(0x64FF9B << 96 | number)  # NAT64
    yield IPv6Address(0x64FF9B0001 << 80 | number)  # NAT64 of the network's own
    yield IPv6Address(0x2002 << 112 | number << 80 | 1)  # 6to4
    yield IPv6Address(0x20010000 << 96 | number ^ 0xFFFF_FFFF)  # a Teredo client
    yield IPv6Address(0x20010000 << 96 | number << 64 | 1)  # a Teredo server


FULL_WIDTH = str.maketrans("0123456789.", "０１２３４５６７８９。")
CIRCLED = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")


def spelled_v4(address: IPv4Address) -> Iterator[str]:
    """As it stands in a URL, every way that some reader takes for this address."""
    number, (a, b, c, d) = int(address), address.packed
    yield str(address)
    yield f"{number}"
    yield f"{number:#o}".replace("0o", "0")
    yield f"{number:#x}"
    yield f"{number:#X}"
    yield f"0{a:03o}.{b:04o}.{c:o}.0{d:o}"
    yield f"{a:#x}.{b:#x}.{c:#x}.{d:#x}"
    yield f"{a:#x}.{b}.0{c:o}.{d}"
    yield f"{a}.{b}.{number & 0xFFFF}"
    yield f"{a}.{number & 0xFFFFFF}"
    yield f"{a:03}.{b:03}.{c:03}.{d:03}"
    yield f"{a + 256}.{b}.{c}.{d}"  # some readers drop what does not fit
    yield f"{address}."
    yield f"{number}."
    yield str(address).translate(FULL_WIDTH)
    yield str(address).translate(CIRCLED)
    yield "".join(f"%{ord(character):02x}" for character in str(address))
    yield f"[::ffff:{address}]"
    yield f"[{address}]"
    for inside in carried(address):
        yield from spelled_v6(inside)


def spelled_v6(address: IPv6Address) -> Iterator[str]:
    """The same for v6: short, long, in capitals, with a zone."""
    yield f"[{address}]"
    yield f"[{address.exploded}]"
    yield f"[{address.exploded.upper()}]"
    yield f"[{address}%25eth0]"
    yield f"[{address}%1]"


def spelled(address: Address) -> Iterator[str]:
    """Every spelling of an address as a host."""
    return spelled_v4(address) if isinstance(address, IPv4Address) else spelled_v6(address)


async def pointed(guard: Guard, *addresses: str) -> str:
    """What the connector says about a name that points to these: a word, or `open`."""

    def look_up(host: str, port: int, *_: Any) -> list[Any]:
        where = [(address, port, 0, 0) if ":" in address else (address, port) for address in addresses]
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [(kind, socket.SOCK_STREAM, 6, "", at) for kind, at in zip(kinds, where, strict=True)]

    guard.look_up = look_up
    connector = guard.connector()
    try:
        found = await connector._resolve_host("shop.example", 443)
    except Forbidden as refused:
        return refused.reason
    finally:
        await connector.close()
    assert [result["host"] for result in found] == list(addresses)
    return "open"


@pytest.mark.parametrize("network", ALL, ids=IDS)
def test_a_special_range_is_refused_in_every_spelling(network: Network) -> None:
    """As a literal, whoever would read it: with a word at once, over http and https."""
    for address in samples(network):
        for host in spelled(address):
            for url in (f"https://{host}/", f"http://{host}:8080/hook?x=1"):
                assert CLOSED.check_url(url) in {"forbidden_address", "bad_url"}, url
        assert CLOSED.check_url(f"https://{next(iter(spelled(address)))}/") == "forbidden_address"


@pytest.mark.parametrize("network", ALL, ids=IDS)
def test_a_name_that_points_to_a_special_range_is_refused(network: Network) -> None:
    """Alone, before and after a good address, and wrapped in a v6 one."""

    async def run() -> None:
        for address in samples(network):
            inside = list(carried(address)) if isinstance(address, IPv4Address) else []
            for bad in map(str, [address, *inside]):
                for answer in ([bad], ["8.8.8.8", bad], [bad, "8.8.8.8"], ["2606:4700::1111", bad]):
                    assert await pointed(Guard(allow_cidrs=()), *answer) == "forbidden_address", answer
        assert await pointed(Guard(allow_cidrs=()), "8.8.8.8", "2606:4700::1111") == "open"

    asyncio.run(run())


@pytest.mark.parametrize("network", ALL, ids=IDS)
def test_a_setting_opens_its_range_and_no_other(network: Network) -> None:
    """Literal and by name, also by plain http; the range beside it stays closed."""
    other = "10.0.0.1" if ip_address("10.0.0.1") not in network else "192.168.0.1"

    async def run() -> None:
        guard = Guard(allow_cidrs=[str(network)])
        for address in samples(network):
            host = f"[{address}]" if address.version == 6 else str(address)
            assert guard.check_url(f"http://{host}:8080/") is None
            assert await pointed(guard, str(address)) == "open"
        assert guard.check_url(f"https://{other}/") == "forbidden_address"
        assert await pointed(guard, str(samples(network)[0]), other) == "forbidden_address"

    asyncio.run(run())


@pytest.mark.parametrize("address", METADATA)
def test_the_metadata_of_clouds_is_refused_in_every_spelling(address: str) -> None:
    """The one door that every attacker tries first."""
    for host in spelled(ip_address(address)):
        assert CLOSED.check_url(f"https://{host}/latest/meta-data") in {"forbidden_address", "bad_url"}, host
        assert Guard(https_only=False).check_url(f"http://{host}/") in {"forbidden_address", "bad_url"}, host


def expected(address: Address) -> bool:
    """Whether the tables above refuse an address, by themselves."""
    if address in MAPPED or address in TRANSLATED:
        return expected(IPv4Address(int(address) & 0xFFFF_FFFF))
    if isinstance(address, IPv6Address) and address not in GLOBAL:
        return True
    return any(address in network for network in ALL)


def at_the_edges() -> list[Address]:
    """The first and last address of each range, and their neighbours on the outside."""
    found: list[Address] = []
    for network in [*ALL, MAPPED, TRANSLATED, GLOBAL]:
        make = IPv4Address if network.version == 4 else IPv6Address
        low, high = int(network[0]), int(network[-1])
        found += [make(n) for n in (low - 1, low, high, high + 1) if 0 <= n < 1 << network.max_prefixlen]
    return found


def test_the_edges_are_where_the_registries_draw_them() -> None:
    """Neither too narrow nor too wide: the neighbours of a range are open, unless another range has them."""
    for address in at_the_edges():
        word = CLOSED.check_address(str(address), 443)
        assert word == ("forbidden_address" if expected(address) else None), address
    assert sum(not expected(address) for address in at_the_edges()) > 30  # there are open ones to be wrong about


ADDRESSES: st.SearchStrategy[Address] = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.integers(0, 2**125 - 1).map(lambda n: IPv6Address(1 << 125 | n)),
    st.tuples(st.sampled_from([MAPPED, TRANSLATED]), st.integers(0, 2**32 - 1)).map(lambda p: p[0][p[1]]),
    st.tuples(st.sampled_from(ALL), st.integers(0)).map(lambda p: p[0][p[1] % p[0].num_addresses]),
)


@given(ADDRESSES)
def test_any_address_is_judged_by_the_tables(address: Address) -> None:
    """The guard and the tables say the same; what Python does not call global is never open."""
    word = CLOSED.check_address(str(address), 443)
    assert (word == "forbidden_address") == expected(address)
    if not address.is_global and address not in MAPPED and address not in TRANSLATED:
        assert word == "forbidden_address"
    if address.is_multicast or (address.is_private and address not in TRANSLATED):
        assert word == "forbidden_address"


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdefxX.:[]%@/\\#?-_ \t①。０／", max_size=30)))
def test_any_text_gets_a_word_or_none(text: str) -> None:
    """Whatever is entered: no exception, and no open door to a number that is not written plainly."""
    for url in (text, f"https://{text}", f"https://{text}/", f"http://x@{text}", f"https://[{text}]/"):
        assert CLOSED.check_url(url) in {
            None, "bad_url", "scheme", "user_info", "port", "forbidden_address", "https_required",
        }  # fmt: skip
