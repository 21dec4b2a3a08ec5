"""How long replays wait for a circuit, and what wakes them."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.parking._circuits import Circuits
from fusewire.parking._pauses import Pauses
from fusewire.parking._recovery import Standing

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def registry() -> BreakerRegistry:
    return BreakerRegistry(
        BreakerSettings(failure_threshold=1, recovery_timeout=60, half_open_max_calls=1)
    )


def circuits_of(registry: BreakerRegistry, chance: Callable[[], float] = random.random) -> Circuits:
    return Circuits(registry, Pauses(now_ms=lambda: 0), chance)


async def napping(circuits: Circuits, limit: float = 60) -> asyncio.Task[None]:
    wait_for_change = asyncio.create_task(
        circuits.wait_for_change("payments", asyncio.Event(), limit)
    )
    for _ in range(3):
        await asyncio.sleep(0)
    assert not wait_for_change.done()
    return wait_for_change


async def test_a_circuit_closed_by_another_thread_wakes_who_waits_for_it(
    registry: BreakerRegistry,
) -> None:
    registry.get("payments").force_open()
    naps = [await napping(circuits_of(registry)) for _ in range(3)]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    thread = threading.Thread(target=registry.get("payments").reset)
    thread.start()
    await asyncio.wait_for(asyncio.gather(*naps), 10)
    thread.join()
    assert loop.time() - begin < 0.9  # woken, and not by the next look


async def test_stopping_ends_the_wait(registry: BreakerRegistry) -> None:
    registry.get("payments").force_open()
    stopping = asyncio.Event()
    wait_for_change = asyncio.create_task(
        circuits_of(registry).wait_for_change("payments", stopping, 60)
    )
    stopping.set()
    await asyncio.wait_for(wait_for_change, 10)


async def test_who_has_waited_hears_no_more_of_the_circuit(registry: BreakerRegistry) -> None:
    breaker = registry.get("payments")
    breaker.force_open()
    await circuits_of(registry).wait_for_change("payments", asyncio.Event(), 0)
    assert not breaker._listeners._listeners


async def test_one_that_admits_or_is_not_there_is_not_waited_for(
    registry: BreakerRegistry,
) -> None:
    circuits = circuits_of(registry)
    await circuits.wait_for_change("payments", asyncio.Event(), 60)
    registry.get("payments")
    await circuits.wait_for_change("payments", asyncio.Event(), 60)


def test_replicas_wait_differently_long_for_the_end_of_the_same_open_time(
    registry: BreakerRegistry,
) -> None:
    breaker = registry.get("payments")
    breaker.acquire().failure(retry_after=0.5)
    look = breaker.look()
    chances = iter((0.0, 0.5, 0.99))
    waits = [circuits_of(registry, lambda: next(chances))._worth(look) for _ in range(3)]
    assert waits[0] == look.retry_after
    assert waits == sorted(set(waits))
    assert waits[-1] - waits[0] < 0.1  # within what a first replay may be late


async def test_looking_at_circuits_makes_none(registry: BreakerRegistry) -> None:
    circuits = circuits_of(registry)
    assert circuits.look("payments") is None
    assert circuits.recovery_timeout("payments") == 0
    assert circuits.first_rejecting(["payments"]) is None
    assert circuits.first_not_closed(["payments"]) is None
    await circuits.wait_for_change("payments", asyncio.Event(), 60)
    assert len(registry) == 0


async def test_a_look_makes_no_breaker_in_place_of_one_that_is_dropped_meanwhile() -> None:
    class Dropping(BreakerRegistry):
        """Drops a breaker when somebody has asked whether it is there."""

        def __contains__(self, name: object) -> bool:
            known = super().__contains__(name)
            self.remove(str(name))
            return known

    registry = Dropping()
    circuits = circuits_of(registry)
    breaker = registry.get("payments")
    for look in (circuits.look, circuits.recovery_timeout, circuits.glance):
        look("payments")
        assert registry.holds(breaker)
    await circuits.wait_for_change("payments", asyncio.Event(), 60)
    assert registry.holds(breaker)


def test_a_glance_is_the_same_as_both_looks(registry: BreakerRegistry) -> None:
    circuits = circuits_of(registry)
    seen = []

    def look() -> None:
        standing, admits = circuits.glance("payments")
        assert standing is circuits.standing("payments")
        assert admits == circuits.admits("payments")
        seen.append((standing, admits))

    look()  # there is no breaker yet
    breaker = registry.get("payments")
    look()
    breaker.acquire().failure()
    look()
    breaker.half_open()
    look()
    with breaker.acquire():  # the only place
        look()
    assert seen == [
        (Standing.CLOSED, True),
        (Standing.CLOSED, True),
        (Standing.OPEN, False),
        (Standing.PROBING, True),
        (Standing.PROBING, False),
    ]
