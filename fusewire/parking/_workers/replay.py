"""Parked messages, given to the handler again after recovery, no faster than can be borne."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

from fusewire.parking._circuits import AFTER_REJECTION
from fusewire.parking._decisions import CONDITION, Recycle
from fusewire.parking._in_flight import InFlight
from fusewire.parking._rate_limiter import RateLimiter
from fusewire.parking._waiting import sleep_unless_stopping
from fusewire.parking._workers.participation import Participation
from fusewire.parking._workers.replay_turn import ReplayTurn

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker import CircuitOpenError
    from fusewire.brokers import Delivery
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Ending
    from fusewire.parking._line import Place
    from fusewire.parking._replay_controller import ReplayFigures
    from fusewire.parking._settings import ReplayPolicy

_LONGEST_WAIT = 1.0
"""Seconds between replays of a message whose circuit is not among ours, and cannot be looked at.

Also the seconds for which a message rests in flight before it makes room for others, and between
looks whether one that waits for its turn has to go back.
"""

_GRANULARITY = 0.001
"""Seconds that asyncio's timers are exact to. A replay that is due earlier than that begins now."""


class ReplayWorker:
    """Replays one lane.

    The handler is called in this process; a message goes back to its source queue only by way of
    a delay, after a failed attempt. While its circuit is open, a message in flight stays in
    flight, within the hold limit.

    Args:
        lane: its name.
        context: what it shares with the consumer's other workers.
        policy: how parked messages are replayed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        lane: str,
        context: ConsumerContext,
        *,
        policy: ReplayPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = lane
        self._context = context
        self._members = context.dependencies.members(lane)
        self._queue = context.topology.parked(lane)
        self._rate_limiter = RateLimiter(policy.rate)
        self._numbers = itertools.count()
        self.part = Participation(lane, context, policy=policy, work=self._take, clock=clock)

    def figures(self) -> dict[str, ReplayFigures]:
        """Return how the replay stands, by dependency."""
        return self.part.figures()

    def use(self, policy: ReplayPolicy) -> None:
        """Go on with other limits. What is in flight goes on as it is."""
        self._rate_limiter.limit(policy.rate)
        self.part.use(policy)

    async def run(self) -> None:
        """Replay until stopping."""
        await self.part.run()

    async def _take(self, delivery: Delivery) -> Recycle | None:
        self.part.in_flight += 1
        try:
            return await self._work_on(delivery, next(self._numbers))
        finally:
            self.part.in_flight -= 1

    async def _work_on(self, delivery: Delivery, number: int) -> Recycle | None:
        """Settle one parked delivery."""
        item = await self._context.settler.open(delivery, self.part.receiver)
        if not isinstance(item, InFlight):
            return item
        dependency = item.history.dependency
        if not dependency and len(self._members) == 1:
            dependency = self._members[0]
        recovery = self.part.lane.recovery(dependency)
        if item.history.live_calls:
            recovery.hear(item.history.live_calls)
        turn = ReplayTurn(self, dependency, recovery, number)
        try:
            resting = self._context.policy.rest(item.history) > 0
            ending = await self._rest(item) if resting else None
            if ending is None:
                try:
                    ending = await self._context.attempts.run(item, turn)
                finally:
                    turn.give_up()
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
            if self.part.receiver.ending or self._context.settler.held_for(item) <= 0:
                return Recycle(tried=False)
            with self.part.room_for_others():
                await self.part.receiver.linger(min(rest, _LONGEST_WAIT))
            if rest > _LONGEST_WAIT and await self.part.is_full():
                return self._context.policy.park(history, history.dependency, CONDITION, wait=rest)
        return None

    async def wait(self, item: InFlight, needs: tuple[str, ...], turn: ReplayTurn) -> Ending | None:
        """Wait for its turn and until all that `item` needs admits; or return its end instead."""
        circuits = self._context.circuits
        while not item.delivery.lost:
            if turn.started and circuits.first_rejecting(needs) is None:
                return None
            turn.give_up()
            if not len(turn.recovery.line) and self._begins_at_once(item, needs, turn):
                return None
            with turn.recovery.line.place(turn.number) as place:
                come = await self._in_line(item, needs, turn, place)
            if not isinstance(come, str):
                return come
            # Others may begin meanwhile: it is another circuit that it waits for.
            left = self._context.settler.held_for(item)
            with self.part.room_for_others():
                await circuits.wait_for_change(come, self._context.stopping, left)
        return None

    def _begins_at_once(self, item: InFlight, needs: tuple[str, ...], turn: ReplayTurn) -> bool:
        """Begin the replay of `item` if nothing keeps it, as with most; return whether it began."""
        circuits, recovery = self._context.circuits, turn.recovery
        standing, admits = circuits.glance(turn.dependency)
        if not admits or self._over(item) is not None:
            return False
        if needs != (turn.dependency,) and circuits.first_rejecting(needs) is not None:
            return False
        recovery.see(standing)
        if recovery.due or not recovery.begun or not self.part.join(recovery):
            return False
        self._start_if_due(turn)
        return turn.started

    async def _in_line(
        self, item: InFlight, needs: tuple[str, ...], turn: ReplayTurn, place: Place
    ) -> Ending | str | None:
        """Wait until `item` is the first and may begin.

        Returns:
            None when it begins, or is lost; how it ends instead; or the name of another circuit
            that rejects it.
        """
        while not item.delivery.lost:
            ending = self._over(item)
            if ending is not None:
                return ending
            if not place.first:
                if turn.recovery.open:
                    self.part.fit()  # others may need room
                await place.notice.wait(_LONGEST_WAIT)
                continue
            refusing = self._context.circuits.first_rejecting(needs)
            if refusing is None:
                wait = await self._start(turn)
                if turn.started:
                    return None
                left = self._context.settler.held_for(item)
                await place.notice.wait(min(wait, left, _LONGEST_WAIT))
            else:
                come = await self._in_vain(item, refusing, turn)
                if come is not None:
                    return come
        return None

    def _over(self, item: InFlight) -> Ending | None:
        """Return how `item` ends if it may not wait any longer."""
        if self._context.policy.expired(item.history):
            return self._context.policy.dead(item.history, "expired")
        if self.part.receiver.ending or self._context.settler.held_for(item) <= 0:
            return Recycle(tried=False)
        return None

    async def _in_vain(
        self, item: InFlight, refusing: str, turn: ReplayTurn
    ) -> Ending | str | None:
        """Wait for the circuit `refusing`; return it instead, or an end, to let others pass."""
        circuits = self._context.circuits
        elsewhere = self._context.dependencies.lane(refusing) != self._name
        if elsewhere or (turn.waited and await self._in_the_way(item)):
            return self._context.attempts.park(item.history, refusing)
        turn.waited = True
        if refusing != turn.dependency:
            return refusing
        turn.recovery.see(circuits.standing(refusing))
        self.part.fit()
        left = self._context.settler.held_for(item)
        await circuits.wait_for_change(refusing, self._context.stopping, left)
        return None

    async def _start(self, turn: ReplayTurn) -> float:
        """Begin the replay if it is due; return the seconds until the next look if not."""
        recovery = turn.recovery
        recovery.see(self._context.circuits.standing(turn.dependency))
        if recovery.due or not recovery.begun:
            await self.part.begin(turn.dependency)
            return 0.0
        if not self.part.join(recovery):
            self.part.receiver.leave()
            return 0.0
        return self._start_if_due(turn)

    def _start_if_due(self, turn: ReplayTurn) -> float:
        """Begin the replay unless it has to wait; return for how many seconds."""
        wait = turn.recovery.controller.allowed()
        if wait <= _GRANULARITY:
            wait = self._rate_limiter.start()
            if not wait:
                turn.start()
        return wait

    async def rejected(self, item: InFlight, rejection: CircuitOpenError) -> Ending | None:
        """Wait a moment, or park `item` if its circuit has another lane."""
        if self._context.dependencies.lane(rejection.name) != self._name:
            return self._context.attempts.park(item.history, rejection.name)
        wait = min(max(rejection.retry_after, AFTER_REJECTION), _LONGEST_WAIT)
        with self.part.room_for_others():
            await sleep_unless_stopping(wait, self._context.stopping)
        return None

    def see(self, turn: ReplayTurn) -> None:
        """Look at the circuit of a replay that has ended."""
        turn.recovery.see(self._context.circuits.standing(turn.dependency))

    async def _in_the_way(self, item: InFlight) -> bool:
        """Return whether `item` keeps others from their turn, and may go to the tail for them.

        In a lane for several dependencies, all that is in flight may wait for one that is down,
        while what is behind it waits for one that has recovered.
        """
        if len(self._members) == 1 or not self._context.policy.may_go_round(item.history):
            return False
        return await self.part.is_full()
