"""Asyncio calls that need nothing but a permit: no fallback, no key, outside of an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fusewire.breaker import Outcome
from fusewire.interceptors import aio_interceptors
from tests.support.grpc_server import ECHO

if TYPE_CHECKING:
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
