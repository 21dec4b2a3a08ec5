"""What figures must be, compared with a snapshot and with the naive model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fusewire.breaker import Figures, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fusewire.breaker import Transition
    from tests.support.naive_circuit import NaiveCircuit

SHARED = (set(Figures.__dataclass_fields__) & set(Snapshot.__dataclass_fields__)) - {"durations"}


def compare_figures(figures: Figures, snapshot: Snapshot, model: NaiveCircuit) -> None:
    """Assert that figures read now are what a snapshot and the model say."""
    assert len(SHARED) == 16
    for name in SHARED:
        assert getattr(figures, name) == getattr(snapshot, name), name
    assert figures.counters.open_seconds == model.open_seconds
    counts = {(each.old, each.new): each.count for each in figures.counters.transitions}
    assert {pair: count for pair, count in counts.items() if count} == model.transitions
    assert figures.state_seconds == model.seconds_in_shown_state()
    window, settings = model.in_window(), model.settings
    has_window = settings.window_calls is not None or settings.window_seconds is not None
    rated = has_window and len(window) >= settings.minimum_calls
    assert figures.failure_rate == (snapshot.failure_rate if rated else None)
    rates_slow = rated and settings.slow_call_duration is not None
    assert figures.slow_call_rate == (snapshot.slow_call_rate if rates_slow else None)


def where_transitions_lead(transitions: Iterable[Transition]) -> list[str]:
    """Return the states in which a circuit is that began closed: one, if all were counted."""
    flow = Counter({"closed": 1})
    for each in transitions:
        flow[each.old] -= each.count
        flow[each.new] += each.count
    return [state for state, count in flow.items() if count]
