"""The source queue in its order: while a circuit is open it pauses, and parks nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from typing import TYPE_CHECKING

from fusewire._log_fields import fields
from fusewire.parking._circuits import AFTER_REJECTION
from fusewire.parking._decisions import Dead, Delay, Done, Park, Recycle
from fusewire.parking._in_flight import InFlight
from fusewire.parking._outage_probe import OutageProbe, RetainedHistories
from fusewire.parking._pause_log import PauseLog
from fusewire.parking._receiver import Receiver
from fusewire.parking._waiting import sleep_unless_stopping

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker import CircuitOpenError
    from fusewire.brokers import Delivery
    from fusewire.parking._attempt import AttemptEnd
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Ending

logger = logging.getLogger("fusewire.parking")

_RETURNS_BEFORE_HOLDING = 8
"""Returns after which a message stays in flight while its circuit is open.

RabbitMQ 4 drops a message of a quorum queue after twenty returns, unless the queue says otherwise,
which AMQP does not show (https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling).
"""

_RETURNS_BEFORE_PARKING = 15
"""Returns after which a message is parked: it loses its place, and is not lost itself.

What is left of the twenty is for connections that drop.
"""

_GLANCE = 1.0
"""Seconds between looks at whether a delivery in flight was lost, and at whether others pass it."""


class OrderedWorker:
    """Works on the source queue in its order.

    Handlers begin in the order of the queue. When the circuit of a message is open, it goes back
    with all that is behind it, in order, and nothing is consumed until the open time is over.
    Failures in a closed circuit are tried again in place, and what is behind them waits: all of it,
    if `concurrency` is 1.
    """

    replays = False

    def __init__(
        self,
        context: ConsumerContext,
        *,
        concurrency: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._queue = context.topology.source
        self._monotonic = monotonic
        self._probe = OutageProbe(context.policy.retry.max_attempts)
        self._unsettled = RetainedHistories()
        self._unseen_until = 0.0  # when a circuit that is not among ours may admit again
        self._somebody_aside = False
        # Both are fair: who waits first begins first.
        self._room = asyncio.Semaphore(concurrency)
        self._door = asyncio.Lock()
        self._begun = 0
        self._handling = 0
        self._pausing = False
        self._log = PauseLog(self._queue, monotonic)
        context.replicas.receives = lambda: not self._pausing
        self.receiver = Receiver(
            context,
            self._queue,
            # One more than is handled, to stand aside. And never fewer: a quorum queue puts what
            # comes back behind what came back before and was not delivered since.
            prefetch=concurrency + 1,
            work=self._take,
            hand_back=self._hand_back,
            ready=self._admitted_at_all,
        )

    @property
    def paused_by(self) -> str | None:
        """The breaker for which nothing is consumed now, if any. Safe to ask from any thread."""
        outage = self._probe.outage
        if outage is None or self._pausing or self._context.circuits.is_open(outage):
            return outage
        return None

    async def run(self) -> None:
        """Consume until stopping."""
        await self.receiver.run()

    async def _hand_back(self, delivery: Delivery, _tried: bool) -> None:  # noqa: FBT001 - a callback
        await self._context.settler.put_back_suspect(delivery)

    def suspicion(self, delivery: Delivery) -> float:
        """Return the returns from which on `delivery` is suspected of killing its process.

        Each pause returns what is in flight. So these are many, and say nothing in an outage, or if
        they are not counted.
        """
        if self._probe.outage is not None or not delivery.counts_returns:
            return math.inf
        return _RETURNS_BEFORE_PARKING

    async def _admitted_at_all(self) -> None:
        self._pausing = True
        await self._context.attempts.ready()
        circuits, stopping = self._context.circuits, self._context.stopping
        while not stopping.is_set():
            outage = self._probe.outage
            refusing = circuits.first_rejecting(
                (*(() if outage is None else (outage,)), *self._context.dependencies.always)
            )
            unseen = self._unseen_until - self._monotonic()
            if refusing is None and unseen <= 0:
                break
            if refusing is not None:
                self._probe.outage = refusing
            if self._probe.outage is not None:
                self._log.paused(self._probe.outage)
            if refusing is None:
                await sleep_unless_stopping(unseen, stopping)
            else:
                await circuits.wait_for_change(refusing, stopping, math.inf)
        self._probe.begin()
        self._somebody_aside = False
        self._pausing = False

    async def _take(self, delivery: Delivery) -> Recycle | None:
        """Work on one delivery in its turn."""
        recycle = await self._in_turn(delivery)
        if recycle is not None and not recycle.tried:
            # What must not be tried twice loses its place, or it would be dead as ambiguous.
            await self._context.settler.put_back(delivery)
        return recycle

    async def _in_turn(self, delivery: Delivery) -> Recycle | None:
        since = self._monotonic()
        try:
            if not await self._takes_turn(delivery):
                return Recycle(tried=False)
        except asyncio.CancelledError as error:
            # Nothing was done with it: it must not look as if it had been.
            return Recycle(tried=False, cancelled=error)
        try:
            try:
                item = await self._next(delivery, since)
                if isinstance(item, InFlight) and self._probe.outage is not None:
                    return await self._begin(item)  # with the door closed: one at a time
            finally:
                self._door.release()
            return await self._begin(item) if isinstance(item, InFlight) else item
        finally:
            self._room.release()

    async def _takes_turn(self, delivery: Delivery) -> bool:
        """Wait, and take the room and the door; False if `delivery` has to go back instead."""
        if self._probe.yields_turn and not self._somebody_aside:
            self._somebody_aside = True
            if not await self._stands_aside(delivery):
                return False
        await self._room.acquire()
        try:
            await self._door.acquire()
        except BaseException:
            self._room.release()
            raise
        return True

    async def _next(self, delivery: Delivery, since: float) -> InFlight | Recycle | None:
        """Wait until `delivery` may begin; None if there is nothing left to do about it."""
        if self.receiver.ending:
            return Recycle(tried=False)
        if delivery.lost:
            return None
        item = await self._context.settler.open(delivery, self.receiver, since=since)
        if not isinstance(item, InFlight):
            return item
        self._excuse_returns(item)
        if delivery.redelivered:
            item.history = self._unsettled.recall(delivery.message) or item.history
        try:
            needs = self._context.attempts.needs(item)
        except Exception:  # noqa: BLE001 - the user's depends_on; the attempt reports it
            return item
        ending = await self.admit(item, needs)
        if ending is not None:
            return await self._context.settler.settle(item, ending)
        return None if item.delivery.lost else item

    def _excuse_returns(self, item: InFlight) -> None:
        """Count no returns by which replicas waited for the end of an outage.

        This process has survived its own. Those of others it cannot tell from crashes: so none up
        to now counts if this is in an outage, or first seen after one. If it was a crash after all,
        suspicion comes as many crashes later as there are replicas.
        """
        delivery, survived = item.delivery, self._context.survived
        if item.lone or not delivery.returned or not self._probe.had_outage:
            return
        if self._probe.outage is not None or not survived.knows(delivery):
            survived.excuse(delivery)

    async def _begin(self, item: InFlight) -> Recycle | None:
        self._begun += 1
        self._handling += 1
        try:
            return await self._work_on(item)
        finally:
            self._handling -= 1

    async def _stands_aside(self, delivery: Delivery) -> bool:
        """Let others go first, as long as there are any; False if `delivery` has to go back."""
        while self._probe.yields_turn and not delivery.lost:
            begun = self._begun
            await self.receiver.linger(_GLANCE)
            if self.receiver.ending:
                return False
            if begun == self._begun and not self._handling:
                break
        return True

    async def admit(self, item: InFlight, needs: tuple[str, ...]) -> Ending | None:
        """Wait until `item` may begin; return its end instead if its time is over."""
        while not item.delivery.lost:
            if self.receiver.ending:
                return await self._give_back(item)
            if self._context.policy.expired(item.history):
                return self._context.policy.dead(item.history, "expired")
            refusing = self._context.circuits.first_rejecting(needs)
            if refusing is None:
                break
            left = self._context.settler.held_for(item)
            if self._context.circuits.is_open(refusing):
                self._probe.outage = refusing
                if item.delivery.returned < _RETURNS_BEFORE_HOLDING:
                    return await self._give_back(item)
            if left <= 0:
                return await self._give_back(item)
            await self._context.circuits.wait_for_change(refusing, self._context.stopping, left)
        return None

    def begins(self, *, in_outage: bool) -> None:
        """Do nothing: messages begin one by one as it is."""

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Wait in place, or let `item` go back if its circuit cannot be looked at."""
        item.history = dataclasses.replace(item.history, dependency=rejection.name)
        if not self._context.circuits.knows(rejection.name):
            self._probe.outage = rejection.name
            self._unseen_until = self._monotonic() + rejection.retry_after
            return await self._give_back(item)
        await sleep_unless_stopping(AFTER_REJECTION, self._context.stopping)
        return None

    def ended(self, item: InFlight, end: AttemptEnd) -> bool:  # noqa: ARG002
        """Count a probe that failed. What is tried again in place, :meth:`_work_on` decides."""
        if end.in_outage and isinstance(end.verdict, Park):
            self._probe.failed()
        return False

    async def _give_back(self, item: InFlight) -> Recycle:
        """Let `item` go back to its place, with all that is in flight."""
        if item.lone:  # it is stored again, without its failures: it has its process to answer for
            return Recycle(tried=item.tried, expected=True)
        waits_for = self._probe.outage
        if waits_for is not None and item.delivery.returned >= _RETURNS_BEFORE_PARKING:
            logger.warning(
                "operation %s was returned to %r %d times and is parked, or the broker might drop "
                "it: it loses its place; give the queue x-delivery-limit=-1",
                item.history.operation_id,
                self._queue,
                item.delivery.returned,
                extra=fields(
                    "message.returned",
                    queue=self._queue,
                    operation_id=item.history.operation_id,
                    count=item.delivery.returned,
                ),
            )
            parked = self._context.attempts.park(item.history, waits_for)
            recycle = await self._context.settler.settle(item, parked)
            return recycle or Recycle(tried=True, settled=True, expected=True)
        if item.tried or item.history.dependency:
            self._unsettled.keep(item.delivery.message, item.history)
        return Recycle(tried=item.tried, expected=True)

    async def _work_on(self, item: InFlight) -> Recycle | None:
        """Try `item` until it is settled or has to go back."""
        while True:
            ending = await self._context.attempts.run(item, self)
            match ending:
                case None | Dead() | Recycle():
                    return await self._context.settler.settle(item, ending)
                case Done():
                    return await self._context.settler.settle(item, ending) or self._succeeded()
                case Park(history):
                    item.history = history.unparked(item.history)
                case Delay(history) if history.lone or history.reason == "postponed":
                    # It gives up its place: its handler has asked for another time, or it has to be
                    # alone.
                    return await self._context.settler.settle(item, ending)
                case Delay(history, delay):
                    item.history = history.unparked(item.history)
                    await self._back_off(item, delay)

    async def _back_off(self, item: InFlight, seconds: float) -> None:
        # However long the delays: all attempts have to be made within the time it may be held.
        attempts_left = max(self._context.policy.retry.max_attempts - item.history.attempts, 1)
        most = max(self._context.settler.held_for(item), 0.0) / attempts_left
        until = self._monotonic() + min(seconds, most)
        while (left := until - self._monotonic()) > 0:
            if self.receiver.ending or item.delivery.lost:
                return
            await self.receiver.linger(min(left, _GLANCE))

    def _succeeded(self) -> Recycle | None:
        outage = self._probe.outage
        closed = outage is None or self._context.circuits.first_not_closed((outage,)) is None
        self._probe.succeeded(closed=closed)
        if closed:
            self._log.resumed()
        if closed and self._probe.yields_turn:
            # The one aside is to come before what is behind it.
            return Recycle(tried=True, settled=True, expected=True)
        return None
