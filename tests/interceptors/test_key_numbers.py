"""Equal calls of one operation: the number of each, and when another call may take it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.errors import CircuitOpenError
from fusewire.interceptors import FallbackDeclined
from fusewire.interceptors._sync import completion
from fusewire.operation import operation, without_fallbacks
from tests.support.grpc_calls import STYLES, aio_seen, call, seen, until
from tests.support.grpc_keys import aio_keyed, held, key_of, sent_keys
from tests.support.grpc_server import ECHO, STREAM, ask, wait_until

if TYPE_CHECKING:
    from tests.interceptors.conftest import Keyed
    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

OK = ask()
DOWN = ask(code="UNAVAILABLE")


@STYLES
@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("OK", "kept"),
        ("INVALID_ARGUMENT", "kept"),
        ("NOT_FOUND", "kept"),
        ("ALREADY_EXISTS", "kept"),
        ("FAILED_PRECONDITION", "kept"),
        ("OUT_OF_RANGE", "kept"),
        ("UNAVAILABLE", "free"),
        ("INTERNAL", "free"),
        ("UNKNOWN", "free"),
        ("DEADLINE_EXCEEDED", "free"),
        ("CANCELLED", "free"),
        ("ABORTED", "free"),
        ("RESOURCE_EXHAUSTED", "free"),
        ("UNAUTHENTICATED", "free"),
        ("PERMISSION_DENIED", "free"),
        ("UNIMPLEMENTED", "free"),
        ("DATA_LOSS", "free"),
    ],
)
def test_a_call_keeps_its_key_if_its_caller_saw_a_final_end(
    server: EchoServer, keyed: Keyed, style: str, code: str, kept: str
) -> None:
    method = keyed(settings=None).unary_unary(ECHO)
    with operation("op-1"):
        for number in (1, 2):
            seen(method, style, ask(code=code))
            expected = number if kept == "kept" else 1
            assert sent_keys(server) == [key_of(ask(code=code), number=expected)]


@pytest.mark.parametrize(
    ("code", "kept"), [("OK", "kept"), ("NOT_FOUND", "kept"), ("UNKNOWN", "free")]
)
async def test_a_call_keeps_its_key_on_asyncio_too(
    server: EchoServer, registry: WatchedRegistry, code: str, kept: str
) -> None:
    async with aio_keyed(server, registry) as channel:
        with operation("op-1"):
            for number in (1, 2):
                await aio_seen(channel.unary_unary(ECHO)(ask(code=code)))
                expected = number if kept == "kept" else 1
                assert sent_keys(server) == [key_of(ask(code=code), number=expected)]


def test_equal_calls_at_the_same_time_have_keys_of_their_own(
    server: EchoServer, keyed: Keyed
) -> None:
    method = keyed().unary_unary(ECHO)
    slow = ask(delay=0.05)
    with operation("op-1") as work:
        futures = [method.future(slow) for _ in range(8)]
        assert set(work.doubtful_keys) == {key_of(slow, number=n) for n in range(1, 9)}
        assert [future.result(20) for future in futures] == [b"done"] * 8
        wait_until(lambda: not work.doubtful_keys, "the ends")
    assert all(work.has_sent(key_of(slow, number=n)) for n in range(1, 9))


def test_threads_never_get_one_key_twice(keyed: Keyed) -> None:
    method = keyed().unary_unary(ECHO)
    with operation("op-1") as work, ThreadPoolExecutor(8) as threads:
        contexts = [contextvars.copy_context() for _ in range(64)]
        list(threads.map(lambda context: context.run(method, OK), contexts))
    assert all(work.has_sent(key_of(OK, number=n)) for n in range(1, 65))
    assert not work.has_sent(key_of(OK, number=65))


async def test_a_retry_side_by_side_with_an_equal_call_repeats_the_key_that_is_free(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    slow = ask(delay=1.5, code="UNAVAILABLE")
    async with aio_keyed(server, registry) as channel:
        method = channel.unary_unary(ECHO)
        with operation("op-1"):
            waiting = method(slow)  # holds the first number
            await until(lambda: sent_keys(server) == [key_of(slow)], "the first call")
            given_up = method(slow)
            await until(lambda: sent_keys(server) == [key_of(slow, number=2)], "the second call")
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            await aio_seen(waiting)
            registry.get(ECHO).real.reset()
            await aio_seen(method(slow))
            assert sent_keys(server) == [key_of(slow)]


def test_a_refused_call_gives_its_key_back(
    server: EchoServer, keyed: Keyed, breaker: WatchedBreaker
) -> None:
    method = keyed().unary_unary(ECHO)
    breaker.open()
    with operation("op-1") as work:
        for style in ("call", "with_call", "future"):
            with pytest.raises(CircuitOpenError):
                call(method, style, OK)
        assert work.doubtful_keys == ()
        breaker.real.reset()
        method(OK)
        assert sent_keys(server) == [key_of(OK)]


def test_a_call_that_never_began_gives_its_key_back(server: EchoServer, keyed: Keyed) -> None:
    method = keyed().unary_unary(ECHO)
    with operation("op-1") as work:
        for style in ("call", "with_call", "future"):
            with pytest.raises((TypeError, ValueError, AttributeError)):
                call(method, style, OK, credentials=5)
            assert held(work) == []
        method(OK)
        assert sent_keys(server) == [key_of(OK)]


def test_a_cancelled_future_gives_its_key_back_at_once(
    server: EchoServer, keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its caller can see already, before grpcio has called a callback, the next call knows."""
    slow = ask(delay=20)
    with operation("op-1") as work:
        future = keyed().unary_unary(ECHO).future(slow)
        assert work.doubtful_keys == (key_of(slow),)
        future.cancel()
        again = keyed().unary_unary(ECHO).future(slow)
        wait_until(lambda: server.seen()["begun"], "the call")
        wait_until(lambda: sent_keys(server) == [key_of(slow)], "the same key")
        again.cancel()


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
def test_an_end_whose_callbacks_have_not_run_gives_the_key_back(
    server: EchoServer,
    keyed: Keyed,
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
) -> None:
    monkeypatch.setattr(completion, "when_over", lambda *_: None)
    with operation("op-1"):
        if shape == "unary_unary":
            method, path = keyed().unary_unary(ECHO), ECHO
            for _ in range(2):
                assert method.future(DOWN).exception(20).code() is grpc.StatusCode.UNAVAILABLE
        else:
            method, path = keyed().unary_stream(STREAM), STREAM
            for _ in range(2):
                with pytest.raises(grpc.RpcError):
                    list(method(DOWN))
        assert sent_keys(server) == [key_of(DOWN, method=path)]


def test_a_dropped_call_gives_its_key_back(server: EchoServer, keyed: Keyed) -> None:
    stream = keyed().unary_stream(STREAM)
    endless = ask(messages=-1)
    with operation("op-1") as work:
        next(stream(endless))
        gc.collect()
        wait_until(lambda: key_of(endless, method=STREAM) not in held(work), "the key's return")
        call = stream(endless)
        next(call)
        assert sent_keys(server) == [key_of(endless, method=STREAM)]
        call.cancel()


async def test_an_awaited_call_that_is_given_up_gives_its_key_back(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    slow = ask(delay=20)
    async with aio_keyed(server, registry) as channel:
        method = channel.unary_unary(ECHO)
        with operation("op-1") as work:
            for _ in range(2):
                before = server.seen()["begun"]
                waiting = method(slow)
                await until(lambda begun=before + 1: server.seen()["begun"] == begun, "the call")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(waiting, 0.05)
                assert sent_keys(server) == [key_of(slow)]
                assert work.doubtful_keys == (key_of(slow),)


# Fallbacks


@STYLES
def test_a_reply_of_a_fallback_keeps_the_key(server: EchoServer, keyed: Keyed, style: str) -> None:
    method = keyed(fallbacks={ECHO: b"kept"}, settings=None).unary_unary(ECHO)
    with operation("op-1") as work:
        for number in (1, 2):
            assert call(method, style, DOWN) == b"kept"
            assert sent_keys(server) == [key_of(DOWN, number=number)]
        assert work.doubtful_keys == ()


def declines(*_: object) -> None:
    raise FallbackDeclined


@STYLES
@pytest.mark.parametrize("fallback", [declines, lambda *_: 1 / 0])
def test_a_fallback_that_does_not_answer_gives_the_key_back(
    server: EchoServer, keyed: Keyed, style: str, fallback: Any
) -> None:
    method = keyed(fallbacks={ECHO: fallback}).unary_unary(ECHO)
    with operation("op-1") as work:
        for _ in range(2):
            assert seen(method, style, DOWN)[1] is grpc.StatusCode.UNAVAILABLE
            assert sent_keys(server) == [key_of(DOWN)]
            assert work.doubtful_keys == (key_of(DOWN),)
        assert held(work) == []


def test_a_stream_whose_fallback_does_not_answer_gives_the_key_back(
    keyed: Keyed, breaker: WatchedBreaker
) -> None:
    method = keyed(fallbacks={STREAM: declines}).unary_stream(STREAM)
    with operation("op-1") as work:
        with pytest.raises(grpc.RpcError):
            list(method(ask(messages=0, code="UNAVAILABLE")))
        assert held(work) == []
        with pytest.raises(grpc.RpcError):
            list(method(ask(messages=1, code="UNAVAILABLE")))
        wait_until(lambda: held(work) == [], "the second key's return")


@pytest.mark.parametrize("how", ["declines", "fails", "cancelled", "answers"])
async def test_fallbacks_keep_and_give_back_keys_on_asyncio_too(
    server: EchoServer, registry: WatchedRegistry, how: str
) -> None:
    async def fallback(*_: object) -> bytes:
        if how == "declines":
            raise FallbackDeclined
        if how == "fails":
            raise ValueError("my own")
        if how == "cancelled":
            await asyncio.sleep(60)
        return b"kept"

    async def messages(*_: object) -> list[bytes]:
        return [await fallback()]

    options = {"fallbacks": {ECHO: fallback, STREAM: messages}}
    async with aio_keyed(server, registry, **options) as channel:
        with operation("op-1") as work:
            for path, shape in ((ECHO, "unary_unary"), (STREAM, "unary_stream")):
                asked = ask(messages=0, code="UNAVAILABLE")
                method = getattr(channel, shape)(path)
                try:
                    async with asyncio.timeout(0.3 if how == "cancelled" else 20):
                        if shape == "unary_unary":
                            await method(asked)
                        else:
                            async for _ in method(asked):
                                pass
                except (grpc.RpcError, TimeoutError):
                    assert how != "answers"
                expected = [key_of(asked, method=path)] if how == "answers" else []
                assert [key for key in held(work) if path in key] == expected


def test_a_call_that_a_fallback_may_still_answer_holds_its_key(
    server: EchoServer, keyed: Keyed
) -> None:
    """Its reply may be a promise under this key: no equal call may go out with it meanwhile."""
    channel: Any

    def asks_again(*_: object) -> bytes:
        with without_fallbacks():
            seen(channel.unary_unary(ECHO), "call", DOWN)
        return b"kept"

    channel = keyed(fallbacks={ECHO: asks_again})
    with operation("op-1"):
        assert channel.unary_unary(ECHO)(DOWN) == b"kept"
    assert sent_keys(server) == [key_of(DOWN, number=2)]
