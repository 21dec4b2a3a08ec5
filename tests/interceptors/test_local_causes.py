"""Failures in this process and answers of a proxy are no evidence about the dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors, guard
from fusewire.operation import operation
from tests.support.grpc_calls import STYLES, aio_seen, seen, until
from tests.support.grpc_server import ECHO, ask, wait_until
from tests.support.http2_proxy import RefusingProxy

if TYPE_CHECKING:
    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry
    from tests.support.grpc_server import EchoServer

IGNORED, FAILURE = Outcome.IGNORED, Outcome.FAILURE
Code = grpc.StatusCode


class Plugin(grpc.AuthMetadataPlugin):
    """Provides credentials, or fails to, as its test wants."""

    def __init__(self, how: str) -> None:
        self._how = how

    def __call__(self, context: Any, callback: Any) -> None:
        if self._how == "raises":
            raise RuntimeError("token endpoint refused")
        if self._how == "fails":
            callback((), RuntimeError("token endpoint refused"))
        if self._how == "gives an illegal key":
            callback((("Authorization Bad", "x"),), None)
        if self._how == "gives an illegal value":
            callback((("authorization", "x\n"),), None)


PLUGINS = pytest.mark.parametrize(
    "how", ["raises", "fails", "gives an illegal key", "gives an illegal value"]
)


def credentials(secure: EchoServer, how: str) -> grpc.ChannelCredentials:
    plugin = grpc.metadata_call_credentials(Plugin(how))
    return grpc.composite_channel_credentials(secure.credentials(), plugin)


@STYLES
@PLUGINS
def test_a_token_that_cannot_be_had_is_no_failure_of_the_server(
    secure: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, how: str, style: str
) -> None:
    inner = grpc.secure_channel(f"localhost:{secure.port}", credentials(secure, how))
    with guard(inner, registry=registry) as channel, operation("op-1") as work:
        for _ in range(3):
            assert seen(channel.unary_unary(ECHO), style, ask(), timeout=10)[1] is Code.UNAVAILABLE
        wait_until(lambda: len(work.notes) == 3, "the notes")
    assert breaker.outcomes == [IGNORED] * 3
    assert {note.condition for note in work.notes} == {"local"}


@PLUGINS
async def test_a_token_that_cannot_be_had_is_no_failure_on_asyncio(
    secure: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, how: str
) -> None:
    async with grpc.aio.secure_channel(
        f"localhost:{secure.port}",
        credentials(secure, how),
        interceptors=aio_interceptors(registry=registry),
    ) as channel:
        with operation("op-1") as work:
            for _ in range(3):
                ended = await aio_seen(channel.unary_unary(ECHO)(ask(), timeout=10))
                assert ended[1] is Code.UNAVAILABLE
            await until(lambda: len(work.notes) == 3, "the notes")
    assert breaker.outcomes == [IGNORED] * 3
    assert {note.condition for note in work.notes} == {"local"}


@STYLES
def test_a_token_that_cannot_be_had_closes_no_circuit(
    secure: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, style: str
) -> None:
    breaker.open()
    registry.clock.pass_time(31)
    inner = grpc.secure_channel(f"localhost:{secure.port}", credentials(secure, "raises"))
    with guard(inner, registry=registry) as channel:
        seen(channel.unary_unary(ECHO), style, ask(), timeout=10)
    wait_until(lambda: breaker.outcomes == [IGNORED], "the outcome")
    assert breaker.state == "half_open"


@STYLES
def test_a_channel_that_may_not_carry_credentials_closes_no_circuit(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, style: str
) -> None:
    breaker.open()
    registry.clock.pass_time(31)
    token = grpc.access_token_call_credentials("secret")
    with (
        guard(grpc.insecure_channel(server.target), registry=registry) as channel,
        operation("op-1") as work,
    ):
        ended = seen(channel.unary_unary(ECHO), style, ask(), timeout=10, credentials=token)
        assert ended[1] is Code.UNAUTHENTICATED
        wait_until(lambda: work.notes, "the note")
    assert breaker.outcomes == [IGNORED]
    assert breaker.state == "half_open"
    assert work.notes[0].condition == "local"


DEADLINES = pytest.mark.parametrize(
    "seconds", [float("inf"), float("-inf"), float("nan"), 1e10, 1e300, -1e19]
)


@STYLES
@DEADLINES
def test_a_deadline_that_makes_no_sense_is_no_failure_of_the_server(
    guarded: grpc.Channel, breaker: WatchedBreaker, style: str, seconds: float
) -> None:
    assert seen(guarded.unary_unary(ECHO), style, ask(), timeout=seconds)[1] is (
        Code.DEADLINE_EXCEEDED
    )
    wait_until(lambda: breaker.outcomes == [IGNORED], "the outcome")


@DEADLINES
async def test_a_deadline_that_makes_no_sense_is_no_failure_on_asyncio(
    server: EchoServer, registry: WatchedRegistry, breaker: WatchedBreaker, seconds: float
) -> None:
    async with grpc.aio.insecure_channel(
        server.target, interceptors=aio_interceptors(registry=registry)
    ) as channel:
        ended = await aio_seen(channel.unary_unary(ECHO)(ask(), timeout=seconds))
    assert ended[1] is Code.DEADLINE_EXCEEDED
    assert breaker.outcomes == [IGNORED]


PROXYS = pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (401, Code.UNAUTHENTICATED, IGNORED),
        (403, Code.PERMISSION_DENIED, IGNORED),
        (404, Code.UNIMPLEMENTED, FAILURE),
        (503, Code.UNAVAILABLE, FAILURE),
    ],
)


@PROXYS
def test_a_proxys_answer_is_not_taken_for_the_servers(
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    status: int,
    code: grpc.StatusCode,
    outcome: Outcome,
) -> None:
    with (
        RefusingProxy(status) as proxy,
        guard(grpc.insecure_channel(proxy.target), registry=registry) as channel,
    ):
        assert seen(channel.unary_unary(ECHO), "call", ask(), timeout=10)[1] is code
    assert breaker.outcomes == [outcome]


@PROXYS
async def test_a_proxys_answer_is_not_taken_for_the_servers_on_asyncio(
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    status: int,
    code: grpc.StatusCode,
    outcome: Outcome,
) -> None:
    interceptors = aio_interceptors(registry=registry)
    with RefusingProxy(status) as proxy:
        async with grpc.aio.insecure_channel(proxy.target, interceptors=interceptors) as channel:
            assert (await aio_seen(channel.unary_unary(ECHO)(ask(), timeout=10)))[1] is code
    assert breaker.outcomes == [outcome]
