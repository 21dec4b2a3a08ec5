"""Keys: what they read and write, what they are bound to, and that nothing shows them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire import SettingsError
from fusewire.forwarding import Encryption, KeyRing
from fusewire.forwarding._encryption import (
    Encrypted,
    KeyName,
    MissingKeyError,
    WrongTagError,
    pack,
    unpack,
)

OLD, NEW = b"\x01" * 32, b"\x02" * 32


def test_any_key_of_the_ring_reads_and_one_writes() -> None:
    old = KeyRing({"2026-08": OLD}, write_with="2026-08")
    both = KeyRing({"2026-08": OLD, "2026-11": NEW}, write_with="2026-11")
    before, after = old.encrypt(b"card", [b"a"]), both.encrypt(b"card", [b"a"])
    assert (before.key.id, after.key.id) == ("2026-08", "2026-11")
    assert both.decrypt(before, [b"a"]) == both.decrypt(after, [b"a"]) == b"card"
    assert b"card" not in after.body


def test_the_same_text_is_never_encrypted_alike() -> None:
    ring = KeyRing({"k": OLD}, write_with="k")
    assert len({ring.encrypt(b"card", []).body for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("ring", "says"),
    [
        (KeyRing({"2026-11": NEW}, write_with="2026-11"), "is not among the keys"),
        # Somebody has deployed other bytes under the id: no call is damaged by that.
        (KeyRing({"2026-08": NEW}, write_with="2026-08"), "is another key among the keys"),
    ],
)
def test_a_key_that_is_missing_is_no_damage(ring: KeyRing, says: str) -> None:
    written = KeyRing({"2026-08": OLD}, write_with="2026-08").encrypt(b"card", [b"a"])
    with pytest.raises(MissingKeyError, match=says) as raised:
        ring.decrypt(written, [b"a"])
    assert raised.value.key == written.key
    assert not ring.reads(written.key)


@given(at=st.integers(0, 39), bit=st.integers(0, 7))
def test_a_body_with_another_bit_is_refused(at: int, bit: int) -> None:
    ring = KeyRing({"k": OLD}, write_with="k")
    key, body = ring.encrypt(b"twelve bytes", [b"a"])
    assert len(body) == 40
    changed = bytearray(body)
    changed[at] ^= 1 << bit
    with pytest.raises(WrongTagError):
        ring.decrypt(Encrypted(key, bytes(changed)), [b"a"])


@pytest.mark.parametrize("body", [b"", b"short", b"x" * 12, b"x" * 27])
def test_a_body_that_is_cut_is_refused(body: bytes) -> None:
    ring = KeyRing({"k": OLD}, write_with="k")
    with pytest.raises(WrongTagError):
        ring.decrypt(Encrypted(ring.encrypt(b"", []).key, body), [])


@given(
    st.lists(st.binary(max_size=9), max_size=4),
    st.lists(st.binary(max_size=9), max_size=4),
)
def test_what_is_bound_to_one_thing_is_not_read_with_another(
    one: list[bytes], other: list[bytes]
) -> None:
    ring = KeyRing({"k": OLD}, write_with="k")
    encrypted = ring.encrypt(b"card", one)
    if one == other:
        assert ring.decrypt(encrypted, other) == b"card"
    else:
        with pytest.raises(WrongTagError):
            ring.decrypt(encrypted, other)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_parts_come_back_as_they_were(parts: list[bytes]) -> None:
    assert unpack(pack(parts)) == parts


def test_parts_that_are_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="within a part"):
        unpack(pack([b"whole"])[:-1])


def test_nothing_shows_a_key() -> None:
    ring = KeyRing({"k": b"very secret key, thirty-two byte"}, write_with="k")
    encryption = Encryption(partial(KeyRing, {"k": b"very secret"}, write_with="k"))
    shown = f"{ring!r} {ring} {encryption!r} {ring.encrypt(b'', []).key}"
    assert "very secret" not in shown
    assert repr(ring) == "KeyRing('k', write_with='k')"
    for away in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds keys"):
            away(ring)


@pytest.mark.parametrize(
    ("keys", "write_with", "says"),
    [
        ({}, "k", "at least one key by its id, got dict of 0"),
        (b"very secret", "k", "got bytes of 11"),
        ({"k": b"very secret"}, "k", r"keys\['k'\] must be 32 bytes, got bytes of 11"),
        ({"k": "very secret key, thirty-two byte"}, "k", "must be 32 bytes, got str of 32"),
        ({"": OLD}, "", "the id of a key must be a non-empty string"),
        ({"k": OLD, "l": NEW}, "m", "write_with must be one of 'k', 'l', got 'm'"),
    ],
)
def test_keys_that_cannot_be_right_are_refused_without_showing_them(
    keys: Any, write_with: str, says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        KeyRing(keys, write_with=write_with)
    assert "very secret" not in str(raised.value)


def test_keys_are_given_by_a_function() -> None:
    given: Any = {"k": b"very secret key, thirty-two byte"}
    with pytest.raises(SettingsError, match="keys must be a function that returns") as raised:
        Encryption(given)
    assert "very secret" not in str(raised.value)


def test_the_check_of_a_key_stays_what_it_is() -> None:
    """It is stored: another one would make every stored call one of a key that is missing."""
    name = KeyRing({"2026-08": OLD}, write_with="2026-08").encrypt(b"", []).key
    assert name == KeyName("2026-08", "85bfdfdc7fbe7c09")


def test_without_the_extra_an_error_names_it_and_the_rest_works() -> None:
    program = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "from fusewire.forwarding import Encryption, KeyRing, ParkedCalls\n"
        "ParkedCalls('sqlite:///unused.db', queue='charges')\n"
        "for make in (lambda: Encryption(print), lambda: KeyRing({'k': b''}, write_with='k')):\n"
        "    try:\n"
        "        make()\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.count("pip install 'fusewire[encryption]'") == 2
