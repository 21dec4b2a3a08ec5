"""A generator that its reader closes early says nothing about the dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import CircuitState
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from fusewire.breaker import CircuitBreaker
    from fusewire.testing import FakeClock


def pages() -> Generator[int]:
    yield 1
    yield 2


async def pages_async() -> AsyncGenerator[int]:
    yield 1
    yield 2


async def test_it_is_neither_success_nor_failure(breaker: CircuitBreaker) -> None:
    for _ in range(10):
        stream = breaker(pages)()
        next(stream)
        stream.close()
        stream_async = breaker(pages_async)()
        await anext(stream_async)
        await stream_async.aclose()
    counters = breaker.snapshot().counters
    assert (counters.succeeded, counters.failed, counters.ignored) == (0, 0, 20)


async def test_as_a_probe_it_gives_its_place_back(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    for _ in range(5):
        stream = breaker(pages)()
        next(stream)
        stream.close()
        stream_async = breaker(pages_async)()
        await anext(stream_async)
        await stream_async.aclose()
    assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.snapshot().probes_running == 0
