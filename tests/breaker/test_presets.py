"""Presets to begin with."""

from __future__ import annotations

from fusewire.breaker import CRITICAL, HIGH_TRAFFIC, LENIENT, PRESETS


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
