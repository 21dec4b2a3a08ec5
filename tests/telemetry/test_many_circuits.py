"""There are never more series than were asked for, and nothing that was counted is lost by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.telemetry.prometheus import export
from fusewire.testing import FakeClock
from tests.support.scraping import Scrape, scrape

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLS = "circuit_breaker_calls_total"


def succeed(circuits: BreakerRegistry, names: Iterable[str]) -> None:
    for name in names:
        circuits.get(name).acquire().success()


def successes(shown: Scrape) -> dict[str, float]:
    return {
        labels["circuit_name"]: value
        for name, labels, value in shown
        if name == CALLS and labels["result"] == "success"
    }


def test_circuits_beyond_the_limit_are_added_up(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to, max_circuits=2)
    succeed(circuits, "abcda")
    shown = scrape(to)
    assert successes(shown) == {"a": 2, "b": 1, "_other": 2}
    assert shown("fusewire_metrics_circuits_left_out") == 2
    assert shown("circuit_breaker_state", circuit_name="_other") == 0
    circuits.get("d").force_open()
    shown = scrape(to)
    assert shown("circuit_breaker_state", circuit_name="_other") == 1
    assert shown("circuit_breaker_mode", circuit_name="_other") == 1


def test_what_was_counted_together_stays_when_its_circuit_is_gone(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to, max_circuits=1, durations=["*"])
    succeed(circuits, "abbc")
    scrape(to)
    circuits.remove("b")
    assert successes(scrape(to)) == {"a": 1, "_other": 3}
    succeed(circuits, "b")
    shown = scrape(to)
    assert successes(shown) == {"a": 1, "_other": 4}
    name = "circuit_breaker_call_duration_seconds_count"
    assert shown(name, circuit_name="_other", result="success") == 4


def test_a_circuit_that_was_counted_together_gets_no_series_of_its_own_later(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to, max_circuits=1)
    succeed(circuits, "ab")
    scrape(to)
    circuits.remove("a")
    succeed(circuits, "b")
    assert successes(scrape(to)) == {"_other": 2}
    succeed(circuits, "c")
    assert successes(scrape(to)) == {"c": 1, "_other": 2}


def test_the_series_of_a_circuit_end_with_it(
    circuits: BreakerRegistry, to: CollectorRegistry
) -> None:
    export(circuits, to=to)
    succeed(circuits, "ab")
    circuits.remove("a")
    assert successes(scrape(to)) == {"b": 1}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from("abcdef")),
        st.tuples(st.just("remove"), st.sampled_from("abcdef")),
        st.tuples(st.just("scrape"), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, most=st.integers(1, 4))
def test_no_count_together_ever_falls(steps: list[tuple[str, str]], most: int) -> None:
    circuits = BreakerRegistry(BreakerSettings(), clock=FakeClock())
    to = CollectorRegistry()
    export(circuits, to=to, max_circuits=most)
    last = 0.0
    for step, name in steps:
        if step == "call":
            succeed(circuits, name)
        elif step == "remove":
            circuits.remove(name)
        else:
            shown = successes(scrape(to))
            assert len(shown.keys() - {"_other"}) <= most
            others = shown.get("_other", last)
            assert others >= last
            last = others


def test_the_limit_is_checked() -> None:
    with pytest.raises(ValueError, match="max_circuits must be a whole number of at least 1"):
        export(max_circuits=0, to=CollectorRegistry())
