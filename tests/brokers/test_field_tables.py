"""Our reader of AMQP's tables gives what pamqp's gives, or gives up and leaves it to pamqp."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import decode, encode
from pamqp.commands import Basic

from fusewire.brokers.rabbitmq._workarounds.field_tables import (
    WrittenProperties,
    read_table,
    write_table,
)

HELD = st.recursive(
    st.text(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.none()
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants them without
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values, max_size=3)
    ),
    max_leaves=9,
)


@given(st.dictionaries(st.text(max_size=20), HELD, max_size=9), st.binary(max_size=3))
def test_a_table_is_read_as_pamqp_reads_it(headers: Any, behind: bytes) -> None:
    table = encode.field_table(headers)

    assert read_table(table + behind, 4, len(table)) == decode.field_table(table)[1]


@given(st.binary(max_size=40), st.data())
def test_what_is_no_table_is_read_as_pamqp_reads_it_or_not_at_all(
    entries: bytes, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from([bytes([kind]) for kind in b"SxlIbsuidfDtTFAV\0"]))
    entries = b"\x01a" + kind + entries
    table = struct.pack(">I", len(entries)) + entries
    try:
        read = read_table(table, 4, len(table))
    except Exception:  # noqa: BLE001 - then pamqp is asked
        return

    assert repr(read) == repr(decode.field_table(table)[1])  # of which nan is equal to nan


def one_value(kind: str, value: bytes) -> bytes:
    """Return a table that has one value, its kind and bytes as they are."""
    entry = b"\x01a" + kind.encode() + value
    return struct.pack(">I", len(entry)) + entry


@pytest.mark.parametrize("kind", "bBsuIilLfdDtTV")
def test_a_value_with_every_bit_set_is_read_as_pamqp_reads_it(kind: str) -> None:
    size = {"s": 2, "u": 2, "I": 4, "i": 4, "f": 4, "D": 5, "l": 8, "L": 8, "d": 8, "V": 0}
    bits = b"\x00\x00\x00\x00\xff\xff\xff\xff" if kind == "T" else b"\xff" * size.get(kind, 1)
    table = one_value(kind, bits)

    assert repr(read_table(table, 4, len(table))) == repr(decode.field_table(table)[1])


def test_a_text_that_is_not_utf_8_is_read_as_bytes() -> None:
    table = one_value("S", b"\x00\x00\x00\x02\xff\xfe")

    assert read_table(table, 4, len(table)) == decode.field_table(table)[1] == {"a": b"\xff\xfe"}


def test_nothing_is_read_from_behind_a_table() -> None:
    table = one_value("S", b"\x00\x00\x00\x05ab")

    with pytest.raises(ValueError, match="longer than the table"):
        read_table(table + b"cde", 4, len(table))


@given(st.dictionaries(st.text(max_size=60), HELD, max_size=9))
@example({"é" * 64 + "a": 1, "": "no name", "b": "ü", "c": 2**63 - 1})
@example(
    {str(at): at for near in (-(2**7), 2**7, 2**40, 2**41) for at in (near - 1, near, near + 1)}
)
def test_a_table_is_written_as_pamqp_writes_it(headers: Any) -> None:
    assert write_table(headers) == encode.field_table(headers)


@pytest.mark.parametrize("value", [2**63, object(), b"bytes", "\ud800"])
def test_what_pamqp_does_not_write_is_not_written(value: Any) -> None:
    for write in (encode.field_table, write_table):
        with pytest.raises((TypeError, ValueError)):
            write({"a": value})


TEXT = st.none() | st.text(max_size=20)
TIME = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as above


@given(
    st.dictionaries(st.text(max_size=20), HELD, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                (
                    "content_type",
                    "content_encoding",
                    "correlation_id",
                    "reply_to",
                    "message_id",
                    "message_type",
                    "app_id",
                ),
                TEXT,
            ),
            "delivery_mode": st.sampled_from([1, 2]),
            "priority": st.none() | st.integers(0, 255),
            "timestamp": st.none() | TIME,
        },
    ),
)
def test_properties_are_written_as_pamqp_writes_them(headers: Any, others: Any) -> None:
    written = WrittenProperties(write_table(headers), others)

    assert written.marshal() == Basic.Properties(headers=headers, **others).marshal()


@pytest.mark.parametrize("others", [{"priority": 300}, {"app_id": "a" * 256}, {"reply_to": 1}])
def test_properties_that_pamqp_does_not_write_are_not_made(others: Any) -> None:
    with pytest.raises((TypeError, ValueError, struct.error)):
        Basic.Properties(**others).marshal()
    with pytest.raises((TypeError, ValueError, struct.error)):
        WrittenProperties(write_table({}), others)
