"""Presets to begin with."""

from __future__ import annotations

import pytest

from fusewire.breaker import CRITICAL, HIGH_TRAFFIC, LENIENT, PRESETS
from fusewire.breaker.internal import settings_hint


def test_they_have_the_figures_that_the_documentation_names() -> None:
    figures = {
        name: (preset.failure_threshold, preset.recovery_timeout, preset.half_open_max_calls)
        for name, preset in PRESETS.items()
    }
    assert figures == {
        "critical": (3, 120, 5),
        "lenient": (10, 30, 2),
        "high-traffic": (5, 45, 3),
    }
    assert (PRESETS["critical"], PRESETS["lenient"]) == (CRITICAL, LENIENT)
    assert PRESETS["high-traffic"] is HIGH_TRAFFIC


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("critcal", "write fusewire.breaker.PRESETS['critical']"),
        ("unlike any of them", ""),
        (
            {"failure_threshold": 3, "max_wait": 2.5},
            "write BreakerSettings(failure_threshold=3, max_wait=2.5)",
        ),
        (3, ""),
    ],
)
def test_what_is_not_settings_may_have_been_meant_so(given: object, hint: str) -> None:
    assert settings_hint(given) == hint
