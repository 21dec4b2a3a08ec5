"""Settings are refused when they are made, by name, value and what would do."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from fusewire.breaker import BreakerSettings, CircuitBreaker
from fusewire.errors import SettingsError

NO_COUNT = [True, False, 0, -1, 1.5, 3.0, "3", math.nan, math.inf, [1], b"1"]
NO_SECONDS = [True, False, 0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, "3", None, [1]]
NO_EXCEPTIONS = [None, Exception, [Exception], (int,), ("Exception",), (Exception(),), "Exception"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("failure_threshold", value) for value in NO_COUNT),
        *(("half_open_max_calls", value) for value in [*NO_COUNT, None]),
        *(("recovery_timeout", value) for value in NO_SECONDS),
        *(("probe_lease", value) for value in NO_SECONDS),
        *(("expected_exceptions", value) for value in NO_EXCEPTIONS),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        BreakerSettings(**{setting: value})
    assert str(caught.value).startswith(f"{setting} must be ")
    assert str(caught.value).endswith(f", got {value!r}")


def test_the_defaults_are_those_that_the_documentation_names() -> None:
    settings = BreakerSettings()
    assert settings.failure_threshold == 5
    assert settings.recovery_timeout == 30.0
    assert settings.half_open_max_calls == 3
    assert settings.expected_exceptions == (Exception,)
    assert settings.probe_lease == 60.0


def test_the_smallest_values_are_accepted() -> None:
    BreakerSettings(
        failure_threshold=1, half_open_max_calls=1, recovery_timeout=0.001, probe_lease=0.001
    )
    BreakerSettings(failure_threshold=None, expected_exceptions=())


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BreakerSettings().failure_threshold = 1  # type: ignore[misc]  # that is the point


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
    with pytest.raises(SettingsError, match="settings must come alone"):
        CircuitBreaker("search", 7, settings=BreakerSettings())


def test_a_breaker_refuses_what_its_settings_refuse() -> None:
    with pytest.raises(SettingsError, match="failure_threshold must be"):
        CircuitBreaker("search", 0)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_breaker_needs_a_name(name: Any) -> None:
    with pytest.raises(SettingsError, match="name must be"):
        CircuitBreaker(name)
