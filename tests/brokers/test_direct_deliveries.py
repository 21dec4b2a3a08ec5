"""Deliveries reach us past aiormq, whatever frames come with them, and by aiormq if they must."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiormq.channel import Channel as AiormqChannel
from aiormq.connection import FrameReceiver
from aiormq.exceptions import InvalidFrameError
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from fusewire.brokers import Message, RabbitMQBroker
from fusewire.brokers.rabbitmq import _subscription
from fusewire.brokers.rabbitmq._workarounds import frame_reader
from fusewire.brokers.rabbitmq._workarounds.direct_deliveries import (
    Delivered,
    DirectConsumer,
    properties_in,
)
from fusewire.brokers.rabbitmq._workarounds.frame_reader import LenientReader
from fusewire.brokers.rabbitmq._workarounds.unreadable import readable
from tests.support.content_headers import CONTENT_TYPE, HEADERS, content_header

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS, OTHER = 3, 4  # channels
TAG = "tag"
HEARTBEAT = Heartbeat().marshal()
LARGEST = 100  # bytes of a body in one frame


def delivery(
    body: bytes = b"", *, number: int = 1, redelivered: bool = False, tag: str = TAG
) -> list[bytes]:
    """Return the frames of a delivery on our channel."""
    pieces = [body[at : at + LARGEST] for at in range(0, len(body), LARGEST)]
    method = Basic.Deliver(tag, number, redelivered, "an exchange", "a.key")
    header = ContentHeader(0, len(body), Basic.Properties(message_id="m", headers={"a": 1}))
    frames: tuple[Any, ...] = (method, header, *map(ContentBody, pieces))
    return [frame.marshal(each, OURS) for each in frames]


class Connection:
    """What comes over one connection, read until it ends.

    Attributes:
        taken: what was delivered past aiormq.
    """

    def __init__(self, *, now: Iterable[float] = ()) -> None:
        self.taken: list[Delivered] = []
        self._times = iter(now)
        self._stream = asyncio.StreamReader()
        self._reader = LenientReader(
            self._stream,
            consumers={OURS: DirectConsumer(TAG, self.taken.append)},
            clock=lambda: next(self._times, 0.0),
        )

    async def for_aiormq(self, sent: bytes, piece: int = 2**20) -> list[tuple[int, str]]:
        """Return the channel and the name of each frame that aiormq gets of `sent`."""

        async def feed() -> None:
            for at in range(0, len(sent), piece):
                self._stream.feed_data(sent[at : at + piece])
                await asyncio.sleep(0)
            self._stream.feed_data(HEARTBEAT)  # so that it ends with a frame of aiormq's
            self._stream.feed_eof()

        feeding = asyncio.create_task(feed())
        receiver: Any = FrameReceiver(self._reader)  # type: ignore[arg-type]  # as it gets it
        frames = [(channel, each.name) async for _, channel, each in receiver]
        await feeding
        return frames[:-1]


@pytest.mark.parametrize("piece", [1, 7, 20, 64, 2**20])
@pytest.mark.parametrize("size", [0, 1, LARGEST, 2 * LARGEST + 1])
async def test_deliveries_come_past_aiormq_in_whatever_pieces_they_come(
    size: int, piece: int
) -> None:
    connection, body = Connection(), bytes(size)
    sent = delivery(body) + delivery(body, number=2, redelivered=True)

    assert await connection.for_aiormq(b"".join(sent), piece) == []

    first, second = connection.taken
    assert (first.tag, second.tag) == (1, 2)
    assert (first.redelivered, second.redelivered) == (False, True)
    for each in connection.taken:
        assert (each.body, each.exchange, each.routing_key) == (body, "an exchange", "a.key")
        assert each.properties == Basic.Properties(message_id="m", headers={"a": 1})


async def test_all_else_goes_to_aiormq_also_between_the_frames_of_a_delivery() -> None:
    connection = Connection()
    other = frame.marshal(Basic.Ack(1), OTHER)
    sent = b"".join(piece + other for piece in delivery(b"a" * 2 * LARGEST))
    sent += frame.marshal(Basic.QosOk(), OURS)

    assert await connection.for_aiormq(sent) == [(OTHER, "Basic.Ack")] * 4 + [(OURS, "Basic.QosOk")]
    assert [each.body for each in connection.taken] == [b"a" * 2 * LARGEST]


async def test_what_is_delivered_to_another_consumer_goes_to_aiormq() -> None:
    connection = Connection()

    frames = await connection.for_aiormq(b"".join(delivery(b"a", tag="tag2")))

    assert frames == [(OURS, "Basic.Deliver"), (OURS, "ContentHeader"), (OURS, "ContentBody")]
    assert connection.taken == []


@pytest.mark.parametrize("end", [Channel.Close(200, "OK", 0, 0), Channel.CloseOk()])
async def test_when_the_channel_has_ended_its_number_is_free_for_another(end: Any) -> None:
    connection = Connection()
    sent = b"".join(delivery(b"a"))

    frames = await connection.for_aiormq(sent + frame.marshal(end, OURS) + sent)

    assert frames == [
        (OURS, end.name),
        *((OURS, name) for name in ("Basic.Deliver", "ContentHeader", "ContentBody")),
    ]
    assert len(connection.taken) == 1


@pytest.mark.parametrize(
    "frames",
    [
        [delivery(b"a")[0], delivery(b"a")[0]],
        [delivery(b"a")[0], delivery(b"a")[2]],
        [*delivery(b"a")[:2], delivery(b"a")[1]],
        [*delivery(b"a")[:2], frame.marshal(Basic.CancelOk(TAG), OURS)],
    ],
)
async def test_a_delivery_that_is_broken_off_ends_the_connection(frames: list[bytes]) -> None:
    connection = Connection()

    with pytest.raises(InvalidFrameError, match="in the middle of a delivery"):
        await connection.for_aiormq(b"".join(frames))

    assert connection.taken == []


async def test_a_frame_that_does_not_end_as_one_ends_the_connection() -> None:
    connection = Connection()
    method, *_ = delivery(b"a")

    with pytest.raises(InvalidFrameError, match="Last byte"):
        await connection.for_aiormq(method[:-1] + b"\0")


async def test_deliveries_show_aiormq_that_the_connection_lives() -> None:
    life = frame_reader._SIGN_OF_LIFE
    # It is looked at when the reader is made, with each frame of a delivery, and with each for
    # aiormq.
    now = [0.0] * 4 + [life] * 7 + [2 * life] * 3
    connection = Connection(now=now)

    frames = await connection.for_aiormq(b"".join(delivery(b"a") * 4))

    assert frames == [(0, "Heartbeat")] * 2
    assert len(connection.taken) == 4


NOW = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
TEXT = st.none() | st.text(min_size=1, max_size=20)


@given(
    st.fixed_dictionaries(
        {
            name: TEXT
            for name in Basic.Properties.__slots__
            if Basic.Properties.amqp_type(name) == "shortstr" and name != "cluster_id"
        }
    ),
    st.none() | st.dictionaries(st.text(max_size=9), st.text() | st.integers(0, 9), max_size=3),
    st.none() | st.integers(0, 255),
    st.none() | st.just(NOW),
)
def test_properties_are_read_as_pamqp_reads_them(
    texts: Any, headers: Any, priority: int | None, time: datetime | None
) -> None:
    sent = Basic.Properties(headers=headers, priority=priority, timestamp=time, **texts)

    read = properties_in(ContentHeader(0, 4, sent).marshal())

    assert read == sent


@given(st.integers(0, 2**16 - 1), st.binary(max_size=60))
@example(HEADERS, b"\0\0\0\x6b\x01aS\0\0\0\x64" + b"a text that is cut off")
@example(CONTENT_TYPE | Basic.Properties.flags["content_encoding"] | 1, bytes(2))
def test_of_any_bytes_pamqps_reading_is_had_of_what_is_made_readable(
    flags: int, fields: bytes
) -> None:
    payload = content_header(flags, fields)
    try:
        header = ContentHeader()
        header.unmarshal(readable(payload))
    except Exception as error:  # noqa: BLE001 - then that is what is had
        with pytest.raises(type(error)):
            properties_in(payload)
    else:
        assert repr_of(properties_in(payload)) == repr_of(header.properties)


def repr_of(properties: Basic.Properties) -> str:
    """Return all that they hold; of which nan is equal to nan."""
    return repr(list(properties))


def note_tasks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what aiormq's channels make tasks for."""
    made: list[str] = []
    create_task = AiormqChannel.create_task

    def note(self: AiormqChannel, work: Any) -> Any:
        made.append(work.__qualname__)
        return create_task(self, work)

    monkeypatch.setattr(AiormqChannel, "create_task", note)
    return made


@pytest.mark.parametrize("directly", [True, False])
async def test_the_installed_aiormq_has_no_part_in_deliveries_but_could_have(
    amqp_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch, *, directly: bool
) -> None:
    if not directly:  # as if aiormq kept its transport elsewhere
        monkeypatch.setattr(frame_reader, "LenientTransport", int)
    made = note_tasks(monkeypatch)
    by_aiormq = f"{_subscription.RabbitMQSubscription.start.__qualname__}.<locals>.consumer"
    async with RabbitMQBroker(amqp_url, timeout=5) as broker:
        await broker.create_queue(queue_name)
        await broker.publish(queue_name, Message(body=b"a", headers={"b": "c"}))
        subscription = await broker.subscribe(queue_name, prefetch=1)
        delivery = await subscription.receive()
        assert (delivery.message.body, delivery.message.headers) == (b"a", {"b": "c"})
        await delivery.done()
        await subscription.release()
    assert made  # the channels' readers, for example
    assert [name for name in made if "consumer" in name] == [by_aiormq] * (not directly)
