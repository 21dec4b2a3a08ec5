"""Events of single calls, for who asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CallEvent,
    CallFailed,
    CallIgnored,
    CallLate,
    CallRejected,
    CallSlow,
    CallSucceeded,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    LeaseExpired,
    Outcome,
    SettingsChanged,
    StateChanged,
)
from tests.support.circuits import half_open_circuit, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    settings = BreakerSettings(
        failure_threshold=2, recovery_timeout=10, half_open_max_calls=2, slow_call_duration=2
    )
    return CircuitBreaker("payments", settings=settings, clock=clock)


def test_each_call_is_reported_to_listeners_that_ask(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)
    guarded = breaker(clock.advance)
    guarded(1)
    guarded(3)
    breaker.acquire().release()
    stream = breaker.acquire(timed=False)
    late = breaker.acquire()
    stream.failure()
    breaker.acquire().failure()
    late.success()
    with pytest.raises(CircuitOpenError):
        guarded(1)
    assert heard == [
        CallSucceeded("payments", 1),
        CallSucceeded("payments", 3),
        CallSlow("payments", 3),
        CallIgnored("payments"),
        CallFailed("payments", None),
        CallFailed("payments", 0),
        CallLate("payments", Outcome.SUCCESS),
        CallRejected("payments", CircuitState.OPEN, 10),
    ]


def test_a_listener_hears_changes_unless_it_asks_for_more(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    changes: list[Event] = []
    everything: list[Event] = []
    breaker.add_listener(changes.append)
    breaker.add_listener(everything.append, Event)
    open_circuit(breaker)
    assert [type(event) for event in changes] == [StateChanged]
    assert [type(event) for event in everything] == [CallFailed, CallFailed, StateChanged]


def test_a_change_by_itself_is_by_nobody_and_has_no_note(
    breaker: CircuitBreaker,
) -> None:
    changes: list[StateChanged] = []
    breaker.add_listener(changes.append, StateChanged)
    open_circuit(breaker)
    assert [(each.by, each.note) for each in changes] == [("", "")]


def test_the_kinds_of_events_can_be_named(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, (CallFailed, CallIgnored))
    breaker.acquire().success()
    breaker.acquire().release()
    breaker.acquire().failure()
    assert [type(event) for event in heard] == [CallIgnored, CallFailed]


def test_an_expired_lease_is_reported(breaker: CircuitBreaker, clock: FakeClock) -> None:
    half_open_circuit(breaker, clock)
    breaker.acquire()
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    clock.advance(60)
    breaker.look()
    assert heard == [LeaseExpired("payments")]
    assert breaker.snapshot().counters.expired == 1


def test_other_settings_are_reported(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    old, new = breaker.settings, BreakerSettings()
    breaker.replace_settings(new)
    breaker.replace_settings(new)
    assert heard == [SettingsChanged("payments", old, new)]


def test_a_listener_may_come_and_go_while_a_probe_is_in_flight(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    probe = breaker.acquire()
    heard: list[Event] = []
    remove = breaker.add_listener(heard.append)
    remove()
    probe.failure()
    assert breaker.state is CircuitState.OPEN
    assert heard == []


def test_who_hears_calls_no_more_makes_them_cheap_again(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    remove = breaker.add_listener(heard.append, CallEvent)
    guarded = breaker(lambda: None)
    guarded()
    remove()
    guarded()
    assert len(heard) == 1
    assert len(breaker._healthy) == 1
    breaker.add_listener(heard.append, CallEvent)
    assert breaker.snapshot().counters.succeeded == 2


def test_a_late_note_is_reported_too(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)
    # As a thread leaves it that was held up between its last look at the state and its note.
    breaker._healthy.append(breaker._generation - 1)
    breaker.look()
    assert heard == [CallLate("payments", Outcome.SUCCESS)]


def test_each_expired_lease_is_counted_and_its_late_result_reported(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    probes = [breaker.acquire(), breaker.acquire()]
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallEvent)
    clock.advance(60)
    for probe in probes:
        probe.success()
    assert heard == [CallLate("payments", Outcome.SUCCESS)] * 2
    assert breaker.snapshot().counters.expired == 2


@pytest.mark.parametrize("proved", [False, True])
async def test_a_late_call_is_reported_with_its_outcome(
    breaker: CircuitBreaker,
    proved: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async def reset() -> None:
        breaker.reset()

    if proved:
        breaker._unproven = 0
        breaker._refresh()
    heard: list[Event] = []
    breaker.add_listener(heard.append, CallLate)
    breaker(breaker.reset)()
    await breaker(reset)()
    assert heard == [CallLate("payments", Outcome.SUCCESS)] * 2
