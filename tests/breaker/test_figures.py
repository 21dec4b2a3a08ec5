"""Figures: what changes of a breaker, exact at any time, whatever the window."""

from __future__ import annotations

import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    BreakerSettings,
    Cause,
    CircuitBreaker,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    Counters,
    Figures,
    Reason,
    Transition,
)
from fusewire.breaker._transitions import AUTOMATIC
from tests.support.circuits import half_open_circuit, interrupt, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

RATES = BreakerSettings(
    failure_threshold=None,
    window_calls=10,
    minimum_calls=4,
    failure_rate_threshold=1.0,
    slow_call_duration=2.0,
)


def counts(breaker: CircuitBreaker) -> dict[tuple[str, str], int]:
    """Return the transitions that have happened."""
    made = breaker.figures().counters.transitions
    return {(each.old.value, each.new.value): each.count for each in made if each.count}


def test_figures_have_all_that_changes(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=2,
        recovery_timeout=10,
        window_calls=10,
        minimum_calls=4,
        slow_call_duration=2,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    guarded = breaker(clock.advance)
    guarded(0)
    guarded(3)
    late = breaker.acquire()
    breaker.acquire().release()
    for _ in range(2):
        breaker.acquire().failure()
    late.success()
    clock.advance(4)
    with pytest.raises(CircuitOpenError):
        guarded(0)
    figures = breaker.figures()
    assert figures == Figures(
        name="payments",
        state=OPEN,
        state_seconds=4,
        retry_after=6,
        reason=Reason(Cause.CONSECUTIVE_FAILURES, 2, 2),
        counters=Counters(
            succeeded=2,
            failed=2,
            ignored=1,
            slow=1,
            rejected=1,
            late=1,
            opened=1,
            transitions=(Transition(CLOSED, OPEN, 1), *AUTOMATIC[1:]),
            open_seconds=4,
        ),
        failure_rate=0.5,
        slow_call_rate=0.25,
        calls=4,
        failed=2,
        slow=1,
        consecutive_failures=0,
        reopenings=0,
        probes_running=0,
        probes_succeeded=0,
        durations=None,
    )
    assert pickle.loads(pickle.dumps(figures)) == figures  # noqa: S301 - our own
    assert dataclasses.asdict(figures)["counters"]["transitions"][0]["count"] == 1
    assert hash(figures) == hash(breaker.figures())


def test_figures_show_the_probes(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire().failure()
    clock.advance(10)
    breaker.acquire().success()
    breaker.acquire()
    figures = breaker.figures()
    assert (figures.probes_running, figures.probes_succeeded, figures.reopenings) == (1, 1, 1)
    assert breaker.figures().consecutive_failures == 0


def test_the_four_transitions_that_a_circuit_makes_on_its_own_are_there_from_the_start(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    pairs = [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED), (HALF_OPEN, OPEN)]
    assert breaker.figures().counters.transitions == tuple(Transition(*pair) for pair in pairs)
    half_open_circuit(breaker, clock)
    breaker.acquire().failure()
    clock.advance(10)
    for _ in range(2):
        breaker.acquire().success()
    made = breaker.figures().counters.transitions
    assert [(each.old, each.new, each.count) for each in made] == [
        (CLOSED, OPEN, 1),
        (OPEN, HALF_OPEN, 2),
        (HALF_OPEN, CLOSED, 1),
        (HALF_OPEN, OPEN, 1),
    ]


def test_transitions_by_hand_are_counted_when_they_happen(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    breaker.force_open()
    breaker.disable()
    breaker.metrics_only()
    breaker.automatic()
    breaker.reset()
    breaker.force_open()
    assert counts(breaker) == {
        ("closed", "forced_open"): 2,
        ("forced_open", "disabled"): 1,
        ("disabled", "metrics_only"): 1,
        ("metrics_only", "closed"): 1,
    }


def test_the_open_time_is_the_time_in_which_no_call_is_admitted(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    def open_seconds() -> float:
        return breaker.figures().counters.open_seconds

    clock.advance(100)
    assert open_seconds() == 0
    open_circuit(breaker)
    clock.advance(4)
    assert open_seconds() == 4
    clock.advance(16)
    assert open_seconds() == 10  # the next call would be a probe
    breaker.hold_open(5)  # and now it would not
    clock.advance(2)
    assert open_seconds() == 12
    clock.advance(100)
    assert open_seconds() == 15
    breaker.acquire()
    clock.advance(100)
    assert open_seconds() == 15  # half open
    breaker.force_open()
    clock.advance(1000)
    assert open_seconds() == 1015
    breaker.disable()
    clock.advance(100)
    breaker.metrics_only()
    clock.advance(100)
    breaker.reset()
    clock.advance(100)
    assert open_seconds() == 1015
    assert breaker.snapshot().counters.open_seconds == 1015


def test_half_opening_by_hand_ends_the_open_time(breaker: CircuitBreaker, clock: FakeClock) -> None:
    open_circuit(breaker)
    clock.advance(4)
    breaker.half_open()
    clock.advance(100)
    assert breaker.figures().counters.open_seconds == 4


def test_a_ramp_is_no_open_time(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=1, recovery_timeout=10, half_open_max_calls=1, ramp_duration=100
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    breaker.acquire().success()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    clock.advance(50)
    assert breaker.figures().counters.open_seconds == 10


def test_a_time_that_is_earlier_than_anothers_takes_nothing_off(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(4)
    assert breaker.figures().counters.open_seconds == 4
    clock.now -= 1  # as a thread sees it that read the clock before another one did
    assert breaker.figures().counters.open_seconds == 4
    breaker.reset()
    assert breaker.figures().counters.open_seconds == 4
    assert breaker.figures().state_seconds == 0
    clock.now -= 1
    assert breaker.figures().state_seconds == 0


def test_the_state_is_the_one_that_a_look_shows(breaker: CircuitBreaker, clock: FakeClock) -> None:
    clock.advance(3)
    assert breaker.figures().state_seconds == 3
    open_circuit(breaker)
    clock.advance(10)
    assert (breaker.figures().state, breaker.figures().state_seconds) == (HALF_OPEN, 0)
    assert breaker.figures().retry_after == 0
    clock.advance(7)
    assert breaker.figures().state_seconds == 7
    breaker.acquire()
    clock.advance(2)
    assert breaker.figures().state_seconds == 2


def test_a_circuit_that_the_next_call_opens_is_open_from_now_on(clock: FakeClock) -> None:
    settings = BreakerSettings(
        window_calls=2,
        minimum_calls=1,
        slow_call_rate_threshold=1.0,
        slow_call_duration=1.0,
        open_on_hanging=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.acquire()
    clock.advance(5)
    figures = breaker.figures()
    assert (figures.state, figures.retry_after, figures.state_seconds) == (OPEN, 30, 5)


@pytest.mark.parametrize(
    ("act", "mode"),
    [
        ("reset", CircuitMode.AUTOMATIC),
        ("force_open", CircuitMode.FORCED_OPEN),
        ("disable", CircuitMode.DISABLED),
        ("metrics_only", CircuitMode.METRICS_ONLY),
    ],
)
def test_the_mode_says_what_was_set_by_hand(
    breaker: CircuitBreaker, act: str, mode: CircuitMode
) -> None:
    open_circuit(breaker)
    assert breaker.figures().mode is CircuitMode.AUTOMATIC
    getattr(breaker, act)()
    assert breaker.figures().mode is mode


@pytest.mark.parametrize(
    ("changed", "failure_rate", "slow_call_rate"),
    [
        ({}, 0.25, 0.5),
        ({"minimum_calls": 5}, None, None),
        ({"slow_call_duration": None}, 0.25, None),
        ({"window_calls": None, "window_seconds": 60}, 0.25, 0.5),
        (
            {"window_calls": None, "failure_rate_threshold": None, "failure_threshold": 9},
            None,
            None,
        ),
    ],
)
def test_a_rate_is_none_where_it_would_mean_nothing(
    clock: FakeClock,
    changed: dict[str, Any],
    failure_rate: float | None,
    slow_call_rate: float | None,
) -> None:
    settings = dataclasses.replace(RATES, **changed)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    guarded = breaker(clock.advance)
    for seconds in (3, 3, 0):
        guarded(seconds)
    breaker.acquire().failure()
    figures = breaker.figures()
    assert (figures.failure_rate, figures.slow_call_rate) == (failure_rate, slow_call_rate)
    assert figures.calls == (0 if settings.window_calls is settings.window_seconds else 4)


def test_what_is_too_old_is_not_in_the_figures_and_reading_them_drops_nothing(
    clock: FakeClock,
) -> None:
    settings = BreakerSettings(window_seconds=20, minimum_calls=1, slow_call_duration=2.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.acquire().failure()
    clock.advance(5)
    breaker(clock.advance)(3)
    figures = [breaker.figures()]
    for seconds in (11, 1, 7, 1, 1e6):
        clock.advance(seconds)
        figures.append(breaker.figures())
    assert [(each.calls, each.failed, each.slow) for each in figures] == [
        (2, 1, 1),
        (2, 1, 1),
        (1, 0, 1),
        (1, 0, 1),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert figures[-1].failure_rate is None
    clock.now -= 1e6 + 2
    assert breaker.figures().calls == 1


def test_figures_are_read_in_the_midst_of_a_change(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_circuit(breaker)
    clock.advance(4)
    assert interrupt(breaker, breaker.figures) == breaker.figures()


def test_durations_that_are_not_counted_yet_are_missing_in_the_midst_of_a_change(
    breaker: CircuitBreaker,
) -> None:
    breaker.measure_durations()
    breaker.call(int)
    figures = interrupt(breaker, breaker.figures)
    assert figures.durations is not None
    assert figures.durations.answered.calls == 0
    figures = breaker.figures()
    assert figures.durations is not None
    assert figures.durations.answered.calls == 1


def test_reading_them_calls_no_listener_and_takes_no_snapshot(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(breaker._window), "dump", None)
    heard: list[object] = []
    breaker.add_listener(heard.append)
    breaker.figures()
    assert heard == []
