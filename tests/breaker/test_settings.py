"""Settings are refused when they are made, by name, value and what would do."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitBreaker, Outcome
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = "a whole number of at least 1"
SECONDS = "a finite number of seconds above 0"
SHARE = "a fraction above 0 and up to 1, or None"
ACCEPTED = {
    "failure_threshold": f"{COUNT}, or None",
    "recovery_timeout": SECONDS,
    "half_open_max_calls": COUNT,
    "expected_exceptions": "a tuple of exception classes",
    "ignored_exceptions": "a tuple of exception classes",
    "classify_exception": "a plain function, which nobody has to await, or None",
    "classify_result": "a plain function, which nobody has to await, or None",
    "window_calls": f"{COUNT}, or None",
    "window_seconds": f"{SECONDS}, or None",
    "minimum_calls": COUNT,
    "failure_rate_threshold": SHARE,
    "slow_call_rate_threshold": SHARE,
    "slow_call_duration": f"{SECONDS}, or None",
    "max_wait": f"{SECONDS}, or None",
    "open_on_hanging": "True or False",
    "probe_lease": SECONDS,
    "recovery_timeout_growth": "a finite number of at least 1",
    "recovery_timeout_max": f"{SECONDS}, or None",
    "recovery_timeout_jitter": "a fraction from 0 and below 1",
    "ramp_duration": f"{SECONDS}, or None",
}
NO_COUNT = [True, False, 0, -1, 1.5, 3.0, "3", math.nan, math.inf, [1], b"1"]
NO_SECONDS = [True, False, 0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, "3", None, [1]]
NO_SHARE = [True, False, 0, -0.1, 1.001, math.nan, math.inf, "0.5", [1]]
NO_JITTER = [True, False, -0.1, 1, 1.5, math.nan, "0.5", None]
NO_GROWTH = [True, 0, 0.99, -1, math.nan, math.inf, "2", None]
NO_SWITCH = [None, 0, 1, "yes"]


async def classify_async(_subject: object) -> Outcome:
    return Outcome.IGNORED


def classify_in_steps(_subject: object) -> Iterator[Outcome]:
    yield Outcome.IGNORED


NO_FUNCTION = [1, "f", (print,), classify_async, classify_in_steps]
NO_EXCEPTIONS = [None, Exception, [Exception], (int,), ("Exception",), (Exception(),), "Exception"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("failure_threshold", value) for value in NO_COUNT),
        *(("half_open_max_calls", value) for value in [*NO_COUNT, None]),
        *(("recovery_timeout", value) for value in NO_SECONDS),
        *(("probe_lease", value) for value in NO_SECONDS),
        *(("expected_exceptions", value) for value in NO_EXCEPTIONS),
        *(("ignored_exceptions", value) for value in NO_EXCEPTIONS),
        *(("classify_exception", value) for value in NO_FUNCTION),
        *(("classify_result", value) for value in NO_FUNCTION),
        *(("window_calls", value) for value in NO_COUNT),
        *(("window_seconds", value) for value in NO_SECONDS if value is not None),
        *(("minimum_calls", value) for value in [*NO_COUNT, None]),
        *(("failure_rate_threshold", value) for value in NO_SHARE),
        *(("slow_call_rate_threshold", value) for value in NO_SHARE),
        *(("slow_call_duration", value) for value in NO_SECONDS if value is not None),
        *(("max_wait", value) for value in NO_SECONDS if value is not None),
        *(("open_on_hanging", value) for value in NO_SWITCH),
        *(("recovery_timeout_growth", value) for value in NO_GROWTH),
        *(("recovery_timeout_max", value) for value in NO_SECONDS if value is not None),
        *(("recovery_timeout_jitter", value) for value in NO_JITTER),
        *(("ramp_duration", value) for value in NO_SECONDS if value is not None),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        BreakerSettings(**{setting: value})
    assert str(caught.value) == f"{setting} must be {ACCEPTED[setting]}, got {value!r}"


def test_the_defaults_are_those_that_the_documentation_names() -> None:
    settings = BreakerSettings()
    assert settings.failure_threshold == 5
    assert settings.recovery_timeout == 30.0
    assert settings.half_open_max_calls == 3
    assert settings.expected_exceptions == (Exception,)
    assert settings.probe_lease == 60.0
    assert settings.ignored_exceptions == ()
    assert settings.classify_exception is None
    assert settings.classify_result is None
    assert settings.window_calls is None
    assert settings.window_seconds is None
    assert settings.minimum_calls == 10
    assert settings.failure_rate_threshold is None
    assert settings.slow_call_rate_threshold is None
    assert settings.slow_call_duration is None
    assert settings.open_on_hanging is False
    assert settings.recovery_timeout_growth == 1.0
    assert settings.recovery_timeout_max is None
    assert settings.recovery_timeout_jitter == 0.0
    assert settings.ramp_duration is None


@pytest.mark.parametrize(
    ("together", "complaint"),
    [
        (
            {"window_calls": 10, "window_seconds": 10},
            "window_seconds must be None while window_calls is set, got 10",
        ),
        (
            {"window_calls": 5, "minimum_calls": 6},
            "minimum_calls must be at most window_calls (5), got 6",
        ),
        (
            {"failure_rate_threshold": 0.5},
            (
                "failure_rate_threshold must be None, or window_calls or window_seconds be set, "
                "got 0.5"
            ),
        ),
        (
            {"slow_call_rate_threshold": 0.5, "slow_call_duration": 1},
            (
                "slow_call_rate_threshold must be None, or window_calls or window_seconds be set, "
                "got 0.5"
            ),
        ),
        (
            {"slow_call_rate_threshold": 0.5, "window_seconds": 1},
            "slow_call_duration must be set while slow_call_rate_threshold is, got None",
        ),
        (
            {"recovery_timeout": 10, "recovery_timeout_max": 9},
            "recovery_timeout_max must be at least recovery_timeout (10), got 9",
        ),
        (
            {"open_on_hanging": True, "slow_call_duration": 1},
            "open_on_hanging must be False, or slow_call_rate_threshold be set, got True",
        ),
        (
            {
                "open_on_hanging": True,
                "slow_call_duration": 60,
                "slow_call_rate_threshold": 1.0,
                "window_calls": 10,
            },
            (
                "probe_lease must be above slow_call_duration (60) while open_on_hanging is set, "
                "got 60.0"
            ),
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    together: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        BreakerSettings(**together)
    assert str(caught.value) == complaint


def test_settings_that_just_fit_together_are_accepted() -> None:
    BreakerSettings(window_calls=10, minimum_calls=10, failure_rate_threshold=1)
    BreakerSettings(window_seconds=0.1, minimum_calls=1000, failure_rate_threshold=0.001)
    BreakerSettings(recovery_timeout=10, recovery_timeout_max=10)
    BreakerSettings(recovery_timeout_jitter=0, recovery_timeout_growth=1)
    BreakerSettings(recovery_timeout_jitter=0.999)
    BreakerSettings(
        window_calls=10,
        slow_call_rate_threshold=1,
        slow_call_duration=59.9,
        open_on_hanging=True,
    )


def test_the_smallest_values_are_accepted() -> None:
    BreakerSettings(
        failure_threshold=1, half_open_max_calls=1, recovery_timeout=0.001, probe_lease=0.001
    )
    BreakerSettings(
        failure_threshold=None,
        expected_exceptions=(),
        window_calls=1,
        minimum_calls=1,
        failure_rate_threshold=0.001,
    )


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BreakerSettings().failure_threshold = 1


def test_a_breaker_takes_the_four_first_settings_by_position() -> None:
    breaker = CircuitBreaker("search", 7, 45, 2, (OSError,))
    assert breaker.name == "search"
    assert breaker.settings == BreakerSettings(
        failure_threshold=7,
        recovery_timeout=45,
        half_open_max_calls=2,
        expected_exceptions=(OSError,),
    )


def test_a_breaker_takes_settings_whole() -> None:
    settings = BreakerSettings(failure_threshold=1)
    assert CircuitBreaker("search", settings=settings).settings is settings


def test_settings_and_single_settings_exclude_each_other() -> None:
    with pytest.raises(
        SettingsError,
        match=r"^settings of circuit 'search' must be given without single settings, got both$",
    ):
        CircuitBreaker("search", 7, settings=BreakerSettings())


def test_a_breaker_refuses_what_its_settings_refuse() -> None:
    with pytest.raises(SettingsError, match="failure_threshold must be"):
        CircuitBreaker("search", 0)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_breaker_needs_a_name(name: Any) -> None:
    with pytest.raises(SettingsError, match="name must be"):
        CircuitBreaker(name)


@pytest.mark.parametrize("wrong", ["critical", {"failure_threshold": 3}, BreakerSettings])
def test_what_is_no_settings_is_refused_where_it_is_given(wrong: Any) -> None:
    for refuse in (
        lambda: CircuitBreaker("search", settings=wrong),
        lambda: BreakerRegistry(wrong),
        lambda: BreakerRegistry().configure(wrong),
    ):
        with pytest.raises(SettingsError, match=r"^settings must be BreakerSettings, got "):
            refuse()
    for refuse in (
        lambda: BreakerRegistry(overrides={"a": BreakerSettings(), "b": wrong}),
        lambda: BreakerRegistry().configure(overrides={"b": wrong}),
    ):
        with pytest.raises(SettingsError, match=r"^overrides\['b'\] must be BreakerSettings"):
            refuse()
    with pytest.raises(SettingsError, match=r"^settings of circuit 'search' must be"):
        BreakerRegistry().get("search", wrong)


def test_settings_that_are_refused_replace_nothing(breaker: CircuitBreaker) -> None:
    wrong: Any = "critical"
    before = breaker.settings
    with pytest.raises(SettingsError):
        breaker.replace_settings(wrong)
    assert breaker.settings is before
    registry = BreakerRegistry(overrides={"a": before})
    with pytest.raises(SettingsError):
        registry.configure(BreakerSettings(failure_threshold=9), {"a": wrong})
    assert registry.get("a").settings is before
    assert registry.get("b").settings == BreakerSettings()


def test_what_is_no_function_is_refused(breaker: CircuitBreaker) -> None:
    wrong: Any = "answer"
    with pytest.raises(SettingsError, match=r"^fallback must be a function, got 'answer'$"):
        CircuitBreaker("search", fallback=wrong)
    with pytest.raises(SettingsError, match=r"^fallback must be a function, got 'answer'$"):
        breaker(len, fallback=wrong)
    with pytest.raises(SettingsError, match=r"^what a breaker guards must be a function, got 'ans"):
        breaker(wrong)
