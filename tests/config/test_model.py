"""The models have the keys, rules and defaults of the settings that they become."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import BreakerSettings, ReplayPolicy, RetryPolicy
from fusewire.breaker import PRESETS, CircuitMode
from fusewire.config._model import MODES, CircuitSettings, DefaultSettings, Replay, Retry

if TYPE_CHECKING:
    from pydantic import BaseModel

FUNCTIONS = {"classify_exception", "classify_result"}
OUR_OWN = {"preset", "base", "mode"}
EMPTY = {"expected_exceptions", "ignored_exceptions", "delays", "dead_on"}  # lists, set or not


def names(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (DefaultSettings, BreakerSettings),
        (CircuitSettings, BreakerSettings),
        (Retry, RetryPolicy),
        (Replay, ReplayPolicy),
    ],
)
def test_a_model_has_the_settings_but_for_functions(model: type[BaseModel], kind: type) -> None:
    fields = model.model_fields
    assert set(fields) - OUR_OWN == names(kind) - FUNCTIONS
    for name in set(fields) - OUR_OWN - EMPTY:
        assert fields[name].default == getattr(kind(), name), name
        assert fields[name].description


def test_modes_and_presets_are_the_librarys() -> None:
    assert set(MODES) == {str(mode) for mode in CircuitMode}
    for name in PRESETS:
        assert CircuitSettings.model_validate({"preset": name}).preset == name


NUMBERS = [0, -1, 0.5, 1, 1.5, 3, 99, 65535, 65536, 1e300, True, None]


@pytest.mark.parametrize(
    ("model", "kind"),
    [(DefaultSettings, BreakerSettings), (Retry, RetryPolicy), (Replay, ReplayPolicy)],
)
def test_a_plain_number_is_accepted_where_the_settings_accept_it(
    model: type[BaseModel], kind: type
) -> None:
    """Rules stand in one place; what differs is what a file could not have meant."""
    for name in set(model.model_fields) - OUR_OWN - EMPTY:
        for number in NUMBERS:
            accepts = _accepts(lambda: model.model_validate({name: number}))  # noqa: B023 - called at once
            fits = _accepts(lambda: kind(**{name: number})) or _only_conflicts(kind, name, number)  # noqa: B023 - as above
            assert accepts == fits, (name, number)


def _accepts(make: Any) -> bool:
    try:
        make()
    except ValueError:
        return False
    return True


def _only_conflicts(kind: type, name: str, number: object) -> bool:
    """Return whether a value is right alone, and does not fit the defaults of other settings."""
    others: dict[str, Any] = {
        "failure_rate_threshold": {"window_calls": 100},
        "slow_call_rate_threshold": {"window_calls": 100, "slow_call_duration": 1},
        "minimum_calls": {},
        "window_calls": {"minimum_calls": 1},
        "recovery_timeout_max": {"recovery_timeout": 0.001},
        "failure_threshold": {"failure_rate_threshold": 0.5, "window_calls": 100},
        "open_on_hanging": {
            "slow_call_rate_threshold": 1,
            "slow_call_duration": 1,
            "window_calls": 100,
        },
    }
    given = others.get(name)
    return given is not None and _accepts(lambda: kind(**{**given, name: number}))
