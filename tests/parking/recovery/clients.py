"""Who calls the server: live traffic, and replicas that replay under the product's controller."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusewire.parking._replay_controller import ReplayFailure
from tests.parking.recovery.circuit import Circuit
from tests.parking.recovery.server import Call, End

if TYPE_CHECKING:
    import random

    from fusewire.parking._replay_controller import ReplayController
    from tests.parking.recovery.events import Events
    from tests.parking.recovery.server import Deadlines, Server

LIVE_CLIENTS = 20

PROBE_NAP = 0.05
"""Seconds until a replica looks again at a half-open circuit whose probes are all taken."""

SOON = 1e-9
"""Seconds that count as none: sums of floats are not exact."""

FAILURES = {End.REFUSED: ReplayFailure.REFUSED, End.LATE: ReplayFailure.LATE}


class LiveTraffic:
    """Calls that come at random, whatever becomes of them, from clients with circuits.

    Args:
        events: the virtual time.
        rng: chance.
        server: what is called.
        deadlines: of the calls.
        rate: calls a second.
    """

    def __init__(
        self,
        events: Events,
        rng: random.Random,
        server: Server,
        deadlines: Deadlines,
        *,
        rate: float,
    ) -> None:
        self._events = events
        self._rng = rng
        self._server = server
        self._deadlines = deadlines
        self._rate = rate
        self.clients = [_LiveClient(self, Circuit(events, rng)) for _ in range(LIVE_CLIENTS)]
        self.made = 0
        self.failed = 0
        self.durations: list[float] = []
        self.reference = math.inf
        """Seconds; a call that takes longer is slow."""
        self.slow_share = 0.25
        """Of the latest 50 calls or so."""

    def begin(self) -> None:
        self._events.at(self._events.now + self._rng.expovariate(self._rate), self._call)

    def count_from_now_on(self) -> None:
        self.made = self.failed = 0
        self.durations = []

    def _call(self, _: object) -> None:
        events = self._events
        events.at(events.now + self._rng.expovariate(self._rate), self._call)
        client = self.clients[int(self._rng.random() * LIVE_CLIENTS)]
        circuit = client.circuit
        self.made += 1
        if circuit.open_until is not None and circuit.wait() > 0:
            self.failed += 1
            return
        call = Call(client, events.now, circuit.admit(), is_replay=False)
        self._deadlines.add(call)
        self._server.send(call)

    def ended(self, call: Call, end: End) -> None:
        if end is not End.OK:
            self.failed += 1
            return
        seconds = self._events.now - call.sent
        self.durations.append(seconds)
        self.slow_share += 0.02 * ((seconds > self.reference) - self.slow_share)


class _LiveClient:
    def __init__(self, traffic: LiveTraffic, circuit: Circuit) -> None:
        self._traffic = traffic
        self.circuit = circuit

    def ended(self, call: Call, end: End) -> None:
        self.circuit.settle(call.generation, ok=end is End.OK)
        self._traffic.ended(call, end)


class Backlog:
    """The parked messages, shared by all replicas."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.left = messages
        self.done = 0
        self.refused = 0


class Replica:
    """Replays while there are messages: it asks its controller and its circuit before each one.

    Args:
        events: the virtual time.
        controller: the product's.
        circuit: its own.
        server: what is called.
        deadlines: of the calls.
        backlog: the messages.
        live: the live traffic, which says how many of its calls are slow.
    """

    def __init__(
        self,
        events: Events,
        controller: ReplayController,
        circuit: Circuit,
        *,
        server: Server,
        deadlines: Deadlines,
        backlog: Backlog,
        live: LiveTraffic,
    ) -> None:
        self._events = events
        self.controller = controller
        self.circuit = circuit
        self._server = server
        self._deadlines = deadlines
        self._backlog = backlog
        self._live = live
        self._wakes = math.inf
        self.stopped = False
        self.done = 0

    def replay(self) -> None:
        """Begin as many replays as may begin now, or look again when one may."""
        events, controller, circuit = self._events, self.controller, self.circuit
        while self._backlog.left > 0 and not self.stopped:
            wait = controller.allowed()
            if wait <= SOON and circuit.open_until is not None:
                wait = circuit.wait()
                if wait == math.inf and not controller.in_flight:
                    wait = PROBE_NAP
            if wait > SOON:
                self._wake(events.now + wait)
                return
            controller.on_start()
            self._backlog.left -= 1
            call = Call(self, events.now, circuit.admit(), is_replay=True)
            self._deadlines.add(call)
            self._server.send(call)

    def ended(self, call: Call, end: End) -> None:
        if self.circuit.settle(call.generation, ok=end is End.OK):
            self.controller.opened()
        if end is End.OK:
            self.done += 1
            self._backlog.done += 1
            seconds = self._events.now - call.sent
            self.controller.on_success(seconds, live_slow=self._live.slow_share)
        else:
            self._backlog.left += 1
            self._backlog.refused += end is End.REFUSED
            self.controller.on_failure(FAILURES[end])
        self.replay()

    def _wake(self, when: float) -> None:
        if when < self._wakes:
            self._wakes = when
            self._events.at(when, self._woken)

    def _woken(self, _: object) -> None:
        if self._events.now >= self._wakes:
            self._wakes = math.inf
            self.replay()
