"""Fallbacks are counted, by whether they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker, Outcome, Snapshot
from fusewire.operation import without_fallbacks
from tests.support.circuits import interrupt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fusewire.testing import FakeClock


def counts(breaker: CircuitBreaker) -> tuple[int, int]:
    counters = breaker.figures().counters
    return counters.fallbacks_answered, counters.fallbacks_failed


def fail(*_: Any) -> int:
    raise ConnectionError


def answer(*_: Any) -> int:
    return 1


def test_none_was_asked(breaker: CircuitBreaker) -> None:
    assert breaker(answer, fallback=answer)() == 1
    with pytest.raises(ConnectionError):
        breaker(fail)()
    assert counts(breaker) == (0, 0)


def test_of_a_function_that_fails_or_is_rejected(breaker: CircuitBreaker) -> None:
    guarded = breaker(fail, fallback=answer)
    for _ in range(10):
        assert guarded() == 1
    assert breaker.figures().counters.rejected > 0
    assert counts(breaker) == (10, 0)
    with pytest.raises(ZeroDivisionError):
        breaker.call_with_fallback(fail, fallback=lambda: 1 // 0)
    assert counts(breaker) == (10, 1)


def test_of_a_result_that_counts_as_a_failure(clock: FakeClock) -> None:
    settings = BreakerSettings(classify_result=lambda _: Outcome.FAILURE)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    assert breaker(answer, fallback=answer)() == 1
    assert counts(breaker) == (1, 0)


async def test_of_a_coroutine_function(breaker: CircuitBreaker) -> None:
    async def failing() -> int:
        raise ConnectionError

    async def answering() -> int:
        return 1

    assert await breaker(failing, fallback=answering)() == 1
    assert await breaker(failing, fallback=answer)() == 1
    with pytest.raises(ConnectionError):
        await breaker(failing, fallback=failing)()
    assert counts(breaker) == (2, 1)


def items(*, fails: bool) -> Callable[[], Iterator[int]]:
    def generate() -> Iterator[int]:
        yield 1
        if fails:
            raise LookupError
        yield 2

    return generate


def failing_generator() -> Iterator[int]:
    raise ConnectionError
    yield


def test_of_a_generator_once_whatever_it_yields(breaker: CircuitBreaker) -> None:
    assert list(breaker(failing_generator, fallback=items(fails=False))()) == [1, 2]
    assert counts(breaker) == (1, 0)
    with pytest.raises(LookupError):
        list(breaker(failing_generator, fallback=items(fails=True))())
    assert counts(breaker) == (1, 1)
    left: Any = breaker(failing_generator, fallback=items(fails=True))()
    assert next(left) == 1
    left.close()
    assert counts(breaker) == (2, 1)


async def test_of_an_async_generator_once_whatever_it_yields(breaker: CircuitBreaker) -> None:
    async def failing() -> AsyncIterator[int]:
        raise ConnectionError
        yield

    async def all_of(guarded: Any) -> list[int]:
        return [item async for item in guarded()]

    assert await all_of(breaker(failing, fallback=items(fails=False))) == [1, 2]
    assert counts(breaker) == (1, 0)
    with pytest.raises(LookupError):
        await all_of(breaker(failing, fallback=items(fails=True)))
    assert counts(breaker) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        await all_of(breaker(failing, fallback=lambda: 1 // 0))
    assert counts(breaker) == (1, 2)
    breaker.reset()
    with pytest.raises(ConnectionError):
        await all_of(breaker(failing))
    assert counts(breaker) == (1, 2)


def test_none_is_asked_where_fallbacks_are_suppressed(breaker: CircuitBreaker) -> None:
    with without_fallbacks(), pytest.raises(ConnectionError):
        breaker(fail, fallback=answer)()
    assert counts(breaker) == (0, 0)


def test_what_other_code_answers_is_counted_at_any_time(breaker: CircuitBreaker) -> None:
    breaker.note_fallback(answered=True)
    breaker.note_fallback(answered=False)
    interrupt(breaker, lambda: breaker.note_fallback(answered=False))
    assert counts(breaker) == (1, 2)


def test_a_snapshot_keeps_them_and_a_former_release_reads_it(breaker: CircuitBreaker) -> None:
    for answered in (True, True, False):
        breaker.note_fallback(answered=answered)
    text = breaker.snapshot().to_json()
    assert text.startswith('{"format": {"fallbacks_answered": 2, "fallbacks_failed": 1}, ')
    again = CircuitBreaker("payments")
    again.restore(Snapshot.from_json(text))
    assert counts(again) == (2, 1)
    bad = text.replace('"fallbacks_failed": 1', '"fallbacks_failed": -1')
    with pytest.raises(ValueError, match="fallbacks_failed"):
        Snapshot.from_json(bad)
