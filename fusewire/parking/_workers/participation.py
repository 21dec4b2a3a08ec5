"""Which messages of a lane a replica takes, and when."""

from __future__ import annotations

import logging
import math
import random
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fusewire._background import Background
from fusewire.errors import BrokerError
from fusewire.parking._controller_settings import ControllerSettings
from fusewire.parking._line import Notice
from fusewire.parking._receiver import Receiver
from fusewire.parking._recovery import Recovery
from fusewire.parking._replay_controller import ReplayController
from fusewire.parking._replay_lane import ReplayLane
from fusewire.parking._replay_log import SlowReplayLog
from fusewire.parking._replay_measures import ReplayMeasures
from fusewire.parking._waiting import sleep_unless_stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fusewire.brokers import Delivery
    from fusewire.parking._context import ConsumerContext
    from fusewire.parking._decisions import Recycle
    from fusewire.parking._replay_controller import ReplayFigures
    from fusewire.parking._settings import ReplayPolicy

logger = logging.getLogger("fusewire.parking")

_LOOK = 10.0
"""Seconds between looks at a lane, a fifth more or less."""

_LOOKS_AT_REST = 6
"""Looks between counts of the replicas while nothing is replayed."""

_START, _LONGEST_START = 0.005, 2.0
"""Seconds between the first counts of the replicas, and of them at most."""


class Participation:
    """The part that a replica takes in the replay of one lane.

    A replica that does not take part has no subscription to the lane, and no message of it.

    Args:
        name: the lane.
        context: what it shares with the consumer's other workers.
        policy: how parked messages are replayed.
        work: called with each delivery.
        clock: monotonic seconds.

    Attributes:
        lane: the recoveries of the lane's dependencies.
        receiver: what messages come through.
        in_flight: how many are in flight; the worker counts them.
    """

    def __init__(
        self,
        name: str,
        context: ConsumerContext,
        *,
        policy: ReplayPolicy,
        work: Callable[[Delivery], Awaitable[Recycle | None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._members = context.dependencies.members(name)
        self._queue = context.topology.parked(name)
        self._alone = policy.scope == "cluster"
        self._clock = clock
        self._settings = ControllerSettings(most=policy.concurrency, down=policy.yields)
        self.lane = ReplayLane(
            name,
            replica=context.replica,
            settings=self._settings,
            shared=len(self._members) != 1,
            make=self._make_recovery,
        )
        self._log = SlowReplayLog(self._queue, clock)
        self._looks = 0
        self._changed = Notice()
        self._aside = 0
        self.in_flight = 0
        self.receiver = Receiver(
            context,
            self._queue,
            # Where one replica at a time replays, who subscribes a second time goes to the end of
            # those that wait for their turn. They hold nothing, so the prefetch may be wide.
            prefetch=policy.concurrency if self._alone else 1,
            work=work,
            ready=self._until_taking_part,
            hand_back=self._hand_back,
            unseen_too=True,
        )

    def figures(self) -> dict[str, ReplayFigures]:
        """Return how the replay stands, by dependency."""
        return self.lane.figures()

    def use(self, policy: ReplayPolicy) -> None:
        """Go on with other limits."""
        self._settings = replace(self._settings, most=policy.concurrency, down=policy.yields)
        self.lane.use(self._settings)
        self.fit()

    async def run(self) -> None:
        """Replay until stopping."""
        beside = [
            Background(run, name=f"{what} {self._queue}", logger=logger)
            for what, run in (
                ("what ends the waits of", self._wake_all_when_stopping),
                ("the look at the backlog of", self._look_often),
            )
        ]
        try:
            await self.receiver.run()
        finally:
            for each in beside:
                each.cancel()
            for each in beside:
                await each.finish()

    async def _wake_all_when_stopping(self) -> None:
        await self._context.stopping.wait()
        self.lane.wake_all()
        self._changed.notify()

    async def _hand_back(self, delivery: Delivery, tried: bool) -> None:  # noqa: FBT001 - a callback
        if not tried:
            await self._context.settler.put_back(delivery)

    def _make_recovery(self, dependency: str) -> Recovery:
        context = self._context
        return Recovery(
            ReplayController(self._settings, clock=self._clock),
            ReplayMeasures(
                dependency,
                context.registry,
                context.handler_times,
                enough=self._settings.unmeasured,
            ),
            recovery_timeout=lambda: context.circuits.recovery_timeout(dependency),
            clock=self._clock,
        )

    async def _until_taking_part(self) -> None:
        """Wait until messages of the lane may be taken."""
        stopping = self._context.stopping
        if not self._looks:
            await self._until_counted()
            await self._look()
        while not stopping.is_set():
            await self._until_admitted()
            await self._begin_recovered()
            wait = 0.0 if self._alone else self.lane.takes_messages_in()
            if wait <= 0 or stopping.is_set():  # a stop wakes only those that wait then
                break
            await self._changed.wait(wait)
        self.fit()

    async def _until_counted(self) -> None:
        """Wait until the source is subscribed to, or this replica would not count itself."""
        replicas, waited = self._context.replicas, 0.0
        while not self._alone and waited < _LONGEST_START:
            await replicas.count()
            if replicas.known or await sleep_unless_stopping(_START, self._context.stopping):
                return
            waited += _START

    async def _until_admitted(self) -> None:
        # While everything that the lane is for is down, nothing is taken into flight.
        circuits, stopping = self._context.circuits, self._context.stopping
        while self._members and not stopping.is_set():
            if any(circuits.admits(name) for name in self._members):
                return
            for name in self._members:
                self.lane.recovery(name).see(circuits.standing(name))
            await circuits.wait_for_change(self._soonest(), stopping, math.inf)

    def _soonest(self) -> str:
        return min(self._members, key=self._context.circuits.wait)

    async def _begin_recovered(self) -> None:
        """Begin with what is declared for the lane and has recovered."""
        circuits = self._context.circuits
        for name in self._members:
            recovery = self.lane.recovery(name)
            recovery.see(circuits.standing(name))
            if recovery.due and circuits.admits(name):
                await self.begin(name)

    async def begin(self, dependency: str, *, first: bool = True) -> None:
        """Begin with the replay of `dependency`, unless somebody else does meanwhile."""
        recovery = self.lane.recovery(dependency)
        replicas = await self._count()
        if recovery.due or not recovery.begun:
            self.lane.replicas = replicas
            self.lane.begin(dependency, first=first)
            self._changed.notify()
            self.fit()

    async def _count(self) -> int:
        return 1 if self._alone else await self._context.replicas.count()

    async def _look_often(self) -> None:
        stopping = self._context.stopping
        while True:
            wait = _LOOK * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
            if await sleep_unless_stopping(wait, stopping):
                return
            await self._look()

    async def _look(self) -> None:
        """See how many replicas there are, and whether the lane is empty."""
        lane = self.lane
        if lane.replaying or self._looks % _LOOKS_AT_REST == 0:
            lane.replicas = await self._count()
        self._looks += 1
        listens = self._alone or lane.takes_messages_in() == 0
        if lane.replaying or not listens or self._looks == 1:
            await self._see_backlog()
        if lane.replaying:
            # While its circuit is open, a replay is not slow but waits.
            figures = lane.figures().items()
            self._log.look({name: one for name, one in figures if not lane.recovery(name).open})
        else:
            self.pause()  # in the next outage, others may be the first
        self._changed.notify()
        self.fit()

    async def _see_backlog(self) -> None:
        try:
            waiting = await self._context.broker.depth(self._queue)
        except BrokerError:
            return  # the receiver logs what is wrong
        if self.lane.replaying:
            if not waiting and not self.in_flight:
                self.lane.end()
        elif waiting:
            # It was here before this replica, or others have parked it: they may replay already.
            for name in self._members or ("",):
                if self._context.circuits.admits(name):
                    await self.begin(name, first=False)

    def fit(self) -> None:
        """Have as many messages in flight as may be replayed at a time."""
        if self._alone:
            return
        now = self.receiver.prefetch
        wanted = self.lane.prefetch(now, aside=self._aside)
        if wanted != now:
            self.receiver.resize(wanted)

    def join(self, recovery: Recovery) -> bool:
        """Take part in `recovery` if it is this replica's turn; return whether it is."""
        return self._alone or self.lane.join(recovery)

    def pause(self) -> None:
        """Take no further message for a while, if the next replay is far away."""
        if not self._alone and self.lane.takes_messages_in() > 0:
            self.receiver.leave()

    @contextmanager
    def room_for_others(self) -> Iterator[None]:
        """Have one more message come while one waits for another circuit, or for a time."""
        self._aside += 1
        self.fit()
        try:
            yield
        finally:
            self._aside -= 1

    async def is_full(self) -> bool:
        """Return whether as many are in flight as may be, and others wait behind them."""
        if self.in_flight < self.receiver.prefetch:
            return False
        try:
            return await self._context.broker.depth(self._queue) > 0
        except BrokerError:
            return False
