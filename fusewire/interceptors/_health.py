"""Health checks of servers while their circuits are open, so that users' calls need not probe.

A probe calls ``Check`` of ``grpc.health.v1`` (the gRPC health checking protocol) repeatedly, each
time with a deadline. It does not use ``Watch``, because a server that hangs would not end its last
reported state.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from fusewire._locks import make_lock, renew_in_child
from fusewire._validation import SECONDS, check, invalid
from fusewire.breaker import CircuitState, StateChanged

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.breaker import CircuitBreaker, Event

logger = logging.getLogger("fusewire.interceptors")

_LONGEST_WAIT = 60.0
"""Seconds at most until the next health check after some that could not be made."""

_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = 1  # in HealthCheckResponse.ServingStatus
# The server has no health service, or does not know the service.
_NO_OPINION = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


class _Checks:
    """The repeated health checks of one service, for all of its open circuits.

    Attributes:
        thread: the thread that makes them.
        circuits: the circuits that they are made for, each with the name of its own service.
        failing: whether the last answer was not SERVING.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.circuits: dict[CircuitBreaker, str] = {}
        self.failing = False


class HealthProbe:
    """Checks the health of servers whose circuits are open, until they serve again.

    While a server answers that it is not serving, or does not answer, its circuit stays open,
    whatever the recovery timeout. When it answers SERVING after that, the circuit becomes half open
    at once. A server that has answered SERVING throughout contradicts the calls that failed. Then
    the recovery timeout decides, as it does if a server has no health service or does not know the
    service.

    For each service with open circuits, one thread makes one check an interval for all of them. One
    probe may serve any number of guarded channels, sync and asyncio, to the same servers.

    Args:
        channel: a channel to the servers that is not guarded. Closing the probe leaves it open.
        service: the name to ask for, ``""`` for the server as a whole; by default the name of the
            service that the circuit is for.
        interval: seconds between an answer and the next check.
        timeout: seconds that a server has to answer.

    Raises:
        SettingsError: a value is wrong; the message names it.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        service: str | None = None,
        interval: float = 1.0,
        timeout: float = 1.0,
    ) -> None:
        if not isinstance(channel, grpc.Channel):
            raise invalid(
                "channel", "a sync grpc.Channel, also for circuits of asyncio channels", channel
            )
        check("interval", interval, SECONDS)
        check("timeout", timeout, SECONDS)
        # The wrappers have the wire form of HealthCheckRequest and HealthCheckResponse: one field.
        self._check: Callable[..., Int32Value] = channel.unary_unary(
            _CHECK,
            request_serializer=StringValue.SerializeToString,
            response_deserializer=Int32Value.FromString,
        )
        self._service = service
        self._interval = interval
        self._timeout = timeout
        # Until the answer after the next one, so that a probe that ends holds no circuit for long.
        self._hold = 2 * (interval + timeout)
        self._lock = make_lock()
        self._removers: dict[CircuitBreaker, Callable[[], None]] = {}
        self._running: dict[str, _Checks] = {}
        self._closed = threading.Event()
        renew_in_child(self, HealthProbe._renew)

    def watch(self, breaker: CircuitBreaker, service: str) -> None:
        """Check the health of `service` whenever `breaker` is open, from now on."""
        with self._lock:
            if self._closed.is_set() or breaker in self._removers:
                return

            def on_event(event: Event) -> None:
                if isinstance(event, StateChanged) and event.new is CircuitState.OPEN:
                    self._start_checks(breaker, service)

            self._removers[breaker] = breaker.add_listener(on_event)
        if breaker.state is CircuitState.OPEN:
            self._start_checks(breaker, service)

    def unwatch(self, breaker: CircuitBreaker) -> None:
        """Make no more checks for `breaker`, because no call uses it any more."""
        with self._lock:
            remove = self._removers.pop(breaker, None)
        if remove is not None:
            remove()

    def close(self) -> None:
        """Stop the checks, and wait for those in flight."""
        with self._lock:
            self._closed.set()
            removers, self._removers = list(self._removers.values()), {}
            threads = [checks.thread for checks in self._running.values()]
        for remove in removers:
            remove()
        for thread in threads:
            if thread is not threading.current_thread():  # a listener may close the probe
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _renew(self) -> None:
        """Drop the parent's threads in a forked child, which starts its own when needed."""
        self._running = {}
        closed, self._closed = self._closed.is_set(), threading.Event()
        if closed:
            self._closed.set()

    def _start_checks(self, breaker: CircuitBreaker, service: str) -> None:
        """Check the health of `service` until `breaker` is not open any more."""
        service_name = service if self._service is None else self._service
        with self._lock:
            if breaker not in self._removers:
                return
            checks = self._running.get(service_name)
            # A forked child has the checks and not its thread.
            if checks is None or not checks.thread.is_alive():
                checks = self._start_thread(service_name, breaker)
                if checks is None:
                    return
            checks.circuits.setdefault(breaker, service)
            failing = checks.failing
        if failing:  # the last answer holds for this circuit too
            breaker.hold_open(self._hold)

    def _start_thread(self, service_name: str, breaker: CircuitBreaker) -> _Checks | None:
        thread = threading.Thread(
            target=self._run,
            args=(service_name,),
            name=f"fusewire-health-{service_name}",
            daemon=True,
        )
        checks = self._running[service_name] = _Checks(thread)
        try:
            # Under the lock, so that `close` finds only started threads, which it can join.
            thread.start()
        except RuntimeError:  # the process has too many threads
            logger.exception("no health checks for circuit %r this time", breaker.name)
            del self._running[service_name]
            return None
        return checks

    def _run(self, service_name: str) -> None:
        with self._lock:
            checks = self._running[service_name]
        wait = self._interval
        while True:
            try:
                if not self._check_all(service_name, checks):
                    return
                wait = self._interval
            except (Exception, SystemExit):  # of an interceptor of the user's, for example
                wait = min(wait * 2, max(self._interval, _LONGEST_WAIT))
                logger.exception(
                    "a health check of %r failed; the next in %g s", service_name, wait
                )
            self._closed.wait(wait)

    def _check_all(self, service_name: str, checks: _Checks) -> bool:
        """Check once for all the circuits of `checks`; return False if none is left."""
        self._drop(checks, [one for one in self._circuits(checks) if not _is_open(one)])
        with self._lock:
            if not checks.circuits:
                del self._running[service_name]
                return False
        # The first check finds that a server is gone; the others wait for its return.
        serving = self._check_once(service_name, wait=checks.failing)
        was_failing, checks.failing = checks.failing, serving is False
        circuits = self._circuits(checks)
        if serving is None:
            logger.warning(
                "the server has no health check of %r: the recovery timeout decides for %s",
                service_name,
                ", ".join(repr(one.name) for one in circuits),
            )
            self._drop(checks, circuits, restart=False)
        elif serving and was_failing:
            for breaker in circuits:
                breaker.half_open(by="a health check")
            self._drop(checks, circuits)
        elif not serving:
            for breaker in circuits:
                breaker.hold_open(self._hold)
        return True

    def _circuits(self, checks: _Checks) -> list[CircuitBreaker]:
        """Return the circuits that checks are still made for: none once the probe is closed."""
        with self._lock:
            for breaker in checks.circuits.keys() - self._removers.keys():
                del checks.circuits[breaker]
            return list(checks.circuits)

    def _drop(
        self, checks: _Checks, circuits: list[CircuitBreaker], *, restart: bool = True
    ) -> None:
        """Make no more checks for `circuits`, unless they have opened again meanwhile."""
        with self._lock:
            left = [(one, checks.circuits.pop(one, None)) for one in circuits]
        if restart:
            for breaker, service in left:
                # Without the lock: reading the state may call listeners, and ours takes the lock.
                if service is not None and breaker.state is CircuitState.OPEN:
                    self._start_checks(breaker, service)

    def _check_once(self, service: str, *, wait: bool) -> bool | None:
        """Check once: True for SERVING, False for anything else, None without a health check."""
        try:
            reply = self._check(
                StringValue(value=service), timeout=self._timeout, wait_for_ready=wait
            )
        except grpc.RpcError as error:
            return None if error.code() in _NO_OPINION else False
        return reply.value == _SERVING


def _is_open(breaker: CircuitBreaker) -> bool:
    return breaker.state in (CircuitState.OPEN, CircuitState.HALF_OPEN)
