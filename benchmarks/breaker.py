"""What a protected call costs, next to other libraries.

Each figure comes from pairs of blocks that alternate in one process, ours and the other's, so that
what disturbs the machine disturbs both. The ratio of a pair is taken first, and then the median of
the ratios, with the middle half of them as the spread.

Run it with the other libraries installed (they are in no group of the project's dependencies)::

    pip install circuitbreaker pybreaker aiobreaker purgatory hyx interlock-cb
    python -m benchmarks.breaker --blocks 200 --json breaker.json

It exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import tracemalloc
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from benchmarks.breaker_subjects import CALLS, COUNT, PEERS, answer, async_subjects, subjects
from fusewire.breaker import CircuitBreaker, CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable

# What is compared with what, and the ratio to stay within; None is only told.
PAIRS: list[tuple[str, str, float | None]] = [
    ("ours, failures in a row", "circuitbreaker", None),
    ("ours, count 100, slow calls", "circuitbreaker", 0.8),
    ("ours, count 100, 1 % failures", "circuitbreaker, 1 % failures", 1.5),
    ("ours, count 100, offering loans", "circuitbreaker", None),
    ("ours, count 100, two in one path", "circuitbreaker", None),
    ("ours, count 100, permit", "circuitbreaker", 1.8),
    ("ours, count 100, .call()", "circuitbreaker", None),
    ("ours, count 100, by name", "ours, count 100, .call()", 1.0),
    ("ours, count 100, by name", "ours, count 100, slow calls", None),
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
    ("asyncio ours, count 100, offering loans", "asyncio circuitbreaker", None),
    ("asyncio ours, count 100, permit", "asyncio circuitbreaker", 1.8),
    ("asyncio ours, count 100, by name", "asyncio ours, count 100, .call_async()", 1.0),
    ("asyncio ours, count 100, by name", "asyncio ours, count 100, slow calls", None),
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
        """Return whether the target was missed."""
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
    print(f"{'':<38}{'':<38}{'ns':>7}{'other':>8}{'ratio':>8}{'middle half':>17}{'target':>9}")
    for pair in PAIRS:
        result = await compare(pair, blocks, known)
        results.append(result)
        spread = f"{result.lower_quartile:.3f} to {result.upper_quartile:.3f}"
        target = "" if result.target is None else f"{result.target:.3f}"
        print(
            f"{result.ours:<38}{result.other:<38}{result.ours_ns:>7.0f}{result.other_ns:>8.0f}"
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
