"""A process that forks has children whose breakers work, whatever its threads were doing.

Each test forks in a process of its own, which has no other threads than it starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerSettings,
    Cause,
    CircuitBreaker,
    CircuitState,
    Event,
    LeaseExpired,
    Reason,
    StateChanged,
)
from tests.support.circuits import break_off, half_open_circuit, interrupt, open_circuit

if TYPE_CHECKING:
    from fusewire.testing import FakeClock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

START = """
import logging, multiprocessing, os, signal, sys, threading, time, traceback
from fusewire.breaker import (
    BreakerRegistry, BreakerSettings, CallEvent, CircuitBreaker, CircuitOpenError, CircuitState
)

logging.getLogger("fusewire.breaker").setLevel("ERROR")  # what opens is no news here

inside, go_on = threading.Event(), threading.Event()


def in_the_midst():
    # The breaker asks for this number while it makes a change.
    if os.getpid() == PARENT:
        inside.set()
        go_on.wait(30)
    return 0.5


PARENT = os.getpid()
JITTER = BreakerSettings(failure_threshold=2, recovery_timeout_jitter=0.5)


def fork(work):
    # Return once the child has done its work without an error.
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that hangs
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the child ended with {status}"
"""


def run(script: str) -> None:
    """Run `script` in a process of its own, which must end well."""
    program = START + textwrap.dedent(script)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_a_child_that_is_forked_in_the_midst_of_a_change_does_not_wait_for_it() -> None:
    run("""
        breaker = CircuitBreaker("payments", settings=JITTER, rng=in_the_midst)
        breaker.acquire().failure()
        thread = threading.Thread(target=lambda: breaker.acquire().failure())
        thread.start()
        inside.wait(30)

        def work():
            assert breaker.state is CircuitState.CLOSED, "it starts again"
            assert breaker.snapshot().consecutive_failures == 0
            breaker.acquire().failure()
            breaker.acquire().failure()
            assert breaker.state is CircuitState.OPEN

        fork(work)
        go_on.set()
        thread.join()
        assert breaker.state is CircuitState.OPEN
    """)


def test_a_childs_listeners_hear_although_the_parents_were_hearing() -> None:
    run("""
        breaker = CircuitBreaker("payments", 1)
        heard = []

        def listener(event):
            heard.append(event.new.value)
            in_the_midst()

        breaker.add_listener(listener)
        thread = threading.Thread(target=lambda: breaker.acquire().failure())
        thread.start()
        inside.wait(30)
        breaker.reset()  # queued behind the event that is being delivered

        def work():
            heard.clear()
            breaker.acquire().failure()
            breaker.reset()
            assert heard == ["open", "closed"], heard

        fork(work)
        go_on.set()
        thread.join()
        assert heard == ["open", "closed"], heard
    """)


def test_workers_of_a_preloaded_application_have_breakers_of_their_own() -> None:
    # As gunicorn does with preload_app: the master imports the application, forks its workers, and
    # forks another whenever one has ended. Here it also calls the dependency, on threads.
    run("""
        registry = BreakerRegistry(JITTER)
        payments = registry.get("payments")
        heard = []
        payments.add_listener(heard.append)
        stop = threading.Event()


        def charge(fails):
            if fails:
                raise ConnectionError


        def serve(number):
            while not stop.is_set():
                try:
                    registry.get(f"method {number % 50}")
                    payments.call(charge, number % 5 == 0)
                except (ConnectionError, CircuitOpenError):
                    pass
                number += 1


        def work():
            heard.clear()
            payments.reset()
            for _ in range(2):
                payments.acquire().failure()
            assert payments.state is CircuitState.OPEN
            assert heard[-1].new is CircuitState.OPEN
            assert registry.get("payments") is payments
            registry.get("another").call(charge, False)
            # A worker's own threads are told from those that the master had.
            thread = threading.Thread(target=payments.reset)
            thread.start()
            thread.join()
            assert payments.state is CircuitState.CLOSED


        threads = [threading.Thread(target=serve, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(60):
            fork(work)
        stop.set()
        for thread in threads:
            thread.join()
    """)


def test_a_prefork_pool_replaces_its_children_while_the_parent_works() -> None:
    # As Celery's prefork pool does, with children that end after a number of tasks.
    run("""
        payments = CircuitBreaker("payments", 2, 600.0)
        payments.acquire().failure()
        stop = threading.Event()


        def consume():
            while not stop.is_set():
                payments.snapshot()
                payments.acquire().release()


        def task(number):
            signal.alarm(20)
            before = payments.snapshot().consecutive_failures
            payments.acquire().failure()
            return before, payments.state.value


        threads = [threading.Thread(target=consume) for _ in range(3)]
        for thread in threads:
            thread.start()
        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            results = pool.map_async(task, range(30), chunksize=1).get(40)
        stop.set()
        for thread in threads:
            thread.join()
        # What the parent had seen is kept; what was half done starts again.
        assert set(results) <= {(1, "open"), (0, "closed")}, results
        assert (1, "open") in results
    """)


def test_a_process_of_multiprocessing_is_forked_in_a_listener() -> None:
    run("""
        context = multiprocessing.get_context("fork")
        payments = CircuitBreaker("payments", 1)
        codes = []


        def in_child():
            signal.alarm(20)
            assert payments.state is CircuitState.OPEN
            payments.reset()
            payments.acquire().failure()
            assert payments.state is CircuitState.OPEN


        def listener(event):
            if os.getpid() == PARENT and not codes:
                process = context.Process(target=in_child)
                process.start()
                process.join()
                codes.append(process.exitcode)


        payments.add_listener(listener)
        payments.acquire().failure()
        assert codes == [0], codes
    """)


def test_a_process_that_forks_in_the_midst_of_its_own_change_goes_on_with_it() -> None:
    run("""
        forked = []


        def in_the_midst():
            if not forked:
                signal.raise_signal(signal.SIGUSR1)
            return 0.5


        def handle(*_):
            child = os.fork()
            forked.append(child)
            if child == 0:
                signal.alarm(20)


        signal.signal(signal.SIGUSR1, handle)
        breaker = CircuitBreaker("payments", settings=JITTER, rng=in_the_midst)
        other = CircuitBreaker("search", 1)
        for _ in range(2):
            breaker.acquire().failure()
        assert breaker.state is CircuitState.OPEN
        other.acquire().failure()
        assert other.state is CircuitState.OPEN
        if forked[0]:
            assert os.waitpid(forked[0], 0)[1] == 0
        else:
            os._exit(0)
    """)


def test_a_forked_circuit_keeps_its_state_and_drops_what_the_parents_threads_do(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    half_open_circuit(breaker, clock)
    probe = breaker.acquire()
    breaker.acquire().success()
    assert not breaker.can_execute()
    breaker._renew()
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.probes_running, snapshot.probes_succeeded) == (
        CircuitState.HALF_OPEN,
        0,
        1,
    )
    probe.failure()
    assert breaker.state is CircuitState.HALF_OPEN, "the parent's probe is not the child's"
    assert breaker.snapshot().counters.late == 1
    breaker.acquire().success()
    assert breaker.state is CircuitState.CLOSED


def test_a_forked_circuit_has_no_hanging_calls(clock: FakeClock) -> None:
    settings = BreakerSettings(
        window_calls=10,
        minimum_calls=1,
        slow_call_duration=1.0,
        slow_call_rate_threshold=1.0,
        open_on_hanging=True,
    )
    breaker = CircuitBreaker("payments", settings=settings, clock=clock)
    breaker.acquire()
    clock.advance(2)
    assert breaker.state is CircuitState.OPEN
    breaker._renew()
    assert breaker.state is CircuitState.CLOSED


def test_a_forked_circuit_drops_events_that_the_parent_delivers(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    breaker.add_listener(heard.append)
    interrupt(breaker, lambda: breaker._listeners.put(LeaseExpired("payments")))
    assert heard == [LeaseExpired("payments")]
    breaker._listeners.put(LeaseExpired("payments"))
    breaker._renew()
    breaker.look()
    assert heard == [LeaseExpired("payments")]


def test_a_forked_circuit_has_nothing_left_to_deliver_so_its_healthy_calls_are_only_noted(
    breaker: CircuitBreaker,
) -> None:
    breaker._listeners.left = True
    breaker._renew()
    assert breaker._listeners.left is False
    breaker.acquire().failure()
    breaker.acquire().success()
    assert len(breaker._healthy) == 1


def test_a_circuit_forked_in_the_midst_of_a_change_starts_again(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []
    open_circuit(breaker)
    breaker.add_listener(heard.append)
    breaker._changing = -7  # a thread of the parent's
    breaker._renew()
    breaker.acquire().release()
    reason = Reason(Cause.INTERRUPTED)
    assert heard == [StateChanged("payments", CircuitState.OPEN, CircuitState.CLOSED, reason)]


def test_a_thread_that_forks_in_the_midst_of_its_change_keeps_its_lock(
    breaker: CircuitBreaker,
) -> None:
    lock = breaker._lock

    def fork_and_look() -> None:
        breaker._renew()
        assert breaker._lock is lock

    interrupt(breaker, fork_and_look)
    breaker._renew()
    assert breaker._lock is not lock


def test_a_listener_that_forks_goes_on_in_the_child(breaker: CircuitBreaker) -> None:
    heard: list[Event] = []

    def listener(event: Event) -> None:
        heard.append(event)
        if len(heard) == 1:
            breaker._renew()
            breaker.reset()

    breaker.add_listener(listener)
    breaker.force_open()
    breaker.force_open()
    assert len(heard) == 3


def test_a_circuit_that_was_broken_off_before_the_fork_starts_again(
    breaker: CircuitBreaker,
) -> None:
    open_circuit(breaker)
    break_off(breaker)
    breaker._renew()
    breaker.acquire().release()
    assert breaker.state is CircuitState.CLOSED
