"""Listeners hear what happened, in order, and can do no harm."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from fusewire._throttle import Throttle
from fusewire.breaker import (
    CRITICAL,
    CallFailed,
    CallSucceeded,
    Cause,
    CircuitBreaker,
    CircuitState,
    Event,
    Reason,
    SettingsChanged,
    StateChanged,
)
from fusewire.breaker import _listeners as listeners
from fusewire.errors import SettingsError
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fusewire.testing import FakeClock


def test_they_hear_each_change_of_state_and_why(breaker: CircuitBreaker, clock: FakeClock) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    half_open_circuit(breaker, clock)
    breaker.acquire().failure()
    clock.advance(10)
    breaker.acquire().success()
    breaker.acquire().success()
    closed, opened, half = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
    over = Reason(Cause.RECOVERY_TIME_OVER)
    assert heard == [
        StateChanged("payments", closed, opened, Reason(Cause.CONSECUTIVE_FAILURES, 2, 2)),
        StateChanged("payments", opened, half, over),
        StateChanged("payments", half, opened, Reason(Cause.PROBE_FAILED)),
        StateChanged("payments", opened, half, over),
        StateChanged("payments", half, closed, Reason(Cause.PROBES_SUCCEEDED, 2, 2)),
    ]
    assert [str(event.reason) for event in heard if isinstance(event, StateChanged)] == [
        "2 failures in a row, threshold 2",
        "the recovery time is over",
        "a probe failed",
        "the recovery time is over",
        "2 probes succeeded",
    ]


def test_a_removed_listener_hears_no_more(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    remove = breaker.add_listener(heard.append)
    remove()
    remove()
    breaker.acquire().failure()
    breaker.acquire().failure()
    assert heard == []


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_what_a_listener_raises_is_logged_and_changes_nothing(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise error("broken listener")

    breaker.add_listener(broken)
    breaker.add_listener(heard.append)
    with caplog.at_level(logging.ERROR):
        breaker.acquire().failure()
        breaker.acquire().failure()
    assert breaker.state is CircuitState.OPEN
    assert len(heard) == 1
    assert "broken listener" in caplog.text
    message = caplog.records[0].getMessage()
    assert message.startswith("a listener of circuit 'payments' failed on StateChanged(name=")


def test_a_listener_may_use_the_breaker_and_order_is_kept(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    heard: list[tuple[CircuitState, CircuitState]] = []

    def probe_at_once(event: Event) -> None:
        assert isinstance(event, StateChanged)
        if event.new is CircuitState.OPEN:
            clock.advance(10)
            for _ in range(2):
                breaker.acquire().success()

    def note(event: Event) -> None:
        assert isinstance(event, StateChanged)
        heard.append((event.old, event.new))

    breaker.add_listener(probe_at_once)
    breaker.add_listener(note)
    breaker.acquire().failure()
    breaker.acquire().failure()
    assert heard == [
        (CircuitState.CLOSED, CircuitState.OPEN),
        (CircuitState.OPEN, CircuitState.HALF_OPEN),
        (CircuitState.HALF_OPEN, CircuitState.CLOSED),
    ]


def test_a_listener_that_comes_twice_is_removed_once_at_a_time(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    of_calls = breaker.add_listener(heard.append, CallFailed)
    breaker.add_listener(heard.append, StateChanged)
    breaker.acquire().failure()
    of_calls()
    breaker.acquire().failure()
    assert [type(event) for event in heard] == [CallFailed, StateChanged]


async def hear_async(_event: Event) -> None:
    pass


def hear_in_steps(_event: Event) -> Iterator[None]:
    yield


async def hear_in_async_steps(_event: Event) -> AsyncIterator[None]:
    yield


class AsyncListener:
    async def __call__(self, _event: Event) -> None:
        pass

    async def hear(self, _event: Event) -> None:
        pass


@pytest.mark.parametrize(
    "listener",
    [
        "no function",
        None,
        hear_async,
        hear_in_steps,
        hear_in_async_steps,
        functools.partial(hear_async),
        AsyncListener(),
        AsyncListener().hear,
    ],
)
def test_one_that_could_never_hear_is_refused(breaker: CircuitBreaker, listener: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        breaker.add_listener(listener)
    assert str(caught.value) == (
        f"listener must be a plain function, which nobody has to await, got {listener!r}"
    )


class Listener:
    """Hears when it is made, and when it is called."""

    heard: ClassVar[list[Event]] = []

    def __init__(self, event: Event) -> None:
        self.heard.append(event)

    def hear(self, event: Event) -> None:
        self.heard.append(event)

    __call__ = hear


LISTENER = Listener(Event("made"))


@pytest.mark.parametrize(
    "listener", [Listener, LISTENER, LISTENER.hear, functools.partial(Listener.hear, LISTENER)]
)
def test_whatever_can_be_called_may_hear(
    breaker: CircuitBreaker, listener: Callable[[Event], None]
) -> None:
    Listener.heard.clear()
    breaker.add_listener(listener)
    breaker.force_open()
    assert [type(event) for event in Listener.heard] == [StateChanged]


@pytest.mark.parametrize("kinds", ["StateChanged", str, (), (StateChanged, int), [StateChanged]])
def test_what_is_no_kind_of_event_is_refused(breaker: CircuitBreaker, kinds: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        breaker.add_listener(print, kinds)
    shown = kinds if isinstance(kinds, tuple) else (kinds,)
    assert str(refused.value) == (
        f"kinds must be a class of events or a tuple of such, got {shown!r}"
    )
    with pytest.raises(SettingsError, match=r"got \(\)"):
        breaker.add_listener(print, ())


def test_one_that_returns_a_coroutine_is_said_to_hear_nothing(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    def hear(event: Event) -> Any:
        return hear_async(event)

    breaker.add_listener(hear)
    with caplog.at_level(logging.ERROR):
        breaker.force_open()
    assert "a listener of circuit 'payments' failed on StateChanged" in caplog.text
    assert (
        "TypeError: a listener must be a plain function, but this one returned a coroutine, which "
        "nobody awaits: <function"
    ) in caplog.text


def test_events_of_calls_that_wait_behind_a_change_stay_in_order(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, Event)

    def act(_event: Event) -> None:
        if len(heard) == 1:
            breaker.replace_settings(CRITICAL)
            breaker.acquire().success()
            breaker.acquire().failure()

    breaker.add_listener(act, Event)
    breaker.acquire().failure()
    assert [type(event) for event in heard] == [
        CallFailed,
        SettingsChanged,
        CallSucceeded,
        CallFailed,
    ]


def test_events_of_calls_and_of_changes_are_heard_in_order(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append, Event)

    def act(event: Event) -> None:
        if len(heard) == 1:
            breaker.acquire().success()
            breaker.force_open()
            breaker.reset()
            breaker.acquire().success()
            breaker.force_open()

    breaker.add_listener(act, Event)
    breaker.acquire().failure()
    assert [type(event) for event in heard] == [
        CallFailed,
        CallSucceeded,
        StateChanged,
        StateChanged,
        CallSucceeded,
        StateChanged,
    ]


def test_of_what_a_listener_raises_alike_one_a_minute_is_logged(
    breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(listeners, "Throttle", lambda: Throttle(lambda: now))
    wrong: list[Exception] = [ConnectionError(), ValueError()]

    def broken(_: Event) -> None:
        raise wrong[0]

    breaker.add_listener(broken, CallSucceeded)
    with caplog.at_level(logging.ERROR):
        for _ in range(1000):
            breaker.acquire().success()
        assert len(caplog.records) == 1
        wrong.pop(0)
        breaker.acquire().success()
        assert len(caplog.records) == 2, "another error is another line"
        now = 61.0
        breaker.acquire().success()
        wrong.insert(0, ConnectionError())
        breaker.acquire().success()
    assert len(caplog.records) == 4
    assert caplog.messages[-1].endswith("(999 more like it were not logged)")
