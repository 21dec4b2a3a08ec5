"""Asking servers how they are while a circuit is open, so that no user's call has to find out.

It speaks ``grpc.health.v1`` (the gRPC health checking protocol) by ``Check``, again and again and
with a deadline, and not by ``Watch``: a server that hangs would leave the last state standing.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Self

import grpc

from fusewire.breaker import CircuitState, StateChanged
from fusewire.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.breaker import CircuitBreaker, Event

logger = logging.getLogger(__name__)

_CHECK = "/grpc.health.v1.Health/Check"
# HealthCheckResponse has one field, the status: tag, then a varint of one byte. SERVING is 1.
_SERVING = b"\x08\x01"
# The server does not do health checks, or does not know the service.
_NO_OPINION = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


class HealthProbe:
    """Asks the servers of open circuits for their health, until they are well again.

    While a server says that it is not serving, or says nothing, the circuit is kept open, whatever
    its recovery timeout. When it says SERVING after that, the circuit is half open at once. A
    server that says SERVING all along contradicts the calls that failed: then the recovery timeout
    decides, as it does where a server has no health service or does not know the service.

    It asks from a thread of its own for each circuit that is open. One object may serve any number
    of guarded channels, sync and asyncio, to the same servers.

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
            raise SettingsError(
                f"channel: {channel!r} is not a grpc.Channel; accepted is a sync channel, also "
                "for circuits of asyncio channels"
            )
        for setting, value in (("interval", interval), ("timeout", timeout)):
            if not _is_duration(value):
                raise SettingsError(f"{setting}: {value!r}; accepted are seconds above 0")
        self._check: Callable[..., bytes] = channel.unary_unary(_CHECK)
        self._service = service
        self._interval = interval
        self._timeout = timeout
        # Until the answer after the next one: a probe that ends leaves no circuit open for good.
        self._hold = 2 * (interval + timeout)
        self._lock = threading.Lock()
        self._removers: dict[CircuitBreaker, Callable[[], None]] = {}
        self._asking: dict[CircuitBreaker, threading.Thread] = {}
        self._closed = threading.Event()

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
        """Stop asking, and wait for the questions under way."""
        with self._lock:
            self._closed.set()
            removers, self._removers = list(self._removers.values()), {}
            threads = list(self._asking.values())
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

    def _begin(self, breaker: CircuitBreaker, service: str) -> None:
        with self._lock:
            if breaker not in self._removers or breaker in self._asking:
                return
            asked = service if self._service is None else self._service
            thread = threading.Thread(
                target=self._run,
                args=(breaker, asked),
                name=f"fusewire-health-{breaker.name}",
                daemon=True,
            )
            try:
                # Under the lock, so that `close` finds only threads that it can wait for.
                thread.start()
            except RuntimeError:  # the process has too many threads
                logger.exception("no health checks for circuit %r this time", breaker.name)
            else:
                self._asking[breaker] = thread

    def _run(self, breaker: CircuitBreaker, service: str) -> None:
        again = False
        try:
            again = self._ask_until_well(breaker, service)
        except Exception:
            logger.exception("the health checks for circuit %r have ended", breaker.name)
        finally:
            with self._lock:
                self._asking.pop(breaker, None)
        # It may have opened again while this thread was ending, and found it still there. Asked
        # without the lock: a look may tell listeners, and ours takes the lock.
        if again and breaker.state is CircuitState.OPEN:
            self._begin(breaker, service)

    def _ask_until_well(self, breaker: CircuitBreaker, service: str) -> bool:
        """Ask until the circuit is not open any more; False if the server cannot tell."""
        was_ill = False
        while self._is_watched(breaker) and _is_open(breaker):
            # The first question finds a server gone; the others wait for its return.
            serving = self._ask(service, wait=was_ill)
            if serving is None:
                logger.warning(
                    "no health check of %r: circuit %r goes by its recovery timeout",
                    service,
                    breaker.name,
                )
                return False
            if not serving:
                was_ill = True
                breaker.hold_open(self._hold)
            elif was_ill:
                breaker.half_open()
                break
            self._closed.wait(self._interval)
        return True

    def _is_watched(self, breaker: CircuitBreaker) -> bool:
        return breaker in self._removers  # none is once it is closed

    def _ask(self, service: str, *, wait: bool) -> bool | None:
        """Ask once: True for SERVING, False for anything else, None if the server cannot tell."""
        name = service.encode()
        request = b"\x0a" + _varint(len(name)) + name
        try:
            reply = self._check(request, timeout=self._timeout, wait_for_ready=wait)
        except grpc.RpcError as error:
            return None if error.code() in _NO_OPINION else False
        return reply == _SERVING


def _is_open(breaker: CircuitBreaker) -> bool:
    return breaker.state in (CircuitState.OPEN, CircuitState.HALF_OPEN)


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits to a byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
