"""Listeners that take longer than the calls do: nobody waits for them for long, and what matters is
heard."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CallEvent,
    CallEventsDropped,
    CallFailed,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    LeaseExpired,
    StateChanged,
)
from fusewire.testing import FakeClock
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from collections.abc import Callable


class SlowListener:
    """Notes what it hears, and takes its time for it."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event)
        self.clock.advance(self.seconds)


def others_cause(breaker: CircuitBreaker, *events: Event) -> None:
    """Queue events as other callers do while one delivers."""
    for event in events:
        breaker._listeners.put(event)


EXPIRED = LeaseExpired("payments")
STEP = 0.0625  # of a second: two of them are more than a tenth


def test_a_caller_delivers_others_events_for_a_tenth_of_a_second(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, STEP)
    breaker.add_listener(listener)
    others_cause(breaker, *[EXPIRED] * 5)
    breaker.look()
    assert len(listener.heard) == 2
    breaker.look()
    assert len(listener.heard) == 4
    breaker.look()
    assert len(listener.heard) == 5
    breaker.look()
    assert len(listener.heard) == 5


def test_a_tenth_of_a_second_is_enough() -> None:
    clock = FakeClock(0.0)
    breaker = CircuitBreaker("payments", clock=clock)
    listener = SlowListener(clock, 0.1)
    breaker.add_listener(listener)
    others_cause(breaker, *[EXPIRED] * 3)
    breaker.look()
    assert len(listener.heard) == 1


def test_a_caller_delivers_its_own_events_however_long_that_takes(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, 60.0)
    breaker.add_listener(listener, (CallEvent, StateChanged))
    breaker.acquire().failure()
    breaker.acquire().failure()
    assert [type(event) for event in listener.heard] == [CallFailed, CallFailed, StateChanged]


def test_its_own_events_do_not_use_up_the_time_for_others(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, STEP)
    queued: list[Event] = []

    def let_others_come(event: Event) -> None:
        if not queued:
            queued.extend([EXPIRED] * 5)
            others_cause(breaker, *queued)

    breaker.add_listener(let_others_come)
    breaker.add_listener(listener)
    breaker.force_open()
    assert [type(event) for event in listener.heard] == [StateChanged, LeaseExpired, LeaseExpired]


def test_its_own_events_do_not_renew_the_time_for_others(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, STEP)

    def let_others_come(event: Event) -> None:
        if isinstance(event, StateChanged):
            others_cause(breaker, *[EXPIRED] * 5)

    breaker.add_listener(let_others_come)
    breaker.add_listener(listener)
    others_cause(breaker, EXPIRED)
    breaker.force_open()
    assert [type(event) for event in listener.heard] == [LeaseExpired, StateChanged, LeaseExpired]


def test_own_events_behind_others_wait_when_the_time_is_up_so_that_order_is_kept(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, STEP)
    breaker.add_listener(listener)
    others_cause(breaker, *[EXPIRED] * 3)
    breaker.force_open()
    assert [type(event) for event in listener.heard] == [LeaseExpired] * 2
    breaker.look()
    assert [type(event) for event in listener.heard] == [LeaseExpired] * 3 + [StateChanged]


def test_a_listener_that_causes_events_forever_does_not_keep_its_caller(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[Event] = []

    def cause_another(event: Event) -> None:
        heard.append(event)
        clock.advance(STEP)
        if breaker.state is CircuitState.FORCED_OPEN:
            breaker.reset()
        else:
            breaker.force_open()

    breaker.add_listener(cause_another)
    breaker.force_open()
    assert len(heard) == 3
    breaker.look()
    assert len(heard) == 5


def fail(breaker: CircuitBreaker) -> None:
    with pytest.raises(ConnectionError):
        breaker.call(refuse)


def refuse() -> None:
    raise ConnectionError


def be_rejected(breaker: CircuitBreaker) -> None:
    with pytest.raises(CircuitOpenError):
        breaker.acquire()


OPERATIONS: list[tuple[str, Callable[[CircuitBreaker], object]]] = [
    ("a healthy call", lambda breaker: breaker.call(lambda: None)),
    ("a healthy permit", lambda breaker: breaker.acquire().success()),
    ("a failure", fail),
    ("a permit given back", lambda breaker: breaker.acquire().release()),
    ("a look", CircuitBreaker.look),
    ("a snapshot", CircuitBreaker.snapshot),
]


@pytest.mark.parametrize("operation", [each for _, each in OPERATIONS], ids=dict(OPERATIONS))
def test_what_is_left_is_delivered_by_the_next_operation_of_any_kind(
    breaker: CircuitBreaker, clock: FakeClock, operation: Callable[[CircuitBreaker], object]
) -> None:
    listener = SlowListener(clock, STEP)
    breaker.add_listener(listener)
    others_cause(breaker, *[EXPIRED] * 5)
    breaker.look()
    operation(breaker)
    assert len(listener.heard) == 4
    # Also when a change of state has come between.
    breaker.replace_settings(breaker.settings)
    assert len(listener.heard) == 5
    others_cause(breaker, *[EXPIRED] * 5)
    breaker.reset()
    operation(breaker)
    assert len(listener.heard) == 9


def test_what_is_left_is_delivered_by_a_rejection(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, STEP)
    breaker.add_listener(listener)
    open_circuit(breaker)
    others_cause(breaker, *[EXPIRED] * 5)
    breaker.hold_open(100)
    assert len(listener.heard) == 3
    be_rejected(breaker)
    assert len(listener.heard) == 5
    breaker.hold_open(200)
    be_rejected(breaker)
    assert len(listener.heard) == 6
    assert not breaker._listeners.left


def test_calls_are_only_noted_again_when_nothing_is_left(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    breaker.add_listener(SlowListener(clock, STEP))
    others_cause(breaker, *[EXPIRED] * 3)
    breaker.look()
    assert breaker._listeners.left
    breaker.call(lambda: None)
    assert not breaker._listeners.left
    breaker.call(lambda: None)
    breaker.call(lambda: None)
    assert len(breaker._healthy) == 1


def flood(breaker: CircuitBreaker, calls: int) -> list[Event]:
    """Let `calls` calls succeed while a listener is busy; return what it has heard in the end."""
    heard: list[Event] = []

    def listener(event: Event) -> None:
        heard.append(event)
        if len(heard) == 1:
            breaker.force_open()
            breaker.reset()
            for _ in range(calls):
                breaker.acquire().success()
            breaker.force_open()
            breaker.reset()

    breaker.add_listener(listener, (CallEvent, StateChanged))
    breaker.acquire().failure()
    return heard


def test_a_thousand_events_of_single_calls_wait(breaker: CircuitBreaker) -> None:
    heard = flood(breaker, 1000)
    kinds = [type(event) for event in heard]
    changes = [StateChanged] * 2
    assert kinds == [CallFailed, *changes, *[CallSucceeded] * 1000, *changes]


def test_of_more_the_oldest_are_dropped_and_counted_and_no_change_of_state_is(
    breaker: CircuitBreaker,
) -> None:
    heard = flood(breaker, 1003)
    kinds = [type(event) for event in heard]
    changes = [StateChanged] * 2
    calls = [CallEventsDropped, *[CallSucceeded] * 1000]
    assert kinds == [CallFailed, *changes, *calls, *changes]
    assert heard[3] == CallEventsDropped("payments", 3)
    heard.append(heard[0])  # so that the listener is not busy again
    breaker.acquire().success()
    assert [type(event) for event in heard[-2:]] == [CallFailed, CallSucceeded], "told only once"


def test_listeners_are_told_each_time_how_many_were_dropped_since(
    breaker: CircuitBreaker,
) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)
    for dropped in (2, 3):
        calls = [CallSucceeded("payments", float(number)) for number in range(1000 + dropped)]
        others_cause(breaker, *calls)
        breaker.look()
        assert heard == [CallEventsDropped("payments", dropped), *calls[dropped:]]
        heard.clear()


def test_a_change_that_has_to_wait_is_not_dropped(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    listener = SlowListener(clock, STEP)
    breaker.add_listener(listener, Event)
    others_cause(breaker, *[EXPIRED] * 3, *[CallSucceeded("payments", 0.0)] * 1000)
    breaker.look()
    others_cause(breaker, *[CallSucceeded("payments", 0.0)] * 2)
    breaker.look()
    assert [type(event) for event in listener.heard[:4]] == [
        *[LeaseExpired] * 3,
        CallEventsDropped,
    ]


def test_the_log_says_how_many_were_dropped_and_not_each_time(
    breaker: CircuitBreaker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def drop(calls: int) -> None:
        others_cause(breaker, *[CallSucceeded("payments", 0.0)] * (1000 + calls))
        breaker.look()

    breaker.add_listener(lambda _: None, CallEvent)
    with caplog.at_level(logging.WARNING):
        drop(0)
        assert caplog.messages == []
        drop(2)
        assert caplog.messages[0] == (
            "the listeners of circuit 'payments' take longer than its calls, so call events are "
            "dropped (2 since this was last logged); changes of its state are kept. Let the "
            "listeners do less, or pass the events to a thread of your own"
        )
        clock.advance(59.5)
        drop(3)
        assert len(caplog.messages) == 1
        clock.advance(0.5)
        drop(4)
        assert "(7 since this was last logged)" in caplog.messages[1]
        clock.advance(600)
        drop(0)
        assert len(caplog.messages) == 2


def test_a_listener_that_hangs_is_said_by_other_callers(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    hanging, go_on = threading.Event(), threading.Event()

    def hang(_event: Event) -> None:
        hanging.set()
        go_on.wait(20)

    breaker.add_listener(hang, CallEvent)
    caller = threading.Thread(target=lambda: breaker.acquire().success())
    caller.start()
    assert hanging.wait(20)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for _ in range(1002):
            breaker.acquire().success()
    assert time.monotonic() - began < 10, "nobody waits for it"
    assert len(caplog.messages) == 1
    assert len(breaker._listeners.calls) == 1000
    go_on.set()
    caller.join()


def test_many_callers_share_the_work_of_a_slow_listener() -> None:
    breaker = CircuitBreaker("payments")
    heard: list[int] = []

    def listener(_event: Event) -> None:
        heard.append(threading.get_ident())
        time.sleep(0.002)

    breaker.add_listener(listener, CallEvent)
    until = time.monotonic() + 1.5
    longest: list[float] = []

    def work() -> None:
        slowest = 0.0
        while time.monotonic() < until:
            began = time.monotonic()
            breaker.call(time.sleep, 0.001)
            slowest = max(slowest, time.monotonic() - began)
        longest.append(slowest)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(longest) < 1.0
    assert len(set(heard)) > 1


def test_a_probe_is_not_slow_because_a_listener_is(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=1,
        half_open_max_calls=1,
        slow_call_duration=1.0,
        slow_call_rate_threshold=0.5,
        window_calls=10,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.add_listener(SlowListener(clock, 5.0))
    half_open_circuit(breaker, clock)
    breaker.call(lambda: None)
    assert breaker.state is CircuitState.CLOSED
