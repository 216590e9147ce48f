"""Sealed values: bound to their place, opened by any live key, kept in a file that only its owner reads."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.seal import (
    KeyFileError,
    Seal,
    SealError,
    Tampered,
    WrongKey,
    bound_to,
    key_file,
    load_keys,
    new_master_key,
    read_keys,
    write_keys,
)

HERE = bound_to("accounts", "acc_1", "credentials")


@given(st.text(), st.text(min_size=1, max_size=40))
def test_what_is_sealed_comes_back(text: str, place: str) -> None:
    """Any text, any place."""
    seal = Seal([new_master_key()])
    assert seal.open(seal.seal(text, place), place) == text


def test_a_value_does_not_open_in_another_row() -> None:
    """A copied ciphertext is worth nothing: table, row and column are part of what was authenticated."""
    seal = Seal([new_master_key()])
    sealed = seal.seal("secret", HERE)
    for place in ("accounts:acc_2:credentials", "endpoint_secrets:acc_1:credentials", "accounts:acc_1:name", ""):
        with pytest.raises(Tampered):
            seal.open(sealed, place)


def test_every_changed_byte_is_noticed() -> None:
    """Format, key id, nonce, text and tag: nothing may change."""
    seal = Seal([new_master_key()])
    sealed = seal.seal("secret", HERE)
    for at in range(len(sealed)):
        with pytest.raises(SealError):
            seal.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], HERE)
    for cut in range(len(sealed)):
        with pytest.raises(SealError):
            seal.open(sealed[:cut], HERE)


def test_the_newest_key_seals_and_all_of_them_open() -> None:
    """Rotation: both are live, then the old one goes, and what it sealed says in a sentence which key is missing."""
    old, new = new_master_key(), new_master_key()
    before = Seal([old]).seal("secret", HERE)
    both = Seal([new, old])
    assert both.open(before, HERE) == "secret"
    after = both.seal("secret", HERE)
    assert after.startswith(both.prefix)
    assert not before.startswith(both.prefix)
    assert Seal([new]).open(after, HERE) == "secret"
    with pytest.raises(WrongKey, match="no longer among CAISSE_MASTER_KEYS"):
        Seal([new]).open(before, HERE)


def test_the_same_text_is_never_sealed_alike() -> None:
    """Equal secrets do not show as equal in the database, and nothing of the text or key is in it or in the repr."""
    key = new_master_key()
    seal = Seal([key])
    assert seal.seal("secret", HERE) != seal.seal("secret", HERE)
    assert b"secret" not in seal.seal("secret", HERE)
    assert key.hex() not in repr(seal)


def test_the_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """Everything has a default: without configured keys a file beside the database holds one."""
    database = tmp_path / "caisse.db"
    first = load_keys((), database)
    assert load_keys((), database) == first
    assert stat.S_IMODE(key_file(database).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["caisse.db.key"]
    configured = (new_master_key(),)
    assert load_keys(configured, database) == configured


def test_a_key_file_that_cannot_be_trusted_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Readable by others, damaged or empty: say so, and make no other key in its place."""
    path = tmp_path / "caisse.db.key"
    write_keys(path, [new_master_key()])
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_keys((), tmp_path / "caisse.db")
    for content in (b"", b"hunter2\n", b"\xff\xfe"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match="damaged") as caught:
            load_keys((), tmp_path / "caisse.db")
        assert "hunter2" not in str(caught.value)


def test_writing_does_not_overwrite_unless_told(tmp_path: Path) -> None:
    """Of two processes that make the first key, one wins and both use it."""
    path = tmp_path / "k"
    first, second = new_master_key(), new_master_key()
    write_keys(path, [first], replace=False)
    with pytest.raises(FileExistsError):
        write_keys(path, [second], replace=False)
    assert read_keys(path) == (first,)
    write_keys(path, [second, first])
    assert read_keys(path) == (second, first)
    assert [found.name for found in tmp_path.iterdir()] == ["k"]
