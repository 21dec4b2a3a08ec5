"""A signal handler or a finalizer may use a circuit in the midst of its change, in its thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire._locks import inside
from fusewire.breaker import (
    Admission,
    BreakerSettings,
    CallEvent,
    CallFailed,
    CallRejected,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    StateChanged,
)
from fusewire.operation import operation
from tests.support.circuits import half_open_circuit, held_lock, interrupt, open_circuit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.testing import FakeClock

RAMPING = BreakerSettings(
    failure_threshold=1, recovery_timeout=10.0, half_open_max_calls=1, ramp_duration=8.0
)


def test_code_that_interrupts_the_taking_of_a_permit_does_not_wait_for_it(
    clock: FakeClock,
) -> None:
    states: list[CircuitState] = []

    def in_the_midst() -> float:
        with held_lock(breaker):
            states.append(breaker.state)
        return 0.5

    settings = BreakerSettings(
        failure_threshold=None,
        recovery_timeout_jitter=0.5,
        window_calls=1,
        minimum_calls=1,
        slow_call_duration=2.0,
        slow_call_rate_threshold=1.0,
        open_on_hanging=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock, rng=in_the_midst)
    breaker.acquire()
    clock.advance(3.0)
    with pytest.raises(CircuitOpenError):
        breaker.acquire()  # opens, because a call hangs
    assert states == [CircuitState.CLOSED]


def test_it_is_answered_from_the_last_whole_change(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    assert interrupt(breaker, breaker.look) == Admission(True, CircuitState.CLOSED, 0.0)  # noqa: FBT003
    open_circuit(breaker)
    clock.advance(9.5)
    assert interrupt(breaker, breaker.look) == Admission(False, CircuitState.OPEN, 0.5)  # noqa: FBT003
    breaker.force_open()
    assert interrupt(breaker, breaker.look) == Admission(False, CircuitState.FORCED_OPEN, 10.0)  # noqa: FBT003
    breaker.disable()
    assert interrupt(breaker, breaker.look) == Admission(True, CircuitState.DISABLED, 0.0)  # noqa: FBT003
    assert interrupt(breaker, lambda: breaker.state) is CircuitState.DISABLED


def test_what_answers_it_is_not_made_again_by_changes_that_keep_the_state(
    breaker: CircuitBreaker,
) -> None:
    published = breaker._published
    breaker.acquire().failure()
    assert breaker._published is published
    breaker.acquire().failure()
    assert breaker._published is not published


def test_it_is_never_given_a_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    refused = Admission(False, CircuitState.HALF_OPEN, 1.0)  # noqa: FBT003
    assert interrupt(breaker, breaker.look) == refused
    with pytest.raises(CircuitOpenError) as error:
        interrupt(breaker, breaker.acquire)
    assert (error.value.state, error.value.retry_after) == ("half_open", 1.0)
    assert error.value.reason == "2 failures in a row, threshold 2"
    breaker.acquire().success()
    assert interrupt(breaker, breaker.look) == refused
    assert breaker.snapshot().probes_succeeded == 1
    assert breaker.snapshot().counters.rejected == 1


def test_it_passes_while_a_share_is_admitted_only_when_all_are_again(clock: FakeClock) -> None:
    breaker = CircuitBreaker("payments", settings=RAMPING, clock=clock)
    half_open_circuit(breaker, clock)
    breaker.acquire().success()
    clock.advance(7.5)
    assert interrupt(breaker, breaker.look) == Admission(False, CircuitState.CLOSED, 1.0)  # noqa: FBT003
    with pytest.raises(CircuitOpenError, match="a growing share"):
        interrupt(breaker, breaker.acquire)
    clock.advance(0.5)
    permit = interrupt(breaker, breaker.acquire)
    permit.failure()
    assert breaker.state is CircuitState.OPEN


def test_its_call_takes_the_time_that_it_took(clock: FakeClock) -> None:
    settings = BreakerSettings(slow_call_duration=2.0)
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.disable()
    breaker.metrics_only()

    def call(seconds: float) -> None:
        permit = breaker.acquire()
        clock.advance(seconds)
        permit.failure()
        clock.advance(50)

    interrupt(breaker, lambda: call(2.0))
    assert breaker.snapshot().counters.slow == 0
    interrupt(breaker, lambda: call(2.5))
    assert breaker.snapshot().counters.slow == 1


def test_its_stream_is_never_slow(clock: FakeClock) -> None:
    settings = BreakerSettings(
        window_calls=10,
        slow_call_duration=2.0,
        slow_call_rate_threshold=0.5,
        open_on_hanging=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)

    def read() -> None:
        permit = breaker.acquire(timed=False)
        clock.advance(60.0)
        permit.failure()

    interrupt(breaker, read)
    counters = breaker.snapshot().counters
    assert (counters.failed, counters.slow) == (1, 0)


def test_its_call_inside_a_guarded_call_is_a_call_of_its_own(breaker: CircuitBreaker) -> None:
    def call() -> None:
        with held_lock(breaker):
            breaker.call(lambda: None)

    with breaker.acquire():
        interrupt(breaker, call)
    assert breaker.snapshot().counters.succeeded == 2


def test_it_may_come_while_a_permit_is_lent(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend = CircuitBreaker._lend

    def lend_interrupted(*args: Any) -> Any:
        with held_lock(breaker):
            breaker.acquire().failure()
        return lend(*args)

    monkeypatch.setattr(CircuitBreaker, "_lend", lend_interrupted)
    with breaker.acquire():
        breaker.call(lambda: None)
    counters = breaker.snapshot().counters
    assert (counters.failed, counters.succeeded) == (1, 1)


def test_what_it_wants_changed_is_done_when_the_change_ends(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[Event] = []
    settings = BreakerSettings(failure_threshold=1)
    whole = breaker.snapshot()
    changes: list[tuple[Callable[[], object], CircuitState]] = [
        (breaker.force_open, CircuitState.FORCED_OPEN),
        (breaker.automatic, CircuitState.CLOSED),
        (breaker.disable, CircuitState.DISABLED),
        (breaker.metrics_only, CircuitState.METRICS_ONLY),
        (breaker.reset, CircuitState.CLOSED),
        (lambda: breaker.replace_settings(settings), CircuitState.CLOSED),
        (lambda: breaker.acquire().failure(), CircuitState.OPEN),
        (lambda: breaker.hold_open(600), CircuitState.OPEN),
        (breaker.half_open, CircuitState.HALF_OPEN),
        (lambda: breaker.restore(whole), CircuitState.CLOSED),
        (lambda: breaker.add_listener(heard.append), CircuitState.CLOSED),
    ]
    for change, state in changes:
        before = breaker.state

        def change_and_look(change: Callable[[], object] = change) -> CircuitState:
            change()
            return breaker.state

        assert interrupt(breaker, change_and_look) is before, "the change is not done yet"
        assert breaker.state is state
    assert breaker.settings is settings
    breaker.force_open()
    assert [type(event) for event in heard] == [StateChanged]


def test_a_listener_can_be_removed_by_it(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    remove = breaker.add_listener(heard.append)
    interrupt(breaker, remove)
    open_circuit(breaker)
    assert heard == []


def test_no_listener_is_called_in_the_midst_of_a_change(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)

    def fail() -> None:
        breaker._listeners.put(CallFailed("payments", 0.5))  # of the change that is interrupted
        breaker.acquire().failure()
        breaker.look()
        breaker.snapshot()
        breaker.force_open()
        assert heard == []

    interrupt(breaker, fail)
    assert heard[0] == CallFailed("payments", 0.5)


def test_its_refusal_is_reported_when_the_change_ends(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)
    breaker.force_open()

    def call() -> None:
        with pytest.raises(CircuitOpenError):
            breaker.acquire()

    interrupt(breaker, call)
    assert heard == [CallRejected("payments", CircuitState.FORCED_OPEN, 10.0)]


def test_its_failure_is_noted_on_the_operation_and_its_hint_is_kept(
    breaker: CircuitBreaker,
) -> None:
    with operation("op-1") as work:
        for _ in range(2):
            interrupt(breaker, lambda: breaker.acquire().failure(retry_after=7.0))
        assert work.failed == ["payments"]
    assert breaker.look().retry_after == 7.0


def test_only_the_first_of_its_settlements_counts(breaker: CircuitBreaker) -> None:
    def settle_twice() -> None:
        permit = breaker.acquire()
        permit.failure()
        permit.success()

    interrupt(breaker, settle_twice)
    counters = breaker.snapshot().counters
    assert (counters.failed, counters.succeeded) == (1, 0)


class LetGo:
    """A lock in whose letting go a signal handler comes twice, and acts each time."""

    left = 2

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        assert threading.get_ident() in inside
        if self.left:
            self.left -= 1
            self.act()


def test_what_comes_while_the_lock_is_let_go_is_done_at_once(breaker: CircuitBreaker) -> None:
    lock: Any = LetGo(lambda: breaker.acquire().failure())
    breaker._lock = lock
    breaker._change(0.0, lambda _now: None)
    assert not breaker._deferred
    assert breaker.state is CircuitState.OPEN


def test_what_comes_then_may_come_during_a_probe(breaker: CircuitBreaker, clock: FakeClock) -> None:
    def call() -> None:
        with pytest.raises(CircuitOpenError):
            breaker.acquire()

    half_open_circuit(breaker, clock)
    breaker.acquire()
    lock: Any = LetGo(call)
    breaker._lock = lock
    breaker.look()
    assert not breaker._deferred
    assert (breaker.snapshot().probes_running, breaker.snapshot().counters.rejected) == (1, 2)


@pytest.mark.parametrize("by_permit", [False, True])
def test_what_it_wants_of_another_circuit_is_done_by_its_next_call(
    breaker: CircuitBreaker, *, by_permit: bool
) -> None:
    other = CircuitBreaker("search", 1)
    interrupt(breaker, lambda: other.acquire().failure())
    assert len(other._deferred) == 1
    if by_permit:
        other.acquire().success()
    else:
        other.call(lambda: None)
    assert not other._deferred
    counters = other.snapshot().counters
    assert (counters.failed, counters.succeeded + counters.late) == (1, 1)
