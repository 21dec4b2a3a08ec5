"""A replay controller whose clock and chance are the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker import Baseline
from fusewire.parking._controller_settings import ControllerSettings
from fusewire.parking._replay_controller import ReplayController, ReplayFailure

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

GOOD, SLOW = 0.01, 0.5
"""Seconds of a replay on each side of the reference."""

MIDDLE = 0.5
"""The random number of these tests: jitter is off, and what is spread begins in the middle."""


MEASURED = Baseline(reference=0.025, typical=0.02, calls=100)
"""What live calls took before the outage."""


def new(clock: FakeClock, *, chance: float = MIDDLE, **settings: float) -> ReplayController:
    return ReplayController(
        ControllerSettings(**settings),  # type: ignore[arg-type] # `most` is the one int
        clock=clock,
        rng=lambda: chance,
    )


def begun(
    clock: FakeClock, replicas: int, *, turn: float = 0.0, first: bool = True, **settings: float
) -> ReplayController:
    controller = new(clock, **settings)
    controller.begin(replicas, MEASURED, turn=turn, first=first)
    return controller


def succeed(controller: ReplayController, times: int = 1, seconds: float = GOOD) -> None:
    for _ in range(times):
        controller.on_start()
        controller.on_success(seconds)


def fail(
    controller: ReplayController, kind: ReplayFailure = ReplayFailure.REFUSED, **options: float
) -> None:
    controller.on_start()
    controller.on_failure(kind, **options)


def started(controller: ReplayController, clock: FakeClock, seconds: float) -> int:
    """Count the replays that may start in some time if each ends at once."""
    end, count = clock() + seconds, 0
    while (wait := controller.allowed()) <= end - clock():
        clock.advance(wait)
        controller.on_start()
        controller.cancelled()
        count += 1
    clock.advance(end - clock())
    return count


def gap(controller: ReplayController, clock: FakeClock) -> float:
    """Start a replay when that is allowed, and return the seconds until the next one is."""
    clock.advance(controller.allowed())
    controller.on_start()
    controller.cancelled()
    return controller.allowed()
