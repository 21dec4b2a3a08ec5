"""A forwarder that runs: ``forward_to()`` starts it, and it ends before its channel is closed."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self

from fusewire._background import Background
from fusewire._log_fields import fields
from fusewire.errors import BrokerError
from fusewire.parking.internal import Backoff, level_of, until_signal, wait_any

if TYPE_CHECKING:
    import concurrent.futures
    from types import TracebackType

    from fusewire.forwarding._call_codec import CallCodec
    from fusewire.forwarding._encryption import MissingKeyError
    from fusewire.parking import ConsumerStatus, ParkingConsumer, ReplayFigures, ReplayPolicy

logger = logging.getLogger("fusewire.forwarding")

_LONGEST_WAIT = 60.0
"""Seconds at most between two starts of a forwarder that errors end."""

_LASTED = 60.0
"""Seconds after which a forwarder that an error ends counts as one that worked."""


class ForwarderHandle:
    """A forwarder that runs, as ``forward_to()`` returns it.

    Use it as a context manager within the channel's, so that replays in flight end before the
    channel is closed: ``async with channel, calls.forward_to(channel):``, or ``with`` if the
    ParkedCalls was entered by ``with``. Otherwise it ends with its :class:`ParkedCalls`. If an
    error ends the forwarder, or something else cancels it, that is logged, and the forwarder is
    started again after growing waits.

    It also stops at a call that it cannot read, because it does not have the key: all that is in
    flight goes back for other forwarders, and this one goes on when the key is there. Until then
    :meth:`status` says why, and health checks fail.
    """

    def __init__(
        self,
        consumer: ParkingConsumer,
        codec: CallCodec,
        entered: asyncio.Event,
        loop: asyncio.AbstractEventLoop,
        thread: int | None,
        *,
        kind: str = "forwarder",
    ) -> None:
        self._consumer = consumer
        self._codec = codec
        self._entered = entered
        self._missing: MissingKeyError | None = None
        self._loop = loop
        self._leaving = asyncio.Event()
        self._thread = thread
        self._name = f"the {kind} of queue {consumer.topology.source!r}"
        self._running: Background | None = None

    def replay_figures(self) -> dict[str, dict[str, ReplayFigures]]:
        """Return how its replays stand; see :meth:`ParkedCalls.replay_figures`."""
        return self._consumer.replay_figures()

    def change_replay(self, policy: ReplayPolicy) -> None:
        """Replay by other limits; see :meth:`ParkedCalls.change_replay`."""
        self._consumer.change_replay(policy)

    def status(self) -> ConsumerStatus:
        """Return how it stands; see :meth:`ParkedCalls.status`."""
        status = self._consumer.status()
        missing = self._missing
        return status if missing is None else dataclasses.replace(status, halted=str(missing))

    @property
    def runs(self) -> bool:
        """Whether it forwards, or is started again soon."""
        return self._running is not None and not self._running.done and self._missing is None

    def start(self) -> None:
        """Start to forward. To be called on the event loop's own thread."""
        self._running = Background(
            self._keep_running,
            name=self._name,
            logger=logger,
            longest_wait=_LONGEST_WAIT,
            extra=self._fields("forwarder.restarting"),
        )

    def stop(self) -> None:
        """Start no further replay. To be called on the event loop's own thread."""
        self._leaving.set()
        self._consumer.stop()

    async def until_stopped(self, *, handle_signals: bool) -> None:
        """Wait until it is stopped and has ended. To be awaited on its own event loop.

        Args:
            handle_signals: whether SIGTERM and SIGINT stop it.
        """

        def stop() -> None:
            self._loop.call_soon_threadsafe(self.stop)

        async with self:
            with until_signal(stop) if handle_signals else nullcontext():
                await self._leaving.wait()
                await self.end()

    def halt(self, missing: MissingKeyError) -> None:
        """Give back all that is in flight, and wait for a key. To be called on the loop's thread.

        Args:
            missing: what cannot be read, and why.
        """
        if self._missing is None:
            logger.error(
                "%s stops, and what is not settled stays parked: %s",
                self._name,
                missing,
                extra=self._fields("forwarder.halted"),
            )
        self._missing = missing
        self._consumer.stop()

    async def end(self) -> None:
        """Start no further replay, and wait until those in flight have ended.

        It may be awaited on any event loop.
        """
        if asyncio.get_running_loop() is not self._loop:
            await asyncio.wrap_future(self._end_elsewhere())
            return
        self.stop()
        if self._running is not None:
            await self._running.finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.end()

    def __enter__(self) -> Self:
        if self._thread == threading.get_ident():
            raise RuntimeError(
                "the forwarder runs on this thread's event loop: use `async with`, or end it with "
                "`await forwarder.end()`"
            )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_elsewhere().result()

    def _end_elsewhere(self) -> concurrent.futures.Future[None]:
        """End it on its own event loop.

        Raises:
            RuntimeError: that loop is closed.
        """
        ending = self.end()
        try:
            return asyncio.run_coroutine_threadsafe(ending, self._loop)
        except RuntimeError:
            ending.close()
            raise

    def _fields(self, event: str) -> dict[str, float | str]:
        return fields(event, queue=self._consumer.topology.source)

    async def _keep_running(self) -> None:
        """Run the consumer, and again after any error, until it is asked to end."""
        await wait_any(self._leaving, self._entered)
        unreachable, broken = Backoff(), Backoff(longest=_LONGEST_WAIT)
        while not self._leaving.is_set():
            began = self._loop.time()
            try:
                async with self._consumer as consumer:
                    if not self._leaving.is_set():
                        await consumer.run(handle_signals=False)
            except BrokerError as error:
                logger.log(
                    level_of(error),
                    "%s; %s tries again",
                    error,
                    self._name,
                    extra=self._fields("forwarder.restarting"),
                )
                backoff = unreachable
            except Exception:
                # Calls are still parked, and without a forwarder they would never be made.
                logger.exception(
                    "an error ended %s; it is started again",
                    self._name,
                    extra=self._fields("forwarder.restarting"),
                )
                backoff = broken
            else:
                if self._missing is None:
                    return
                await self._until_readable(self._missing)
                continue
            if self._loop.time() - began > _LASTED:
                unreachable.reset()
                broken.reset()
            await backoff.wait(self._leaving)

    async def _until_readable(self, missing: MissingKeyError) -> None:
        """Wait until the key that was missing is there, or it is asked to end."""
        backoff = Backoff(longest=_LONGEST_WAIT)
        while not self._leaving.is_set():
            if self._codec.can_read(missing):
                self._missing = None
                logger.warning(
                    "%s has the key that was missing, and goes on",
                    self._name,
                    extra=self._fields("forwarder.resumed"),
                )
                return
            await backoff.wait(self._leaving)
            await self._codec.refresh()
