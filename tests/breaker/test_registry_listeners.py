"""A registry's listeners hear of all breakers there are and will be; `add` takes one more."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    CRITICAL,
    BreakerAdded,
    BreakerRegistry,
    BreakerRemoved,
    BreakerSettings,
    CallEvent,
    CallSucceeded,
    CircuitBreaker,
    CircuitState,
    Event,
    SettingsChanged,
    StateChanged,
)
from fusewire.errors import SettingsError
from tests.support.circuits import half_open_circuit, interrupt, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

STRICT = BreakerSettings(failure_threshold=1, recovery_timeout=10.0)


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(STRICT, clock=clock)


def kinds_of(heard: list[Event]) -> list[tuple[str, str]]:
    return [(event.name, type(event).__name__) for event in heard]


def test_it_hears_of_breakers_that_are_there_and_of_those_made_later(
    registry: BreakerRegistry,
) -> None:
    early = registry.get("early")
    heard: list[Event] = []
    registry.add_listener(heard.append)
    assert heard == [BreakerAdded("early")]
    late = registry.get("late")
    registry.get("late")
    assert heard[1:] == [BreakerAdded("late")]
    open_circuit(early)
    open_circuit(late)
    late.replace_settings(CRITICAL)
    assert kinds_of(heard[2:]) == [
        ("early", "StateChanged"),
        ("late", "StateChanged"),
        ("late", "SettingsChanged"),
    ]


def test_the_last_event_of_a_breaker_says_that_it_was_removed(registry: BreakerRegistry) -> None:
    heard: list[Event] = []
    own: list[Event] = []
    registry.add_listener(heard.append)
    dropped = registry.get("payments")
    dropped.add_listener(own.append, Event)
    registry.remove("payments")
    registry.remove("payments")
    open_circuit(dropped)
    assert heard == [BreakerAdded("payments"), BreakerRemoved("payments")]
    assert [type(event) for event in own if not isinstance(event, CallEvent)] == [StateChanged]
    open_circuit(registry.get("payments"))
    assert kinds_of(heard[2:]) == [("payments", "BreakerAdded"), ("payments", "StateChanged")]


def test_a_listener_may_come_and_go_while_a_probe_is_in_flight(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    breaker = registry.get("payments")
    half_open_circuit(breaker, clock)
    probe = breaker.acquire()
    heard: list[Event] = []
    registry.add_listener(heard.append)()
    probe.failure()
    assert breaker.state is CircuitState.OPEN
    assert heard == [BreakerAdded("payments")]


def test_a_breaker_that_makes_room_is_removed_too(clock: FakeClock) -> None:
    registry = BreakerRegistry(limit=1, clock=clock)
    heard: list[Event] = []
    registry.add_listener(heard.append)
    registry.get("a")
    registry.get("b")
    assert heard == [BreakerAdded("a"), BreakerRemoved("a"), BreakerAdded("b")]


def test_it_hears_only_the_kinds_that_it_asks_for(registry: BreakerRegistry) -> None:
    changes: list[StateChanged] = []
    calls: list[Event] = []
    registry.add_listener(changes.append, StateChanged)
    registry.add_listener(calls.append, (CallSucceeded, SettingsChanged))
    breaker = registry.get("payments")
    breaker.call(int)
    open_circuit(breaker)
    breaker.replace_settings(CRITICAL)
    registry.remove("payments")
    assert [event.name for event in changes] == ["payments"]
    assert [type(event) for event in calls] == [CallSucceeded, SettingsChanged]


def test_a_removed_listener_hears_no_more(registry: BreakerRegistry) -> None:
    heard: list[Event] = []
    kept: list[Event] = []
    old = registry.get("old")
    remove = registry.add_listener(heard.append)
    registry.add_listener(kept.append)
    remove()
    remove()
    open_circuit(old)
    registry.get("new")
    registry.remove("old")
    assert heard == [BreakerAdded("old")]
    assert kinds_of(kept) == [
        ("old", "BreakerAdded"),
        ("old", "StateChanged"),
        ("new", "BreakerAdded"),
        ("old", "BreakerRemoved"),
    ]


def test_a_listener_that_comes_twice_hears_everything_twice(registry: BreakerRegistry) -> None:
    heard: list[Event] = []
    registry.add_listener(heard.append)
    remove = registry.add_listener(heard.append)
    registry.get("a")
    assert heard == [BreakerAdded("a")] * 2
    remove()
    registry.get("b")
    assert heard[2:] == [BreakerAdded("b")]


@pytest.mark.parametrize("listener", [None, "print"])
def test_what_cannot_listen_is_refused_and_nothing_hears(
    registry: BreakerRegistry, listener: Any
) -> None:
    registry.get("payments")
    with pytest.raises(SettingsError, match="listener must be a plain function, which "):
        registry.add_listener(listener)
    with pytest.raises(SettingsError, match="kinds must be a class of events"):
        registry.add_listener(print, ())


def test_what_a_listener_raises_is_logged_and_changes_nothing(
    registry: BreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("broken listener")

    registry.add_listener(broken)
    with caplog.at_level(logging.ERROR):
        registry.get("payments")
    assert "payments" in registry
    assert [record.getMessage() for record in caplog.records] == [
        "a listener of circuit 'payments' failed on BreakerAdded(name='payments')"
    ]


def test_a_listener_may_use_the_registry_and_hears_of_what_it_makes(
    registry: BreakerRegistry,
) -> None:
    heard: list[Event] = []

    def make_another(event: Event) -> None:
        heard.append(event)
        if event.name == "a":
            in_thread = threading.Thread(target=registry.get, args=("b",))
            in_thread.start()
            in_thread.join(10)  # which it would not within the registry's lock
            registry.remove("b")

    registry.add_listener(make_another)
    registry.get("a")
    assert heard == [BreakerAdded("a"), BreakerAdded("b"), BreakerRemoved("b")]


def test_no_event_of_a_new_breaker_is_missed_in_a_thread_that_comes_first(
    registry: BreakerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    registry.add_listener(heard.append)
    welcome = BreakerRegistry._welcome

    def slowly(self: BreakerRegistry, breaker: CircuitBreaker) -> None:
        # What another thread may do before this one gets to the end of `get`.
        open_circuit(self.get(breaker.name))
        assert kinds_of(heard) == [("payments", "BreakerAdded"), ("payments", "StateChanged")]
        welcome(self, breaker)

    monkeypatch.setattr(BreakerRegistry, "_welcome", slowly)
    registry.get("payments")
    assert kinds_of(heard) == [("payments", "BreakerAdded"), ("payments", "StateChanged")]


def test_the_first_call_of_another_thread_delivers_that_a_breaker_was_added(
    registry: BreakerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    registry.add_listener(heard.append)

    def slowly(self: BreakerRegistry, breaker: CircuitBreaker) -> None:
        breaker.call(int)
        assert heard == [BreakerAdded("payments")]

    monkeypatch.setattr(BreakerRegistry, "_welcome", slowly)
    registry.get("payments")


def test_breakers_made_in_the_midst_of_a_change_are_heard_of(registry: BreakerRegistry) -> None:
    heard: list[Event] = []
    registry.add_listener(heard.append)
    breaker = registry.get("payments")
    made = interrupt(breaker, lambda: registry.get("search"))
    registry.measure_durations()
    made.call(int)
    assert heard == [BreakerAdded("payments"), BreakerAdded("search")]
    measured = interrupt(breaker, lambda: registry.get("stock"))
    measured.call(int)
    assert measured.durations is not None
    interrupt(breaker, lambda: registry.get("stock"))
    assert heard[2:] == [BreakerAdded("stock")]


def test_a_breaker_removed_while_a_listener_comes_is_not_listened_to(
    registry: BreakerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    dropped = registry.get("payments")
    introduce = BreakerRegistry._introduce

    def slowly(self: BreakerRegistry, entry: Any, breaker: CircuitBreaker) -> None:
        self.remove("payments")
        introduce(self, entry, breaker)

    monkeypatch.setattr(BreakerRegistry, "_introduce", slowly)
    registry.add_listener(heard.append)
    open_circuit(dropped)
    assert heard == []


def test_a_listener_removed_while_a_breaker_comes_hears_nothing(
    registry: BreakerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    remove = registry.add_listener(heard.append)
    introduce = BreakerRegistry._introduce

    def slowly(self: BreakerRegistry, entry: Any, breaker: CircuitBreaker) -> None:
        remove()
        introduce(self, entry, breaker)

    monkeypatch.setattr(BreakerRegistry, "_introduce", slowly)
    open_circuit(registry.add(CircuitBreaker("payments", settings=STRICT)))
    assert heard == []


def test_threads_that_make_and_remove_breakers_are_heard_of_in_order(
    registry: BreakerRegistry,
) -> None:
    heard: dict[str, list[Event]] = {str(number): [] for number in range(5)}
    registry.add_listener(lambda event: heard[event.name].append(event))

    def work(number: int) -> None:
        for step in range(300):
            name = str((number + step) % 5)
            registry.get(name)
            registry.remove(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, events in heard.items():
        added = events.count(BreakerAdded(name))
        assert added == events.count(BreakerRemoved(name)) + (name in registry)
        assert added > 0


# Breakers that were made elsewhere.


def test_a_breaker_made_elsewhere_is_the_one_of_its_name(registry: BreakerRegistry) -> None:
    heard: list[Event] = []
    registry.add_listener(heard.append)
    own = CircuitBreaker("payments", 2)
    assert registry.add(own) is own
    assert registry.add(own) is own
    assert registry.get("payments") is own
    assert own.settings.failure_threshold == 2
    open_circuit(own)
    assert kinds_of(heard) == [("payments", "BreakerAdded"), ("payments", "StateChanged")]


def test_a_taken_name_is_an_error(registry: BreakerRegistry) -> None:
    heard: list[Event] = []
    first = registry.get("payments")
    registry.add_listener(heard.append)
    with pytest.raises(SettingsError) as refused:
        registry.add(CircuitBreaker("payments"))
    assert str(refused.value) == (
        "the registry has another breaker called 'payments': add breakers before anything asks "
        "for their names, or give this one another name"
    )
    assert registry.get("payments") is first
    assert registry.add(first) is first
    assert heard == [BreakerAdded("payments")]


@pytest.mark.parametrize("wrong", ["payments", None, CircuitBreaker])
def test_only_a_breaker_can_be_added(registry: BreakerRegistry, wrong: Any) -> None:
    with pytest.raises(SettingsError, match=f"breaker must be a CircuitBreaker, got {wrong!r}"):
        registry.add(wrong)
    assert len(registry) == 0


def test_an_added_breaker_keeps_its_settings_unless_an_override_has_its_name(
    registry: BreakerRegistry,
) -> None:
    own = registry.add(CircuitBreaker("payments", 7))
    registry.configure(BreakerSettings(failure_threshold=9), {"pay*": CRITICAL})
    assert own.settings.failure_threshold == 7
    registry.configure(overrides={"payments": CRITICAL})
    assert own.settings is CRITICAL


def test_an_override_of_its_name_applies_when_a_breaker_is_added() -> None:
    registry = BreakerRegistry(overrides={"payments": CRITICAL, "s*": CRITICAL})
    assert registry.add(CircuitBreaker("payments", 7)).settings is CRITICAL
    assert registry.add(CircuitBreaker("search", 7)).settings.failure_threshold == 7


def test_adding_it_twice_leaves_its_settings(registry: BreakerRegistry) -> None:
    own = registry.add(CircuitBreaker("payments", 7))
    own.replace_settings(CRITICAL)
    registry.add(own)
    assert own.settings is CRITICAL


def test_an_added_breaker_is_measured_if_the_registry_measures(registry: BreakerRegistry) -> None:
    registry.measure_durations()
    own = registry.add(CircuitBreaker("payments"))
    assert own.durations is not None
    durations = own.durations
    registry.remove("payments")
    assert registry.add(own).durations is durations


def test_an_added_breaker_makes_no_room_for_others_until_it_is_removed() -> None:
    registry = BreakerRegistry(limit=2)
    own = registry.add(CircuitBreaker("own"))
    for name in ("a", "b", "own", "c"):
        registry.get(name)
    assert [breaker.name for breaker in registry] == ["c", "own"]
    registry.add(CircuitBreaker("other own"))
    registry.get("d")
    assert [breaker.name for breaker in registry] == ["d", "other own", "own"]
    registry.remove("own")
    assert registry.get("own") is not own
    assert [breaker.name for breaker in registry] == ["other own", "own"]
    registry.get("e")
    assert [breaker.name for breaker in registry] == ["e", "other own"]
