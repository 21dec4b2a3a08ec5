"""A caller may change the message that it gets from a fallback: the next caller's is unchanged."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue

from fusewire.interceptors import aio_interceptors, guard
from tests.support.grpc_calls import STYLES, call
from tests.support.grpc_server import CHAT, ECHO, GATHER, STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.support.grpc_guard import WatchedRegistry

SHAPES = pytest.mark.parametrize(
    ("shape", "path", "request_"),
    [("unary_unary", ECHO, b""), ("stream_unary", GATHER, iter(()))],
)
STREAMS = pytest.mark.parametrize(
    ("shape", "path", "request_"),
    [("unary_stream", STREAM, b""), ("stream_stream", CHAT, iter(()))],
)
ITERABLES = pytest.mark.parametrize("iterable", [list, tuple, deque])


@pytest.fixture(autouse=True)
def rejected(registry: WatchedRegistry) -> None:
    """Have every call answered by its fallback."""
    for path in (ECHO, STREAM, GATHER, CHAT):
        registry.get(path).open()


@pytest.fixture
def channel_with(registry: WatchedRegistry) -> Iterator[Callable[[Any], grpc.Channel]]:
    channels = []

    def make(fallback: Any) -> grpc.Channel:
        bare = grpc.insecure_channel("127.0.0.1:1")
        channels.append(guard(bare, registry=registry, fallbacks={"*": fallback}))
        return channels[-1]

    yield make
    for channel in channels:
        channel.close()


@pytest.fixture
async def aio_channel_with(
    registry: WatchedRegistry,
) -> AsyncIterator[Callable[[Any], grpc.aio.Channel]]:
    channels = []

    def make(fallback: Any) -> grpc.aio.Channel:
        interceptors = aio_interceptors(registry=registry, fallbacks={"*": fallback})
        channels.append(grpc.aio.insecure_channel("127.0.0.1:1", interceptors=interceptors))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.close()


def _message() -> ListValue:
    message = ListValue()
    message.append("stored")
    return message


@STYLES
@SHAPES
def test_each_caller_gets_a_copy_of_a_message(
    channel_with: Any, style: str, shape: str, path: str, request_: Any
) -> None:
    kept = _message()
    method = getattr(channel_with(kept), shape)(path)
    for _ in range(2):
        reply = call(method, style, request_)
        assert type(reply) is ListValue
        assert list(reply) == ["stored"]
        reply.append("more")
    assert list(kept) == ["stored"]


@SHAPES
async def test_each_asyncio_caller_gets_a_copy_of_a_message(
    aio_channel_with: Any, shape: str, path: str, request_: Any
) -> None:
    method = getattr(aio_channel_with(_message()), shape)(path)
    for _ in range(2):
        reply = await method(request_)
        assert list(reply) == ["stored"]
        reply.append("more")


@ITERABLES
@STREAMS
def test_each_reader_of_a_stream_gets_copies_of_its_messages(
    channel_with: Any, iterable: Any, shape: str, path: str, request_: Any
) -> None:
    method = getattr(channel_with(iterable([_message(), _message()])), shape)(path)
    for _ in range(2):
        replies = list(method(request_))
        assert [list(reply) for reply in replies] == [["stored"], ["stored"]]
        replies[0].append("more")


@ITERABLES
@STREAMS
async def test_each_reader_of_an_asyncio_stream_gets_copies_of_its_messages(
    aio_channel_with: Any, iterable: Any, shape: str, path: str, request_: Any
) -> None:
    method = getattr(aio_channel_with(iterable([_message(), _message()])), shape)(path)
    for _ in range(2):
        replies = [reply async for reply in method(request_)]
        assert [list(reply) for reply in replies] == [["stored"], ["stored"]]
        replies[0].append("more")


def test_messages_of_a_stream_are_copied_as_they_are_read(channel_with: Any) -> None:
    stream = channel_with(itertools.repeat(_message())).unary_stream(STREAM)(b"")
    first = next(stream)
    first.append("more")
    assert list(next(stream)) == ["stored"]


def test_what_a_function_makes_is_given_as_it_is(channel_with: Any) -> None:
    made = _message()
    assert channel_with(lambda *_: made).unary_unary(ECHO)(b"") is made


def test_what_a_generator_yields_is_given_as_it_is(channel_with: Any) -> None:
    made = _message()

    def generated(_request: object, _error: object) -> Iterator[ListValue]:
        yield made

    assert next(channel_with(generated).unary_stream(STREAM)(b"")) is made


def test_a_message_that_is_no_protobuf_is_given_as_it_is(channel_with: Any) -> None:
    kept = {"json": ["stored"]}
    assert channel_with(kept).unary_unary(ECHO)(b"") is kept
    assert next(channel_with([kept]).unary_stream(STREAM)(b"")) is kept
