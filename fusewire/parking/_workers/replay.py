"""Parked messages, given to the handler again after recovery, no faster than can be borne."""

from __future__ import annotations

import asyncio
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

    A message is called in-process; it goes back to its source queue only by way of a delay, after
    a failed attempt. While the circuit of a message in hand is open it stays in hand, within the
    hold limit.
    """

    def __init__(
        self, lane: str, context: ConsumerContext, *, concurrency: int, rate: float | None
    ) -> None:
        self._lane = lane
        self._settler = context.settler
        self._attempts = context.attempts
        self._policy = context.policy
        self._circuits = context.circuits
        self._dependencies = context.dependencies
        self._stopping = context.stopping
        self._members = context.dependencies.members(lane)
        self._broker = context.broker
        self._queue = context.topology.parked(lane)
        self._concurrency = concurrency
        self._in_hand = 0
        self._ramps: defaultdict[str, SlowStart] = defaultdict(lambda: SlowStart(concurrency))
        self._pace = RateLimiter(rate)
        self._receiver = Receiver(
            context.broker,
            self._queue,
            prefetch=concurrency,
            work=self._take,
            stopping=context.stopping,
            shutdown_timeout=context.shutdown_timeout,
            ready=self._admitted_at_all,
            hand_back=self._hand_back,
            settling=context.settler.is_settling,
            unseen_too=True,
        )

    async def _hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        if not tried:
            await self._settler.put_back(delivery)

    async def run(self) -> None:
        """Replay until stopping."""
        async with asyncio.TaskGroup() as group:
            gates = group.create_task(self._open_gates())
            try:
                await self._receiver.run()
            finally:
                gates.cancel()

    async def _open_gates(self) -> None:
        await self._stopping.wait()
        for ramp in self._ramps.values():
            ramp.open()

    async def _take(self, delivery: Delivery) -> Recycle | None:
        self._in_hand += 1
        try:
            return await self._work_on(delivery)
        finally:
            self._in_hand -= 1

    async def _work_on(self, delivery: Delivery) -> Recycle | None:
        """Settle one parked delivery."""
        item = await self._settler.open(delivery, self._receiver)
        if not isinstance(item, InFlight):
            return item
        ramp = self._ramps[item.history.dependency]
        try:
            if (ending := await self._rest(item)) is not None:
                return await self._settler.settle(item, ending)
            async with ramp:
                ending = await self._attempts.run(item, _Replay(self, ramp))
                return await self._settler.settle(item, ending)
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
        while not item.delivery.lost and (rest := self._policy.rest(history)) > 0:
            if self._receiver.ending or self._settler.held_for(item) <= 0:
                return Recycle(tried=False)
            await self._receiver.linger(min(rest, _LONGEST_WAIT))
            if rest > _LONGEST_WAIT and await self._is_full():
                return self._policy.park(history, history.dependency, CONDITION, wait=rest)
        return None

    async def wait(self, item: InFlight, needs: tuple[str, ...], ramp: SlowStart) -> Ending | None:
        """Wait for its turn and until all that `item` needs admits; or return its end instead."""
        while not item.delivery.lost:
            if self._policy.expired(item.history):
                return self._policy.dead(item.history, "expired")
            if self._receiver.ending or (left := self._settler.held_for(item)) <= 0:
                return Recycle(tried=False)
            refusing = self._circuits.first_rejecting(needs)
            if refusing is None:
                if ramp.crowded:
                    # What took its place before the circuit opened does not begin all at once.
                    await ramp.stand_in_line_again()
                    continue
                wait = self._pace.start()
                if not wait:
                    return None
                await sleep_unless_stopping(min(wait, left), self._stopping)
                continue
            elsewhere = self._dependencies.lane(refusing) != self._lane
            if elsewhere or await self._in_the_way(item):
                return self._attempts.park(item.history, refusing)
            if self._circuits.is_open(refusing):
                ramp.failed()
            await self._circuits.wait_for_change(refusing, self._stopping, left)
        return None

    async def refused(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Wait a moment, or park `item` if its circuit has another lane."""
        if self._dependencies.lane(rejection.name) != self._lane:
            return self._attempts.park(item.history, rejection.name)
        wait = min(max(rejection.retry_after, AFTER_REJECTION), _LONGEST_WAIT)
        await sleep_unless_stopping(wait, self._stopping)
        return None

    async def _in_the_way(self, item: InFlight) -> bool:
        """Tell whether `item` keeps others from their turn, and may go to the tail for them.

        Of a lane for several dependencies, all that is in hand may wait for one that is down, while
        what is behind it waits for one that has recovered.
        """
        if len(self._members) == 1 or not self._policy.may_go_round(item.history):
            return False
        return await self._is_full()

    async def _is_full(self) -> bool:
        """Tell whether as many are in flight as may be, and others wait behind them."""
        if self._in_hand < self._concurrency:
            return False
        try:
            return await self._broker.depth(self._queue) > 0
        except BrokerError:
            return False

    async def _admitted_at_all(self) -> None:
        # While everything that the lane is for is down, nothing is taken into hand.
        while self._members and not self._stopping.is_set():
            if any(self._circuits.admits(name) for name in self._members):
                return
            await self._circuits.wait_for_change(self._soonest(), self._stopping, float("inf"))

    def _soonest(self) -> str:
        return min(self._members, key=self._circuits.wait)


class _Replay:
    """The turn of one parked message, in the places of its dependency's ramp."""

    def __init__(self, lane: ReplayWorker, ramp: SlowStart) -> None:
        self._lane = lane
        self._ramp = ramp
        self._falls = ramp.falls

    def suspicion(self, delivery: Delivery) -> float:
        return RETURNS_BEFORE_ALONE if delivery.counts_returns else 1

    async def admit(self, item: InFlight, needs: tuple[str, ...]) -> Ending | None:
        return await self._lane.wait(item, needs, self._ramp)

    def begins(self, *, in_outage: bool) -> None:
        self._ramp.begins(outage=in_outage)
        self._falls = self._ramp.falls

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        self._ramp.failed()
        return await self._lane.refused(item, rejection)

    def ended(self, attempt: Attempt, verdict: Verdict, *, in_outage: bool) -> None:  # noqa: ARG002
        if isinstance(verdict, Done):
            self._ramp.succeeded(self._falls)
        elif attempt.error is not None:
            self._ramp.failed()
