"""How calls of grpcio end where one would not expect it: none of it fools a guard.

What else grpcio does is in ``test_traps.py``.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental
import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, Outcome
from fusewire.interceptors import CallEnd, aio_interceptors, guard
from fusewire.interceptors import _call as call_module
from fusewire.interceptors._call import GuardedCall
from fusewire.interceptors._policy import MethodPolicy, Policies
from fusewire.interceptors._sync.completion import CollectableCall
from tests.support.grpc_calls import STYLES, seen
from tests.support.grpc_guard import Clock
from tests.support.grpc_guard_options import GUARDS
from tests.support.grpc_no_op import aio_no_op
from tests.support.grpc_server import ECHO, STREAM, EchoServer, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry

OK, FAILURE, IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED


class _EndsMeanwhile:
    """A call of grpcio's that ends just after it has said that it has not."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._asked = False

    def done(self) -> bool:
        first, self._asked = not self._asked, True
        self._call.code()  # waits for the end
        return not first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __next__(self) -> Any:
        return next(self._call)


class _EndingMeanwhile(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return _EndsMeanwhile(continuation(details, request))

    intercept_unary_stream = intercept_unary_unary


@GUARDS
def test_a_call_that_ends_before_its_callback_is_taken_is_settled_all_the_same(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    inner = grpc.intercept_channel(grpc.insecure_channel(server.target), _EndingMeanwhile())
    with guard(inner, registry=registry, **options) as channel:
        order = ask(code="UNAVAILABLE", messages=0)
        future = channel.unary_unary(ECHO).future(order)
        stream = channel.unary_stream(STREAM)(order)
        for path in (ECHO, STREAM):
            breaker = registry.get(path)
            wait_until(lambda breaker=breaker: breaker.outcomes == [FAILURE], "the outcome")
        assert isinstance(future.exception(20), grpc.RpcError)
        with pytest.raises(grpc.RpcError):
            next(stream)


@GUARDS
def test_what_raises_at_a_calls_end_does_not_stop_the_channels_futures(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    # It runs in a thread of grpcio's that may not outlive it.
    heard: list[object] = []

    def break_down(what: object) -> Any:
        heard.append(what)
        raise ValueError("what hears of a call's end raises")

    registry.get(ECHO).real.add_listener(break_down)
    channel = grpc.insecure_channel(server.target)
    with guard(channel, registry=registry, classify={STREAM: break_down}, **options) as guarded:
        futures = [guarded.unary_unary(ECHO).future(ask(code="UNAVAILABLE")) for _ in range(2)]
        stream = guarded.unary_stream(STREAM)(ask(code="UNAVAILABLE", messages=0))
        for path, outcomes in ((ECHO, [FAILURE, FAILURE]), (STREAM, [IGNORED])):
            breaker = registry.get(path)
            wait_until(lambda one=breaker, told=outcomes: one.outcomes == told, "the outcomes")
        wait_until(lambda: len(heard) == 2, "the opened circuit and the stream's end")
        assert all(isinstance(future.exception(20), grpc.RpcError) for future in futures)
        with pytest.raises(grpc.RpcError):
            next(stream)
        assert guarded.unary_unary("/test.Other/Do").future(ask()).result(20) == b"done"


def test_what_the_server_cancels_is_no_local_cancel(
    server: EchoServer, registry: WatchedRegistry
) -> None:
    with guard(grpc.insecure_channel(server.target), registry=registry) as channel:
        future = channel.unary_unary(ECHO).future(ask(code="CANCELLED"))
        error = future.exception(20)
        assert isinstance(error, grpc.RpcError)
        assert (future.code(), future.cancelled()) == (grpc.StatusCode.CANCELLED, False)
        wait_until(lambda: registry.get(ECHO).outcomes == [IGNORED], "the call's outcome")


class _Failing(grpc.UnaryUnaryClientInterceptor):
    """Raises the error of another call, for which grpcio's status is always INTERNAL."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.error = error

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        raise self.error


@STYLES
@pytest.mark.parametrize(("code", "outcome"), [("UNAVAILABLE", FAILURE), ("NOT_FOUND", OK)])
def test_an_error_that_an_inner_interceptor_raises_counts_by_its_own_status(  # noqa: PLR0917 - fixtures
    server: EchoServer,
    bare: grpc.Channel,
    registry: WatchedRegistry,
    style: str,
    code: str,
    outcome: Outcome,
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        bare.unary_unary(ECHO)(ask(code=code))
    inner = grpc.intercept_channel(grpc.insecure_channel(server.target), _Failing(raised.value))
    with guard(inner, registry=registry) as channel:
        seen(channel.unary_unary(ECHO), style, ask())
        wait_until(lambda: registry.get(ECHO).outcomes == [outcome], "the call's outcome")


@GUARDS
def test_a_stream_of_a_single_thread_is_read_and_settled_as_any(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    # Its callbacks come in the reader's thread, and its code() raises before the end.
    single = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
    channel = grpc.insecure_channel(server.target, options=single)
    with guard(channel, registry=registry, **options) as guarded:
        method = guarded.unary_stream(STREAM)
        assert list(method(ask())) == [b"done"] * 3
        with pytest.raises(grpc.RpcError):
            list(method(ask(code="UNAVAILABLE", messages=0)))
        stream = method(ask(messages=-1))
        next(stream)
        stream.cancel()
        del stream  # cancelled, it reports to nobody
        breaker = registry.get(STREAM)
        wait_until(breaker.every_permit_settled_once, "the permits")
    last = OK if options.get("streams") == "first_message" else IGNORED
    assert breaker.outcomes == [OK, FAILURE, last]


def policy_of(
    registry: WatchedRegistry | BreakerRegistry,
    classify: Callable[[CallEnd], Outcome] | None = None,
) -> MethodPolicy:
    found = Policies(
        None,
        dependency=None,
        registry=registry,
        fallbacks=None,
        classify=classify,
        idempotent=(),
        streams="end",
        breaker_per="method",
        health=None,
        sync=True,
    ).of(ECHO, "unary_unary")
    assert found is not None
    return found


class Unknown:
    """A method of which nothing is known but its shape."""

    shape = "unary_unary"
    serialize = None


class Bare:
    """A call of grpcio's, as far as what a guard keeps of it goes.

    A reader sees the end before the callbacks are called, and may have dropped the call by then:
    seen in 2 of 1,000 streams with threads that take turns often.
    """

    def __init__(self, code: grpc.StatusCode | None) -> None:
        self._state = SimpleNamespace(code=code, details=b"gone", trailing_metadata=())


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (grpc.StatusCode.OK, OK),
        (grpc.StatusCode.UNAVAILABLE, FAILURE),
        (grpc.StatusCode.NOT_FOUND, OK),
        (grpc.StatusCode.CANCELLED, IGNORED),
        (None, IGNORED),
    ],
)
def test_a_call_that_is_gone_when_its_end_is_reported_is_settled_by_that_end(
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    code: grpc.StatusCode | None,
    outcome: Outcome,
) -> None:
    guarded = GuardedCall.of(policy_of(registry), None, None, b"", Unknown())
    assert guarded.admit() is None
    call = Bare(code)
    remains = CollectableCall(guarded, call)
    del call
    remains.settle()
    assert breaker.outcomes == [outcome]


def test_the_time_that_listeners_take_is_not_a_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(call_module, "time", SimpleNamespace(monotonic=clock))
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1), clock=clock)
    breaker = registry.get(ECHO)
    breaker.acquire().failure()
    clock.pass_time(breaker.settings.recovery_timeout)
    breaker.add_listener(lambda _: clock.pass_time(5.0))
    ends: list[CallEnd] = []

    def classify(end: CallEnd) -> Outcome:
        ends.append(end)
        return IGNORED

    guarded = GuardedCall.of(policy_of(registry, classify), None, None, b"", Unknown())
    assert guarded.admit() is None
    clock.pass_time(0.25)
    guarded.fail(grpc.StatusCode.CANCELLED, None, ())
    assert [end.duration for end in ends] == [0.25]


@GUARDS
def test_a_callback_that_comes_late_is_refused_as_grpcio_does(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    with guard(grpc.insecure_channel(server.target), registry=registry, **options) as channel:
        future = channel.unary_unary(ECHO).future(ask())
        future.result(20)
        stream = channel.unary_stream(STREAM)(ask())
        list(stream)
        for call in (future, stream):
            wait_until(call.done, "the call's end")
            assert call.add_callback(lambda: None) is False
            called: list[Any] = []
            call.add_done_callback(called.append)
            assert called == [call]


@GUARDS
async def test_the_remaining_time_is_that_of_any_intercepted_call(
    server: EchoServer, registry: WatchedRegistry, options: dict[str, Any]
) -> None:
    async def told(interceptors: Any) -> list[str]:
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
            found = []
            for call in (
                channel.unary_unary(ECHO)(ask(), timeout=20),
                channel.unary_stream(STREAM)(ask(), timeout=20),
            ):
                with pytest.raises(NotImplementedError) as raised:
                    call.time_remaining()
                found.append(type(raised.value).__name__)
                call.cancel()
        return found

    assert await told(aio_interceptors(registry=registry, **options)) == await told(aio_no_op())
