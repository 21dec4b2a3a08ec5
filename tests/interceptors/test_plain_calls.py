"""Asyncio calls that need nothing but a permit: no fallback, no key, outside of an operation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors
from fusewire.interceptors._call_end import WRITE_FAILED
from tests.support.grpc_server import ECHO

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grpc_guard import WatchedBreaker, WatchedRegistry


class Ended:
    """A call that is over, of a grpcio whose calls have no core."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def done(self) -> bool:
        return True

    async def code(self) -> grpc.StatusCode:
        return self._code

    async def details(self) -> str:
        return ""

    async def trailing_metadata(self) -> None:
        return None


class Core:
    """The core of a call, of a grpcio that calls back at each status that it sets."""

    def __init__(self) -> None:
        self.ok = False
        self.callback: Callable[[], None] | None = None

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def is_ok(self) -> bool:
        return self.ok

    def call_back(self) -> None:
        assert self.callback is not None
        self.callback()


class Called(Ended):
    """A call whose server ends it while its request is being written."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.INTERNAL)
        self._cython_call = Core()

    async def details(self) -> str:
        return WRITE_FAILED

    def end(self, code: grpc.StatusCode) -> None:
        self._code = code
        self._cython_call.ok = code is grpc.StatusCode.OK
        self._cython_call.call_back()


class Innermost:
    """What goes on with a call where no other interceptor does."""

    args = ([],)

    def __init__(self, call: Ended) -> None:
        self._call = call

    async def __call__(self, _details: Any, _request: Any) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(grpc.StatusCode.OK, Outcome.SUCCESS), (grpc.StatusCode.UNAVAILABLE, Outcome.FAILURE)],
)
async def test_a_call_whose_core_is_not_known_is_settled_when_it_is_over(
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    code: grpc.StatusCode,
    outcome: Outcome,
) -> None:
    interceptor: Any = aio_interceptors(registry=registry)[0]
    details = grpc.aio.ClientCallDetails(ECHO, None, None, None, None)
    call = Ended(code)
    assert await interceptor.intercept_unary_unary(Innermost(call), details, b"") is call
    assert breaker.outcomes == [outcome]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(grpc.StatusCode.OK, Outcome.SUCCESS), (grpc.StatusCode.UNAVAILABLE, Outcome.FAILURE)],
)
async def test_a_call_that_is_reported_over_twice_is_settled_once(
    registry: WatchedRegistry,
    breaker: WatchedBreaker,
    code: grpc.StatusCode,
    outcome: Outcome,
) -> None:
    interceptor: Any = aio_interceptors(registry=registry)[0]
    details = grpc.aio.ClientCallDetails(ECHO, None, None, None, None)
    call = Called()
    await interceptor.intercept_unary_unary(Innermost(call), details, b"")
    call.end(grpc.StatusCode.INTERNAL)  # grpcio's own status
    assert breaker.outcomes == []
    call.end(code)  # the server's
    assert breaker.outcomes == [outcome]
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, later.set)  # what looks again has looked by then
    await later.wait()
    assert breaker.outcomes == [outcome]
