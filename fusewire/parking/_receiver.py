"""Which subscriptions there are to one queue, for as long as its worker takes part."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from fusewire._log_fields import fields
from fusewire._throttle import Throttle
from fusewire._validation import COUNT, check
from fusewire.brokers import Station
from fusewire.errors import BrokerError
from fusewire.parking._deliveries import Deliveries, Work
from fusewire.parking._places import Places
from fusewire.parking._status_watch import NO_ANSWER
from fusewire.parking._waiting import Backoff, wait_any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.brokers import Delivery
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Recycle

logger = logging.getLogger("fusewire.parking")

_RECYCLE_GRACE = 600.0
"""Seconds that handlers may take when others' messages have to go back: no reason to cut them off.

With the hold limit before it, this stays below RabbitMQ's consumer timeout of 30 minutes.
"""

_ARRIVAL = 2.0
"""Seconds from the last settlement of a former subscription to its release.

RabbitMQ holds acknowledgements back before a busy quorum queue, and forgets those when their
channel is closed.
"""

_LOOK = 1.0
"""Seconds between looks whether former subscriptions have finished enough for another one."""


class Receiver:
    """Subscribes to a queue, and again whenever the subscription is lost.

    A subscription keeps its prefetch for life. So :meth:`resize` subscribes a second time. Then the
    former subscription takes no more, its deliveries are finished, and only then it is released:
    to release it earlier would give back messages that are being handled.

    Args:
        context: what it shares with the consumer's other workers.
        queue: the station that is received from.
        prefetch: deliveries in flight at a time, until :meth:`resize` asks for another number.
        work: called with each delivery. May return Recycle: then all that is in flight goes back.
        ready: awaited before there is a subscription, whenever there was none.
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
        self._prefetch = prefetch
        self._ready = ready
        self._hand_back = hand_back
        self._unseen_too = unseen_too
        self._places = Places(prefetch)
        self._backoff = Backoff()
        self._recycle = asyncio.Event()
        self._changed = asyncio.Event()
        self._resize_backoff = Backoff()
        self._resize_at = 0.0  # by the event loop's clock
        self._held: list[Deliveries] = []
        self._retiring: dict[Deliveries, asyncio.Task[None]] = {}
        self._abandoning: asyncio.Task[None] | None = None  # an event loop holds its tasks weakly
        self._troubles = Throttle()
        self.lane = Station.of(queue).lane
        """The lane that is received from; empty for the source queue."""
        self.received_at: float | None = None
        """When the last delivery came, in monotonic seconds."""
        self._work = Work(
            name=str(queue),
            places=self._places,
            may_begin=self._may_begin,
            take=work,
            on_delivery=self._note_delivery,
            is_settling=context.settler.is_settling,
            on_return=context.survived.note,
            on_progress=self._backoff.reset,
            on_recycle=self._recycle.set,
        )

    @property
    def ending(self) -> bool:
        """Whether what is in flight goes back: the consumer stops, leaves, or subscribes again."""
        return self._context.stopping.is_set() or self._recycle.is_set()

    @property
    def subscribed(self) -> bool:
        """Whether there is a subscription that receives. Safe to ask from any thread."""
        return any(each.receiving for each in tuple(self._held))

    @property
    def in_flight(self) -> int:
        """How many were received and are not settled. Safe to ask from any thread."""
        return sum(each.held for each in tuple(self._held) if not each.released)

    @property
    def prefetch(self) -> int:
        """The prefetch that was asked for last."""
        return self._prefetch

    async def linger(self, seconds: float) -> None:
        """Wait for `seconds`, or until what is in flight goes back."""
        await wait_any(self._context.stopping, self._recycle, seconds=seconds)

    def resize(self, prefetch: int) -> None:
        """Have another prefetch soon; returns at once, and the latest call decides.

        Nothing that is in flight goes back for it. Until the deliveries of the former subscription
        are finished, up to both prefetches together are in flight; as many as the larger one allows
        are worked on. While former subscriptions hold more than `prefetch`, the change waits.

        Args:
            prefetch: deliveries in flight at a time, 1 or more.
        """
        check("prefetch", prefetch, COUNT)
        self._prefetch = prefetch
        self._changed.set()

    def leave(self) -> None:
        """Hold nothing, and have no subscription until `ready` returns again; returns at once.

        What has not begun goes back, and what asks :attr:`ending` while it waits. The handlers that
        run finish; `ready` is awaited after that.
        """
        self._backoff.reset()
        self._recycle.set()

    async def run(self) -> None:
        """Serve the queue until stopping."""
        try:
            await self._run()
        except Exception:
            # A defect of ours is no reason to cut handlers off.
            self._recycle.set()
            await self._retire_all()
            raise
        finally:
            # Normally there are none left; after a cancellation of run() itself they go at once,
            # and all of them, even if it is cancelled again meanwhile.
            if self._held:
                self._abandoning = asyncio.create_task(self._abandon(), name=f"leave {self._queue}")
                await asyncio.shield(self._abandoning)

    def _note_delivery(self) -> None:
        self.received_at = time.monotonic()

    def _may_begin(self) -> bool:
        # In a queue that keeps its order, its worker says in which order they go back.
        return not (self._unseen_too and self.ending)

    async def _run(self) -> None:
        stopping = self._context.stopping
        while not stopping.is_set():
            if self._recycle.is_set():
                await self._retire_all()
                self._raise_defects()
                self._recycle.clear()
                await self._backoff.wait(stopping)
            if self._ready is not None:
                await self._ready()
            if not self.ending:
                await self._serve()
        await self._retire_all()
        self._raise_defects()

    async def _serve(self) -> None:
        """Subscribe and receive until the subscription is lost, or all goes back."""
        stopping = self._context.stopping
        serving = await self._subscribe()
        if serving is None:
            await self._backoff.wait(stopping)
            return
        serving.receive()
        while not self.ending and not serving.ended.is_set():
            wait = self._until_resize(serving)
            if wait == 0:
                serving = await self._replace(serving)
                continue
            await wait_any(stopping, self._recycle, self._changed, serving.ended, seconds=wait)
            self._changed.clear()
            self._raise_defects()
        error = serving.lost
        if self.ending:
            return
        if error is None:
            # Its deliveries are not lost: they are finished as those of a former subscription.
            logger.error(
                "receiving from %r was cancelled by something else; subscribing again", self._queue
            )
            await serving.drain()
            await self._backoff.wait(stopping)
        else:
            self._complain(error, "subscribing again")
            if not await self._backoff.wait(stopping):
                await serving.release()
        self._retire(serving)

    async def _subscribe(self) -> Deliveries | None:
        prefetch = self._prefetch
        contact = self._context.contact
        failures = contact.failures
        try:
            subscription = await self._context.broker.subscribe(self._queue, prefetch=prefetch)
        except BrokerError as error:
            self._complain(error, "trying again")
            return None
        contact.answered(failures)
        deliveries = Deliveries(subscription, prefetch=prefetch, work=self._work)
        self._held.append(deliveries)
        self._fit_places()
        return deliveries

    def _complain(self, error: BrokerError, then: str) -> None:
        self._context.contact.failed(error)
        # A broker that does not answer is a line of the contact's, and not one of each queue.
        quiet = error.logged or isinstance(error, NO_ANSWER) or self._troubles.unsaid(error) is None
        logger.log(
            logging.DEBUG if quiet else logging.WARNING,
            "%s; %s",
            error,
            then,
            extra=fields("queue.trouble", queue=str(self._queue)),
        )

    def _until_resize(self, serving: Deliveries) -> float | None:
        """Return the seconds until `serving` is to be replaced, None if it need not be."""
        if serving.prefetch == self._prefetch:
            return None
        # What handlers that do not end keep in flight is no reason to wait for them.
        formers = [each for each in self._held if each is not serving and not each.released]
        if sum(former.held for former in formers) > self._prefetch:
            return _LOOK
        return max(self._resize_at - asyncio.get_running_loop().time(), 0.0)

    async def _replace(self, former: Deliveries) -> Deliveries:
        """Subscribe with the prefetch that is wanted; return what is received from now on."""
        serving = await self._subscribe()
        if serving is None:
            wait = self._resize_backoff.draw()
            self._resize_at = asyncio.get_running_loop().time() + wait
            return former
        self._resize_backoff.reset()
        # All that the former one was given begins before what the new one gives.
        await former.drain()
        if former.lost is not None:
            await former.release()
        self._retire(former)
        serving.receive()
        return serving

    def _retire(self, deliveries: Deliveries) -> None:
        """Finish `deliveries` and release them, in a task of their own."""
        if deliveries not in self._retiring:
            name = f"finish {self._queue}"
            finishing = asyncio.create_task(self._finish(deliveries), name=name)
            finishing.add_done_callback(lambda _task: self._changed.set())
            self._retiring[deliveries] = finishing

    async def _finish(self, deliveries: Deliveries) -> None:
        """Wait until `deliveries` are finished, or have to go back; then release them."""
        stopping = self._context.stopping
        await wait_any(deliveries.idle, stopping, self._recycle)
        await self.linger(_ARRIVAL)
        await deliveries.stop_receiving()
        if self._unseen_too and not stopping.is_set():
            await deliveries.give_back_unseen()
        patience = await self._grant_time(deliveries)
        await deliveries.cut_off(patience)
        if self._unseen_too:
            await deliveries.give_back_unseen()
            if deliveries.gives_back:
                # What is stored again must not come to a subscription of ours that is about to end.
                await self._quiesce_all()
        await deliveries.hand_back(self._hand_back)
        await deliveries.release()
        self._held.remove(deliveries)
        del self._retiring[deliveries]
        self._fit_places()
        self._changed.set()

    async def _quiesce_all(self) -> None:
        if self.ending:
            for each in tuple(self._held):
                await each.give_back_unseen()

    async def _grant_time(self, deliveries: Deliveries) -> float:
        """Wait for the handlers that run, as long as they may take; return that in seconds.

        They are settled on the channel that is still open.
        """
        stopping, seconds = self._context.stopping, self._context.shutdown_timeout
        if not stopping.is_set():
            patience = max(seconds, _RECYCLE_GRACE)
            await wait_any(deliveries.idle, stopping, seconds=patience)
            if not stopping.is_set():
                return patience
        await wait_any(deliveries.idle, seconds=seconds)
        return seconds

    async def _retire_all(self) -> None:
        """Finish and release all that there is."""
        for deliveries in self._held:
            self._retire(deliveries)
        if self._retiring:
            await asyncio.wait(self._retiring.values())

    def _raise_defects(self) -> None:
        """Raise what ended the task of former deliveries, if it was not their end."""
        for task in self._retiring.values():
            if task.cancelled():
                raise RuntimeError("a task of the receiver was cancelled, and not by the receiver")
            if task.done():
                task.result()

    async def _abandon(self) -> None:
        for task in self._retiring.values():
            task.cancel()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)
        self._retiring.clear()
        held, self._held = self._held, []
        await asyncio.gather(*(deliveries.abandon() for deliveries in held))

    def _fit_places(self) -> None:
        """Let as many be worked on at a time as the largest subscription gives."""
        prefetches = [each.prefetch for each in self._held if not each.released]
        self._places.resize(max(prefetches, default=self._prefetch))
