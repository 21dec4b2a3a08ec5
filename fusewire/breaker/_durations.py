"""How long calls take, and how long they took while the dependency was well.

A replay compares its calls with what live calls took before the outage, so the calls of an outage,
of the minute before it, and those beside a replay must not become the measure. Live calls of a
closed circuit are therefore counted by generations of half a minute:

- When the circuit opens, the generations of the last minute are dropped: calls just before an
  outage are slow already.
- A generation in which replays were made is used only if there is no other: it shows what the
  replays cause.

A call is only noted, in a short deque that needs no lock, and counted later.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, TypeAlias

from fusewire._locks import inside, make_lock
from fusewire.breaker._histogram import Counts, Histogram, MethodDurations, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ENOUGH = 20
"""Calls from which a baseline can be taken."""

GENERATION = 30.0
"""Seconds that a generation lasts, or longer if no call comes."""

KEPT = 7
"""Generations that are kept of a method: three minutes, whenever a circuit opens. There are more
while they hold fewer than :data:`ENOUGH` calls."""

SUSPECT = 60.0
"""Seconds before an opening whose calls may have been slow already."""

LATEST = 50
"""Live calls whose share of slow ones is known."""

NOTES = 64
"""Calls that are noted before they are counted."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What calls of a method take while all is well.

    Attributes:
        reference: seconds; a call that takes longer is slow. It is the greater of the third
            quartile and 1.25 times `typical`.
        typical: seconds; the mean, with what is above the 95th percentile counted as that.
        calls: how many calls it is taken from.
    """

    reference: float
    typical: float
    calls: int


_Note: TypeAlias = tuple[float, str, float, bool, bool, bool]
"""A call: when it ended, its method, its seconds, whether it is live, whether it failed, whether
the circuit was closed. A tuple, because making an object would take as long as all the rest."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A note that other durations take the place of those that are known."""

    content: tuple[MethodDurations, ...]


class Durations:
    """Durations of the calls to one dependency, by method. Threads and tasks may share it.

    A breaker has one, :attr:`CircuitBreaker.durations <fusewire.breaker.CircuitBreaker>`, once
    durations are measured. It is told when the circuit closes and opens.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = make_lock()
        self._closed = True
        # Calls, the times at which an outage began, and what was loaded.
        self._notes: deque[_Note | float | _Loaded] = deque()
        self._methods: dict[str, _Method] = {}
        self._latest: deque[tuple[str, float]] = deque(maxlen=LATEST)
        self._replayed_at = -math.inf

    def record(
        self, seconds: float, *, method: str = "", live: bool = True, failed: bool = False
    ) -> None:
        """Record a call that has just ended.

        Args:
            seconds: how long it took.
            method: which method was called; empty if the dependency has no methods.
            live: whether it is ordinary traffic. A replay is not.
            failed: whether the dependency failed. Such a call is no part of a baseline.
        """
        notes = self._notes
        notes.append((self._clock(), method, seconds, live, failed, self._closed))
        if len(notes) >= NOTES:
            self._count(wait=False)

    def begin_outage(self) -> None:
        """Take note that the dependency is down: its circuit has opened. Idempotent."""
        if self._closed:
            self._closed = False
            self._notes.append(self._clock())

    def end_outage(self) -> None:
        """Take note that the dependency is well again: its circuit has closed. Idempotent."""
        self._closed = True

    def dump(self) -> tuple[MethodDurations, ...]:
        """Return what is known of all methods, for a snapshot."""
        self._count()
        return tuple(
            MethodDurations(
                method=name,
                answered=each.succeeded.histogram(),
                failed=each.failed.histogram(),
                baseline=each.quiet().histogram(),
            )
            for name, each in sorted(self._methods.copy().items())
        )

    def load(self, content: Iterable[MethodDurations]) -> None:
        """Continue with what :meth:`dump` returned, in place of what is known."""
        self._notes.append(_Loaded(tuple(content)))

    def methods(self) -> tuple[str, ...]:
        """Return the methods that have been called, in order of their names."""
        self._count()
        return tuple(sorted(self._methods.copy()))

    def histogram(self, method: str = "", *, failed: bool = False) -> Histogram:
        """Return how long calls took, replays among them, since they were first measured.

        Args:
            method: the method; empty for all calls.
            failed: whether to return the calls that failed. Otherwise it is those that did not.
        """
        self._count()
        return merged(
            each.failed if failed else each.succeeded for each in self._of(method)
        ).histogram()

    def baseline(self, method: str = "") -> Baseline | None:
        """Return what live calls took while the circuit was closed; None if nothing is known.

        After an outage it is what they took until a minute before, if 20 calls are known of that
        time. Of a running outage the baseline does not change.

        Args:
            method: the method; empty for all calls.
        """
        self._count()
        return baseline_of(merged(each.quiet() for each in self._of(method)))

    def slow_share(self, method: str = "") -> float:
        """Return which share of the latest 50 live calls took longer than the reference.

        It is 0.0 if there were none, or if no reference is known.

        Args:
            method: the method; empty for all calls, each compared with its own method.
        """
        self._count()
        latest = list(self._latest.copy())
        if method:
            each = self._methods.get(method)
            latest = [] if each is None else [(method, seconds) for seconds in each.latest.copy()]
        slow = 0
        for name, seconds in latest:
            baseline = self._methods[name].baseline()
            slow += baseline is not None and seconds > baseline.reference
        return slow / len(latest) if latest else 0.0

    def _of(self, method: str) -> Iterable[_Method]:
        """Return what is known of a method, or of all for an empty name."""
        known = self._methods.copy()
        if not method:
            return known.values()
        return [known[method]] if method in known else []

    def _count(self, *, wait: bool = True) -> None:
        """Count what was noted, unless another thread does and there is no need to wait.

        Code that interrupts a critical section of its own thread leaves the notes where they are.
        """
        thread = get_ident()
        if thread in inside:
            return
        try:
            inside.add(thread)
            if self._lock.acquire(blocking=wait):
                try:
                    for _ in range(len(self._notes)):
                        self._take(self._notes.popleft())
                finally:
                    self._lock.release()
        finally:
            inside.discard(thread)

    def _take(self, note: _Note | float | _Loaded) -> None:
        if isinstance(note, _Loaded):
            self._methods = {each.method: _Method(each) for each in note.content}
            self._latest.clear()
            return
        if isinstance(note, float):
            for each in self._methods.values():
                each.drop_suspects(note - SUSPECT)
            return
        at, name, seconds, live, failed, closed = note
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = _Method()
        (method.failed if failed else method.succeeded).add(seconds)
        if not live:
            self._replayed_at = at
            return
        method.latest.append(seconds)
        self._latest.append((name, seconds))
        if closed and not failed:
            method.add(at, seconds, self._replayed_at)


class _Generation:
    """Live calls of a closed circuit in half a minute.

    Attributes:
        began: the time of its first call, by the clock.
        ended: that of its last one.
        replayed: whether replays were made meanwhile.
        counts: its durations.
    """

    __slots__ = ("began", "counts", "ended", "replayed")

    def __init__(self, began: float) -> None:
        self.began = self.ended = began
        self.replayed = False
        self.counts = Counts()


class _Method:
    """What is known of one method.

    Attributes:
        succeeded, failed: all calls, cumulative.
        latest: durations of the latest live calls, in seconds.
    """

    __slots__ = ("_baseline", "_current", "_generations", "failed", "latest", "succeeded")

    def __init__(self, before: MethodDurations | None = None) -> None:
        self.succeeded = Counts()
        self.failed = Counts()
        self.latest: deque[float] = deque(maxlen=LATEST)
        self._generations: list[_Generation] = []
        self._current: _Generation | None = None
        if before is not None:
            self.succeeded.load(before.answered)
            self.failed.load(before.failed)
            former = _Generation(-math.inf)  # older than any call of this process
            former.counts.load(before.baseline)
            self._generations.append(former)
        self._baseline: Baseline | None = None  # until a call changes it

    def add(self, now: float, seconds: float, replayed_at: float) -> None:
        """Count a live call of a closed circuit."""
        current = self._current
        if current is None or now - current.began >= GENERATION:
            self._trim()
            current = self._current = _Generation(now)
            self._generations.append(current)
        if not current.replayed or self._baseline is None or self._baseline.calls < ENOUGH:
            self._baseline = None
        current.ended = now
        current.replayed |= replayed_at >= current.began
        current.counts.add(seconds)

    def baseline(self) -> Baseline | None:
        """Return the baseline of this method, which each replay asks for."""
        if self._baseline is None:
            self._baseline = baseline_of(self.quiet())
        return self._baseline

    def quiet(self) -> Counts:
        """Return the calls beside which no replays were made, if there are enough; else all."""
        known = self._generations.copy()
        quiet = merged(each.counts for each in known if not each.replayed)
        return quiet if quiet.calls >= ENOUGH else merged(each.counts for each in known)

    def drop_suspects(self, since: float) -> None:
        """Drop the generations that have calls after `since`, if enough is known without them."""
        older = [each for each in self._generations if each.ended <= since]
        if _calls(older) >= ENOUGH:
            self._generations = older
        self._current = self._baseline = None

    def _trim(self) -> None:
        """Drop what is no longer needed, before another generation begins."""
        known = self._generations
        quiet = [each for each in known if not each.replayed]
        if _calls(quiet) >= ENOUGH:
            known = quiet
        while len(known) >= KEPT and _calls(known[1:]) >= ENOUGH:
            known = known[1:]
        self._generations = known
        self._baseline = None


def _calls(generations: Iterable[_Generation]) -> int:
    return sum(each.counts.calls for each in generations)


def baseline_of(counts: Counts) -> Baseline | None:
    """Return the baseline that `counts` give; None if they are empty."""
    if not counts.calls:
        return None
    typical = counts.mean(at_most=counts.quantile(0.95))
    return Baseline(max(counts.quantile(0.75), 1.25 * typical), typical, counts.calls)
