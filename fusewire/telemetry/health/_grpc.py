"""The verdict of a probe as the status of a service of grpc.health.v1, sync and asyncio."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from fusewire._validation import check_plain_function, invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from fusewire.telemetry.health._verdicts import Verdict

logger = logging.getLogger("fusewire.telemetry")

_INTERVAL = 0.25
"""Seconds between two looks at the verdict. That of a circuit changes with time alone, so there is
no event to wait for."""

_SERVING, _NOT_SERVING = 1, 2
"""``HealthCheckResponse.ServingStatus`` of grpc/health/v1/health.proto. With the numbers, only the
user's own code imports grpcio-health-checking."""


class Servicer(Protocol):
    """A ``grpc_health.v1.health.HealthServicer``, or another one with its `set`."""

    def set(self, service: str, status: Any) -> None:
        """Set the status of a service."""


class AioServicer(Protocol):
    """A ``grpc_health.v1.health.aio.HealthServicer``, or another one with its `set`."""

    def set(self, service: str, status: Any) -> Coroutine[Any, Any, None]:
        """Set the status of a service."""


@contextmanager
def report_status(
    verdict: Callable[[], Verdict], servicer: Servicer, *, service: str
) -> Iterator[None]:
    """Keep the status of one service what a probe is answered, for the block.

    It follows within half a second of the verdict, and is NOT_SERVING after the block.

    Args:
        verdict: :meth:`Health.readiness` or :meth:`Health.liveness`, of the object: it is called in
            a thread of its own.
        servicer: the ``HealthServicer`` of grpcio-health-checking that was added to the server.
        service: the name that probes ask for, such as ``"payments.readiness"``. Not the empty one,
            which stands for the whole server and is the application's.

    Raises:
        SettingsError: an argument cannot be right.
    """
    _check(verdict, service)
    stopping = threading.Event()

    def follow() -> None:
        shown = None
        while not stopping.is_set():
            with _logging_errors(service):
                status = _status(verdict())
                if status != shown:
                    servicer.set(service, status)
                    shown = status
            stopping.wait(_INTERVAL)

    servicer.set(service, _status(verdict()))
    thread = threading.Thread(target=follow, name=f"health of {service}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        servicer.set(service, _NOT_SERVING)


@asynccontextmanager
async def aio_report_status(
    verdict: Callable[[], Verdict], servicer: AioServicer, *, service: str
) -> AsyncIterator[None]:
    """Keep the status of one service like :func:`report_status`, for a server of ``grpc.aio``."""
    _check(verdict, service)

    async def follow() -> None:
        shown = None
        while True:
            with _logging_errors(service):
                status = _status(verdict())
                if status != shown:
                    await servicer.set(service, status)
                    shown = status
            await asyncio.sleep(_INTERVAL)

    await servicer.set(service, _status(verdict()))
    following = asyncio.create_task(follow(), name=f"health of {service}")
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait({following})
        await servicer.set(service, _NOT_SERVING)


def _check(verdict: object, service: object) -> None:
    check_plain_function("verdict", verdict)
    if not isinstance(service, str) or not service:
        hint = "the empty name is the whole server's, whose status the application sets"
        raise invalid("service", "the name of one service", service, hint)


def _status(verdict: Verdict) -> int:
    return _SERVING if verdict.passes else _NOT_SERVING


@contextmanager
def _logging_errors(service: str) -> Iterator[None]:
    """Log what the block raises, and go on: nobody else would hear of it."""
    try:
        yield
    except Exception:
        logger.exception("the status of service %r stays what it is", service)
