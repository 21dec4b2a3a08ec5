"""Threads and tasks on one breaker: counters add up exactly, and probes keep to their number."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    Event,
    StateChanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 8
CALLS = 1500

COUNT = BreakerSettings(
    failure_threshold=None,
    window_calls=50,
    minimum_calls=50,
    failure_rate_threshold=1.0,
    slow_call_duration=1000.0,
)
TIME = BreakerSettings(
    failure_threshold=None, window_seconds=3600, minimum_calls=10**9, failure_rate_threshold=1.0
)
FLAPPING = BreakerSettings(
    failure_threshold=3,
    recovery_timeout=0.000_001,
    half_open_max_calls=2,
    window_calls=10,
    failure_rate_threshold=0.5,
)


@pytest.fixture(autouse=True)
def _switch_threads_as_often_as_possible() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_threads(work: Callable[[random.Random], object]) -> None:
    """Run `work` in many threads at once, and raise what it raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            together.wait(10)
            work(random.Random(number))
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


class Told:
    """What callers saw, counted under a lock of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = {"success": 0, "failure": 0, "ignored": 0, "rejected": 0}

    def add(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def call_at_random(breaker: CircuitBreaker, told: Told, chance: random.Random) -> None:
    """Make a call in one of the ways, with one of the outcomes."""

    def work(outcome: str) -> None:
        if outcome == "failure":
            raise ConnectionError
        if outcome == "ignored":
            raise KeyboardInterrupt

    guarded = breaker(work)
    outcome = chance.choice(["success"] * 8 + ["failure", "ignored"])
    way = chance.random()
    try:
        if way < 0.6:
            with contextlib.suppress(ConnectionError, KeyboardInterrupt):
                guarded(outcome)
        else:
            permit = breaker.acquire()
            for _ in range(2 if way < 0.8 else 1):
                if outcome == "success":
                    permit.success()
                elif outcome == "failure":
                    permit.failure()
                else:
                    permit.release()
    except CircuitOpenError:
        told.add("rejected")
    else:
        told.add(outcome)


@pytest.mark.parametrize("settings", [BreakerSettings(failure_threshold=10**9), COUNT, TIME])
def test_counters_add_up_exactly_in_a_closed_circuit(settings: BreakerSettings) -> None:
    breaker = CircuitBreaker("payments", settings=settings)
    told = Told()
    looking = threading.Event()

    def look_on() -> None:
        while not looking.is_set():
            snapshot = breaker.snapshot()
            assert snapshot.calls >= snapshot.failed
            time.sleep(0.001)

    onlooker = threading.Thread(target=look_on)
    onlooker.start()
    run_threads(lambda chance: [call_at_random(breaker, told, chance) for _ in range(CALLS)])
    looking.set()
    onlooker.join(10)
    snapshot = breaker.snapshot()
    counters = snapshot.counters
    assert counters.succeeded == told.counts["success"]
    assert counters.failed == told.counts["failure"]
    assert counters.ignored == told.counts["ignored"]
    assert counters.rejected == counters.late == 0
    calls = counters.succeeded + counters.failed
    if settings.window_calls is not None:
        assert snapshot.calls == settings.window_calls
        assert snapshot.failed == sum(run.failed for run in snapshot.window)
    elif settings.window_seconds is not None:
        assert (snapshot.calls, snapshot.failed) == (calls, counters.failed)


def test_counters_add_up_exactly_while_the_circuit_opens_and_closes() -> None:
    breaker = CircuitBreaker("payments", settings=FLAPPING)
    told = Told()
    changes: list[StateChanged] = []

    def note(event: Event) -> None:
        assert isinstance(event, StateChanged)
        changes.append(event)

    breaker.add_listener(note)
    run_threads(lambda chance: [call_at_random(breaker, told, chance) for _ in range(CALLS)])
    counters = breaker.snapshot().counters
    assert counters.rejected == told.counts["rejected"]
    made = counters.succeeded + counters.failed + counters.ignored + counters.late
    assert made == sum(told.counts.values()) - told.counts["rejected"]
    assert counters.opened > 10
    # Each change begins where the one before ended: none was lost, and none told out of order.
    assert all(one.new == other.old for one, other in pairwise(changes))
    assert sum(change.new == "open" for change in changes) == counters.opened


def test_there_are_never_more_probes_at_a_time_than_permitted() -> None:
    limit = FLAPPING.half_open_max_calls
    breaker = CircuitBreaker("payments", settings=FLAPPING)
    lock = threading.Lock()
    running: dict[int, int] = {}
    most = 0

    def work(chance: random.Random) -> None:
        nonlocal most
        for _ in range(CALLS):
            try:
                permit = breaker.acquire()
            except CircuitOpenError:
                continue
            if permit.probe:
                # Between the admission and here, and from here to the settlement, others may come
                # and go: what is counted is at most what runs.
                with lock:
                    running[permit.generation] = running.get(permit.generation, 0) + 1
                    most = max(most, running[permit.generation])
                time.sleep(0)
                with lock:
                    running[permit.generation] -= 1
            (permit.failure if chance.random() < 0.3 else permit.release)()

    run_threads(work)
    assert 0 < most <= limit
    assert breaker.snapshot().probes_running == 0


def test_probes_and_successes_of_a_round_never_exceed_the_permitted_number() -> None:
    limit = FLAPPING.half_open_max_calls
    breaker = CircuitBreaker("payments", settings=FLAPPING)
    lock = threading.Lock()
    admitted: dict[int, int] = {}

    def work(chance: random.Random) -> None:
        for _ in range(CALLS):
            try:
                permit = breaker.acquire()
            except CircuitOpenError:
                continue
            if permit.probe:
                with lock:
                    admitted[permit.generation] = admitted.get(permit.generation, 0) + 1
            # Probes are never released here, so a round admits no more than its places.
            (permit.failure if chance.random() < 0.5 else permit.success)()

    run_threads(work)
    assert admitted
    assert max(admitted.values()) <= limit


def test_a_bounded_registry_holds_no_more_than_its_limit_whatever_is_asked() -> None:
    registry = BreakerRegistry(limit=5)

    def work(chance: random.Random) -> None:
        for _ in range(200):
            name = str(chance.randrange(20))
            assert registry.get(name).name == name
            assert len(registry) <= 5

    run_threads(work)
    assert len(registry) == 5


async def test_threads_and_tasks_together_add_up_exactly() -> None:
    breaker = CircuitBreaker("payments", settings=FLAPPING)
    told = Told()

    async def work(outcome: str) -> None:
        await asyncio.sleep(0)
        if outcome == "failure":
            raise ConnectionError
        if outcome == "ignored":
            raise asyncio.CancelledError

    guarded = breaker(work)

    async def call_often(number: int) -> None:
        chance = random.Random(number)
        for _ in range(200):
            outcome = chance.choice(["success"] * 8 + ["failure", "ignored"])
            try:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await guarded(outcome)
            except CircuitOpenError:
                told.add("rejected")
            else:
                told.add(outcome)

    in_threads = asyncio.to_thread(
        run_threads, lambda chance: [call_at_random(breaker, told, chance) for _ in range(300)]
    )
    await asyncio.gather(in_threads, *(call_often(number) for number in range(10)))
    counters = breaker.snapshot().counters
    assert counters.rejected == told.counts["rejected"]
    made = counters.succeeded + counters.failed + counters.ignored + counters.late
    assert made == sum(told.counts.values()) - told.counts["rejected"]
    assert breaker.snapshot().probes_running == 0
