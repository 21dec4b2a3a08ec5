"""One queue's deliveries, each given to a task of its own, for as long as there is a connection."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fusewire.errors import BrokerError
from fusewire.parking._waiting import Backoff, level_of, wait_any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.brokers import Delivery, Station, Subscription
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Recycle

logger = logging.getLogger("fusewire.parking")

_RECYCLE_GRACE = 600.0
"""Seconds that handlers may take when others' messages have to go back: no reason to cut them off.

With the hold limit before it, this stays below RabbitMQ's consumer timeout of 30 minutes.
"""

_HEED = 5.0
"""Seconds that handlers have to end once they are cancelled."""


class Receiver:
    """Subscribes to a queue, and again whenever the subscription is lost.

    The tasks that work on deliveries are this object's own: aio-pika cancels tasks of its own
    when a connection drops, and a handler cancelled half-way has done who knows what.

    Args:
        context: what it shares with the consumer's other workers.
        queue: the station that is received from.
        prefetch: deliveries in flight at a time.
        work: called with each delivery. May return Recycle: then all that is in flight goes back.
        ready: awaited before each subscription.
        hand_back: awaited with each delivery in flight before it goes back, and whether its handler
            was called.
        unseen_too: whether what goes back includes what was delivered and not received yet. For
            that no more may be delivered, and what then goes back loses its order.
    """

    def __init__(
        self,
        context: ConsumerContext,
        queue: Station | str,
        *,
        prefetch: int,
        work: Callable[[Delivery], Awaitable[Recycle | None]],
        hand_back: Callable[[Delivery, bool], Awaitable[None]],
        unseen_too: bool = False,
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._context = context
        self._queue = queue
        self._name = str(queue)
        self._prefetch = prefetch
        self._work = work
        self._ready = ready
        self._hand_back = hand_back
        self._unseen_too = unseen_too
        self._given_back: list[tuple[Delivery, bool]] = []
        self._cancelled: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(prefetch)
        self._backoff = Backoff()
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._not_begun: set[Delivery] = set()
        self._recycle = asyncio.Event()

    @property
    def ending(self) -> bool:
        """Whether what is in flight goes back: the consumer stops, or subscribes again."""
        return self._context.stopping.is_set() or self._recycle.is_set()

    async def linger(self, seconds: float) -> None:
        """Wait for `seconds`, or until what is in flight goes back."""
        await wait_any(self._context.stopping, self._recycle, seconds)

    async def run(self) -> None:
        """Serve the queue until stopping."""
        try:
            while not self._context.stopping.is_set():
                if self._ready is not None:
                    await self._ready()
                if self._context.stopping.is_set():
                    return
                await self._once()
        except Exception:
            # A defect of ours is no reason to cut handlers off.
            await self._finish(self._context.shutdown_timeout)
            raise
        finally:
            # Normally there are none left; after a cancellation of run() itself they go at once.
            await self._finish(0)

    async def _once(self) -> None:
        try:
            subscription = await self._context.broker.subscribe(
                self._queue, prefetch=self._prefetch
            )
        except BrokerError as error:
            logger.log(level_of(error), "%s; trying again", error)
            await self._backoff.wait(self._context.stopping)
            return
        self._recycle.clear()
        self._given_back.clear()
        try:
            await self._serve(subscription)
            if self._context.stopping.is_set() or self._recycle.is_set():
                # Handlers that run finish, and are settled on the channel that is still open.
                seconds = self._context.shutdown_timeout
                stopping = self._context.stopping.is_set()
                await self._finish(seconds if stopping else max(seconds, _RECYCLE_GRACE))
                await self._return(subscription)
        finally:
            await subscription.release()
        if self._recycle.is_set():
            await self._backoff.wait(self._context.stopping)

    async def _return(self, subscription: Subscription) -> None:
        given_back, self._given_back = self._given_back, []
        if self._unseen_too:
            given_back += [(delivery, False) for delivery in await subscription.quiesce()]
        for delivery, tried in given_back:
            await self._hand_back(delivery, tried)

    async def _serve(self, subscription: Subscription) -> None:
        receiving = asyncio.create_task(self._receive(subscription), name=f"receive {self._name}")
        ends = [
            receiving,
            asyncio.create_task(self._context.stopping.wait()),
            asyncio.create_task(self._recycle.wait()),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        if not receiving.cancelled() and (error := receiving.exception()) is not None:
            if not isinstance(error, BrokerError):
                raise error
            if not self._context.stopping.is_set():
                logger.log(level_of(error), "%s; subscribing again", error)
                await self._backoff.wait(self._context.stopping)

    async def _receive(self, subscription: Subscription) -> None:
        create_task, name = asyncio.get_running_loop().create_task, f"message of {self._name}"
        while True:
            delivery = await subscription.receive()
            task = create_task(self._one(delivery), name=name)
            self._tasks[task] = delivery
            self._not_begun.add(delivery)
            task.add_done_callback(self._ended)

    async def _one(self, delivery: Delivery) -> None:
        try:
            # After a loss, what was in flight still runs: the limit holds over subscriptions.
            async with self._room:
                self._not_begun.discard(delivery)
                recycle = None if delivery.lost else await self._work(delivery)
            if recycle is not None:
                self._give_back(delivery, recycle)
            elif not delivery.lost:
                # Settled: only that is progress. A delivery that comes again and again is not.
                self._backoff.reset()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_ours():
                raise  # that was said when it was cancelled
            # A defect: the delivery stays unsettled and goes back with the subscription.
            self._report(error)
            self._recycle.set()

    def _give_back(self, delivery: Delivery, recycle: Recycle) -> None:
        if not recycle.settled:
            self._given_back.append((delivery, recycle.tried))
        if recycle.cancelled is not None and not self._is_ours():
            self._report(recycle.cancelled)
        if recycle.expected:
            self._backoff.reset()
        self._recycle.set()

    def _is_ours(self) -> bool:
        """Return whether it is this object that cancelled the current task."""
        return asyncio.current_task() in self._cancelled

    def _report(self, error: BaseException) -> None:
        logger.error(
            "a message of %r could not be worked on and goes back", self._name, exc_info=error
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        delivery = self._tasks.pop(task)
        self._cancelled.discard(task)
        if delivery in self._not_begun:
            self._not_begun.remove(delivery)
            self._given_back.append((delivery, False))

    async def _finish(self, seconds: float) -> None:
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        if not late:
            return
        # One that is being settled is not cut off, or its message might be moved and come again.
        settling = self._context.settler.is_settling
        handlers = {task for task in late if not settling(self._tasks[task])}
        if handlers:
            logger.warning(
                "%d handlers of %r did not end within %g s; their messages go back",
                len(handlers),
                self._name,
                seconds,
            )
        self._cancel(handlers)
        # Those who do not heed it settle nothing any more: their channel is closed next.
        _, late = await asyncio.wait(late, timeout=_HEED)
        # Not twice: a plain function cannot be stopped, and the task that waits for it would end.
        self._cancel(late - handlers)

    def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        self._cancelled.update(tasks)
        for task in tasks:
            task.cancel()
