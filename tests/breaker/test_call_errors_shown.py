"""Where the type and status of a failed call's error are shown."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    CallError,
    CallEvent,
    CallFailed,
    CircuitBreaker,
    CircuitOpenError,
    Event,
    Snapshot,
    StateChanged,
)
from tests.support.call_errors import RPC_LIKE, SECRET, RpcLikeError, fail_with, known
from tests.support.circuits import interrupt, restarted

if TYPE_CHECKING:
    from fusewire.testing import FakeClock


def test_events_have_it(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, (StateChanged, CallEvent))
    for _ in range(2):
        fail_with(breaker, RpcLikeError(SECRET))
    failed, _, opened = heard
    assert isinstance(failed, CallFailed)
    assert isinstance(opened, StateChanged)
    for event in (failed, opened):
        assert (event.error_type, event.error_status) == (RPC_LIKE, "UNAVAILABLE")
        bare = dataclasses.replace(event, error_type="", error_status="")
        assert bare == event
        assert SECRET not in repr(event)


def test_rejections_have_it_in_every_state_that_rejects(clock: FakeClock) -> None:
    settings = BreakerSettings(
        failure_threshold=1, recovery_timeout=10, half_open_max_calls=1, ramp_duration=100
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    fail_with(breaker, RpcLikeError(SECRET))
    named = (RPC_LIKE, "UNAVAILABLE")
    assert rejection(breaker) == ("open", *named)
    assert interrupt(breaker, lambda: rejection(breaker)) == ("open", *named)
    hear_no_more = breaker.add_listener(lambda _: None, CallEvent)
    assert rejection(breaker) == ("open", *named)
    hear_no_more()
    clock.advance(10)
    probe = breaker.acquire()
    assert rejection(breaker) == ("half_open", *named)
    assert interrupt(breaker, lambda: rejection(breaker)) == ("half_open", *named)
    probe.success()
    breaker.acquire()
    assert rejection(breaker) == ("closed", *named)
    breaker.force_open()
    assert rejection(breaker) == ("forced_open", *named)
    assert interrupt(breaker, lambda: rejection(breaker)) == ("forced_open", *named)


def rejection(breaker: CircuitBreaker) -> tuple[str, str, str]:
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    error = caught.value
    assert SECRET not in str(error) + repr(error)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (copied.error_type, copied.error_status) == (error.error_type, error.error_status)
    return error.state, error.error_type, error.error_status


def test_a_pickled_rejection_is_what_releases_without_the_error_make() -> None:
    error = CircuitOpenError("a", "open", 1.0, "why", CallError("E", "S"))
    _, arguments, state = error.__reduce__()
    assert arguments == ("a", "open", 1.0, "why")
    assert state == {"error_type": "E", "error_status": "S"}
    bare = CircuitOpenError(*arguments)
    assert (bare.error_type, bare.error_status) == ("", "")


def test_snapshots_carry_it_where_former_releases_do_not_look(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    assert "error" not in breaker.snapshot().to_json()
    breaker.acquire().failure(error=CallError("grpc.RpcError", "UNAVAILABLE", SECRET))
    text = breaker.snapshot().to_json()
    added = '{"format": {"error_type": "grpc.RpcError", "error_status": "UNAVAILABLE"}, '
    assert text.startswith(added)
    other = restarted(breaker, clock)
    assert known(other) == ("grpc.RpcError", "UNAVAILABLE")
    former = Snapshot.from_json(json.dumps(json.loads(text)))
    assert (former.error_type, former.error_status) == ("", "")
    for name in ("error_type", "error_status"):
        with pytest.raises(ValueError, match=f"its {name} must be a string, got 7"):
            Snapshot.from_json(text.replace(f'"{name}": "', f'"{name}": 7, "x": "', 1))
