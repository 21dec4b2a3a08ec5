"""Who set a state by hand, and why, is known for as long as the state lasts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    Snapshot,
    StateChanged,
)
from fusewire.errors import SettingsError
from tests.support.circuits import open_circuit, restarted

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

ACTS = ["force_open", "disable", "metrics_only", "automatic", "reset", "half_open"]


def known(breaker: CircuitBreaker) -> tuple[str, str]:
    figures, snapshot = breaker.figures(), breaker.snapshot()
    assert (snapshot.by, snapshot.note) == (figures.by, figures.note)
    return figures.by, figures.note


@pytest.mark.parametrize("act", ACTS)
def test_the_figures_have_it(breaker: CircuitBreaker, act: str) -> None:
    if act == "half_open":
        open_circuit(breaker)
    elif act == "automatic":
        breaker.disable(by="bo")
    assert known(breaker) == ("bo" if act == "automatic" else "", "")
    getattr(breaker, act)(by="ana", reason="maintenance")
    assert known(breaker) == ("ana", "maintenance")
    getattr(breaker, act if act not in ("half_open", "automatic") else "reset")()
    assert known(breaker) == ("", "")


@pytest.mark.parametrize("act", ACTS)
def test_it_is_empty_if_nobody_says_it(breaker: CircuitBreaker, act: str) -> None:
    if act == "half_open":
        open_circuit(breaker)
    else:
        breaker.disable(by="bo", reason="maintenance")
    heard: list[Event] = []
    breaker.add_listener(heard.append, Event)
    getattr(breaker, act)()
    assert known(breaker) == ("", "")
    assert {(event.by, event.note) for event in heard if isinstance(event, StateChanged)} <= {
        ("", "")
    }


def test_what_does_nothing_changes_nothing_of_it(breaker: CircuitBreaker) -> None:
    breaker.force_open(by="ana", reason="maintenance")
    breaker.half_open(by="bo", reason="it is back")
    assert known(breaker) == ("ana", "maintenance")


def test_the_circuits_own_changes_end_it(breaker: CircuitBreaker) -> None:
    breaker.reset(by="ana", reason="maintenance is over")
    open_circuit(breaker)
    assert known(breaker) == ("", "")


def test_rejections_do_not_hand_it_on(breaker: CircuitBreaker) -> None:
    breaker.force_open(by="ana", reason="maintenance")
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    assert caught.value.reason == "by hand"
    assert "ana" not in repr((caught.value, vars(caught.value)))


def test_it_lives_on_over_a_restart(breaker: CircuitBreaker, clock: FakeClock) -> None:
    breaker.force_open(by="ana", reason="maintenance")
    text = breaker.snapshot().to_json()
    assert text.startswith('{"format": {"by": "ana", "note": "maintenance", "transitions": [')
    assert Snapshot.from_json(text) == breaker.snapshot()
    other = restarted(breaker, clock)
    assert other.state is CircuitState.FORCED_OPEN
    assert known(other) == ("ana", "maintenance")
    former = Snapshot.from_json(json.dumps(json.loads(text)))
    assert (former.state, former.by, former.note) == (CircuitState.FORCED_OPEN, "", "")
    for name in ("by", "note"):
        with pytest.raises(ValueError, match=f"its {name} must be a string, got 7"):
            Snapshot.from_json(text.replace(f'"{name}": "', f'"{name}": 7, "x": "', 1))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("wrong", [None, 7, b"ana"])
def test_what_is_no_string_is_refused_and_nothing_changes(
    breaker: CircuitBreaker, act: str, wrong: Any
) -> None:
    open_circuit(breaker)
    for name in ("by", "reason"):
        with pytest.raises(SettingsError, match=f"{name} must be a string, got "):
            getattr(breaker, act)(**{name: wrong})
    assert breaker.state is CircuitState.OPEN
