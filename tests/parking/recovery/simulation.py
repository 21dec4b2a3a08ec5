"""One recovery: a server that is back, live traffic, and replicas with a backlog to replay."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fusewire.breaker import Durations
from fusewire.parking._controller_settings import ControllerSettings
from fusewire.parking._replay_controller import ReplayController
from fusewire.parking._replay_lane import turn_of
from tests.parking.recovery.circuit import Circuit
from tests.parking.recovery.clients import Backlog, LiveTraffic, Replica
from tests.parking.recovery.events import Events
from tests.parking.recovery.server import DISTRIBUTIONS, KINDS, Deadlines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fusewire.breaker import Baseline

WARM_UP = 60.0
"""Seconds of live traffic alone, before the recovery."""

MOST_IDEALS = 5
"""A recovery is given up after this many times the ideal time."""

Change = Callable[["Simulation"], None]
"""What happens in the middle of a recovery."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated.

    Attributes:
        replicas: how many there are when the recovery begins.
        ratio: the server's capacity by the rate of live calls.
        backlog: messages.
        ideal: seconds in which the backlog could be replayed; None where that follows from the
            spare capacity.
        kind: of the server.
        distribution: of the service time.
        capacity: calls a second.
        at_a_time: calls that the server works on at a time.
        deadline: seconds of each call.
        heavy: how much more work a replay is than a live call.
        measured: live calls that each replica measured before the outage; 0 for no baseline.
        known_replicas: factor of the number of replicas as they know it.
        known_reference: factor of the reference as they know it.
        changes: what happens when, in seconds after the recovery began.
        most_replicas: how many there are at most.
        settings: of the controller.
    """

    replicas: int
    ratio: float = 3.0
    backlog: int = 50_000
    ideal: float | None = None
    kind: str = "collapses"
    distribution: str = "exp"
    capacity: float = 1000.0
    at_a_time: int = 16
    deadline: float = 2.0
    heavy: float = 1.0
    measured: int = 100
    known_replicas: float = 1.0
    known_reference: float = 1.0
    changes: Sequence[tuple[float, Change]] = ()
    most_replicas: int | None = None
    settings: ControllerSettings = field(default_factory=ControllerSettings)

    @property
    def ideal_seconds(self) -> float:
        if self.ideal is not None:
            return self.ideal
        return self.backlog / (self.capacity - self.capacity / self.ratio)


@dataclass(frozen=True)
class Result:
    """What came of a recovery.

    Attributes:
        drain: how long it took, by the ideal time; at most 5.
        queue: the most calls that were queued, by the limit.
        p99: of live calls, by that before.
        failed: share of live calls that failed or were rejected by their own circuits.
        opened: how often the circuit of a replica opened, on average.
        refused: replays that the server refused, by the backlog.
        replaying: replicas that replayed anything.
    """

    drain: float
    queue: float
    p99: float
    failed: float
    opened: float
    refused: float
    replaying: int


class Simulation:
    """One run of a scenario; the same seed gives the same run."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self._seed = seed
        rng = self._rng = random.Random(seed)
        self.events = Events(-WARM_UP)
        self.server = KINDS[scenario.kind](
            self.events,
            capacity=scenario.capacity,
            at_a_time=scenario.at_a_time,
            queue_limit=max(8 * scenario.at_a_time, 50),
            draw=DISTRIBUTIONS[scenario.distribution](rng),
            heavy=scenario.heavy,
        )
        self._deadlines = Deadlines(self.events, scenario.deadline)
        self.live = LiveTraffic(
            self.events,
            rng,
            self.server,
            self._deadlines,
            rate=scenario.capacity / scenario.ratio,
        )
        self.backlog = Backlog(scenario.backlog)
        self.replicas: list[Replica] = []
        self._before: list[float] = []

    def run(self) -> Result:
        scenario, events = self.scenario, self.events
        self.live.begin()
        events.run(0.0, lambda: False)
        self._before = self.live.durations
        self.live.reference = self._baseline(self._before).reference
        self.live.count_from_now_on()
        self.server.most_queued = 0
        for when, change in scenario.changes:
            events.at(when, lambda _, change=change: change(self))
        self.add_replicas(scenario.replicas, first=True)
        backlog = self.backlog
        events.run(
            MOST_IDEALS * scenario.ideal_seconds + 20,
            lambda: backlog.done == backlog.messages,
        )
        return self._result()

    def add_replicas(self, count: int, *, first: bool) -> None:
        scenario, number = self.scenario, len(self.replicas)
        known = round(scenario.known_replicas * (number + count))
        for index in range(number, number + count):
            controller = ReplayController(
                scenario.settings, clock=self.events.clock, rng=self._rng.random
            )
            circuit = Circuit(self.events, self._rng)
            if first:
                circuit.open(0.0)
            controller.begin(
                known,
                self._known_baseline(),
                turn=turn_of(f"replica-{index}", "payments", f"outage-{self._seed}"),
                first=first,
            )
            replica = Replica(
                self.events,
                controller,
                circuit,
                server=self.server,
                deadlines=self._deadlines,
                backlog=self.backlog,
                live=self.live,
            )
            self.replicas.append(replica)
            self.events.at(self.events.now, lambda _, replica=replica: replica.replay())

    def _known_baseline(self) -> Baseline | None:
        """Return what one replica knows of live calls."""
        if not self.scenario.measured:
            return None
        baseline = self._baseline(self._rng.choices(self._before, k=self.scenario.measured))
        reference = baseline.reference * self.scenario.known_reference
        return replace(baseline, reference=reference)

    def _baseline(self, durations: list[float]) -> Baseline:
        """Return what a breaker says of live calls that took so long."""
        measured = Durations(self.events.clock)
        for one in durations:
            measured.record(one)
        baseline = measured.baseline()
        assert baseline is not None
        return baseline

    def _result(self) -> Result:
        scenario, live, backlog = self.scenario, self.live, self.backlog
        drained = backlog.done == backlog.messages
        return Result(
            drain=min(5.0, self.events.now / scenario.ideal_seconds) if drained else 5.0,
            queue=self.server.most_queued / self.server.queue_limit,
            p99=_p99(live.durations) / _p99(self._before),
            failed=live.failed / max(1, live.made),
            opened=sum(one.circuit.opens for one in self.replicas) / len(self.replicas),
            refused=backlog.refused / backlog.messages,
            replaying=sum(one.done > 0 for one in self.replicas),
        )


def _p99(durations: list[float]) -> float:
    return sorted(durations)[int(0.99 * len(durations))] if durations else float("nan")


# What may happen in the middle.


def capacity(share: float) -> Change:
    """The server has a share of its capacity from now on."""

    def change(simulation: Simulation) -> None:
        simulation.server.share = None if share == 1 else lambda: share

    return change


def warming_up(begin: float, seconds: float) -> Change:
    """The server has a share of its capacity, and all of it after some seconds (cold caches)."""

    def change(simulation: Simulation) -> None:
        events, since = simulation.events, simulation.events.now
        simulation.server.share = lambda: min(
            1.0, begin + (1 - begin) * (events.now - since) / seconds
        )

    return change


def fails(simulation: Simulation) -> None:
    """The server is down again."""
    simulation.server.fail()


def is_back(simulation: Simulation) -> None:
    """The server is up again."""
    simulation.server.down = False


def replicas(number: int) -> Change:
    """There are so many replicas from now on; only those that join know it at once."""

    def change(simulation: Simulation) -> None:
        running = [one for one in simulation.replicas if not one.stopped]
        for leaving in running[number:]:
            leaving.stopped = True
        if number > len(running):
            simulation.add_replicas(number - len(running), first=False)

    return change


def counted(simulation: Simulation) -> None:
    """Every replica has counted them."""
    running = [one for one in simulation.replicas if not one.stopped]
    for replica in running:
        known = round(simulation.scenario.known_replicas * len(running))
        replica.controller.replicas(known)
        replica.replay()
