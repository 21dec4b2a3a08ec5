"""One breaker per name, and no more of them than the registry's limit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire._locks import make_lock
from fusewire.breaker import (
    Admission,
    BreakerRegistry,
    BreakerRemoved,
    BreakerSettings,
    CircuitBreaker,
    CircuitState,
    LeaseExpired,
    default_registry,
)
from fusewire.errors import SettingsError
from tests.support.circuits import interrupt

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

STRICT = BreakerSettings(failure_threshold=1)
COMMON = BreakerSettings(failure_threshold=3)


def test_a_name_stands_for_one_breaker() -> None:
    registry = BreakerRegistry()
    assert "payments" not in registry
    breaker = registry.get("payments")
    assert registry.get("payments") is breaker
    assert registry.get("search") is not breaker
    assert "payments" in registry
    assert [each.name for each in registry] == ["payments", "search"]
    assert len(registry) == 2


def test_to_get_a_breaker_that_is_there_needs_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = BreakerRegistry()
    breaker = registry.get("payments")
    monkeypatch.setattr(registry, "_lock", None)
    assert registry.get("payments") is breaker


def test_to_find_a_breaker_makes_none() -> None:
    registry = BreakerRegistry()
    assert registry.find("payments") is None
    assert len(registry) == 0
    breaker = registry.get("payments")
    assert registry.find("payments") is breaker


def test_a_breaker_that_is_only_looked_at_is_not_kept_longer() -> None:
    registry = BreakerRegistry(limit=2)
    first, second = registry.get("a"), registry.get("b")
    assert registry.find("a") is first
    registry.get("c")
    assert registry.find("a") is None
    assert registry.find("b") is second


def test_the_process_has_one_registry() -> None:
    assert default_registry() is default_registry()


def test_breakers_are_listed_by_name() -> None:
    registry = BreakerRegistry()
    for name in ("b", "c", "a"):
        registry.get(name)
    assert [breaker.name for breaker in registry] == ["a", "b", "c"]


def test_a_removed_breaker_is_made_again() -> None:
    registry = BreakerRegistry(COMMON)
    first = registry.get("a", STRICT)
    registry.remove("a")
    registry.remove("a")
    assert "a" not in registry
    assert registry.get("a") is not first
    assert registry.get("a").settings is COMMON


def test_a_bounded_registry_lets_go_what_is_worth_least() -> None:
    registry = BreakerRegistry(STRICT, limit=4)
    forced, opened, counting, idle = (registry.get(name) for name in ("f", "o", "c", "i"))
    forced.force_open()
    opened.acquire().failure()
    counting.replace_settings(BreakerSettings(window_calls=10))
    counting.acquire().failure()
    counting.acquire().success()
    assert idle.state is CircuitState.CLOSED
    for gone, new in (("i", "1"), ("1", "2"), ("2", "3")):
        registry.get(new)
        assert gone not in registry
        assert len(registry) == 4
    assert all(name in registry for name in "foc")
    registry.get("3").force_open()
    registry.get("4").force_open()
    assert "c" not in registry
    registry.get("5").force_open()
    assert "o" not in registry
    registry.get("6")
    assert "f" not in registry


def test_of_equals_the_one_asked_for_the_longest_time_ago_goes() -> None:
    registry = BreakerRegistry(limit=3)
    for name in ("a", "b", "c", "a"):
        registry.get(name)
    registry.get("d")
    assert "b" not in registry
    assert "a" in registry


def test_calls_that_are_slow_or_failed_in_a_row_are_worth_keeping(clock: FakeClock) -> None:
    settings = BreakerSettings(window_calls=10, slow_call_duration=1)
    registry = BreakerRegistry(settings, limit=3, clock=clock)
    slow, failing = registry.get("slow"), registry.get("failing")
    slow(clock.advance)(2)
    failing.replace_settings(BreakerSettings())
    failing.acquire().failure()
    registry.get("1")
    registry.get("2")
    assert "1" not in registry
    assert "slow" in registry
    assert "failing" in registry


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_a_limit_that_cannot_be_right_is_refused(limit: Any) -> None:
    with pytest.raises(SettingsError, match="limit must be"):
        BreakerRegistry(limit=limit)


def test_a_registry_of_one_works() -> None:
    registry = BreakerRegistry(limit=1)
    assert registry.get("a") is registry.get("a")
    registry.get("b")
    assert len(registry) == 1


def test_the_generation_changes_when_a_breaker_goes_and_only_then() -> None:
    registry = BreakerRegistry(limit=2)
    began = registry.generation
    registry.get("a")
    registry.get("b")
    registry.get("a")
    registry.configure(STRICT)
    registry.remove("none")
    assert registry.generation == began
    registry.remove("a")
    removed = registry.generation
    assert removed != began
    registry.get("a")
    registry.get("c")
    assert registry.generation not in {began, removed}
    assert {type(number) for number in (began, removed, registry.generation)} == {int}


def test_it_knows_whether_it_still_has_a_breaker() -> None:
    registry = BreakerRegistry()
    breaker = registry.get("a")
    assert registry.holds(breaker)
    registry.remove("a")
    assert not registry.holds(breaker)
    registry.get("a")
    assert not registry.holds(breaker)


class LookedAtBreaker(CircuitBreaker):
    """Counts how often it is looked at."""

    looks = 0

    def look(self) -> Admission:
        type(self).looks += 1
        return super().look()


def test_a_new_name_costs_a_few_looks_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fusewire.breaker._registry.CircuitBreaker", LookedAtBreaker)
    registry = BreakerRegistry(STRICT, limit=500)
    for number in range(500):
        registry.get(f"old {number}").acquire().failure()
    for number in range(50):
        LookedAtBreaker.looks = 0
        registry.get(f"new {number}")
        assert LookedAtBreaker.looks <= 8
        assert len(registry) == 500
    assert "new 49" in registry


def test_the_idle_ones_go_first_although_there_are_many_open_ones() -> None:
    registry = BreakerRegistry(STRICT, limit=40)
    for number in range(20):
        registry.get(f"open {number}").acquire().failure()
    for number in range(60):
        registry.get(f"idle {number}")
    assert sum(breaker.state is CircuitState.OPEN for breaker in registry) >= 18


def test_a_breaker_that_is_asked_for_stays_though_it_is_idle() -> None:
    registry = BreakerRegistry(limit=3)
    for number in range(20):
        registry.get("asked for")
        registry.get(f"{number}")
    assert "asked for" in registry
    assert "19" in registry


def test_one_that_is_made_is_not_the_one_that_goes() -> None:
    registry = BreakerRegistry(STRICT, limit=2)
    for name in ("a", "b"):
        registry.get(name).force_open()
    registry.get("c")
    assert [breaker.name for breaker in registry] == ["b", "c"]


def test_no_room_is_made_for_a_name_that_another_has_added_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OvertakenBreaker(CircuitBreaker):
        """While it is looked at for the first time, another thread asks for the same name."""

        overtaken = False

        def look(self) -> Admission:
            admission = super().look()
            if not OvertakenBreaker.overtaken:
                OvertakenBreaker.overtaken = True
                registry.get("c")
                self.acquire().failure()  # so it is not the one that is worth least
            return admission

    monkeypatch.setattr("fusewire.breaker._registry.CircuitBreaker", OvertakenBreaker)
    registry = BreakerRegistry(COMMON, limit=2)
    removed: list[BreakerRemoved] = []
    registry.add_listener(removed.append, BreakerRemoved)
    registry.get("a")
    registry.get("b")
    registry.get("c")
    assert [breaker.name for breaker in registry] == ["b", "c"]
    assert removed == [BreakerRemoved("a")]


def test_a_listener_may_ask_the_registry_while_it_makes_room(clock: FakeClock) -> None:
    registry = BreakerRegistry(STRICT, limit=1, clock=clock)
    breaker = registry.get("a")
    asked: list[CircuitBreaker] = []
    breaker.add_listener(lambda _: asked.append(registry.get("b")))
    breaker._listeners.put(LeaseExpired("a"))
    registry.get("c")
    assert [each.name for each in asked] == ["b"]
    assert len(registry) == 1


def test_a_finalizer_in_the_midst_of_a_circuits_change_gets_its_breaker() -> None:
    registry = BreakerRegistry(STRICT, limit=2)
    a, b = registry.get("a"), registry.get("b")
    other_thread = threading.Thread(target=registry._lock.acquire)
    other_thread.start()
    other_thread.join()
    assert interrupt(a, lambda: registry.get("b")) is b, "it does not wait for the registry"
    made = interrupt(a, lambda: registry.get("c", COMMON))
    assert made.settings is COMMON
    assert interrupt(a, lambda: registry.get("b", COMMON)) is b
    b.look()
    assert b.settings is COMMON, "the first settings apply, as at any other time"
    registry._lock = make_lock()
    assert len(registry) == 3
    assert registry.get("c") is made
    registry.get("d")
    assert len(registry) == 2, "room is made by the next that is made"


def test_a_signal_handler_in_the_midst_of_making_the_only_one_does_not_wait_for_it() -> None:
    registry = BreakerRegistry(limit=1)
    made: list[CircuitBreaker] = []
    add = registry._candidates.add

    def interrupted(name: str) -> None:
        if name == "a":
            made.append(registry.get("b"))
        add(name)

    registry._candidates.add = interrupted
    a = registry.get("a")
    assert registry.holds(a)
    assert registry.holds(made[0])
    registry.get("c")
    assert [breaker.name for breaker in registry] == ["c"]
