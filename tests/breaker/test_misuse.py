"""What is easily done wrong is refused, warned of, or said with the way to do it right."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from fusewire.breaker import (
    PRESETS,
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitState,
    Event,
    StateChanged,
)
from fusewire.breaker._settings import _warned
from fusewire.errors import SettingsError


def refusal(make: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        make()
    return str(caught.value)


def test_a_circuit_that_nothing_would_open_is_refused() -> None:
    assert refusal(lambda: BreakerSettings(failure_threshold=None)) == (
        "failure_threshold must be a number while no rate has a threshold, because nothing would "
        "open the circuit, got None"
    )
    assert "nothing would open the circuit" in refusal(lambda: CircuitBreaker("a", None))
    for rate in ({"failure_rate_threshold": 0.5}, {"slow_call_rate_threshold": 0.5}):
        rules: dict[str, Any] = {"window_calls": 10, "slow_call_duration": 1.0, **rate}
        BreakerSettings(failure_threshold=None, **rules)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("failure_treshold", "; did you mean failure_threshold?"),
        ("recovery_time", "; did you mean recovery_timeout?"),
        ("colour", ""),
    ],
)
def test_a_setting_that_there_is_not_is_refused_and_the_nearest_named(
    given: str, nearest: str
) -> None:
    settings: Any = {given: 3}
    assert (
        refusal(lambda: BreakerSettings(**settings))
        == f"BreakerSettings has no setting {given!r}{nearest}"
    )


def test_what_is_no_settings_is_refused_with_the_way_to_write_them() -> None:
    wrong: Any
    wrong = "critical"
    assert refusal(lambda: CircuitBreaker("a", settings=wrong)) == (
        "settings must be BreakerSettings, got 'critical'; write "
        "fusewire.breaker.PRESETS['critical']"
    )
    wrong = {"failure_threshold": 3}
    assert refusal(lambda: BreakerRegistry(wrong)) == (
        "settings must be BreakerSettings, got {'failure_threshold': 3}; write "
        "BreakerSettings(failure_threshold=3)"
    )
    wrong = {"failure_treshold": 3}
    assert refusal(lambda: BreakerRegistry(wrong)) == (
        "settings must be BreakerSettings, got {'failure_treshold': 3}; write "
        "BreakerSettings(...), and mind: BreakerSettings has no setting 'failure_treshold'; did "
        "you mean failure_threshold?"
    )
    wrong = 3
    assert refusal(lambda: CircuitBreaker("a", settings=wrong)) == (
        "settings must be BreakerSettings, got 3"
    )
    assert CircuitBreaker("a", settings=PRESETS["critical"]).settings.failure_threshold == 3


def test_a_timedelta_is_refused_with_its_seconds(breaker: CircuitBreaker) -> None:
    delta: Any = timedelta(minutes=1, milliseconds=500)
    said = (
        "must be a finite number of seconds above 0, got datetime.timedelta(seconds=60, "
        "microseconds=500000); write 60.5, its total_seconds()"
    )
    assert refusal(lambda: BreakerSettings(recovery_timeout=delta)) == f"recovery_timeout {said}"
    assert refusal(lambda: breaker.hold_open(delta)) == f"seconds {said}"


def test_a_text_is_no_number_of_seconds() -> None:
    text: Any = "5s"
    assert refusal(lambda: BreakerSettings(recovery_timeout=text)) == (
        "recovery_timeout must be a finite number of seconds above 0, got '5s'"
    )


@pytest.mark.parametrize("hint", [timedelta(seconds=5), "5", "soon", True, None, float("nan")])
def test_a_hint_that_is_no_number_is_no_hint(breaker: CircuitBreaker, hint: Any) -> None:
    for _ in range(2):
        breaker.acquire().failure(retry_after=hint)
    assert breaker.state is CircuitState.OPEN
    assert breaker.look().retry_after == 10.0


def test_two_settings_that_look_like_milliseconds_are_both_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _warned.clear()
    with caplog.at_level(logging.WARNING):
        BreakerSettings(recovery_timeout=30_000, probe_lease=30_000)
    assert {record.args[0] for record in caplog.records if isinstance(record.args, tuple)} == {
        "recovery_timeout",
        "probe_lease",
    }


@pytest.mark.parametrize(
    "setting", ["recovery_timeout", "slow_call_duration", "probe_lease", "ramp_duration"]
)
def test_times_that_look_like_milliseconds_are_taken_and_warned_of_once(
    setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    _warned.clear()
    settings: Any = {setting: 3600}
    with caplog.at_level(logging.WARNING):
        BreakerSettings(**settings)
        assert caplog.messages == []
        settings = {setting: 30000}
        for _ in range(3):
            assert getattr(BreakerSettings(**settings), setting) == 30000
        (said,) = caplog.messages
        assert said == (
            f"{setting} is 30000 seconds, which is more than an hour: if milliseconds were meant, "
            "write 30.0"
        )


def test_a_breaker_is_no_block(breaker: CircuitBreaker) -> None:
    said = (
        "circuit 'payments' must not be entered itself: write `with breaker.acquire():`, which "
        "takes the permit for one call"
    )

    def enter() -> None:
        with breaker:
            pass

    assert refusal(enter) == said
    assert breaker.snapshot().counters.succeeded == 0


async def test_a_breaker_is_no_block_for_coroutines_either(breaker: CircuitBreaker) -> None:
    with pytest.raises(SettingsError, match=r"write `with breaker\.acquire"):
        async with breaker:
            pass


def plain() -> int:
    return 5


@pytest.mark.parametrize("watched", [False, True])
async def test_a_plain_function_is_not_awaited(breaker: CircuitBreaker, *, watched: bool) -> None:
    if watched:
        breaker.disable()
    wrong: Any = plain
    with pytest.raises(SettingsError) as caught:
        await breaker.call_async(wrong)
    assert str(caught.value) == (
        f"call_async awaits what the function returns, and {plain!r} returned 5: call plain "
        "functions by call()"
    )
    breaker.automatic()
    assert breaker.snapshot().counters.failed == 0, "the dependency has not failed"


async def test_what_returns_something_to_await_is_awaited(breaker: CircuitBreaker) -> None:
    async def answer(number: int, *, plus: int) -> int:
        return number + plus

    def later(number: int, *, plus: int) -> Any:
        return answer(number, plus=plus)

    assert await breaker.call_async(answer, 3, plus=4) == 7
    assert await breaker.call_async(later, 3, plus=4) == 7


def test_a_window_without_a_rate_gives_figures(breaker: CircuitBreaker) -> None:
    breaker.replace_settings(BreakerSettings(window_calls=10))
    breaker.acquire().failure()
    breaker.acquire().success()
    assert breaker.snapshot().failure_rate == 0.5


def test_the_text_of_a_rate_says_how_many_calls_failed() -> None:
    settings = BreakerSettings(
        failure_threshold=None, window_calls=20, minimum_calls=20, failure_rate_threshold=0.5
    )
    breaker = CircuitBreaker("payments", settings=settings)
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    for _ in range(20):
        breaker.acquire().failure()
    (opened,) = heard
    assert isinstance(opened, StateChanged)
    assert str(opened.reason) == "20 of 20 calls failed: a rate of 1, threshold 0.5"
