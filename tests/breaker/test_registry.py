"""One breaker per name."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire._locks import make_lock
from fusewire.breaker import (
    Admission,
    BreakerRegistry,
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


def test_a_name_stands_for_one_breaker() -> None:
    registry = BreakerRegistry()
    assert "payments" not in registry
    breaker = registry.get("payments")
    assert registry.get("payments") is breaker
    assert registry.get("search") is not breaker
    assert "payments" in registry
    assert [each.name for each in registry] == ["payments", "search"]
    assert len(registry) == 2


def test_breakers_get_the_registrys_settings_and_clock_unless_told_otherwise(
    clock: FakeClock,
) -> None:
    common = BreakerSettings(failure_threshold=1, recovery_timeout=7)
    own = BreakerSettings(failure_threshold=9)
    registry = BreakerRegistry(common, clock=clock)
    breaker = registry.get("payments")
    assert breaker.settings is common
    assert registry.get("search", own).settings is own
    breaker.acquire().failure()
    clock.advance(7)
    assert breaker.state is CircuitState.HALF_OPEN


def test_the_first_settings_win_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = BreakerRegistry()
    first = BreakerSettings(failure_threshold=1)
    with caplog.at_level(logging.WARNING):
        registry.get("payments", first)
        registry.get("payments", BreakerSettings(failure_threshold=1))
        registry.get("payments")
        assert caplog.records == []
        for threshold in (2, 3):
            other = BreakerSettings(failure_threshold=threshold)
            assert registry.get("payments", other).settings is first
    assert caplog.messages == [
        "circuit 'payments' keeps the settings that were given first: failure_threshold is 1, not 2"
    ]


def test_the_process_has_one_registry() -> None:
    assert default_registry() is default_registry()


SLOW = BreakerSettings(failure_threshold=10)
STRICT = BreakerSettings(failure_threshold=1)
COMMON = BreakerSettings(failure_threshold=3)


def test_overrides_go_by_name_then_by_the_longest_pattern() -> None:
    registry = BreakerRegistry(
        COMMON,
        overrides={"/pay.*": SLOW, "/pay.v1/*": STRICT, "/pay.v1/List": COMMON, "/s?": STRICT},
    )
    assert registry.get("/search").settings is COMMON
    assert registry.get("/s1").settings is STRICT
    assert registry.get("/pay.v2/Charge").settings is SLOW
    assert registry.get("/pay.v1/Charge").settings is STRICT
    assert registry.get("/pay.v1/List").settings is COMMON
    assert registry.get("/PAY.v1/Charge").settings is COMMON
    assert registry.get("/pay.v3/Charge", STRICT).settings is STRICT


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


def test_settings_are_replaced_in_place_and_state_is_kept() -> None:
    registry = BreakerRegistry(COMMON, overrides={"b*": SLOW})
    a, b, told = registry.get("a"), registry.get("b1"), registry.get("told", STRICT)
    a.force_open()
    registry.configure(STRICT)
    assert (a.settings, b.settings, told.settings) == (STRICT, SLOW, STRICT)
    assert a.state is CircuitState.FORCED_OPEN
    registry.configure(overrides={"a": SLOW, "told": COMMON})
    assert (a.settings, b.settings, told.settings) == (SLOW, STRICT, COMMON)
    assert registry.get("new").settings is STRICT
    registry.configure(overrides={"t*": SLOW})
    assert told.settings is STRICT
    assert registry.get("a") is a


def test_breakers_whose_settings_stay_are_left_alone(clock: FakeClock) -> None:
    registry = BreakerRegistry(COMMON, clock=clock)
    breaker = registry.get("a")
    registry.configure(BreakerSettings(failure_threshold=3))
    assert breaker.settings is COMMON


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


def test_an_override_by_name_comes_before_what_the_code_asks_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = BreakerRegistry(COMMON, overrides={"a": STRICT, "b*": STRICT})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert registry.get("a", SLOW).settings is STRICT
            assert registry.get("b1", SLOW).settings is SLOW
    assert caplog.records == []


def test_the_longest_pattern_wins_whatever_the_alphabet_says() -> None:
    registry = BreakerRegistry(COMMON, overrides={"a?c*": STRICT, "a[b]*": SLOW, "ab*": COMMON})
    assert registry.get("abc").settings is SLOW
    assert registry.get("axc").settings is STRICT


def test_who_asks_for_the_settings_that_a_breaker_has_is_not_warned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = BreakerRegistry(COMMON)
    with caplog.at_level(logging.WARNING):
        registry.get("a")
        registry.get("a", BreakerSettings(failure_threshold=3))
    assert caplog.records == []


def test_a_breaker_that_is_made_again_may_be_warned_of_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = BreakerRegistry(COMMON)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            registry.get("a", STRICT)
            registry.get("a", SLOW)
            registry.remove("a")
    assert len(caplog.records) == 2


def test_a_registry_without_settings_has_the_defaults() -> None:
    registry = BreakerRegistry()
    breaker = registry.get("a")
    registry.configure(overrides={"b": STRICT})
    assert breaker.settings == BreakerSettings()


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


def test_the_first_settings_apply_also_to_a_breaker_that_was_made_before_without_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = BreakerRegistry(COMMON, overrides={"pay*": SLOW})
    with caplog.at_level(logging.WARNING):
        for name in ("search", "payments"):
            breaker = registry.get(name)
            breaker.acquire().failure()
            assert registry.get(name, STRICT) is breaker
            assert breaker.settings is STRICT
            assert breaker.state is CircuitState.OPEN, "what it has seen is kept"
    assert caplog.messages == []
    registry.configure(SLOW)
    assert registry.get("search").settings is STRICT, "as if they had been given at once"


def test_settings_that_were_replaced_by_hand_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    registry = BreakerRegistry(COMMON)
    breaker = registry.get("a")
    breaker.replace_settings(SLOW)
    assert registry.get("a", STRICT).settings is SLOW
    assert caplog.messages == []


def test_an_override_by_name_is_not_replaced_by_what_is_given_later() -> None:
    registry = BreakerRegistry(COMMON, overrides={"a": SLOW})
    registry.get("a")
    assert registry.get("a", STRICT).settings is SLOW


def test_what_differs_is_named_field_by_field(caplog: pytest.LogCaptureFixture) -> None:
    registry = BreakerRegistry()
    registry.get("a", BreakerSettings(failure_threshold=3, window_calls=10, recovery_timeout=2.5))
    registry.get("a", BreakerSettings(failure_threshold=3, minimum_calls=4))
    (said,) = caplog.messages
    assert said == (
        "circuit 'a' keeps the settings that were given first: recovery_timeout is 2.5, not 30.0; "
        "window_calls is 10, not None; minimum_calls is 10, not 4"
    )


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


def test_a_breaker_has_its_own_settings_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_settings(*_: object) -> None:
        raise AssertionError("another thread may have used the breaker before")

    monkeypatch.setattr(CircuitBreaker, "replace_settings", replace_settings)
    assert BreakerRegistry(COMMON).get("a", STRICT).settings is STRICT


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
    registry.get("a")
    registry.get("b")
    registry.get("c")
    assert [breaker.name for breaker in registry] == ["b", "c"]


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
