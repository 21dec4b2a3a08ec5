"""What a protected call costs, next to other libraries.

Each figure comes from pairs of blocks that alternate in one process, ours and the other's, so that
what disturbs the machine disturbs both. The ratio of a pair is taken first, and then the median of
the ratios, with the middle half of them as the spread.

Run it with the other libraries installed (they are in no group of the project's dependencies)::

    pip install circuitbreaker pybreaker aiobreaker purgatory hyx interlock-cb
    python benchmarks/breaker.py --blocks 200 --json breaker.json

It exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import tracemalloc
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import aiobreaker
import circuitbreaker
import hyx.circuitbreaker
import interlock
import purgatory
import pybreaker

from fusewire.breaker import BreakerSettings, CircuitBreaker, CircuitOpenError, CircuitState

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
        "ours, count 100, 1 % failures": ours_with_failures(),
        "ours, count 100, permit": through_permit(),
        "ours, count 100, .call()": calls_of(functools.partial(ours(COUNT).call, answer)),
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
        f"{aio}ours, count 100, permit": through_permit_async(),
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


# What is compared with what, and the ratio to stay within; None is only told.
PAIRS: list[tuple[str, str, float | None]] = [
    ("ours, failures in a row", "circuitbreaker", None),
    ("ours, count 100, slow calls", "circuitbreaker", 0.8),
    ("ours, count 100, 1 % failures", "circuitbreaker, 1 % failures", 1.5),
    ("ours, count 100, permit", "circuitbreaker", 1.8),
    ("ours, count 100, .call()", "circuitbreaker", None),
    ("ours, time 60 s", "circuitbreaker", 1.5),
    ("ours, time 300 s", "circuitbreaker", 1.5),
    ("ours, count 100, slow calls", "interlock, count 100", 1 / 8),
    ("ours, time 60 s", "interlock, time 60 s", 1 / 8),
    ("ours, time 300 s", "interlock, time 300 s", 1 / 8),
    ("ours, count 100, slow calls", "pybreaker", None),
    ("ours, count 100, slow calls", "aiobreaker", None),
    ("ours, count 100, slow calls", "purgatory", None),
    ("ours, count 100, slow calls", "bare", None),
    ("ours, rejected", "pybreaker, rejected", 0.5),
    ("ours, rejected", "circuitbreaker, rejected", None),
    ("ours, rejected", "aiobreaker, rejected", None),
    ("ours, rejected", "interlock, rejected", None),
    ("asyncio ours, failures in a row", "asyncio circuitbreaker", None),
    ("asyncio ours, count 100, slow calls", "asyncio circuitbreaker", 0.8),
    ("asyncio ours, count 100, permit", "asyncio circuitbreaker", 1.8),
    ("asyncio ours, time 60 s", "asyncio circuitbreaker", 1.5),
    ("asyncio ours, time 300 s", "asyncio circuitbreaker", 1.5),
    ("asyncio ours, count 100, slow calls", "asyncio interlock, count 100", 1 / 8),
    ("asyncio ours, time 300 s", "asyncio interlock, time 300 s", 1 / 8),
    ("asyncio ours, count 100, slow calls", "asyncio aiobreaker", None),
    ("asyncio ours, count 100, slow calls", "asyncio purgatory", None),
    ("asyncio ours, count 100, slow calls", "asyncio hyx", None),
    ("asyncio ours, count 100, slow calls", "asyncio bare", None),
    ("asyncio ours, rejected", "asyncio circuitbreaker", None),
]


@dataclass(frozen=True)
class Result:
    """One pair: medians in ns per call, the median ratio, and the middle half of the ratios."""

    ours: str
    other: str
    ours_ns: float
    other_ns: float
    ratio: float
    lower_quartile: float
    upper_quartile: float
    target: float | None

    @property
    def missed(self) -> bool:
        """Tell whether the target was missed."""
        return self.target is not None and self.ratio > self.target


async def run(block: Callable[[], Any]) -> float:
    start = perf_counter_ns()
    awaited = block()
    if awaited is not None:
        await awaited
    return (perf_counter_ns() - start) / CALLS


async def compare(
    pair: tuple[str, str, float | None], blocks: int, known: dict[str, Callable[[], Any]]
) -> Result:
    ours_name, other_name, target = pair
    mine, theirs = known[ours_name], known[other_name]
    for _ in range(3):
        await run(mine)
        await run(theirs)
    ours_ns, other_ns = [], []
    gc.collect()
    gc.disable()
    for number in range(blocks):
        if number % 2:
            ours_ns.append(await run(mine))
            other_ns.append(await run(theirs))
        else:
            other_ns.append(await run(theirs))
            ours_ns.append(await run(mine))
    gc.enable()
    ratios = [one / other for one, other in zip(ours_ns, other_ns, strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    return Result(
        ours_name,
        other_name,
        statistics.median(ours_ns),
        statistics.median(other_ns),
        middle,
        lower,
        upper,
        target,
    )


def memory_of_a_breaker() -> int:
    """Weigh a breaker with a count window of 100 that is full, and one decorated function."""
    breakers = []
    few, many = 10, 110
    weights = []
    for count in (few, many):
        tracemalloc.start()
        for _ in range(count):
            breaker = CircuitBreaker("benchmark", settings=COUNT)
            guarded = breaker(answer)
            for _ in range(300):
                guarded()
            breakers.append(breaker)
        weights.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert all(breaker.state is CircuitState.CLOSED for breaker in breakers)  # noqa: S101 - keeps them alive
    return (weights[1] - weights[0]) // (many - few)


async def measure(blocks: int) -> list[Result]:
    known = subjects() | async_subjects()
    results = []
    print(f"{'':<38}{'':<31}{'ns':>7}{'other':>8}{'ratio':>8}{'middle half':>17}{'target':>9}")
    for pair in PAIRS:
        result = await compare(pair, blocks, known)
        results.append(result)
        spread = f"{result.lower_quartile:.3f} to {result.upper_quartile:.3f}"
        target = "" if result.target is None else f"{result.target:.3f}"
        print(
            f"{result.ours:<38}{result.other:<31}{result.ours_ns:>7.0f}{result.other_ns:>8.0f}"
            f"{result.ratio:>8.3f}{spread:>17}{target:>9}{'  MISSED' if result.missed else ''}",
            flush=True,
        )
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=200, help="pairs of blocks, at least 100")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    if arguments.blocks < 100:  # noqa: PLR2004 - fewer make the median unsteady
        parser.error("--blocks must be at least 100")
    results = asyncio.run(measure(arguments.blocks))
    memory = memory_of_a_breaker()
    memory_target = 4096
    print(f"memory of a breaker with count window 100: {memory} bytes, target {memory_target}")
    if arguments.json is not None:
        document = {
            "python": platform.python_version(),
            "machine": platform.platform(),
            "libraries": {name: importlib.metadata.version(name) for name in PEERS},
            "blocks": arguments.blocks,
            "calls_per_block": CALLS,
            "memory_bytes": memory,
            "results": [asdict(result) for result in results],
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return int(memory >= memory_target or any(result.missed for result in results))


if __name__ == "__main__":
    sys.exit(main())
