"""Which idempotency key a call carries, and what it is made of."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import wrappers_pb2

from fusewire.errors import SettingsError
from fusewire.operation import IDEMPOTENCY_KEY, operation
from tests.support.grpc_calls import STYLES, aio_seen, call, seen
from tests.support.grpc_keys import aio_keyed, key_of, sent_keys
from tests.support.grpc_server import CHAT, ECHO, GATHER, STREAM, ask, wait_until

if TYPE_CHECKING:
    from tests.interceptors.conftest import Keyed
    from tests.support.grpc_guard import WatchedRegistry
    from tests.support.grpc_server import EchoServer

OK = ask()
DOWN = ask(code="UNAVAILABLE")


@STYLES
def test_the_key_is_made_of_the_request(server: EchoServer, keyed: Keyed, style: str) -> None:
    method = keyed().unary_unary(ECHO)
    made = {}
    for order in ("ab", "ba"):
        with operation("op-1"):
            for reply in order:
                call(method, style, ask(reply=reply))
                made[order, reply] = sent_keys(server)
    for reply in "ab":
        assert made["ab", reply] == made["ba", reply] == [key_of(ask(reply=reply))]


async def test_the_key_is_made_of_the_request_on_asyncio(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with aio_keyed(server, registry, dependency="eu") as channel:
        with operation("op-1"):
            await channel.unary_unary(ECHO)(OK)
            assert sent_keys(server) == [key_of(OK, dependency="eu")]
            assert [each async for each in channel.unary_stream(STREAM)(OK)] == [b"done"] * 3
            assert sent_keys(server) == [key_of(OK, method=STREAM, dependency="eu")]


def test_a_stream_of_responses_has_one_request_and_so_a_key(
    server: EchoServer, keyed: Keyed
) -> None:
    with operation("op-1"):
        list(keyed().unary_stream(STREAM)(OK))
    assert sent_keys(server) == [key_of(OK, method=STREAM)]


@STYLES
def test_the_callers_own_key_goes_out_as_it_is(
    server: EchoServer, keyed: Keyed, style: str
) -> None:
    method = keyed().unary_unary(ECHO)
    with operation("op-1"):
        call(method, style, OK, metadata=iter([("mine", "x"), (IDEMPOTENCY_KEY, "my own/17 %")]))
        assert sent_keys(server) == ["my own/17 %"]
        assert ["mine", "x"] in server.seen()["metadata"]
        call(method, style, OK, metadata=[("mine", "y")])
        assert sent_keys(server) == [key_of(OK)]
        assert ["mine", "y"] in server.seen()["metadata"]


@STYLES
def test_only_idempotent_methods_within_an_operation_carry_keys(
    server: EchoServer, keyed: Keyed, style: str
) -> None:
    channel = keyed()
    with operation("op-1"):
        call(channel.unary_unary("/test.Echo/Other"), style, OK)
        assert sent_keys(server) == []
    call(channel.unary_unary(ECHO), style, OK)
    assert sent_keys(server) == []


@STYLES
def test_a_method_without_a_breaker_has_keys_too(
    server: EchoServer, keyed: Keyed, style: str
) -> None:
    method = keyed(settings={"/other.Service/*": None}).unary_unary(ECHO)
    with operation("op-1") as work:
        seen(method, style, DOWN)
        wait_until(lambda: work.doubtful_keys == (key_of(DOWN),), "the end")
        for number in (1, 2):
            assert call(method, style, OK) == b"done"
            assert sent_keys(server) == [key_of(OK, number=number)]
    assert (work.notes, work.failed) == ((), [])


async def test_a_method_without_a_breaker_has_keys_on_asyncio_too(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    async with aio_keyed(server, registry, settings={"/other.Service/*": None}) as channel:
        with operation("op-1") as work:
            await aio_seen(channel.unary_unary(ECHO)(DOWN))
            assert sent_keys(server) == [key_of(DOWN)]
            assert work.doubtful_keys == (key_of(DOWN),)


def test_health_checks_never_carry_keys(server: EchoServer, keyed: Keyed) -> None:
    health = keyed(idempotent={"*"}).unary_unary("/grpc.health.v1.Health/List")
    with operation("op-1"):
        health(OK)
    assert sent_keys(server) == []


# What the bytes of a request are


def text_of(message: wrappers_pb2.StringValue) -> bytes:
    return message.value.encode()


@STYLES
def test_a_protobuf_request_is_identified_by_its_own_bytes(
    server: EchoServer, keyed: Keyed, style: str
) -> None:
    request = wrappers_pb2.StringValue(value=OK.decode())
    method = keyed().unary_unary(ECHO, request_serializer=text_of)
    with operation("op-1"):
        assert call(method, style, request) == b"done"
    assert sent_keys(server) == [key_of(request.SerializeToString())]


@pytest.mark.parametrize("given", ["by position", "by name"])
def test_any_other_request_is_identified_by_the_methods_serializer(
    server: EchoServer, keyed: Keyed, given: str
) -> None:
    channel = keyed()
    method = (
        channel.unary_unary(ECHO, str.encode)
        if given == "by position"
        else channel.unary_unary(ECHO, request_serializer=str.encode)
    )
    with operation("op-1"):
        method(OK.decode())
    assert sent_keys(server) == [key_of(OK)]


class _Changing(grpc.aio.UnaryUnaryClientInterceptor):
    """Changes the user's message before grpcio serializes it, as the user might."""

    def __init__(self, message: wrappers_pb2.StringValue) -> None:
        self._message = message

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._message.value = ask(reply="another").decode()
        return await continuation(details, request)


async def test_what_is_sent_on_asyncio_is_what_the_key_was_made_of(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    request = wrappers_pb2.StringValue(value=OK.decode())
    digested = request.SerializeToString()
    async with aio_keyed(server, registry, within=[_Changing(request)]) as channel:
        method = channel.unary_unary(ECHO, request_serializer=text_of)
        with operation("op-1"):
            assert await method(request) == b"done"
    assert sent_keys(server) == [key_of(digested)]


async def test_a_request_without_bytes_has_no_key_and_one_warning(
    server: EchoServer, registry: WatchedRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    async with aio_keyed(server, registry) as channel:
        method = channel.unary_unary(ECHO, request_serializer=str.encode)
        with operation("op-1"):
            for _ in range(2):
                await method(OK.decode())
                assert sent_keys(server) == []
    assert warned(caplog) == 1
    assert f"{ECHO} gets no idempotency key: its request, a str" in caplog.text


def warned(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.WARNING for record in caplog.records)


@STYLES
def test_a_request_that_cannot_be_serialized_fails_as_ever(
    keyed: Keyed, caplog: pytest.LogCaptureFixture, style: str
) -> None:
    method = keyed().unary_unary(ECHO, request_serializer=str.encode)
    with operation("op-1"):
        assert "serializing" in seen(method, style, b"no text")[2]
    assert "idempotency" not in caplog.text


# Streams of requests


@pytest.mark.parametrize(("shape", "path"), [("stream_unary", GATHER), ("stream_stream", CHAT)])
def test_a_stream_that_is_named_idempotent_is_refused_when_the_method_is_made(
    keyed: Keyed, shape: str, path: str
) -> None:
    with pytest.raises(
        SettingsError, match="must be a method with one request, got one with a stream"
    ):
        getattr(keyed(idempotent={path}), shape)(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # grpcio 1.71
@pytest.mark.parametrize(("shape", "path"), [("stream_unary", GATHER), ("stream_stream", CHAT)])
async def test_a_stream_that_is_named_idempotent_is_refused_on_asyncio_when_it_is_called(
    server: EchoServer, registry: WatchedRegistry, shape: str, path: str
) -> None:
    async with aio_keyed(server, registry, idempotent={path}) as channel:
        called = getattr(channel, shape)(path)(iter([OK]))
        end = called if shape == "stream_unary" else anext(aiter(called))
        with pytest.raises(
            SettingsError, match="must be a method with one request, got one with a stream"
        ):
            await end


def test_a_stream_that_a_pattern_names_goes_without_a_key_and_warns_once(
    server: EchoServer, keyed: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    method = keyed(idempotent={"/test.Echo/*"}).stream_unary(GATHER)
    with operation("op-1"):
        for _ in range(2):
            assert method(iter([OK])) == b"done"
            assert sent_keys(server) == []
    assert warned(caplog) == 1
    assert f"{GATHER} is declared idempotent and takes a stream" in caplog.text


# The end of an operation


async def test_a_task_that_outlives_its_operation_has_no_key_and_one_warning(
    server: EchoServer, registry: WatchedRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    left = asyncio.Event()
    async with aio_keyed(server, registry) as channel:
        method = channel.unary_unary(ECHO)

        async def outlive() -> None:
            await left.wait()
            for _ in range(2):
                await method(OK)
                assert sent_keys(server) == []

        with operation("op-1"):
            task = asyncio.create_task(outlive())
            await asyncio.sleep(0)
        left.set()
        await task
    assert warned(caplog) == 1
    assert f"{ECHO} is called by something that outlives" in caplog.text


def test_the_former_scheme_is_kept_for_what_was_parked_with_it(
    server: EchoServer, keyed: Keyed
) -> None:
    method = keyed().unary_unary(ECHO)
    with operation("op-1", keys_by_ordinal=True) as work:
        for number in (1, 2):
            method(OK)
            assert sent_keys(server) == [f"op-1/test.Echo/Do/{number}"]
        assert work.doubtful_keys == ()
