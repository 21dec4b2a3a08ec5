"""Which settings a registry's breakers have, and what the log says when others are asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker, CircuitState

if TYPE_CHECKING:
    import pytest

    from fusewire.testing import FakeClock


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
    assert [message for message in caplog.messages if "settings" in message] == []
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


def test_a_breaker_has_its_own_settings_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace_settings(*_: object) -> None:
        raise AssertionError("another thread may have used the breaker before")

    monkeypatch.setattr(CircuitBreaker, "replace_settings", replace_settings)
    assert BreakerRegistry(COMMON).get("a", STRICT).settings is STRICT
