"""Parked messages, given to the handler again after recovery, no faster than can be borne."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from typing import TYPE_CHECKING

from fusewire.errors import BrokerError
from fusewire.parking._circuits import AFTER_REJECTION
from fusewire.parking._decisions import CONDITION, Done, Recycle
from fusewire.parking._in_flight import InFlight
from fusewire.parking._rate_limiter import RateLimiter
from fusewire.parking._receiver import Receiver
from fusewire.parking._settler import RETURNS_BEFORE_ALONE
from fusewire.parking._slow_start import SlowStart
from fusewire.parking._waiting import sleep_unless_stopping

if TYPE_CHECKING:
    from fusewire.breaker import CircuitOpenError
    from fusewire.brokers import Delivery
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Ending, Verdict
    from fusewire.parking._handler import Attempt

_LONGEST_WAIT = 1.0
"""Seconds between replays of a message whose circuit is not among ours, and cannot be looked at.

Also the seconds for which a message rests in flight before it makes room for others.
"""


class ReplayWorker:
    """Replays one lane.

    The handler is called in this process; a message goes back to its source queue only by way of
    a delay, after a failed attempt. While its circuit is open, a message in flight stays in
    flight, within the hold limit.
    """

    def __init__(
        self, lane: str, context: ConsumerContext, *, concurrency: int, rate: float | None
    ) -> None:
        self._lane = lane
        self._context = context
        self._members = context.dependencies.members(lane)
        self._queue = context.topology.parked(lane)
        self._concurrency = concurrency
        self._in_flight = 0
        self._slow_starts: defaultdict[str, SlowStart] = defaultdict(lambda: SlowStart(concurrency))
        self._rate_limiter = RateLimiter(rate)
        self._receiver = Receiver(
            context,
            self._queue,
            prefetch=concurrency,
            work=self._take,
            ready=self._admitted_at_all,
            hand_back=self._hand_back,
            unseen_too=True,
        )

    async def _hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        if not tried:
            await self._context.settler.put_back(delivery)

    async def run(self) -> None:
        """Replay until stopping."""
        async with asyncio.TaskGroup() as group:
            gates = group.create_task(self._open_gates())
            try:
                await self._receiver.run()
            finally:
                gates.cancel()

    async def _open_gates(self) -> None:
        await self._context.stopping.wait()
        for slow_start in self._slow_starts.values():
            slow_start.open()

    async def _take(self, delivery: Delivery) -> Recycle | None:
        self._in_flight += 1
        try:
            return await self._work_on(delivery)
        finally:
            self._in_flight -= 1

    async def _work_on(self, delivery: Delivery) -> Recycle | None:
        """Settle one parked delivery."""
        item = await self._context.settler.open(delivery, self._receiver)
        if not isinstance(item, InFlight):
            return item
        slow_start = self._slow_starts[item.history.dependency]
        try:
            if (ending := await self._rest(item)) is not None:
                return await self._context.settler.settle(item, ending)
            async with slow_start:
                ending = await self._context.attempts.run(item, _Replay(self, slow_start))
                return await self._context.settler.settle(item, ending)
        except asyncio.CancelledError as error:
            if item.goes_back_as_it_is:
                raise
            return Recycle(tried=False, cancelled=error)

    async def _rest(self, item: InFlight) -> Ending | None:
        """Wait, without a place, until what was turned away may be tried again.

        Returns:
            where it goes for the rest of that time, if it keeps others from their turn; Recycle if
            it was held for as long as it may be, or the consumer is stopping.
        """
        history = item.history
        while not item.delivery.lost and (rest := self._context.policy.rest(history)) > 0:
            if self._receiver.ending or self._context.settler.held_for(item) <= 0:
                return Recycle(tried=False)
            await self._receiver.linger(min(rest, _LONGEST_WAIT))
            if rest > _LONGEST_WAIT and await self._is_full():
                return self._context.policy.park(history, history.dependency, CONDITION, wait=rest)
        return None

    async def wait(
        self, item: InFlight, needs: tuple[str, ...], slow_start: SlowStart
    ) -> Ending | None:
        """Wait for its turn and until all that `item` needs admits; or return its end instead."""
        while not item.delivery.lost:
            if self._context.policy.expired(item.history):
                return self._context.policy.dead(item.history, "expired")
            if self._receiver.ending or (left := self._context.settler.held_for(item)) <= 0:
                return Recycle(tried=False)
            refusing = self._context.circuits.first_rejecting(needs)
            if refusing is None:
                if slow_start.crowded:
                    # What took its place before the circuit opened does not begin all at once.
                    await slow_start.stand_in_line_again()
                    continue
                wait = self._rate_limiter.start()
                if not wait:
                    return None
                await sleep_unless_stopping(min(wait, left), self._context.stopping)
                continue
            elsewhere = self._context.dependencies.lane(refusing) != self._lane
            if elsewhere or await self._in_the_way(item):
                return self._context.attempts.park(item.history, refusing)
            if self._context.circuits.is_open(refusing):
                slow_start.failed()
            await self._context.circuits.wait_for_change(refusing, self._context.stopping, left)
        return None

    async def refused(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Wait a moment, or park `item` if its circuit has another lane."""
        if self._context.dependencies.lane(rejection.name) != self._lane:
            return self._context.attempts.park(item.history, rejection.name)
        wait = min(max(rejection.retry_after, AFTER_REJECTION), _LONGEST_WAIT)
        await sleep_unless_stopping(wait, self._context.stopping)
        return None

    async def _in_the_way(self, item: InFlight) -> bool:
        """Return whether `item` keeps others from their turn, and may go to the tail for them.

        In a lane for several dependencies, all that is in flight may wait for one that is down,
        while what is behind it waits for one that has recovered.
        """
        if len(self._members) == 1 or not self._context.policy.may_go_round(item.history):
            return False
        return await self._is_full()

    async def _is_full(self) -> bool:
        """Return whether as many are in flight as may be, and others wait behind them."""
        if self._in_flight < self._concurrency:
            return False
        try:
            return await self._context.broker.depth(self._queue) > 0
        except BrokerError:
            return False

    async def _admitted_at_all(self) -> None:
        # While everything that the lane is for is down, nothing is taken into hand.
        circuits, stopping = self._context.circuits, self._context.stopping
        while self._members and not stopping.is_set():
            if any(circuits.admits(name) for name in self._members):
                return
            await circuits.wait_for_change(self._soonest(), stopping, math.inf)

    def _soonest(self) -> str:
        return min(self._members, key=self._context.circuits.wait)


class _Replay:
    """The turn of one parked message, in the places of its dependency's slow start."""

    def __init__(self, lane: ReplayWorker, slow_start: SlowStart) -> None:
        self._lane = lane
        self._slow_start = slow_start
        self._begun = 0

    def suspicion(self, delivery: Delivery) -> float:
        return RETURNS_BEFORE_ALONE if delivery.counts_returns else 1

    async def admit(self, item: InFlight, needs: tuple[str, ...]) -> Ending | None:
        return await self._lane.wait(item, needs, self._slow_start)

    def begins(self, *, in_outage: bool) -> None:
        self._begun = self._slow_start.begins(outage=in_outage)

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        self._slow_start.failed()
        return await self._lane.refused(item, rejection)

    def ended(self, attempt: Attempt, verdict: Verdict, *, in_outage: bool) -> None:  # noqa: ARG002
        if isinstance(verdict, Done):
            self._slow_start.succeeded(self._begun)
        elif attempt.error is not None:
            self._slow_start.failed()
