"""google-api-core's resumable streams, on which its streaming clients stand, through an outage.

They make the call again from the done callback of the last one, and ask by ``isinstance`` whether
they should.
"""

from __future__ import annotations

import logging
import queue
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.api_core import exceptions, grpc_helpers
from google.api_core.bidi import BackgroundConsumer, ResumableBidiRpc

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.interceptors import FallbackDeclined, guard
from tests.support.grpc_server import CHAT, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.grpc_server import EchoServer


def _decline(_request: object, _error: object) -> None:
    raise FallbackDeclined


GUARDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "declining": {"fallbacks": {"*": _decline}},
    "first_message": {"streams": "first_message"},
}

FOREVER = ask(messages=-1, patience=False)


def _recovers(error: object) -> bool:
    # As google-cloud-pubsub's subscriber decides it.
    if isinstance(error, grpc.RpcError):
        error = exceptions.from_grpc_error(error)
    return isinstance(error, exceptions.ServiceUnavailable)


@pytest.fixture
def channel(mortal: EchoServer, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    settings = BreakerSettings(failure_threshold=2, recovery_timeout=0.2, recovery_timeout_max=0.2)
    registry = BreakerRegistry(settings)
    with guard(mortal.connect(), registry=registry, **request.param) as channel:
        yield channel


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def _stream(channel: grpc.Channel) -> ResumableBidiRpc:
    method: Any = channel.stream_stream(CHAT)
    method._prefetch_first_result_ = False  # as generated clients say of such methods
    start = grpc_helpers.wrap_errors(method)
    return ResumableBidiRpc(start, _recovers, initial_request=FOREVER)


def _each_guard(test: Callable[..., None]) -> Callable[..., None]:
    given = [pytest.param(GUARDS[name], id=name) for name in GUARDS]
    marked: Callable[..., None] = pytest.mark.parametrize("channel", given, indirect=True)(test)
    return marked


@_each_guard
def test_a_resumable_stream_goes_on_after_an_outage(
    channel: grpc.Channel, mortal: EchoServer
) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    consumer = BackgroundConsumer(_stream(channel), received.put)
    consumer.start()
    try:
        assert received.get(timeout=20) == b"done"
        mortal.kill()
        wait_until(lambda: _drained(received), "the end of what was sent before")
        mortal.start()
        assert received.get(timeout=20) == b"done"
        assert consumer.is_active
    finally:
        consumer.stop()


def _drained(received: queue.SimpleQueue[bytes]) -> bool:
    try:
        while True:
            received.get(timeout=0.3)
    except queue.Empty:
        return True


@_each_guard
def test_a_resumable_stream_that_opens_during_an_outage_begins_after_it(
    channel: grpc.Channel, mortal: EchoServer
) -> None:
    mortal.kill()
    stream = _stream(channel)
    stream.open()
    mortal.start()
    try:
        assert [stream.recv() for _ in range(3)] == [b"done"] * 3
    finally:
        stream.close()
