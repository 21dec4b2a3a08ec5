"""Fallbacks of guards by name: what they are given, and when they answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    FailedResultError,
    Outcome,
    circuit_breaker,
)
from fusewire.operation import without_fallbacks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fusewire.testing import FakeClock

STRICT = BreakerSettings(failure_threshold=1, recovery_timeout=10, half_open_max_calls=1)


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(STRICT, clock=clock)


def fail(user_id: str) -> str:
    raise ConnectionError(user_id)


async def fail_async(user_id: str) -> str:
    raise ConnectionError(user_id)


def test_a_fallback_answers_and_is_given_the_error(registry: BreakerRegistry) -> None:
    given: list[tuple[str, BaseException]] = []

    def cached(user_id: str, error: Exception) -> str:
        given.append((user_id, error))
        return f"cached {user_id}"

    load = circuit_breaker("users", fallback=cached, registry=registry)(fail)
    assert load("7") == "cached 7"
    assert load(user_id="8") == "cached 8"
    assert [(user, type(error)) for user, error in given] == [
        ("7", ConnectionError),
        ("8", CircuitOpenError),
    ]
    with without_fallbacks(), pytest.raises(CircuitOpenError):
        load("7")


@pytest.mark.parametrize(
    "fallback",
    [
        lambda user_id: f"cached {user_id}",
        lambda user_id, *, error: f"cached {user_id}",
        lambda user_id, error=None: f"cached {user_id}",
        lambda user_id, t: f"cached {user_id}",
        lambda user_id, ttl=60: f"cached {user_id}",
        lambda *args, **kwargs: f"cached {[*args, *kwargs.values()][0]}",
    ],
)
async def test_it_may_take_the_error_or_not(registry: BreakerRegistry, fallback: Any) -> None:
    guard = circuit_breaker("users", fallback=fallback, registry=registry)
    load, load_async = guard(fail), guard(fail_async)
    for _ in range(2):
        assert load("7") == load(user_id="7") == "cached 7"
        assert await load_async("7") == await load_async(user_id="7") == "cached 7"


async def test_a_coroutine_functions_fallback_may_be_one(registry: BreakerRegistry) -> None:
    async def cached(user_id: str, error: Exception) -> str:
        await asyncio.sleep(0)
        return f"{user_id}: {error!r}"

    load = circuit_breaker("users", fallback=cached, registry=registry)(fail_async)
    assert await load("7") == "7: ConnectionError('7')"


async def test_generators_have_fallbacks_that_are_given_the_error(
    registry: BreakerRegistry,
) -> None:
    def cached(count: int, error: Exception) -> list[str]:
        return [type(error).__name__] * count

    @circuit_breaker("users", fallback=cached, registry=registry)
    def pages(count: int) -> Iterator[str]:
        raise ConnectionError(count)
        yield ""

    @circuit_breaker("others", fallback=cached, registry=registry)
    async def pages_async(count: int) -> AsyncIterator[str]:
        raise ConnectionError(count)
        yield ""

    assert list(pages(1)) + list(pages(count=2)) == ["ConnectionError", *["CircuitOpenError"] * 2]
    assert [each async for each in pages_async(1)] == ["ConnectionError"]
    assert [each async for each in pages_async(count=2)] == ["CircuitOpenError"] * 2


async def test_a_result_that_is_a_failure_is_given_as_an_error() -> None:
    registry = BreakerRegistry(
        BreakerSettings(
            classify_result=lambda status: Outcome.FAILURE if status >= 500 else Outcome.SUCCESS
        )
    )
    given: list[Exception] = []

    def instead(error: Exception) -> int:
        given.append(error)
        return 200

    guard = circuit_breaker("users", fallback=instead, registry=registry)

    async def ask_async() -> int:
        return 503

    assert guard(lambda: 502)() == 200
    assert await guard(ask_async)() == 200
    assert circuit_breaker("users", registry=registry)(lambda: 503)() == 503
    with without_fallbacks():
        assert guard(lambda: 504)() == 504
    assert all(type(each) is FailedResultError for each in given)
    assert [(each.name, each.result) for each in given] == [("users", 502), ("users", 503)]  # type: ignore[attr-defined] # see above
    assert str(given[0]) == "circuit 'users' takes the result of its call for a failure"


def test_a_fallback_that_fails_has_the_error_as_its_cause(registry: BreakerRegistry) -> None:
    def broken(user_id: str, error: Exception) -> str:
        raise LookupError(user_id)

    load = circuit_breaker("users", fallback=broken, registry=registry)(fail)
    with pytest.raises(LookupError) as caught:
        load("7")
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_breaker_that_was_added_has_its_own_fallback(registry: BreakerRegistry) -> None:
    registry.add(CircuitBreaker("users", 1, fallback=lambda user_id, error: f"own {user_id}"))
    assert circuit_breaker("users", registry=registry)(fail)("7") == "own 7"
    other = circuit_breaker("users", fallback=lambda user_id: "other", registry=registry)
    assert other(fail)("7") == "other"


def test_a_breakers_own_decorator_gives_the_error_to_a_fallback_that_takes_it() -> None:
    breaker = CircuitBreaker("users")
    load = breaker(fail, fallback=lambda user_id, error: f"{user_id}: {error!r}")
    assert load("7") == "7: ConnectionError('7')"
    assert breaker(fail, fallback=lambda other: f"other {other}")("7") == "other 7"
