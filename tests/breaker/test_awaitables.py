"""Results that have to be awaited or iterated over: guarded while they are."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import CircuitBreaker, CircuitState
from tests.support.circuits import half_open_circuit
from tests.support.later_results import (
    Awaitable,
    items,
    items_async,
    old_coroutine,
)
from tests.support.ways_through import answer_async, fail_async, totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from fusewire.testing import FakeClock


# What is awaited or iterated over is a call only then.


async def test_an_awaitable_is_no_call_until_it_is_awaited(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    pending = [breaker.call(Awaitable, answer_async) for _ in range(3)]
    assert breaker.snapshot().probes_running == 0
    assert [await each for each in pending] == ["answer"] * 3
    assert totals(breaker) == (3, 2, 0, 0)


async def test_each_await_of_an_awaitable_is_a_call(breaker: CircuitBreaker) -> None:
    pending = breaker.call(Awaitable, answer_async)
    assert [await pending, await pending] == ["answer", "answer"]
    assert totals(breaker) == (2, 0, 0, 0)


async def test_a_guarded_awaitable_is_the_inner_one_in_all_else(breaker: CircuitBreaker) -> None:
    pending = breaker.call(Awaitable, answer_async)
    assert inspect.isawaitable(pending)
    assert pending.status == "sent"
    with pytest.raises(AttributeError, match="missing"):
        pending.missing  # type: ignore[attr-defined]  # that is the point  # noqa: B018
    assert not hasattr(type(pending), "__aenter__")
    assert not hasattr(type(pending), "__aiter__")
    empty: Any = type(pending).__new__(type(pending))
    with pytest.raises(AttributeError, match="_inner"):
        _ = empty.status


async def test_an_awaitable_may_have_a_fallback(breaker: CircuitBreaker) -> None:
    guarded = breaker(lambda amount: Awaitable(fail_async), fallback=lambda amount: f"own {amount}")
    assert [await guarded(amount) for amount in (1, 2)] == ["own 1", "own 2"]
    assert guarded(3) == "own 3"
    assert totals(breaker) == (0, 2, 0, 0)


class Request:
    """A request that may be awaited, or entered, or iterated over."""

    def __init__(self, func: Callable[[], Any]) -> None:
        self._func = func
        self.left: list[tuple[object, ...]] = []

    def __await__(self) -> Generator[Any, Any, Any]:
        result: Generator[Any, Any, Any] = self._func().__await__()
        return result

    async def __aenter__(self) -> Any:
        return await self._func()

    async def __aexit__(self, *raised: object) -> bool:
        self.left.append(raised)
        return raised[0] is LookupError

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield await self._func()


async def test_a_request_is_guarded_while_it_is_entered(breaker: CircuitBreaker) -> None:
    request = Request(answer_async)
    async with breaker.call(lambda: request) as response:
        assert response == "answer"
        assert totals(breaker) == (1, 0, 0, 0)
    error = LookupError()
    async with breaker.call(lambda: request):
        raise error
    assert request.left == [(None, None, None), (LookupError, error, error.__traceback__)]
    for _ in range(2):
        with pytest.raises(ConnectionError):
            async with breaker.call(Request, fail_async):
                raise AssertionError("entered")
    assert breaker.state is CircuitState.OPEN
    assert totals(breaker) == (2, 2, 0, 0)


async def test_a_request_is_guarded_while_it_is_iterated_over(breaker: CircuitBreaker) -> None:
    assert [item async for item in breaker.call(Request, answer_async)] == ["answer"]
    with pytest.raises(ConnectionError):
        await anext(breaker.call(Request, fail_async).__aiter__())
    assert await breaker.call(Request, answer_async) == "answer"
    assert totals(breaker) == (2, 1, 0, 0)


async def test_what_can_only_be_entered_besides_stays_so(breaker: CircuitBreaker) -> None:
    class EnteredOnly:
        def __await__(self) -> Generator[Any, Any, Any]:
            return answer_async().__await__()

        async def __aenter__(self) -> str:
            return await answer_async()

        async def __aexit__(self, *_: object) -> None: ...

    class IteratedOnly:
        def __await__(self) -> Generator[Any, Any, Any]:
            return answer_async().__await__()

        async def __aiter__(self) -> AsyncIterator[str]:
            yield await answer_async()

    entered, iterated = breaker.call(EnteredOnly), breaker.call(IteratedOnly)
    assert not hasattr(type(entered), "__aiter__")
    assert not hasattr(type(iterated), "__aenter__")
    async with entered as response:
        assert response == "answer"
    assert [item async for item in iterated] == ["answer"]
    assert await entered == await iterated == "answer"
    assert totals(breaker) == (4, 0, 0, 0)


async def test_a_coroutine_that_can_be_entered_too_stays_one_that_can(
    breaker: CircuitBreaker,
) -> None:
    class Both(Request):
        """As a request of aiohttp's: a coroutine, by what it can do."""

        def send(self, value: Any) -> Any:
            raise AssertionError(value)

        def throw(self, *error: Any) -> Any:
            raise AssertionError(error)

        def close(self) -> None: ...

    async with breaker.call(Both, answer_async) as response:
        assert response == "answer"
    assert await breaker.call(Both, answer_async) == "answer"
    assert totals(breaker) == (2, 0, 0, 0)


async def test_a_coroutine_of_another_kind_stays_a_coroutine(breaker: CircuitBreaker) -> None:
    class Compiled:
        """As a coroutine function that Cython has compiled gives it."""

        closed = 0

        def __init__(self) -> None:
            self._inner = answer_async()

        def __await__(self) -> Generator[Any, Any, Any]:
            return self._inner.__await__()

        def send(self, value: Any) -> Any:
            return self._inner.send(value)

        def throw(self, *error: Any) -> Any:
            return self._inner.throw(*error)

        def close(self) -> None:
            Compiled.closed += 1
            self._inner.close()

    pending = breaker.call(Compiled)
    assert inspect.iscoroutine(pending)
    assert await asyncio.create_task(pending) == "answer"
    assert (Compiled.closed, totals(breaker)) == (1, (1, 0, 0, 0))


async def test_a_stream_of_a_plain_function_is_guarded_while_it_is_read(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    plain = breaker(lambda *args, **kwargs: items(*args, **kwargs))  # noqa: PLW0108 - a plain function
    plain_async = breaker(lambda *args, **kwargs: items_async(*args, **kwargs))  # noqa: PLW0108 - as above
    streams = plain(2), plain_async(2)
    assert breaker.snapshot().probes_running == 0
    assert list(streams[0]) == [0, 1]
    assert [item async for item in streams[1]] == [0, 1]
    assert breaker.state is CircuitState.CLOSED
    with pytest.raises(ConnectionError):
        list(plain(2, fail_at=1))
    with pytest.raises(ConnectionError):
        _ = [item async for item in plain_async(2, fail_at=1)]
    assert totals(breaker) == (2, 4, 0, 0)


async def test_a_stream_of_a_plain_function_may_have_a_fallback(breaker: CircuitBreaker) -> None:
    def fallback(count: int, *, fail_at: int) -> list[int]:
        return [count, fail_at]

    def plain(count: int, **kwargs: Any) -> Iterator[int]:
        return items(count, **kwargs)

    def plain_async(count: int, **kwargs: Any) -> AsyncIterator[int]:
        return items_async(count, **kwargs)

    given = breaker.call_with_fallback(plain, 3, fail_at=0, fallback=fallback)
    assert list(given) == [3, 0]
    given_async = breaker.call_with_fallback(plain_async, 3, fail_at=0, fallback=fallback)
    assert [item async for item in given_async] == [3, 0]


async def test_old_coroutine_functions_stay_what_they_are(breaker: CircuitBreaker) -> None:
    guarded = breaker(old_coroutine)
    assert await guarded(answer_async) == "answer"
    with pytest.raises(ConnectionError):
        await guarded(fail_async)
    assert totals(breaker) == (1, 1, 0, 0)


async def test_a_partial_of_a_coroutine_function_is_one(breaker: CircuitBreaker) -> None:
    assert await breaker(functools.partial(answer_async))() == "answer"
    assert totals(breaker) == (1, 0, 0, 0)
