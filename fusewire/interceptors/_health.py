"""Asking servers how they are while a circuit is open, so that no user's call has to find out.

It speaks ``grpc.health.v1`` (the gRPC health checking protocol) by ``Check``, again and again and
with a deadline, and not by ``Watch``: a server that hangs would leave the last state standing.
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

_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = 1  # in HealthCheckResponse.ServingStatus
# The server does not do health checks, or does not know the service.
_NO_OPINION = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


class _Question:
    """What is asked again and again for all the open circuits of one service.

    Attributes:
        thread: the thread that asks.
        circuits: the circuits that it asks for, each with its own service's name.
        ill: whether the last answer was another than SERVING.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.circuits: dict[CircuitBreaker, str] = {}
        self.ill = False


class HealthProbe:
    """Asks the servers of open circuits for their health, until they are well again.

    While a server says that it is not serving, or says nothing, the circuit is kept open, whatever
    its recovery timeout. When it says SERVING after that, the circuit is half open at once. A
    server that says SERVING all along contradicts the calls that failed: then the recovery timeout
    decides, as it does where a server has no health service or does not know the service.

    While circuits of a service are open, it asks once an interval for all of them, from one thread
    for each service. One object may serve any number of guarded channels, sync and asyncio, to the
    same servers.

    Args:
        channel: a channel to them that is not guarded. It is not closed with the probe.
        service: the name to ask for, ``""`` for the server as a whole; without one, the name of the
            service that the circuit is for.
        interval: seconds between an answer and the next question.
        timeout: seconds that a server has to answer.

    Raises:
        SettingsError: a value cannot be right.
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
        # Until the answer after the next one: a probe that ends leaves no circuit open for good.
        self._hold = 2 * (interval + timeout)
        self._lock = make_lock()
        self._removers: dict[CircuitBreaker, Callable[[], None]] = {}
        self._asking: dict[str, _Question] = {}
        self._closed = threading.Event()
        renew_in_child(self, HealthProbe._renew)

    def watch(self, breaker: CircuitBreaker, service: str) -> None:
        """Ask for the health of `service` whenever `breaker` is open, from now on."""
        with self._lock:
            if self._closed.is_set() or breaker in self._removers:
                return

            def hear(event: Event) -> None:
                if isinstance(event, StateChanged) and event.new is CircuitState.OPEN:
                    self._begin(breaker, service)

            self._removers[breaker] = breaker.add_listener(hear)
        if breaker.state is CircuitState.OPEN:
            self._begin(breaker, service)

    def unwatch(self, breaker: CircuitBreaker) -> None:
        """Ask no more for `breaker`, which no call goes through any more."""
        with self._lock:
            remove = self._removers.pop(breaker, None)
        if remove is not None:
            remove()

    def close(self) -> None:
        """Stop asking, and wait for the questions that are being asked."""
        with self._lock:
            self._closed.set()
            removers, self._removers = list(self._removers.values()), {}
            threads = [question.thread for question in self._asking.values()]
        for remove in removers:
            remove()
        for thread in threads:
            if thread is not threading.current_thread():  # of a listener, say, that closes it
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _renew(self) -> None:
        """Forget in a forked child who asks: it asks itself when a circuit opens there."""
        self._asking = {}
        closed, self._closed = self._closed.is_set(), threading.Event()
        if closed:
            self._closed.set()

    def _begin(self, breaker: CircuitBreaker, service: str) -> None:
        """Ask for the health of `service` until `breaker` is not open any more."""
        asked = service if self._service is None else self._service
        with self._lock:
            if breaker not in self._removers:
                return
            question = self._asking.get(asked)
            # After a fork the child has the question, and no thread that asks it.
            if question is None or not question.thread.is_alive():
                question = self._start(asked, breaker)
                if question is None:
                    return
            question.circuits.setdefault(breaker, service)
            ill = question.ill
        if ill:  # what the others have heard need not be asked again
            breaker.hold_open(self._hold)

    def _start(self, asked: str, breaker: CircuitBreaker) -> _Question | None:
        thread = threading.Thread(
            target=self._run, args=(asked,), name=f"fusewire-health-{asked}", daemon=True
        )
        question = self._asking[asked] = _Question(thread)
        try:
            # Under the lock, so that `close` finds only threads that it can wait for.
            thread.start()
        except RuntimeError:  # the process has too many threads
            logger.exception("no health checks for circuit %r this time", breaker.name)
            del self._asking[asked]
            return None
        return question

    def _run(self, asked: str) -> None:
        with self._lock:
            question = self._asking[asked]
        try:
            while self._ask_for_all(asked, question):
                self._closed.wait(self._interval)
        except Exception:
            logger.exception("the health checks of %r have ended", asked)
            with self._lock:
                self._asking.pop(asked, None)

    def _ask_for_all(self, asked: str, question: _Question) -> bool:
        """Ask once for all the circuits of `question`; False if none is left."""
        self._leave(question, [one for one in self._circuits(question) if not _is_open(one)])
        with self._lock:
            if not question.circuits:
                del self._asking[asked]
                return False
        # The first question finds a server gone; the others wait for its return.
        serving = self._ask(asked, wait=question.ill)
        was_ill, question.ill = question.ill, serving is False
        circuits = self._circuits(question)
        if serving is None:
            logger.warning(
                "no health check of %r: the recovery timeout decides for %s",
                asked,
                ", ".join(repr(one.name) for one in circuits),
            )
            self._leave(question, circuits, well=False)
        elif serving and was_ill:
            for breaker in circuits:
                breaker.half_open()
            self._leave(question, circuits)
        elif not serving:
            for breaker in circuits:
                breaker.hold_open(self._hold)
        return True

    def _circuits(self, question: _Question) -> list[CircuitBreaker]:
        """Return the circuits that are still to be asked for: none once it is closed."""
        with self._lock:
            for breaker in question.circuits.keys() - self._removers.keys():
                del question.circuits[breaker]
            return list(question.circuits)

    def _leave(
        self, question: _Question, circuits: list[CircuitBreaker], *, well: bool = True
    ) -> None:
        """Ask no more for `circuits`, unless they have opened again meanwhile."""
        with self._lock:
            left = [(one, question.circuits.pop(one, None)) for one in circuits]
        if well:
            for breaker, service in left:
                # Asked without the lock: a look may tell listeners, and ours takes the lock.
                if service is not None and breaker.state is CircuitState.OPEN:
                    self._begin(breaker, service)

    def _ask(self, service: str, *, wait: bool) -> bool | None:
        """Ask once: True for SERVING, False for anything else, None if the server cannot tell."""
        try:
            reply = self._check(
                StringValue(value=service), timeout=self._timeout, wait_for_ready=wait
            )
        except grpc.RpcError as error:
            return None if error.code() in _NO_OPINION else False
        return reply.value == _SERVING


def _is_open(breaker: CircuitBreaker) -> bool:
    return breaker.state in (CircuitState.OPEN, CircuitState.HALF_OPEN)
