"""The ways in which a user calls a gRPC method, and all that the user sees of such a call.

A way is a shape of call on one of the two channels, in one of the styles that grpcio has for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from tests.support.grpc_server import CHAT, ECHO, GATHER, STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_METHODS = {
    "unary_unary": ECHO,
    "unary_stream": STREAM,
    "stream_unary": GATHER,
    "stream_stream": CHAT,
}


@dataclass(frozen=True)
class Way:
    """A shape, a channel and a style.

    Attributes:
        shape: as grpcio names it.
        style: how the call is made, and how its responses are read.
        asynchronous: whether it is for an asyncio channel.
    """

    shape: str
    style: str
    asynchronous: bool

    @property
    def path(self) -> str:
        return _METHODS[self.shape]

    @property
    def blocks(self) -> bool:
        """Whether making the call waits for its end."""
        return self.style in ("call", "with_call")

    @property
    def streams(self) -> bool:
        """Whether the response is a stream."""
        return self.shape.endswith("stream")

    def __str__(self) -> str:
        return f"{'aio' if self.asynchronous else 'sync'}-{self.shape}-{self.style}"

    def make(self, channel: Any, request: bytes, serializer: Any = None, **options: Any) -> Any:
        """Make the call as far as it goes without waiting; a blocking one is over then."""
        method = getattr(channel, self.shape)(self.path, request_serializer=serializer)
        if self.style in ("with_call", "future"):
            method = getattr(method, self.style)
        if self.shape.startswith("unary"):
            return method(request, **options)
        if self.style == "write":
            return method(**options)
        requests = _given if self.asynchronous else _iterated
        return method(requests(request), **options)


SYNC_WAYS = [
    Way("unary_unary", "call", asynchronous=False),
    Way("unary_unary", "with_call", asynchronous=False),
    Way("unary_unary", "future", asynchronous=False),
    Way("unary_stream", "iterate", asynchronous=False),
    Way("stream_unary", "call", asynchronous=False),
    Way("stream_unary", "with_call", asynchronous=False),
    Way("stream_unary", "future", asynchronous=False),
    Way("stream_stream", "iterate", asynchronous=False),
]
AIO_WAYS = [
    Way("unary_unary", "await", asynchronous=True),
    Way("unary_stream", "iterate", asynchronous=True),
    Way("unary_stream", "read", asynchronous=True),
    Way("stream_unary", "await", asynchronous=True),
    Way("stream_unary", "write", asynchronous=True),
    Way("stream_stream", "iterate", asynchronous=True),
    Way("stream_stream", "write", asynchronous=True),
]


def _iterated(request: bytes) -> Iterator[bytes]:
    yield request
    yield b"more"


async def _given(request: bytes) -> AsyncIterator[bytes]:
    yield request
    yield b"more"


def finish(way: Way, channel: Any, request: bytes, **options: Any) -> tuple[Any, ...]:
    """Make a call on a sync channel, read it to its end and return all that the user sees."""
    act = options.pop("act", None)
    try:
        call = way.make(channel, request, **options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it
        return ("raised at once", *tell(error))
    if act is not None:
        act(call)
    if way.style == "call":
        return ("response", call)
    if way.style == "with_call":
        response, call = call
        return ("response", response, *_state(call))
    seen: list[Any] = []
    try:
        if way.style == "future":
            seen.append(call.result(20))
        else:
            seen.extend(call)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it
        seen.append(tell(error))
    return (*seen, *_state(call))


def _state(call: Any) -> tuple[Any, ...]:
    """Return what a call that is over reports."""
    try:
        seen = (call.code(), call.details(), tuple(call.trailing_metadata() or ()))
    except AttributeError:  # OpenTelemetry makes a plain generator of a stream
        return ("no call",)
    flags = (call.cancelled(), call.done(), call.running(), call.is_active())
    return seen + flags


def tell(error: BaseException) -> tuple[Any, ...]:
    """Return what an error is and says."""
    kind = type(error).__name__
    if isinstance(error, grpc.RpcError):
        return kind, error.code(), error.details(), tuple(error.trailing_metadata() or ())
    return (kind,)


async def aio_finish(
    way: Way,
    channel: Any,
    request: bytes,
    *,
    act: Callable[[Any], Any] | None = None,
    **options: Any,
) -> tuple[Any, ...]:
    """Make a call on an asyncio channel, read it to its end and return all that the user sees."""
    try:
        call = way.make(channel, request, **options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it
        return ("raised at once", *tell(error))
    seen: list[Any] = []
    if way.style == "write":
        await _write(call, request)
    if act is not None:
        await act(call)
    seen.extend(await _read(way, call))
    for ask in (call.cancelled, call.done):
        try:
            seen.append(ask())
        except Exception as error:  # noqa: BLE001 - in grpcio 1.71 what an interceptor raised
            seen.append(tell(error))
    for told in (call.code(), call.details(), call.trailing_metadata()):
        try:
            seen.append(await told)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user sees it
            seen.append(tell(error))
    return tuple(seen)


async def _write(call: Any, request: bytes) -> None:
    """Write two requests, as far as the call lets them: when it ends early is chance."""
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        await call.write(request)
        await call.write(b"more")
        await call.done_writing()


async def _read(way: Way, call: Any) -> list[Any]:
    seen: list[Any] = []
    try:
        async with asyncio.timeout(20):
            if not way.streams:
                seen.append(await call)
            elif way.style == "iterate":
                async for message in call:
                    seen.append(message)  # noqa: PERF401 - what came before an error counts
            else:
                while (message := await call.read()) is not grpc.aio.EOF:
                    seen.append(message)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the user sees it
        seen.append(tell(error))
    return seen
