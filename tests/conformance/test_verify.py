"""What every provider must accept and refuse; the cases follow from its declared capabilities."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.providers.base import Provider, Refused, Verified
from tests.conformance.wire import (
    ALL,
    HEADED,
    NOW_MS,
    SIGNED,
    TIMED,
    callback,
    credentials,
    name,
    secret_name,
    with_header,
)

each = pytest.mark.parametrize("provider", ALL, ids=name)
each_signed = pytest.mark.parametrize("provider", SIGNED, ids=name)
each_headed = pytest.mark.parametrize("provider", HEADED, ids=name)
each_timed = pytest.mark.parametrize("provider", TIMED, ids=name)


def header_of(provider: Provider) -> bytes:
    assert provider.capabilities.signature_header is not None
    return provider.capabilities.signature_header


@each
def test_a_right_callback_is_verified_as_strongly_as_declared(provider: Provider) -> None:
    """The right one passes, by every method the provider uses."""
    for method in provider.capabilities.methods:
        fields = {"method": method} if provider.name == "monetbil" else {}
        incoming = callback(provider, fields=fields)
        assert incoming.method == method
        assert provider.verify(incoming, credentials(provider), NOW_MS) == Verified(provider.capabilities.strong)


@each_signed
def test_another_secret_is_refused(provider: Provider) -> None:
    """Signed by somebody who does not know the secret."""
    stranger = callback(provider, signed_by=credentials(provider, "another secret"))
    assert provider.verify(stranger, credentials(provider), NOW_MS) == Refused("bad_signature")


@each
@pytest.mark.parametrize("secrets", [(), ("",), ("  ",), ("", "")])
def test_without_a_secret_nothing_is_accepted(provider: Provider, secrets: tuple[str, ...]) -> None:
    """Fail closed: an empty secret would let anybody sign with it."""
    signed_with_nothing = callback(provider)
    none = dict(credentials(provider)) | {secret_name(provider): secrets}
    assert provider.verify(signed_with_nothing, none, NOW_MS) == Refused("no_secret")
    assert provider.verify(signed_with_nothing, {}, NOW_MS) == Refused("no_secret")
    assert secret_name(provider) in provider.missing(none)


@each
def test_both_secrets_are_live_during_a_rotation(provider: Provider) -> None:
    """Whichever stands first, callbacks signed with either are taken."""
    for signer in ("old secret", "new secret"):
        incoming = callback(provider, signed_by=credentials(provider, signer))
        for order in (("new secret", "old secret"), ("old secret", "new secret"), ("", "new secret", "old secret")):
            assert isinstance(provider.verify(incoming, credentials(provider, *order), NOW_MS), Verified)


@each_headed
@pytest.mark.parametrize("place", [0, 1, 40, -40, -2, -1])
def test_one_flipped_bit_in_the_body_is_refused(provider: Provider, place: int) -> None:
    """The signature covers every byte of the body as it came."""
    incoming = callback(provider)
    body = bytearray(incoming.body)
    body[place] ^= 1
    refused = provider.verify(replace(incoming, body=bytes(body)), credentials(provider), NOW_MS)
    assert refused == Refused("bad_signature")


@each_headed
def test_a_body_written_anew_is_refused(provider: Provider) -> None:
    """Raw bytes are signed; one more space is another body."""
    incoming = callback(provider)
    anew = replace(incoming, body=incoming.body + b" ")
    assert provider.verify(anew, credentials(provider), NOW_MS) == Refused("bad_signature")


@each_headed
@pytest.mark.parametrize("place", [-1, -20, -60])
def test_one_changed_letter_of_the_signature_is_refused(provider: Provider, place: int) -> None:
    """Nearly right is wrong."""
    incoming = callback(provider)
    value = bytearray(incoming.header(header_of(provider)) or b"")
    value[place] = ord("0") if value[place] != ord("0") else ord("1")
    changed = with_header(incoming, header_of(provider), bytes(value))
    assert provider.verify(changed, credentials(provider), NOW_MS) == Refused("bad_signature")


@each_headed
def test_a_missing_header_is_refused(provider: Provider) -> None:
    """No signature is no reason to trust."""
    bare = with_header(callback(provider), header_of(provider))
    assert provider.verify(bare, credentials(provider), NOW_MS) == Refused("missing_header")


@each_headed
def test_a_header_given_twice_is_refused(provider: Provider) -> None:
    """Which of the two a proxy or we would take is nobody's guess, even where both are right."""
    incoming = callback(provider)
    value = incoming.header(header_of(provider)) or b""
    for pair in ((value, value), (value, b"x"), (b"x", value)):
        twice = with_header(incoming, header_of(provider), *pair)
        assert provider.verify(twice, credentials(provider), NOW_MS) == Refused("missing_header")


SECONDS = NOW_MS // 1000
GARBAGE = {
    "empty": b"",
    "utf-8": f"t={SECONDS},v1=é,s=é".encode(),
    "latin-1": f"t={SECONDS},v1=é,s=é".encode("latin-1"),
    "full-width digits": f"t={SECONDS},v1=a,s=a".translate({ord("0") + n: 0xFF10 + n for n in range(10)}).encode(),
    "not a number": b"t=nan,v1=a,s=a",
    "underscores": b"t=1_795_165_200,v1=a,s=a",
    "a sign": b"t=+1795165200,v1=a,s=a",
    "a space": b"t= 1795165200,v1=a,s=a",
    "no time": b"v1=a,s=a",
    "an empty time": b"t=,v1=a,s=a",
    "two times": b"t=1795165200,t=1795165200,v1=a,s=a",
    "a time of five thousand digits": b"t=" + b"1" * 5000 + b",v1=a,s=a",
    "no signature": b"t=1795165200",
    "another scheme": b"t=1795165200,v0=a",
    "ten thousand signatures": b"t=1795165200" + b",v1=a,s=a" * 10_000,
    "forty signatures": b"t=1795165200" + b",v1=a,s=a" * 40,
    "very long": b"a" * 1_000_000,
    "commas": b"," * 5000,
    "NUL": b"\x00",
}


@each_headed
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_garbage_header_is_refused_and_nothing_raises(provider: Provider, garbage: bytes) -> None:
    """Strangers write headers; the answer is 401, never a 500."""
    wrong = with_header(callback(provider), header_of(provider), garbage)
    refused = provider.verify(wrong, credentials(provider), NOW_MS)
    assert isinstance(refused, Refused)
    assert refused.reason in ("bad_header", "bad_signature")


@each_timed
def test_too_many_signatures_are_refused_even_with_the_right_one_among_them(provider: Provider) -> None:
    """Each candidate costs a comparison with each secret: ten thousand are somebody's try at our processor."""
    incoming = callback(provider)
    value = incoming.header(header_of(provider)) or b""
    scheme = value.rpartition(b",")[2].partition(b"=")[0]
    for many, expected in ((30, Verified()), (31, Refused("bad_header")), (10_000, Refused("bad_header"))):
        padded = with_header(incoming, header_of(provider), value + b"," + b",".join([scheme + b"=0"] * many))
        assert provider.verify(padded, credentials(provider), NOW_MS) == expected


@each_timed
def test_two_times_are_refused_even_with_the_right_signature(provider: Provider) -> None:
    """Which of them was signed, and which would be held against the clock?"""
    incoming = callback(provider)
    value = incoming.header(header_of(provider)) or b""
    for both in (value + b",t=%d" % SECONDS, value + b",t=1"):
        twice = with_header(incoming, header_of(provider), both)
        assert provider.verify(twice, credentials(provider), NOW_MS) == Refused("bad_header")


@each_timed
def test_any_of_several_signatures_is_enough(provider: Provider) -> None:
    """While the provider rolls a secret it signs with both; the right one may stand anywhere."""
    incoming = callback(provider)
    time, _, right = (incoming.header(header_of(provider)) or b"").partition(b",")
    scheme = right.partition(b"=")[0]
    for items in ((time, right, scheme + b"=00"), (time, scheme + b"=00", right), (b"v0=00", right, time)):
        several = with_header(incoming, header_of(provider), b",".join(items))
        assert provider.verify(several, credentials(provider), NOW_MS) == Verified()


@each_timed
@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0, Verified()),
        (300, Verified()),
        (-300, Verified()),
        (301, Refused("too_old")),
        (-301, Refused("too_new")),
        (86_400 * 365, Refused("too_old")),
        (-86_400 * 365, Refused("too_new")),
    ],
)
def test_the_time_is_held_within_five_minutes_both_ways(
    provider: Provider, age_s: int, expected: Verified | Refused
) -> None:
    """An old one may be a replay, one from the future would be replayable for long."""
    incoming = callback(provider, at_ms=NOW_MS - age_s * 1000)
    assert provider.verify(incoming, credentials(provider), NOW_MS) == expected


@each_timed
def test_the_time_is_signed(provider: Provider) -> None:
    """A replay with a fresh time written over the old one."""
    incoming = callback(provider, at_ms=NOW_MS - 3_600_000)
    value = incoming.header(header_of(provider)) or b""
    fresh = b"t=%d," % SECONDS + value.partition(b",")[2]
    replayed = with_header(incoming, header_of(provider), fresh)
    assert provider.verify(replayed, credentials(provider), NOW_MS) == Refused("bad_signature")


@each_timed
def test_a_wrong_secret_is_said_before_a_wrong_time(provider: Provider) -> None:
    """`too_old` in the quarantine means the clock or the delay for certain, not the secret."""
    old_and_wrong = callback(provider, at_ms=NOW_MS - 3_600_000, signed_by=credentials(provider, "another"))
    assert provider.verify(old_and_wrong, credentials(provider), NOW_MS) == Refused("bad_signature")
