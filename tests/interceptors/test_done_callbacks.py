"""The done callbacks of one call: each once, one after the other, whatever the others do."""

from __future__ import annotations

import threading

import pytest

from fusewire.interceptors._done_callbacks import DoneCallbacks
from fusewire.interceptors._sync.executor import run_callbacks


def test_callbacks_are_called_once_and_in_the_order_in_which_they_were_added() -> None:
    called: list[int] = []
    callbacks = DoneCallbacks()
    for number in range(3):
        callbacks.add(lambda number=number: called.append(number))
    assert called == []
    callbacks.run()
    callbacks.run()
    assert called == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_callback_that_raises_is_logged_and_stops_no_other(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    called: list[int] = []

    def fail() -> None:
        raise error("wrong")

    callbacks = DoneCallbacks()
    callbacks.add(fail)
    callbacks.add(lambda: called.append(1))
    callbacks.run()
    assert called == [1]
    assert "a done callback raised" in caplog.text
    assert f"{error.__name__}: wrong" in caplog.text


def test_a_callback_that_another_adds_is_called_after_it() -> None:
    called: list[str] = []
    callbacks = DoneCallbacks()

    def outer() -> None:
        callbacks.add(lambda: called.append("inner"))
        callbacks.run()
        called.append("outer")

    callbacks.add(outer)
    callbacks.run()
    assert called == ["outer", "inner"]


def test_no_two_callbacks_of_a_call_run_at_a_time() -> None:
    first_runs, go_on, all_done = threading.Event(), threading.Event(), threading.Event()
    called: list[str] = []
    callbacks = DoneCallbacks()

    def first() -> None:
        first_runs.set()
        assert go_on.wait(20)
        called.append("first")

    def second() -> None:
        called.append("second")
        all_done.set()

    callbacks.add(first)
    run_callbacks(callbacks)
    assert first_runs.wait(20)
    callbacks.add(second)
    callbacks.run()  # in this thread: it is the other thread's turn
    assert called == []
    go_on.set()
    assert all_done.wait(20)
    assert called == ["first", "second"]
