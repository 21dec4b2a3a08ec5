"""A fallback that fails again and again is logged now and then; each caller has its error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import pytest

from fusewire._throttle import Throttle
from fusewire.breaker import BreakerRegistry
from fusewire.interceptors import aio_interceptors, guard
from fusewire.testing import FakeClock
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD = "/cache.Cache/Get"


def misses(_request: bytes, _error: object) -> NoReturn:
    raise KeyError("not in the cache")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_sync_fallback_that_misses_a_hundred_times_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = grpc.insecure_channel(f"127.0.0.1:{reserve_port()}")
    with guard(bare, registry=BreakerRegistry(), fallbacks={METHOD: misses}) as channel:
        method = channel.unary_unary(METHOD)
        for _ in range(100):
            with pytest.raises(grpc.RpcError) as raised:
                method(b"", timeout=5)
            assert isinstance(raised.value.__cause__, KeyError)
    assert said(caplog) == [f"the fallback of {METHOD} failed"]


async def test_an_asyncio_fallback_that_misses_a_hundred_times_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    interceptors = aio_interceptors(registry=BreakerRegistry(), fallbacks={METHOD: misses})
    target = f"127.0.0.1:{reserve_port()}"
    async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
        method: Any = channel.unary_unary(METHOD)
        for _ in range(100):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await method(b"", timeout=5)
            assert isinstance(raised.value.__cause__, KeyError)
    assert said(caplog) == [f"the fallback of {METHOD} failed"]


def test_each_kind_is_said_once_a_minute_with_the_number_of_those_that_were_not() -> None:
    clock = FakeClock()
    throttle = Throttle(clock)
    miss, timeout = kind(lambda: {}["a"]), kind(lambda: int("x"))
    assert throttle.unsaid(miss()) == 0
    assert [throttle.unsaid(miss()) for _ in range(3)] == [None] * 3
    assert throttle.unsaid(timeout()) == 0
    clock.advance(60)
    assert throttle.unsaid(miss()) == 3
    assert throttle.unsaid(miss()) is None
    assert throttle.unsaid(ValueError("never raised")) == 0
    assert throttle.unsaid(ValueError("never raised either")) is None


def test_it_remembers_a_limited_number_of_kinds() -> None:
    throttle = Throttle(FakeClock())
    for number in range(1000):
        throttle.unsaid(type(f"E{number}", (Exception,), {})())
    assert len(throttle._kinds) <= 64


def kind(failing: Callable[[], object]) -> Callable[[], Exception]:
    def make() -> Exception:
        try:
            failing()
        except Exception as error:  # noqa: BLE001 - its kind is the case in question
            return error
        raise AssertionError("it did not fail")

    return make
