"""Servers of limited capacity, and the calls that they are sent."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.parking.recovery.events import Events

REFUSAL = 0.001
"""Seconds until a refusal is back."""

SLOWEST = 4.0
"""How much slower a collapsing server becomes at most."""


class End(Enum):
    """How a call ends for its caller."""

    OK = "ok"
    REFUSED = "refused"
    LATE = "late"


class Client(Protocol):
    """A source of calls."""

    def ended(self, call: Call, end: End) -> None: ...


class Call:
    """One call, with what its client has to know when it ends."""

    __slots__ = ("client", "generation", "is_replay", "over", "sent")

    def __init__(self, client: Client, sent: float, generation: int, *, is_replay: bool) -> None:
        self.client = client
        self.sent = sent
        self.generation = generation
        self.is_replay = is_replay
        self.over = False
        """Whether its caller knows its end. A server may still work on it."""

    def end(self, end: End) -> None:
        if not self.over:
            self.over = True
            self.client.ended(self, end)


class Deadlines:
    """Ends the calls that are not over some seconds after they were sent."""

    def __init__(self, events: Events, seconds: float) -> None:
        self._events = events
        self._seconds = seconds
        self._calls: deque[Call] = deque()

    def add(self, call: Call) -> None:
        self._calls.append(call)
        if len(self._calls) == 1:
            self._events.at(call.sent + self._seconds, self._sweep)

    def _sweep(self, _: object) -> None:
        now, calls = self._events.now, self._calls
        while calls:
            call = calls[0]
            if not call.over:
                if call.sent + self._seconds > now:
                    break
                call.end(End.LATE)
            calls.popleft()
        if calls:
            self._events.at(calls[0].sent + self._seconds, self._sweep)


def exponential(rng: random.Random) -> Callable[[], float]:
    return lambda: rng.expovariate(1.0)


def lognormal(rng: random.Random) -> Callable[[], float]:
    """Heavy tails: the variance is 8.5 times the squared mean."""
    return lambda: math.exp(rng.gauss(-1.125, 1.5))


def bimodal(rng: random.Random) -> Callable[[], float]:
    return lambda: 0.45 if rng.random() < 0.9 else 5.95


def constant(_: random.Random) -> Callable[[], float]:
    return lambda: 1.0


DISTRIBUTIONS = {
    "exp": exponential,
    "lognormal": lognormal,
    "bimodal": bimodal,
    "constant": constant,
}
"""Of the service time, all with a mean of 1."""


class Server:
    """Works on some calls at a time and queues the others; it refuses what the queue cannot take.

    Args:
        events: the virtual time.
        capacity: calls a second.
        at_a_time: calls that it works on at a time.
        queue_limit: calls.
        draw: service times with a mean of 1.
        heavy: how much more work a replay is than a live call.
    """

    def __init__(
        self,
        events: Events,
        *,
        capacity: float,
        at_a_time: int,
        queue_limit: int,
        draw: Callable[[], float],
        heavy: float = 1.0,
    ) -> None:
        self.events = events
        self.capacity = capacity
        self.at_a_time = at_a_time
        self.queue_limit = queue_limit
        self.draw = draw
        self.heavy = heavy
        self.down = False
        self.most_queued = 0
        self.share: Callable[[], float] | None = None
        """How much of the capacity there is; None for all of it."""
        self._mean = at_a_time / capacity
        self._busy = 0
        self._queue: deque[Call] = deque()

    def send(self, call: Call) -> None:
        if self.down or self.refuses():
            self.events.at(self.events.now + REFUSAL, self._refused, call)
        elif self._busy < self.at_a_time:
            self._busy += 1
            self.serve(call)
        else:
            self._queue.append(call)
            self.most_queued = max(self.most_queued, len(self._queue))

    def refuses(self) -> bool:
        """Return whether there is no room for a call."""
        return len(self._queue) >= self.queue_limit

    def slowdown(self, _queued: int) -> float:
        """Return how much longer a call takes that leaves a queue of some length."""
        return 1.0

    def serve(self, call: Call, slowdown: float = 1.0) -> None:
        seconds = self.draw() * self._mean * slowdown
        if self.share is not None:
            seconds /= self.share()
        if call.is_replay:
            seconds *= self.heavy
        self.events.at(self.events.now + seconds, self._served, call)

    def fail(self) -> None:
        """Refuse what comes from now on, and what waits."""
        self.down = True
        for call in self._queue:
            self.events.at(self.events.now + REFUSAL, self._refused, call)
        self._queue.clear()

    def _served(self, call: Call) -> None:
        if self._queue:
            slowdown = self.slowdown(len(self._queue) - 1)
            self.serve(self._queue.popleft(), slowdown)
        else:
            self._busy -= 1
        call.end(End.REFUSED if self.down else End.OK)

    def _refused(self, call: Call) -> None:
        call.end(End.REFUSED)


class CollapsingServer(Server):
    """Takes everything. Beyond the limit it slows down, and works on for callers that have gone."""

    def refuses(self) -> bool:
        return False

    def slowdown(self, queued: int) -> float:
        if queued <= self.queue_limit:
            return 1.0
        return min(SLOWEST, queued / self.queue_limit)


class Gate(Server):
    """Refuses at once what is above its capacity. Durations give no sign before."""

    _tokens = 0.0
    _counted = -math.inf

    def send(self, call: Call) -> None:
        if self.down or self.refuses():
            self.events.at(self.events.now + REFUSAL, self._refused, call)
        else:
            self.serve(call)

    def refuses(self) -> bool:
        now = self.events.now
        most = self.capacity / 20
        rate = self.capacity if self.share is None else self.capacity * self.share()
        self._tokens = min(most, self._tokens + (now - self._counted) * rate)
        self._counted = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False


KINDS = {"collapses": CollapsingServer, "refuses": Server, "gate": Gate}
