"""A call that failed is known to the unit of work that made it, whichever way it was made."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError, Outcome
from fusewire.operation import operation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def fail() -> None:
    raise ConnectionError


def interrupt() -> None:
    raise KeyboardInterrupt


async def fail_async() -> None:
    raise ConnectionError


def fail_midway() -> Iterator[int]:
    yield 1
    raise ConnectionError


async def fail_midway_async() -> AsyncIterator[int]:
    yield 1
    raise ConnectionError


def by_call(breaker: CircuitBreaker) -> None:
    breaker.call(fail)


def by_decorator(breaker: CircuitBreaker) -> None:
    breaker(fail)()


def by_block(breaker: CircuitBreaker) -> None:
    with breaker.acquire():
        fail()


def by_permit(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()


def by_fallback(breaker: CircuitBreaker) -> None:
    breaker.call_with_fallback(fail, fallback=lambda: None)


def by_generator(breaker: CircuitBreaker) -> None:
    list(breaker(fail_midway)())


@pytest.mark.parametrize(
    "way", [by_call, by_decorator, by_block, by_permit, by_fallback, by_generator]
)
@pytest.mark.parametrize("how", ["automatic", "metrics_only", "disable"])
def test_a_failure_is_noted(
    breaker: CircuitBreaker, way: Callable[[CircuitBreaker], None], how: str
) -> None:
    getattr(breaker, how)()
    with operation("op-1") as work, contextlib.suppress(ConnectionError):
        way(breaker)
    assert work.failed == ["payments"]


async def test_a_failure_is_noted_on_asyncio_too(breaker: CircuitBreaker) -> None:
    with operation("op-1") as work:
        with pytest.raises(ConnectionError):
            await breaker.call_async(fail_async)
        assert work.failed == ["payments"]
    with operation("op-2") as work:
        with pytest.raises(ConnectionError):
            [item async for item in breaker(fail_midway_async)()]
        assert work.failed == ["payments"]


def test_a_failure_is_noted_in_the_operation_of_its_own_context(breaker: CircuitBreaker) -> None:
    breaker.acquire().failure()
    with operation("op-1") as outer:
        with operation("op-2") as inner:
            breaker.acquire().failure()
        assert (outer.failed, inner.failed) == ([], ["payments"])


def test_a_result_that_counts_as_a_failure_is_noted() -> None:
    settings = BreakerSettings(classify_result=lambda _: Outcome.FAILURE)
    breaker = CircuitBreaker("payments", settings=settings)
    with operation("op-1") as work:
        breaker.call(lambda: 503)
    assert work.failed == ["payments"]


def test_a_failure_that_comes_late_is_noted(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    breaker.reset()
    with operation("op-1") as work:
        permit.failure()
    assert work.failed == ["payments"]


def test_a_breaker_is_noted_once_however_often_its_calls_fail(breaker: CircuitBreaker) -> None:
    other = CircuitBreaker("search")
    with operation("op-1") as work:
        for each in (breaker, other, breaker, other):
            each.acquire().failure()
    assert work.failed == ["payments", "search"]


def test_what_is_no_failure_is_not_noted(breaker: CircuitBreaker) -> None:
    with operation("op-1") as work:
        breaker.acquire().success()
        breaker.acquire().release()
        breaker.call(lambda: None)
        with pytest.raises(KeyboardInterrupt):
            breaker.call(interrupt)
        breaker.force_open()
        with pytest.raises(CircuitOpenError):
            breaker.call(fail)
    assert work.failed == []


def test_an_error_after_the_answer_is_not_the_calls(breaker: CircuitBreaker) -> None:
    def answer_and_fail() -> None:
        with breaker.acquire() as permit:
            permit.success()
            raise ValueError("my own")

    with operation("op-1") as work, pytest.raises(ValueError, match="my own"):
        answer_and_fail()
    assert work.failed == []
