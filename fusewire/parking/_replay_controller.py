"""When the next replay may begin: how a replica finds the spare capacity of a dependency; no I/O.

The controller of each replica keeps a window: how many replays it may have in flight. All of them
have to find one limit together without a word between them. It rests on five ideas:

- A window may be below one call: its replays are then paced. A thousand replicas with one call
  each would be too many (Swift, SIGCOMM 2020).
- Only a few replicas take part at first, and more as time passes.
- One bit per replay: whether it was slower than live calls were before the outage
  (:mod:`~fusewire.parking._replay_reference`).
- The gain anneals: the window doubles while all is well, and moves by small steps at the limit.
- A refusal halves the window, and its size is remembered for a while (CUBIC, RFC 9438): not every
  limit shows in durations first.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fusewire.parking._refused_window import RefusedWindow
from fusewire.parking._replay_reference import ReplayReference

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker import Baseline
    from fusewire.parking._controller_settings import ControllerSettings

_SMOOTHING = 0.1
"""Weight of the latest replay in the round trip."""

_LIVE_CALLS_SUFFER = 0.4
"""Share of slow live calls from which on a slow replay says nothing about the replays."""

_ALL_SLOW = 10
"""Replays in a row that are slow by themselves, if no live calls are known: beside a queue that
others make, some would be fast. Found with the simulation."""

_LATEST = 50
"""Replays of which the share of slow ones is reported."""


class ReplayFailure(Enum):
    """What a replay that failed says about the load."""

    REFUSED = "refused"
    """The server is full or away: RESOURCE_EXHAUSTED, UNAVAILABLE, a pushback."""

    LATE = "late"
    """DEADLINE_EXCEEDED."""

    OWN = "own"
    """Nothing: the failure is the message's or the handler's own."""


@dataclass(frozen=True, slots=True)
class ReplayFigures:
    """The state of a controller, for telemetry and logs.

    Attributes:
        window: replays that may be in flight; below 1 they are paced.
        gain: share by which the window grows in a round trip.
        slow_share: share of slow ones among the latest 50 replays whose calls were measured.
        reference: seconds; a replay that takes longer is slow. None as long as it is unknown.
        taking_part: whether this replica replays.
        replicas: how many there are, as counted last; 0 before the first recovery.
        cuts: how often the window was cut, by what caused it, since the controller was made.
        in_flight: replays in flight.
    """

    window: float
    gain: float
    slow_share: float
    reference: float | None
    taking_part: bool
    replicas: int
    cuts: Mapping[ReplayFailure, int]
    in_flight: int


class ReplayController:
    """Decides for one lane and dependency, in one replica, when the next replay may begin.

    Call :meth:`begin` when a recovery begins. Ask :meth:`allowed` before each replay. Report each
    one with :meth:`on_start`, and its end with one of :meth:`on_success`, :meth:`on_unknown`,
    :meth:`on_failure` and :meth:`cancelled`. Not safe for threads.

    Args:
        settings: the parameters.
        clock: monotonic seconds.
        rng: numbers from 0 and below 1, so that replicas do not move in step.
    """

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._in_flight = 0
        self._window = 0.0
        self._gain = settings.gain_min
        self._replicas = 0
        self._turn = 0.0
        self._began = self._joins = self._next = math.inf
        self._refused_until = -math.inf
        self._round_trip = settings.first_guess
        self._reference = ReplayReference(settings, None)
        self._refused = RefusedWindow(settings)
        self._last_cut = -math.inf
        self._slow: deque[bool] = deque(maxlen=_LATEST)
        self._cuts = {ReplayFailure.REFUSED: 0, ReplayFailure.LATE: 0}

    # What the replica learns.

    def begin(
        self, replicas: int, baseline: Baseline | None, *, turn: float, first: bool = True
    ) -> None:
        """Begin with a recovery: the circuit admits calls again, or a pause ends.

        Nothing is kept of the former one: the capacity may be another.

        Args:
            replicas: how many there are, this one included.
            baseline: what live calls took before the outage; None if none was measured. Then the
                first replays give the measure, a few at a time.
            turn: when this replica's turn comes, from 0 and below 1; see
                :func:`~fusewire.parking._replay_lane.turn_of`.
            first: False for a replica that joins others that are replaying already.
        """
        settings = self._settings
        self._began = self._clock()
        self._replicas = max(1, replicas)
        self._turn = turn
        self._reference = ReplayReference(settings, baseline)
        self._round_trip = settings.first_guess if baseline is None else baseline.typical
        self._refused = RefusedWindow(settings)
        self._last_cut = self._refused_until = -math.inf
        self._slow.clear()
        self._take_turn(first=first)

    def replicas(self, n: int) -> None:
        """Note that there are `n` replicas now. One that waits for its turn computes it again."""
        self._replicas = max(1, n)
        if self.taking_part:
            now, window = self._clock(), self._window
            self._resize(window, now)
            # Of many replicas each waits long, and who is left of them replays for all.
            self._next = min(self._next, now + (self._next - now) * window / self._window)
        elif self._began < math.inf:
            self._take_turn(first=False)

    def hear(self, baseline: Baseline) -> None:
        """Take what live calls took before the outage from another replica, if it is unknown."""
        if self._reference.seconds is None:
            self._reference = ReplayReference(self._settings, baseline)
            self._round_trip = baseline.typical

    def use(self, settings: ControllerSettings) -> None:
        """Go on with other limits. The window shrinks to what they allow."""
        self._settings = settings
        self._window = min(self._window, settings.most)

    def opened(self) -> None:
        """Note that the circuit opened: go on from at most one call when it admits again.

        If nothing is known yet, what was refused says nothing of a limit: the dependency was down.
        """
        if self._nothing_known:
            self._refused = RefusedWindow(self._settings)
        if self.taking_part:
            self._gain = self._settings.gain_max
            self._resize(min(self._window / 2, 1.0), self._clock())

    # What a replay asks and reports.

    def allowed(self) -> float:
        """Return the seconds until a replay may begin: 0 for now, infinity for after another's end.

        It is infinity before the first recovery too.
        """
        return math.inf if self._in_flight >= self.places else self.next_in

    def on_start(self) -> None:
        """Note that a replay begins, which :meth:`allowed` has just allowed."""
        self._in_flight += 1
        gap = self._round_trip / self._window * self._jitter(0.25)
        due = max(self._next, self._refused_until)
        self._next = max(due + gap, self._clock())  # catches up by one replay at most

    def on_success(
        self, duration: float, *, reference: float | None = None, live_slow: float | None = 0.25
    ) -> None:
        """Note that a replay succeeded.

        Args:
            duration: seconds that its calls to the dependency took, together.
            reference: seconds; the sum of its calls' own references. None for the baseline's.
            live_slow: share of slow calls among the latest live ones; None if none are known.
        """
        slow = self._reference.is_slow(duration, reference)
        if slow is None:
            self.on_unknown(duration)
            return
        self._in_flight -= 1
        self._slow.append(slow)
        self._round_trip += _SMOOTHING * (duration - self._round_trip)
        of_fleet = self._window * self._participants()
        self._reference.learn(slow=slow, quiet=self._is_quiet(of_fleet, live_slow))
        self._step(of_fleet, slow=slow)

    def on_unknown(self, duration: float) -> None:
        """Note that a replay succeeded of which nothing says whether it was slow.

        The window stays, but for the first of a recovery, which have to make do with few. As long
        as nothing at all is known, each of these doubles a window that is narrower than the one a
        recovery begins with: what has cut it was a dependency that was not back yet. That is for
        few replicas only.
        """
        self._in_flight -= 1
        nothing_known = self._nothing_known
        if self._reference.seconds is None:
            self._round_trip = self._reference.measure(duration)
        else:
            self._round_trip += _SMOOTHING * (duration - self._round_trip)
        if not self._slow:
            settings, participants = self._settings, self._participants()
            window = self._window
            if nothing_known and self._replicas <= settings.few:
                window = max(window, min(2 * window, settings.start / participants, 1.0))
            self._resize(min(window, settings.quiet / participants), self._clock())

    def on_failure(self, kind: ReplayFailure, retry_after: float = 0.0) -> None:
        """Note that a replay failed.

        Args:
            kind: what that says about the load.
            retry_after: seconds that the server asks to wait.
        """
        self._in_flight -= 1
        if kind is ReplayFailure.OWN:
            return
        now = self._clock()
        self._gain = self._settings.gain_min
        if now - self._last_cut > self._round_trip:  # what one burst meets is one sign
            self._last_cut = now
            self._cuts[kind] += 1
            if kind is ReplayFailure.REFUSED:  # one that is late says nothing of a limit
                self._refused.remember(self._window, now)
            self._cut(now)
        pause = max(retry_after, self._round_trip * self._jitter(0.5))
        self._refused_until = max(self._refused_until, now + pause)

    def cancelled(self) -> None:
        """Note that a replay which began made no call: it was rejected or stopped."""
        self._in_flight -= 1

    # What the replica reads.

    @property
    def in_flight(self) -> int:
        """Replays in flight."""
        return self._in_flight

    @property
    def window(self) -> float:
        """Replays that may be in flight; below 1 they are paced. 0 before the first recovery."""
        return self._window

    @property
    def places(self) -> int:
        """Replays that may be in flight, as a whole number of at least 1."""
        return max(1, math.ceil(self._window))

    @property
    def next_in(self) -> float:
        """Seconds until the next replay may begin, if there is a place for it then.

        Infinity before the first recovery.
        """
        return max(0.0, max(self._next, self._refused_until) - self._clock())

    @property
    def taking_part(self) -> bool:
        """Whether this replica replays, or waits for others to find the capacity."""
        return self._clock() >= self._joins

    @property
    def starts_in(self) -> float:
        """Seconds until this replica takes part; infinity before the first recovery."""
        return max(0.0, self._joins - self._clock())

    def figures(self) -> ReplayFigures:
        """Return the state, for telemetry and logs."""
        return ReplayFigures(
            window=self._window,
            gain=self._gain,
            slow_share=sum(self._slow) / len(self._slow) if self._slow else 0.0,
            reference=self._reference.seconds,
            taking_part=self.taking_part,
            replicas=self._replicas,
            cuts=dict(self._cuts),
            in_flight=self._in_flight,
        )

    # How.

    def _take_turn(self, *, first: bool) -> None:
        """Find when this replica takes part, and what with."""
        settings, now = self._settings, self._clock()
        few = min(self._replicas, settings.few)
        turn = self._turn * self._replicas
        wait = settings.doubling * math.log2(turn / few) if turn >= few else 0.0
        self._joins = max(now, self._began + wait)
        if first and wait == 0:
            self._gain, window = settings.gain_max, settings.start / few
        else:
            self._gain = settings.gain_min
            window = settings.late / self._participants(self._joins - now)
        self._window = min(1.0, window, settings.most)
        # The first replays are spread over the first interval, so that replicas do not begin
        # together. One that is alone begins at once.
        spread = self._rng() if self._replicas > 1 else 0.0
        self._next = self._joins + spread * self._round_trip / self._window

    def _participants(self, later: float = 0.0) -> float:
        """Return how many replicas take part, `later` seconds from now."""
        if self._replicas <= self._settings.few:
            return self._replicas
        age = self._clock() - self._began + later
        doublings = min(40.0, age / self._settings.doubling)  # 2**40: all of them, no overflow
        return min(self._replicas, self._settings.few * 2**doublings)

    @property
    def _nothing_known(self) -> bool:
        """Whether no call was measured, neither before the outage nor since."""
        return self._reference.seconds is None and not self._slow

    def _is_quiet(self, of_fleet: float, live_slow: float | None) -> bool:
        """Return whether a slow replay can only be slow by itself."""
        if of_fleet > self._settings.quiet:
            return False
        if live_slow is None:
            return len(self._slow) >= _ALL_SLOW and all(list(self._slow)[-_ALL_SLOW:])
        return live_slow < _LIVE_CALLS_SUFFER

    def _step(self, of_fleet: float, *, slow: bool) -> None:
        """Move the window and the gain by what one replay says."""
        settings = self._settings
        window, gain = self._window, self._gain
        if not slow and window == settings.most and gain == settings.gain_max:
            return  # there is nowhere to go
        in_round_trip = max(1.0, window)  # replays, each of which moves the window
        if slow:
            step = -min(0.5, gain * settings.down / in_round_trip)
            gain *= settings.gain_down ** (1 / math.sqrt(in_round_trip))
            self._gain = max(settings.gain_min, gain)
        else:
            gain *= settings.gain_up ** (1 / in_round_trip)
            self._gain = min(settings.gain_max, gain)
            fair = max(of_fleet, 1e-3) ** -settings.theta
            fair = min(1 / settings.fair, max(settings.fair, fair))
            step = fair * self._gain / in_round_trip
        self._resize(window * (1 + step), self._clock())

    def _resize(self, window: float, now: float) -> None:
        floor = self._settings.floor / self._participants()
        bound = min(self._settings.most, self._refused.bound(now))
        self._window = max(floor, min(window, bound))

    def _cut(self, now: float) -> None:
        window = self._window
        self._resize(window * self._settings.cut, now)
        # That of a replica whose turn is still to come may be below the floor of now.
        self._window = min(self._window, window)

    def _jitter(self, share: float) -> float:
        """Return a random factor around 1, up to `share` less or more."""
        return 1 - share + 2 * share * self._rng()
