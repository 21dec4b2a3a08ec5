"""What the operation of a call learns about its end, on both channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.errors import CircuitOpenError
from fusewire.interceptors import CallEnd, aio_interceptors, guard
from fusewire.operation import CallNote, operation, without_fallbacks
from tests.support.grpc_calls import STYLES, aio_seen, seen
from tests.support.grpc_server import ECHO, STREAM, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

Code = grpc.StatusCode

ENDS = pytest.mark.parametrize(
    ("asked", "note"),
    [
        ({"code": "UNAVAILABLE"}, CallNote(ECHO, "failure", "UNAVAILABLE")),
        ({"code": "NOT_FOUND"}, CallNote(ECHO, "success", "NOT_FOUND")),
        (
            {"code": "UNAUTHENTICATED"},
            CallNote(ECHO, "success", "UNAUTHENTICATED", None, "unauthenticated"),
        ),
        (
            {"code": "PERMISSION_DENIED"},
            CallNote(ECHO, "success", "PERMISSION_DENIED", None, "permission_denied"),
        ),
        (
            {"code": "RESOURCE_EXHAUSTED"},
            CallNote(ECHO, "ignored", "RESOURCE_EXHAUSTED", None, "refused"),
        ),
        (
            {"code": "UNAVAILABLE", "trailing": [("grpc-retry-pushback-ms", "2500")]},
            CallNote(ECHO, "failure", "UNAVAILABLE", 2.5, "refused"),
        ),
    ],
)


@STYLES
@ENDS
def test_the_end_of_a_call_is_noted_once(
    guarded: grpc.Channel, style: str, asked: dict[str, Any], note: CallNote
) -> None:
    with operation("op-1") as work:
        seen(guarded.unary_unary(ECHO), style, ask(**asked))
        wait_until(lambda: work.notes, "the note")
    assert work.notes == (note,)
    assert work.failed == ([ECHO] if note.outcome == "failure" else [])


@ENDS
async def test_the_end_of_an_asyncio_call_is_noted_once(
    server: EchoServer, registry: WatchedRegistry, asked: dict[str, Any], note: CallNote
) -> None:
    async with grpc.aio.insecure_channel(
        server.target, interceptors=aio_interceptors(registry=registry)
    ) as channel:
        with operation("op-1") as work:
            await aio_seen(channel.unary_unary(ECHO)(ask(**asked)))
    assert work.notes == (note,)
    assert work.failed == ([ECHO] if note.outcome == "failure" else [])


@STYLES
def test_a_call_that_ends_ok_leaves_the_name_of_its_breaker(
    guarded: grpc.Channel, style: str
) -> None:
    with operation("op-1") as work:
        seen(guarded.unary_unary(ECHO), style, ask())
        wait_until(lambda: work.succeeded, "the success")
    assert (work.succeeded, work.notes) == ([ECHO], ())


async def test_an_asyncio_call_that_ends_ok_leaves_the_name_of_its_breaker(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with grpc.aio.insecure_channel(
        server.target, interceptors=aio_interceptors(registry=registry)
    ) as channel:
        with operation("op-1") as work:
            await aio_seen(channel.unary_unary(ECHO)(ask()))
    assert (work.succeeded, work.notes) == ([ECHO], ())


def test_a_stream_that_has_spoken_notes_its_end_too(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with (
        guard(
            grpc.insecure_channel(server.target), registry=registry, streams="first_message"
        ) as channel,
        operation("op-1") as work,
    ):
        stream = channel.unary_stream(STREAM)(ask(messages=1, code="UNAVAILABLE"))
        with pytest.raises(grpc.RpcError):
            list(stream)
        wait_until(lambda: work.notes, "the note")
    assert work.notes == (CallNote(STREAM, "failure", "UNAVAILABLE"),)


@STYLES
def test_a_refused_call_is_noted(
    guarded: grpc.Channel, breaker: WatchedBreaker, style: str
) -> None:
    breaker.open()
    with operation("op-1") as work:
        seen(guarded.unary_unary(ECHO), style, ask())
    assert (work.rejected, work.failed, work.notes) == ([ECHO], [], ())


@STYLES
def test_a_refusal_that_a_fallback_answered_is_none_to_the_handler(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, style: str
) -> None:
    breaker.open()
    with (
        guard(
            grpc.insecure_channel(server.target), registry=registry, fallbacks={ECHO: b"kept"}
        ) as channel,
        operation("op-1") as work,
    ):
        method = channel.unary_unary(ECHO)
        assert seen(method, style, ask()) == b"kept"
        assert work.rejected == []
        with without_fallbacks():
            seen(method, style, ask())
        assert work.rejected == [ECHO]


async def test_refusals_and_answers_are_noted_on_asyncio_too(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    registry.get(ECHO).open()
    registry.get(STREAM).open()
    interceptors = aio_interceptors(
        registry=registry, fallbacks={ECHO: b"kept", STREAM: lambda *_: iter([b"kept"])}
    )
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with operation("op-1") as work:
            assert await channel.unary_unary(ECHO)(ask()) == b"kept"
            assert [each async for each in channel.unary_stream(STREAM)(ask())] == [b"kept"]
            assert work.rejected == []
            with without_fallbacks(), pytest.raises(CircuitOpenError):
                await channel.unary_unary(ECHO)(ask())
            assert work.rejected == [ECHO]
            assert work.notes == ()


def end(code: grpc.StatusCode, details: str = "", retry_after: float | None = None) -> CallEnd:
    return CallEnd("/p.S/M", code, details, (), None, retry_after)


@pytest.mark.parametrize("code", list(Code))
def test_a_hint_makes_any_status_a_refusal(code: grpc.StatusCode) -> None:
    named = {
        Code.UNAUTHENTICATED: "unauthenticated",
        Code.PERMISSION_DENIED: "permission_denied",
        Code.RESOURCE_EXHAUSTED: "refused",
    }
    assert end(code).condition == named.get(code)
    assert end(code, retry_after=0.0).condition == named.get(code, "refused")


@pytest.mark.parametrize("whose", ["", "CLIENT: ", "SERVER: "])
@pytest.mark.parametrize("way", ["Sent", "Received"])
def test_a_size_limit_is_the_messages_own_failure(whose: str, way: str) -> None:
    details = f"{whose}{way} message larger than max (9 vs. 4)"
    assert end(Code.RESOURCE_EXHAUSTED, details).condition is None


@pytest.mark.parametrize(
    ("code", "details", "condition"),
    [
        (Code.INTERNAL, "Invalid metadata", "local"),
        (Code.INTERNAL, "Exception serializing request!", None),
        (Code.INTERNAL, "Exception deserializing response!", None),
        (Code.UNKNOWN, "Exception iterating requests!", None),
    ],
)
def test_a_local_cause_is_a_condition_unless_it_lies_in_the_message(
    code: grpc.StatusCode, details: str, condition: str | None
) -> None:
    assert end(code, details).condition == condition


def one_message(_request: object, _error: grpc.RpcError) -> Iterator[bytes]:
    yield b"kept"
    raise LookupError


def test_a_refusal_that_a_streams_fallback_answered_is_none_to_the_handler(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    registry.get(STREAM).open()
    fallbacks = {STREAM: one_message}
    with (
        guard(
            grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
        ) as channel,
        operation("op-1") as work,
    ):
        stream = channel.unary_stream(STREAM)(ask())
        assert next(stream) == b"kept"
        assert work.rejected == []
        with pytest.raises(CircuitOpenError):
            next(stream)
        assert work.rejected == [STREAM]


async def test_a_refusal_that_an_asyncio_streams_fallback_answered_is_none_to_the_handler(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    registry.get(STREAM).open()
    interceptors = aio_interceptors(registry=registry, fallbacks={STREAM: one_message})
    async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
        with operation("op-1") as work:
            stream = channel.unary_stream(STREAM)(ask())
            assert await stream.read() == b"kept"
            assert work.rejected == []
            with pytest.raises(CircuitOpenError):
                await stream.read()
            assert work.rejected == [STREAM]
