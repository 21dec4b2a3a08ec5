"""Where the fallbacks of sync futures run, and futures that are not grpcio's own."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.interceptors._sync.completion import watch, when_over
from fusewire.interceptors._sync.executor import run_fallback

if TYPE_CHECKING:
    from collections.abc import Callable

_AFTER_FORK = """
import os, threading
from fusewire.interceptors._sync.executor import run_fallback

def runs():
    ran = threading.Event()
    run_fallback(ran.set)
    return ran.wait(10)

assert runs()
child = os.fork()
if child == 0:
    os._exit(0 if runs() else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_worker_is_a_thread_of_its_own() -> None:
    names: list[str] = []
    done = threading.Event()

    def job() -> None:
        names.append(threading.current_thread().name)
        done.set()

    run_fallback(job)
    assert done.wait(20)
    assert names[0].startswith("fusewire-fallback")


def test_there_are_workers_after_a_fork() -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            _AFTER_FORK,
        ],  # from 3.12 on, fork warns
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert ended.returncode == 0, ended.stderr


class _OthersFuture:
    """A future of another interceptor's: no references, no ``add_callback``."""

    __slots__ = ("callbacks", "over")

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], None]] = []
        self.over = False

    def done(self) -> bool:
        return self.over

    def add_callback(self, callback: Any) -> bool:
        raise NotImplementedError

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        self.callbacks.append(fn)

    def end(self) -> None:
        self.over = True
        for callback in self.callbacks:
            callback(self)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return ""


class _Guarded:
    """A guarded call that only notes how it was settled."""

    def __init__(self) -> None:
        self.settled: list[str] = []

    def succeed(self) -> None:
        self.settled.append("succeed")

    def release(self) -> None:
        self.settled.append("release")

    def watch_by(self, look: Any) -> None:
        """Have no key that another call might want."""


@pytest.mark.parametrize("over", [False, True])
def test_a_future_of_another_make_is_watched_too(over: Any) -> None:
    future, guarded = _OthersFuture(), _Guarded()
    future.over = over
    watch(guarded, future)
    assert guarded.settled == (["succeed"] if over else [])
    future.end()
    assert guarded.settled == ["succeed"]


def test_an_object_without_a_status_says_nothing() -> None:
    class Bare(_OthersFuture):
        __slots__ = ()

        def code(self) -> grpc.StatusCode:
            raise ValueError

    future, guarded = Bare(), _Guarded()
    future.over = True
    watch(guarded, future)
    assert guarded.settled == ["release"]


def test_a_call_that_is_over_calls_back_at_once() -> None:
    future = _OthersFuture()
    future.over = True
    called: list[int] = []
    when_over(future, functools.partial(called.append, 1))
    assert called == [1]
