"""What is written in a row reads as the same message."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusewire.brokers import Message
from fusewire.brokers.message import UNREADABLE
from fusewire.brokers.sqlite._codec import decode, encode

if TYPE_CHECKING:
    from fusewire.brokers.message import HeaderValue

text = st.text(st.characters(codec=None)) | st.sampled_from(["$bytes", "$dict", "$", "headers"])
# Whole minutes, as in every time zone: CPython's fromisoformat() takes some microseconds for UTC.
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes() | st.datetimes(timezones=offsets)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text | st.binary() | times
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=15,
)
messages = st.builds(
    Message,
    body=st.binary(),
    headers=st.dictionaries(text, values, max_size=5),
    content_type=st.none() | text,
    content_encoding=st.none() | text,
    message_id=st.none() | text,
    correlation_id=st.none() | text,
    reply_to=st.none() | text,
    type=st.none() | text,
    user_id=st.none() | text,
    app_id=st.none() | text,
    timestamp=st.none() | times,
    priority=st.none() | st.integers(0, 255),
    exchange=text,
    routing_key=text,
)


def exactly(value: object) -> object:
    """Return what distinguishes equal values of other types, and NaN from nothing."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exactly(item) for item in value]
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else ("float", value, math.copysign(1, value))
    if isinstance(value, datetime):
        return ("datetime", value, value.utcoffset())
    return (type(value), value)


def nested(depth: int) -> HeaderValue:
    value: HeaderValue = []
    for _ in range(depth):
        value = [value]
    return value


@given(messages)
@example(Message(body=b"", headers={"$bytes": "AA=="}))
@example(Message(body=b"", headers={"a": {"$datetime": "2024-01-01"}, "b": {"$dict": {}}}))
@example(Message(body=b"", headers={"a": [{"$dict": {"$dict": math.inf}}]}))
@example(Message(body=b"", message_id="", exchange="", priority=0))
def test_every_message_reads_as_it_was_written(message: Message) -> None:
    properties, body = encode(message)
    read = decode(properties, body)

    assert properties.isascii()
    for name in Message.__dataclass_fields__:
        assert exactly(getattr(read, name)) == exactly(getattr(message, name)), name


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"a": {"b": [1, object()]}}, r"headers\.a\.b\[1\] holds a object"),
        ({"a": (1, 2)}, r"headers\.a holds a tuple"),
        ({"a": {1: "x"}}, r"headers\.a: key 1 is a int"),
        ({"a": 10**5000}, r"headers hold a number that cannot be stored"),
        ({"a": nested(5000)}, r"headers are nested too deeply"),
    ],
)
def test_what_cannot_be_stored_is_named(headers: dict[str, HeaderValue], named: str) -> None:
    with pytest.raises(TypeError, match=named):
        encode(Message(body=b"", headers=headers))


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"body": 5}, "body must be bytes, got int"),
        ({"body": "text"}, "body must be bytes, got str"),
        ({"message_id": 5}, "message_id must be str or None, got int"),
        ({"exchange": None}, "exchange must be str, got NoneType"),
        ({"priority": "high"}, "priority must be int or None, got str"),
        ({"timestamp": 1.5}, "timestamp must be datetime or None, got float"),
    ],
)
def test_a_property_of_another_kind_is_refused(properties: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError, match=named):
        encode(Message(**{"body": b"", **properties}))


@pytest.mark.parametrize("text", ["a\r\nb", "Grüße, 世界", "\ud800", "a\0b", "x" * 20_000])
def test_an_identity_is_stored_whatever_it_holds(text: str) -> None:
    message = Message(body=b"", message_id=text, headers={text: text}, correlation_id=text)

    assert decode(*encode(message)) == message


def test_a_row_that_is_nested_too_deeply_is_delivered_as_it_is() -> None:
    row = '{"headers":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}"

    message = decode(row, b"body")
    assert message.headers == {UNREADABLE: row}
    assert message.unreadable == "the stored properties are damaged"


def test_a_body_of_another_bytes_type_is_stored_as_bytes() -> None:
    message = Message(body=memoryview(b"abc"))  # type: ignore[arg-type]  # gRPC hands such out

    assert decode(*encode(message)) == Message(body=b"abc")


def test_times_keep_microseconds_and_offset() -> None:
    moment = datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=UTC)

    assert decode(*encode(Message(body=b"", timestamp=moment))).timestamp == moment
