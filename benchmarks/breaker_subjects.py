"""What the benchmark of the breaker measures: calls through ours and through other libraries."""

from __future__ import annotations

import contextlib
import functools
from itertools import repeat
from typing import TYPE_CHECKING, Any

import aiobreaker
import circuitbreaker
import hyx.circuitbreaker
import interlock
import purgatory
import pybreaker

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    circuit_breaker,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 1000
"""Calls in a block: about a millisecond, so that few blocks are disturbed."""

PEERS = ("circuitbreaker", "pybreaker", "aiobreaker", "purgatory", "hyx", "interlock-cb")

COUNT = BreakerSettings(
    window_calls=100,
    failure_rate_threshold=0.5,
    slow_call_duration=1.0,
    slow_call_rate_threshold=0.5,
)
TIME_60 = BreakerSettings(
    window_seconds=60,
    failure_rate_threshold=0.5,
    slow_call_duration=1.0,
    slow_call_rate_threshold=0.5,
)
TIME_300 = BreakerSettings(
    window_seconds=300,
    failure_rate_threshold=0.5,
    slow_call_duration=1.0,
    slow_call_rate_threshold=0.5,
)


def answer() -> int:
    return 1


async def answer_async() -> int:
    return 1


def fail() -> int:
    raise ConnectionError


async def fail_async() -> int:
    raise ConnectionError


# A block makes CALLS calls. Sync and asyncio blocks are both run inside one running event loop.


def calls_of(call: Callable[[], Any]) -> Callable[[], None]:
    def block() -> None:
        for _ in repeat(None, CALLS):
            call()

    return block


def calls_of_async(call: Callable[[], Any]) -> Callable[[], Any]:
    async def block() -> None:
        for _ in repeat(None, CALLS):
            await call()

    return block


def one_percent(good: Callable[[], Any], bad: Callable[[], Any]) -> Callable[[], None]:
    def block() -> None:
        for _ in repeat(None, CALLS // 100):
            for _ in repeat(None, 99):
                good()
            try:  # noqa: SIM105 - suppress() would cost more than what is measured
                bad()
            except ConnectionError:
                pass

    return block


def rejections(call: Callable[[], Any], error: type[Exception]) -> Callable[[], None]:
    with contextlib.suppress(Exception):
        call()

    def block() -> None:
        for _ in repeat(None, CALLS):
            try:  # noqa: SIM105 - as above
                call()
            except error:
                pass

    return block


def rejections_async(call: Callable[[], Any], error: type[Exception]) -> Callable[[], Any]:
    async def block() -> None:
        for _ in repeat(None, CALLS):
            try:  # noqa: SIM105 - as above
                await call()
            except error:
                pass

    return block


def ours(settings: BreakerSettings) -> CircuitBreaker:
    return CircuitBreaker("benchmark", settings=settings)


def by_name(func: Callable[[], Any]) -> Callable[[], Any]:
    return circuit_breaker("benchmark", registry=BreakerRegistry(COUNT))(func)


def through_permit() -> Callable[[], None]:
    acquire = ours(COUNT).acquire

    def block() -> None:
        for _ in repeat(None, CALLS):
            permit = acquire()
            answer()
            permit.success()

    return block


def through_permit_async() -> Callable[[], Any]:
    acquire = ours(COUNT).acquire

    async def block() -> None:
        for _ in repeat(None, CALLS):
            permit = acquire()
            await answer_async()
            permit.success()

    return block


def ours_that_met() -> tuple[CircuitBreaker, Callable[[], Any]]:
    """Make a circuit whose calls all offer loans, because two of them have met."""
    breaker = ours(COUNT)
    inner = breaker(answer)
    nested = breaker(lambda: inner())  # noqa: PLW0108 - a function of its own
    nested()
    return breaker, nested


def ours_that_met_async() -> Callable[[], Any]:
    breaker, _ = ours_that_met()
    return breaker(answer_async)


def ours_with_failures() -> Callable[[], None]:
    breaker = ours(COUNT)
    return one_percent(breaker(answer), breaker(fail))


def circuitbreaker_with_failures() -> Callable[[], None]:
    breaker = circuitbreaker.CircuitBreaker()
    return one_percent(breaker(answer), breaker(fail))


def ours_open() -> CircuitBreaker:
    breaker = CircuitBreaker("benchmark", failure_threshold=1, recovery_timeout=3600)
    breaker.acquire().failure()
    return breaker


def interlock_breaker(kind: str, size: int) -> interlock.CircuitBreaker:
    window = interlock.WindowType(kind)
    config = interlock.Config(
        window_type=window, window_size=size, slow_call_duration_threshold=1.0
    )
    return interlock.CircuitBreaker(name="benchmark", config=config)


def purgatory_call() -> Callable[[], Any]:
    factory = purgatory.SyncCircuitBreakerFactory()
    return factory("benchmark")(answer)


def purgatory_call_async() -> Callable[[], Any]:
    factory = purgatory.AsyncCircuitBreakerFactory()
    return factory("benchmark")(answer_async)


def subjects() -> dict[str, Callable[[], Any]]:
    pybreaker_open = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=3600)
    count, time_60, time_300 = (
        interlock_breaker("count_based", 100),
        interlock_breaker("time_based", 60),
        interlock_breaker("time_based", 300),
    )
    interlock_open = interlock_breaker("count_based", 100)
    interlock_open.force_open()
    circuitbreaker_open = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=3600)
    aiobreaker_open = aiobreaker.CircuitBreaker(fail_max=1)
    return {
        "bare": calls_of(answer),
        "ours, failures in a row": calls_of(ours(BreakerSettings())(answer)),
        "ours, count 100, slow calls": calls_of(ours(COUNT)(answer)),
        "ours, count 100, offering loans": calls_of(ours_that_met()[0](answer)),
        "ours, count 100, two in one path": calls_of(ours_that_met()[1]),
        "ours, count 100, 1 % failures": ours_with_failures(),
        "ours, count 100, permit": through_permit(),
        "ours, count 100, .call()": calls_of(functools.partial(ours(COUNT).call, answer)),
        "ours, count 100, by name": calls_of(by_name(answer)),
        "ours, time 60 s": calls_of(ours(TIME_60)(answer)),
        "ours, time 300 s": calls_of(ours(TIME_300)(answer)),
        "ours, rejected": rejections(ours_open()(answer), CircuitOpenError),
        "circuitbreaker": calls_of(circuitbreaker.CircuitBreaker()(answer)),
        "circuitbreaker, 1 % failures": circuitbreaker_with_failures(),
        "circuitbreaker, rejected": rejections(
            circuitbreaker_open(fail), circuitbreaker.CircuitBreakerError
        ),
        "pybreaker": calls_of(pybreaker.CircuitBreaker()(answer)),
        "pybreaker, rejected": rejections(pybreaker_open(fail), pybreaker.CircuitBreakerError),
        "aiobreaker": calls_of(aiobreaker.CircuitBreaker()(answer)),
        "aiobreaker, rejected": rejections(aiobreaker_open(fail), aiobreaker.CircuitBreakerError),
        "purgatory": calls_of(purgatory_call()),
        "interlock, count 100": calls_of(count(answer)),
        "interlock, time 60 s": calls_of(time_60(answer)),
        "interlock, time 300 s": calls_of(time_300(answer)),
        "interlock, rejected": rejections(interlock_open(answer), interlock.CircuitOpenError),
    }


def async_subjects() -> dict[str, Callable[[], Any]]:
    interlock_count = interlock_breaker("count_based", 100)
    interlock_time = interlock_breaker("time_based", 300)
    aio = "asyncio "
    return {
        f"{aio}bare": calls_of_async(answer_async),
        f"{aio}ours, failures in a row": calls_of_async(ours(BreakerSettings())(answer_async)),
        f"{aio}ours, count 100, slow calls": calls_of_async(ours(COUNT)(answer_async)),
        f"{aio}ours, count 100, offering loans": calls_of_async(ours_that_met_async()),
        f"{aio}ours, count 100, permit": through_permit_async(),
        f"{aio}ours, count 100, .call_async()": calls_of_async(
            functools.partial(ours(COUNT).call_async, answer_async)
        ),
        f"{aio}ours, count 100, by name": calls_of_async(by_name(answer_async)),
        f"{aio}ours, time 60 s": calls_of_async(ours(TIME_60)(answer_async)),
        f"{aio}ours, time 300 s": calls_of_async(ours(TIME_300)(answer_async)),
        f"{aio}ours, rejected": rejections_async(ours_open()(answer_async), CircuitOpenError),
        f"{aio}circuitbreaker": calls_of_async(circuitbreaker.CircuitBreaker()(answer_async)),
        f"{aio}aiobreaker": calls_of_async(aiobreaker.CircuitBreaker()(answer_async)),
        f"{aio}purgatory": calls_of_async(purgatory_call_async()),
        f"{aio}hyx": calls_of_async(hyx.circuitbreaker.consecutive_breaker()(answer_async)),
        f"{aio}interlock, count 100": calls_of_async(interlock_count(answer_async)),
        f"{aio}interlock, time 300 s": calls_of_async(interlock_time(answer_async)),
    }
