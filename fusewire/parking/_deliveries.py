"""One subscription's deliveries, each worked on in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from fusewire.errors import BrokerError
from fusewire.parking._decisions import Recycle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fusewire.brokers import Delivery, Subscription
    from fusewire.parking._places import Places

logger = logging.getLogger("fusewire.parking")

_HEED = 5.0
"""Seconds that handlers have to end once they are cancelled."""


class _State(Enum):
    """What becomes of the messages of its queue."""

    SUBSCRIBED = auto()
    """The broker gives it messages."""
    QUIESCED = auto()
    """It takes no more, and finishes what it has."""
    RELEASED = auto()
    """All that was not settled is the broker's again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done with the deliveries of a queue, through whichever subscription they come.

    Attributes:
        name: of the queue, for the log.
        places: how many are worked on at a time.
        may_begin: whether a delivery may be begun; else it goes back.
        take: works on one delivery.
        on_delivery: called when one comes.
        is_settling: whether a delivery is being settled, which must not be cut off.
        on_return: called with each delivery that becomes the broker's again, unsettled.
        on_progress: called when a delivery is settled, or goes back as expected.
        on_recycle: called when all that is in flight has to go back.
    """

    name: str
    places: Places
    may_begin: Callable[[], bool]
    take: Callable[[Delivery], Awaitable[Recycle | None]]
    on_delivery: Callable[[], None]
    is_settling: Callable[[Delivery], bool]
    on_return: Callable[[Delivery], None]
    on_progress: Callable[[], None]
    on_recycle: Callable[[], None]


class Deliveries:
    """What one subscription gives, until it is released.

    The tasks that work on deliveries are this object's own: aio-pika cancels tasks of its own
    when a connection drops, and a handler cancelled half-way has done who knows what.

    Args:
        subscription: where they come from.
        prefetch: how many it gives at a time.
        work: what is done with them.
    """

    def __init__(self, subscription: Subscription, *, prefetch: int, work: Work) -> None:
        self.prefetch = prefetch
        self.ended = asyncio.Event()
        """Set when nothing is received any more."""
        self.idle = asyncio.Event()
        """Set when none is being worked on."""
        self.idle.set()
        self._subscription = subscription
        self._work = work
        self._state = _State.SUBSCRIBED
        self._quiescing = asyncio.Lock()
        self._receiving: asyncio.Task[None] | None = None
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._not_begun: set[Delivery] = set()
        self._given_back: list[tuple[Delivery, bool]] = []
        self._cancelled: set[asyncio.Task[None]] = set()

    @property
    def released(self) -> bool:
        """Whether nothing of it is in flight any more."""
        return self._state is _State.RELEASED

    @property
    def gives_back(self) -> bool:
        """Whether there is something to hand back."""
        return bool(self._given_back)

    @property
    def receiving(self) -> bool:
        """Whether it receives."""
        return self._receiving is not None and not self._receiving.done()

    @property
    def held(self) -> int:
        """How many were received and are not settled."""
        return len(self._tasks) + len(self._given_back)

    @property
    def lost(self) -> BrokerError | None:
        """Why the subscription ended by itself, if it did.

        Raises:
            Exception: a defect ended the receiving.
        """
        receiving = self._receiving
        if receiving is None or not receiving.done() or receiving.cancelled():
            return None
        error = receiving.exception()
        if error is None or isinstance(error, BrokerError):
            return error
        raise error

    def receive(self) -> None:
        """Begin to receive, and to work on what comes."""
        name = f"receive {self._work.name}"
        self._receiving = asyncio.create_task(self._receive(), name=name)
        self._receiving.add_done_callback(lambda _task: self.ended.set())

    async def stop_receiving(self) -> None:
        """Receive no more. The broker may still have messages for this subscription."""
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)

    async def drain(self) -> None:
        """Take no more, and work on what the broker has given already, in its order."""
        for delivery in await self._quiesce():
            self._begin(delivery)

    async def give_back_unseen(self) -> None:
        """Take no more, and let what was not received go back."""
        self._given_back += [(delivery, False) for delivery in await self._quiesce()]

    async def cut_off(self, after: float) -> None:
        """Cancel what is still worked on; its messages go back.

        Args:
            after: seconds that it had, for the log.
        """
        tasks = set(self._tasks)
        if not tasks:
            return
        # One that is being settled is not cut off, or its message might be moved and come again.
        settling = self._work.is_settling
        handlers = {task for task in tasks if not settling(self._tasks[task])}
        if handlers:
            logger.warning(
                "%d handlers of %r did not end within %g s; their messages go back",
                len(handlers),
                self._work.name,
                after,
            )
        self._cancel(handlers)
        # Those who do not heed it settle nothing any more: their channel is closed next.
        _, late = await asyncio.wait(tasks, timeout=_HEED)
        # Not twice: a plain function cannot be stopped, and the task that waits for it would end.
        self._cancel(late - handlers)

    async def hand_back(self, callback: Callable[[Delivery, bool], Awaitable[None]]) -> None:
        """Await `callback` with each delivery that goes back, and whether its handler was called.

        Not with those that are the broker's already.
        """
        given_back, self._given_back = self._given_back, []
        for delivery, tried in given_back:
            if not delivery.lost:
                self._work.on_return(delivery)
                await callback(delivery, tried)

    async def release(self) -> None:
        """Let all go back that is not settled."""
        self._state = _State.RELEASED
        for delivery in self._tasks.values():
            if not delivery.lost:
                self._work.on_return(delivery)
        await self.stop_receiving()
        await self._subscription.release()

    async def abandon(self) -> None:
        """Let all go back at once, and cancel what is still worked on."""
        await self.release()
        await self.cut_off(0)

    async def _quiesce(self) -> Sequence[Delivery]:
        await self.stop_receiving()
        async with self._quiescing:  # so that it is done for all that ask for it
            if self._state is not _State.SUBSCRIBED:
                return ()
            self._state = _State.QUIESCED
            return await self._subscription.quiesce()

    async def _receive(self) -> None:
        while True:
            try:
                delivery = await self._subscription.receive()
            except BrokerError:
                # The broker may deliver them again before their tasks have ended.
                for lost in self._tasks.values():
                    self._work.on_return(lost)
                raise
            self._begin(delivery)

    def _begin(self, delivery: Delivery) -> None:
        self._work.on_delivery()
        task = asyncio.create_task(self._one(delivery), name=f"message of {self._work.name}")
        self._tasks[task] = delivery
        self._not_begun.add(delivery)
        self.idle.clear()
        task.add_done_callback(self._ended)

    async def _one(self, delivery: Delivery) -> None:
        try:
            # What other subscriptions gave still runs: the limit holds for all of them together.
            async with self._work.places:
                self._not_begun.discard(delivery)
                recycle = None
                if not delivery.lost:
                    recycle = (
                        await self._work.take(delivery)
                        if self._work.may_begin()
                        else Recycle(tried=False)
                    )
            if recycle is not None:
                self._recycle(delivery, recycle)
            elif not delivery.lost:
                # Settled: only that is progress. A delivery that comes again and again is not.
                self._work.on_progress()
            elif self._state is _State.QUIESCED:  # nobody receives, who would hear of the loss
                self._work.on_return(delivery)
        except KeyboardInterrupt:
            raise  # Ctrl-C: by this, asyncio ends the program
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_ours():
                raise  # that was said when it was cancelled
            # A defect: the delivery stays unsettled and goes back with the subscription.
            self._report(error)
            self._work.on_recycle()

    def _recycle(self, delivery: Delivery, recycle: Recycle) -> None:
        if not recycle.settled:
            self._given_back.append((delivery, recycle.tried))
        if recycle.cancelled is not None and not self._is_ours():
            self._report(recycle.cancelled)
        if recycle.expected:
            self._work.on_progress()
        self._work.on_recycle()

    def _is_ours(self) -> bool:
        """Return whether it is this object that cancelled the current task."""
        return asyncio.current_task() in self._cancelled

    def _report(self, error: BaseException) -> None:
        logger.error(
            "a message of %r could not be worked on and goes back", self._work.name, exc_info=error
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        delivery = self._tasks.pop(task)
        if not task.cancelled():
            task.exception()  # seen: what it can be, the program ends by
        if delivery in self._not_begun:
            self._not_begun.remove(delivery)
            self._given_back.append((delivery, False))
            if task.cancelled() and task not in self._cancelled:
                # Before its first step, so that it could not say so itself.
                self._report(asyncio.CancelledError())
                self._work.on_recycle()
        self._cancelled.discard(task)
        if not self._tasks:
            self.idle.set()

    def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        self._cancelled.update(tasks)
        for task in tasks:
            task.cancel()
