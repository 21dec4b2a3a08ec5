"""The threads of a sync channel's calls: those that read, see ends, and ask fallbacks."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, Outcome
from fusewire.interceptors import Classification, guard
from tests.support.grpc_server import ECHO, STREAM, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_guard import WatchedRegistry

OTHER = "/test.Other/Do"
LIMIT = 20.0
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class _Stream:
    """A stream of another interceptor's."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> _Stream:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _LateReader(_Stream):
    """Its reader takes a message only after all callbacks of the stream's end."""

    def __next__(self) -> Any:
        told = threading.Event()
        self.inner.add_callback(functools.partial(told.set))
        message = next(self.inner)
        assert told.wait(LIMIT)
        return message


class _EarlyReader(_Stream):
    """Its reader sees a failure before the callbacks are called."""

    def __next__(self) -> Any:
        raise self.inner.exception(LIMIT)


class _Intercepting(grpc.UnaryStreamClientInterceptor):
    def __init__(self, change: Callable[[Any], Any]) -> None:
        self._change = change

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._change(continuation(details, request))


def _intercepted(server: EchoServer, change: Callable[[Any], Any]) -> grpc.Channel:
    return grpc.intercept_channel(grpc.insecure_channel(server.target), _Intercepting(change))


def test_no_fallback_follows_a_message_of_the_server_however_late_it_is_read(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    bare = _intercepted(server, _LateReader)
    with guard(bare, registry=registry, fallbacks={"*": [b"instead"]}) as channel:
        stream = channel.unary_stream(STREAM)(ask(messages=1, code="UNAVAILABLE"))
        over: list[Any] = []
        stream.add_done_callback(over.append)
        assert b"done" in next(stream)
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert raised.value.code() is stream.code() is UNAVAILABLE
        wait_until(lambda: over == [stream], "the end")
    assert registry.get(STREAM).outcomes == [Outcome.FAILURE]


def test_a_first_message_counts_however_late_it_is_read(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    bare = _intercepted(server, _LateReader)
    with guard(bare, registry=registry, streams="first_message") as channel:
        stream = channel.unary_stream(STREAM)(ask(messages=1, code="UNAVAILABLE"))
        assert b"done" in next(stream)
        with pytest.raises(grpc.RpcError):
            next(stream)
    assert registry.get(STREAM).outcomes == [Outcome.SUCCESS]


def test_a_first_message_is_distinguished_from_a_failure_without_one(
    server: EchoServer,
) -> None:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1_000_000))
    seen: Counter[tuple[int, bool]] = Counter()
    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={"*": [b"instead"]}) as channel:
        method = channel.unary_stream(STREAM)
        for messages in (0, 1) * 100:
            got: list[bytes] = []
            try:
                got.extend(method(ask(messages=messages, code="UNAVAILABLE")))
            except grpc.RpcError:
                got.append(b"error")
            seen[messages, got[-1] == b"instead"] += 1
    assert seen == {(0, True): 100, (1, False): 100}


def test_the_channels_thread_does_not_wait_for_a_streams_fallback(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    asked = threading.Event()

    def hold_back(call: Any) -> Any:
        # Before the guard is told of the end, its reader has come to the fallback.
        call.add_callback(functools.partial(asked.wait, LIMIT))
        return _EarlyReader(call)

    def fallback(_request: object, _error: object) -> list[Any]:
        asked.set()
        return [bare.unary_unary(OTHER).future(ask()).result(LIMIT)]

    bare = _intercepted(server, hold_back)
    with guard(bare, registry=registry, fallbacks={STREAM: fallback}) as channel:
        (message,) = channel.unary_stream(STREAM)(ask(messages=0, code="UNAVAILABLE"))
        assert b"done" in message


def test_two_threads_that_find_a_stream_failed_share_the_messages_of_one_fallback(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    asked: list[object] = []
    taken: list[bytes] = []
    second = threading.Thread(target=lambda: taken.append(next(stream)))

    def fallback(request: object, _error: object) -> list[bytes]:
        asked.append(request)
        second.start()
        second.join(0.1)  # it would be through, if it asked for itself
        return [b"1", b"2"]

    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={"*": fallback}) as channel:
        stream = channel.unary_stream(STREAM)(ask(messages=0, code="UNAVAILABLE"))
        taken.append(next(stream))
        second.join(LIMIT)
    assert len(asked) == 1
    assert sorted(taken) == [b"1", b"2"]


def test_fallbacks_that_wait_for_fallbacks_do_not_wait_for_each_other_forever() -> None:
    registry = BreakerRegistry()
    for path in (ECHO, OTHER):
        registry.get(path).force_open()
    workers, many = 16, 40
    begun: list[object] = []
    busy = threading.Event()

    def fallback(_request: object, _error: object) -> Any:
        begun.append(None)
        if len(begun) >= workers:
            busy.set()
        assert busy.wait(LIMIT)
        return channel.unary_unary(OTHER).future(b"").result()

    bare = grpc.insecure_channel("127.0.0.1:1")
    fallbacks = {ECHO: fallback, OTHER: b"instead"}
    with guard(bare, registry=registry, fallbacks=fallbacks) as channel:
        futures = [channel.unary_unary(ECHO).future(b"") for _ in range(many)]
        assert [future.result(LIMIT) for future in futures] == [b"instead"] * many


def test_a_fallback_that_is_interrupted_leaves_the_error_to_those_who_wait(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    def interrupted(_request: object, _error: object) -> Any:
        raise SystemExit

    bare = grpc.insecure_channel(server.target)
    with guard(bare, registry=registry, fallbacks={"*": interrupted}) as channel:
        stream = channel.unary_stream(STREAM)(ask(messages=0, code="UNAVAILABLE"))
        with pytest.raises(SystemExit):
            next(stream)
        with pytest.raises(grpc.RpcError):
            next(stream)
        assert stream.code() is UNAVAILABLE
        assert stream.done()


@pytest.mark.parametrize(
    "options",
    [{}, {"fallbacks": {ECHO: b"", STREAM: []}}, {"streams": "first_message"}],
    ids=["plain", "fallback", "first_message"],
)
@pytest.mark.parametrize("path", [ECHO, STREAM])
def test_a_guard_around_a_guard_gives_its_permit_back_when_the_inner_one_rejects(
    path: str, options: dict[str, Any], registry: WatchedRegistry
) -> None:
    inner = BreakerRegistry()
    inner.get(path).force_open()
    bare = guard(grpc.insecure_channel("127.0.0.1:1"), registry=inner)
    with guard(bare, registry=registry, **options) as channel:
        call: Any
        if path == ECHO:
            call = channel.unary_unary(path).future(b"")
        else:
            call = channel.unary_stream(path)(b"")
        # The outer circuit is closed, and what the inner one says is not its dependency's failure.
        with pytest.raises(grpc.RpcError, match="open"):
            call.result(LIMIT) if path == ECHO else next(call)
        assert call.code() is UNAVAILABLE
    assert registry.get(path).outcomes == [Outcome.IGNORED]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
@pytest.mark.parametrize("options", [{}, {"fallbacks": {"*": b""}}], ids=["plain", "fallback"])
@pytest.mark.parametrize("path", [ECHO, STREAM])
def test_a_call_that_its_user_gave_up_after_max_wait_counts_whether_it_is_kept_or_not(
    path: str, options: dict[str, Any], *, kept: bool, server: EchoServer, registry: WatchedRegistry
) -> None:
    bare = grpc.insecure_channel(server.target)
    classify = Classification(max_wait=0.05)
    with guard(bare, registry=registry, classify=classify, **options) as channel:
        call: Any
        if path == ECHO:
            call = channel.unary_unary(path).future(ask(delay=LIMIT))
        else:
            call = channel.unary_stream(path)(ask(delay=LIMIT))
        time.sleep(0.06)  # it is the real time that counts
        call.cancel()
        held = [call] if kept else []
        del call
        breaker = registry.get(path)
        wait_until(lambda: breaker.outcomes, "its settlement")
        assert breaker.outcomes == [Outcome.FAILURE]
        del held
