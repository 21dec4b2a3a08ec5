"""Health checks go on after what an error or a fork has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.interceptors import _health
from tests.support.grpc_health import NOT_SERVING, SERVING, Health, break_down
from tests.support.grpc_server import ECHO, ask, wait_until

if TYPE_CHECKING:
    import grpc

    from fusewire.interceptors import HealthProbe


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_check_that_ends_by_an_error_is_made_again_after_growing_waits_and_the_log_says_so(
    channel: grpc.Channel,
    probe: HealthProbe,
    health: Health,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    error: type[BaseException],
) -> None:
    monkeypatch.setattr(_health, "_LONGEST_WAIT", 0.05)
    waits: list[float] = []
    failures = [error("a defect") for _ in range(4)]
    check, wait = probe._check, probe._closed.wait

    def failing(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return check(*arguments, **options)

    def noted(seconds: float) -> bool:
        waits.append(seconds)
        return wait(seconds)

    monkeypatch.setattr(probe, "_check", failing)
    monkeypatch.setattr(probe._closed, "wait", noted)
    channel.unary_unary(ECHO)(ask())
    health.answer = NOT_SERVING
    break_down(channel)
    health.wait(2)
    assert waits[:5] == [0.02, 0.04, 0.05, 0.05, 0.01]
    assert caplog.text.count("a health check of 'test.Echo' failed") == 4
    health.answer = SERVING
    wait_until(lambda: not _threads(), "the end of the thread")


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("fusewire-health")]


_FORKING = """
import os, signal, threading
import grpc
from fusewire.breaker import CircuitBreaker
from fusewire.interceptors import HealthProbe

PARENT = os.getpid()
asked, go_on = threading.Event(), threading.Event()


class Channel:
    def unary_unary(self, method, **_):
        def check(request, timeout, wait_for_ready):
            asked.set()
            if os.getpid() == PARENT:
                go_on.wait(30)
            return type("Reply", (), {"value": 1})()  # SERVING
        return check


grpc.Channel.register(Channel)
probe = HealthProbe(Channel(), interval=0.01)
breaker = CircuitBreaker("payments", failure_threshold=1)
probe.watch(breaker, "Payments")
breaker.acquire().failure()
assert asked.wait(20)
asked.clear()
"""

_CHILD = """
    signal.alarm(20)  # ends a child that hangs
    breaker.reset()
    breaker.acquire().failure()
    assert asked.wait(10), "the child's probe asks nobody"
    probe.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("fusewire-health")]
    os._exit(0)
status = os.waitpid(child, 0)[1]
assert status == 0, f"the child ended with {status}"
go_on.set()
probe.close()
"""

_FORK = """
child = os.fork()
if child == 0:
"""

_HOLD = """
held = threading.Event()


def hold():
    with {lock}:
        held.set()
        go_on.wait(30)


threading.Thread(target=hold).start()
assert held.wait(20)
"""

_MOMENTS = {
    "while it asks": _FORK,
    "within a change": _HOLD.format(lock="probe._lock") + _FORK,
    "as it goes to sleep": _HOLD.format(lock="probe._closed._cond") + _FORK,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("moment", _MOMENTS.values(), ids=_MOMENTS)
def test_a_forked_child_asks_for_itself(moment: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING + moment + _CHILD],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
