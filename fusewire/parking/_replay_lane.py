"""When a replica takes part in the replay of a lane, and with how many messages; no I/O."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.parking._controller_settings import ControllerSettings
    from fusewire.parking._recovery import Recovery
    from fusewire.parking._replay_controller import ReplayFigures

_MOST_REMEMBERED = 100
"""Dependencies of a lane that are remembered when it is empty."""

_MOST_ASIDE = 10
"""Messages in flight, at most, that make room for one more each while they cannot be replayed."""

_STEP, _STEP_AHEAD = 2, 4
"""Factors between the prefetches of a lane, without and with messages that are held ahead. One
shrinks by two such steps only: each change costs a subscription."""


def turn_of(replica: str, lane: str, outage: str) -> float:
    """Return when a replica's turn comes, from 0 and below 1, the same in every process.

    Args:
        replica: what tells it from the others.
        lane: the lane; so that not the same replicas are the first in all lanes.
        outage: what tells the outage from others; so that each outage has other first replicas.
    """
    text = f"{replica}\0{lane}\0{outage}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53  # a float has 53 bits: more could round up to 1


class ReplayLane:
    """The recoveries of one lane, by dependency, and the part that one replica takes in them.

    A lane is at rest until a dependency recovers or a message is found in it; then it is replayed
    until it is empty. At rest, those replicas listen that would take part first. They hold no
    message that they do not replay, and what others park is replayed at once.

    Attributes:
        name: the lane.

    Args:
        name: the lane.
        replica: what tells this replica from the others.
        settings: of the controllers.
        shared: whether it is for several dependencies.
        make: makes the recovery of a dependency.
    """

    def __init__(
        self,
        name: str,
        *,
        replica: str,
        settings: ControllerSettings,
        shared: bool,
        make: Callable[[str], Recovery],
    ) -> None:
        self.name = name
        self._replica = replica
        self._settings = settings
        self._shared = shared
        self._make = make
        self._recoveries: dict[str, Recovery] = {}
        self._replicas = 1
        self._outage = 0

    @property
    def replicas(self) -> int:
        """How many replicas there are, this one included."""
        return self._replicas

    @replicas.setter
    def replicas(self, number: int) -> None:
        self._replicas = number
        for recovery in self._begun:
            recovery.controller.replicas(number)

    @property
    def replaying(self) -> bool:
        """Whether the lane is replayed, by this replica or by others."""
        return any(recovery.begun for recovery in self._recoveries.values())

    @property
    def _begun(self) -> list[Recovery]:
        return [recovery for recovery in self._recoveries.values() if recovery.begun]

    def use(self, settings: ControllerSettings) -> None:
        """Go on with other limits."""
        self._settings = settings
        for recovery in self._recoveries.values():
            recovery.controller.use(settings)

    def recovery(self, dependency: str) -> Recovery:
        """Return what is known of one dependency."""
        recovery = self._recoveries.get(dependency)
        if recovery is None:
            recovery = self._recoveries[dependency] = self._make(dependency)
        return recovery

    def begin(self, dependency: str, *, first: bool = True) -> None:
        """Begin to replay what waits for `dependency`.

        Args:
            dependency: the name of its breaker.
            first: whether nobody can be replaying already.
        """
        recovery = self.recovery(dependency)
        if self._replays_beside(recovery):
            # Its messages come to this replica, whatever its turn would be.
            recovery.begin(self._replicas, turn=0.0, first=self._replicas == 1)
        else:
            if recovery.outage == self._outage:
                self._outage += 1
            recovery.begin(self._replicas, turn=self._turn(), first=first or self._replicas == 1)
        recovery.outage = self._outage

    def join(self, recovery: Recovery) -> bool:
        """Take part in `recovery` if it is this replica's turn; return whether it is.

        A replica that takes part for another dependency does not wait for it: the messages come to
        it anyway, and it would give them back again and again.
        """
        if recovery.controller.taking_part:
            return True
        if self._replays_beside(recovery):
            recovery.begin(self._replicas, turn=0.0, first=False)
        return recovery.controller.taking_part

    def end(self) -> None:
        """Take note that the lane is empty, and that nothing of it is in flight."""
        for recovery in self._begun:
            recovery.end()
        self._outage += 1
        if len(self._recoveries) > _MOST_REMEMBERED:
            self._recoveries.clear()

    def takes_messages_in(self) -> float:
        """Return the seconds until messages may be taken; infinity if that is not known."""
        begun = self._begun
        if begun:
            return min(recovery.takes_messages_in() for recovery in begun)
        first = self._turn() * self._replicas < self._settings.few
        return 0.0 if first else math.inf

    def prefetch(self, now: int, *, aside: int) -> int:
        """Return how many messages to have in flight.

        Args:
            now: how many it is now.
            aside: messages in flight that wait for a time, or for another circuit.
        """
        begun = self._begun
        if self._shared:
            # In a lane for several, those whose circuit is open are not to keep others from coming.
            aside += sum(len(each.line) for each in self._recoveries.values() if each.open)
        elif begun and all(recovery.open for recovery in begun):
            return now  # what is in flight stays
        taking_part = [each for each in begun if each.controller.taking_part]
        needed = max(1, sum(each.controller.places for each in taking_part))
        needed += min(aside, _MOST_ASIDE)
        step, enough = _STEP, needed
        if taking_part and all(each.holds_ahead for each in taking_part):
            # To fetch the next message takes longer than such a replay.
            step, enough = _STEP_AHEAD, needed + (needed + 1) // 2
        most = min(self._settings.most + 1, _power_of(step, needed) * step**2)
        if begun and enough <= now < most:
            return now
        return min(_power_of(step, enough), self._settings.most)

    def figures(self) -> dict[str, ReplayFigures]:
        """Return the state of each recovery, by dependency."""
        return {name: each.controller.figures() for name, each in self._recoveries.copy().items()}

    def wake_all(self) -> None:
        """Have all replays that wait look whether they are to end."""
        for recovery in self._recoveries.values():
            recovery.line.wake_all()

    def _replays_beside(self, recovery: Recovery) -> bool:
        others = (other for other in self._begun if other is not recovery)
        return any(other.controller.taking_part for other in others)

    def _turn(self) -> float:
        return turn_of(self._replica, self.name, str(self._outage))


def _power_of(base: int, least: int) -> int:
    """Return the smallest power of `base` that is not below `least`."""
    power = 1
    while power < least:
        power *= base
    return power
