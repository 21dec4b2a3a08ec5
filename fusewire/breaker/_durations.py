"""How long calls take, and how long they took while the dependency was well.

A call is only noted, in a short deque that needs no lock, and counted later with others.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from functools import partial
from itertools import groupby, repeat
from operator import itemgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any

from fusewire._locks import inside, make_lock
from fusewire.breaker._generations import (
    Baseline,
    Generations,
    baseline_of,
    end_of_generation,
    generation_at,
)
from fusewire.breaker._histogram import (
    CallDurations,
    Counts,
    Histogram,
    MethodDurations,
    counted,
    for_export,
    merged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

LATEST = 50
"""Live calls whose share of slow ones is known."""

FEWEST = 10
"""Live calls of which a share says something."""

NOTES = 256
"""Calls that are noted before they are counted."""

_KIND = itemgetter(2, 3, 4, 5)
_QUICK = {float}


class Durations:
    """Durations of the calls to one dependency, by method. Threads and tasks may share it.

    A breaker whose calls are measured has one, and says when its circuit opens and closes.

    Args:
        clock: returns monotonic seconds.

    Attributes:
        note_quickly: take note of a live call without a method that was answered, by its seconds,
            if it ended before `quick_until`. It never counts: call :meth:`count_if_due` when there
            are :data:`NOTES` of `notes`.
        notes: what is not counted yet.
        quick_until: until when calls may be noted quickly, by the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = make_lock()
        self._closed = True
        # Quick notes, which are numbers; full ones, which are lists; and steps to take between
        # them, which are partials. A full note has when the call ended, its seconds, its method,
        # and whether it is live, whether it failed, and whether the circuit was closed.
        self.notes: list[Any] = []
        self.note_quickly: Callable[[float], None] = self.notes.append
        # Quick notes are of the half minute of the full one before them, which was at this time.
        self.quick_until = -math.inf
        self._quick_at: float
        self._methods: dict[str, _Method] = {}
        self._restored: CallDurations | None = None
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
        self.note(self._clock(), seconds, method, live=live, failed=failed)

    def note(self, at: float, seconds: float, method: str, *, live: bool, failed: bool) -> None:
        """Do what :meth:`record` does, for a call that ended at the clock's time `at`."""
        self.notes.append([at, seconds, method, live, failed, self._closed])
        if self._closed:
            self.quick_until = end_of_generation(at)
        self.count_if_due()

    def count_if_due(self) -> None:
        """Count what was noted, if it is much and no other thread does."""
        if len(self.notes) >= NOTES:
            self._count(wait=False)

    def begin_outage(self, at: float | None = None) -> None:
        """Take note that the dependency is down: its circuit has opened. Idempotent.

        Args:
            at: when, by the clock; now by default.
        """
        if self._closed:
            self._closed = False
            self.quick_until = -math.inf
            self.notes.append(partial(self._open, self._clock() if at is None else at))

    def end_outage(self) -> None:
        """Take note that the dependency is well again: its circuit has closed. Idempotent."""
        self._closed = True

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
        known = self._known(method)
        return merged(each.failed if failed else each.answered for each in known).histogram()

    def totals(self) -> CallDurations:
        """Return how long all calls took, in few buckets: see :class:`CallDurations`."""
        self._count()
        return dataclasses.replace(self._totals(), restored=self._restored)

    def _totals(self) -> CallDurations:
        known = self._methods.copy().values()
        return CallDurations(
            answered=for_export(each.answered for each in known),
            failed=for_export(each.failed for each in known),
        )

    def baseline(self, method: str = "") -> Baseline | None:
        """Return what live calls took while the circuit was closed; None if nothing is known.

        After an outage it is what they took until a minute before, if 20 calls are known of that
        time. During an outage it does not change.

        Args:
            method: the method; empty for all calls.
        """
        self._count()
        return baseline_of(merged(each.generations.quiet() for each in self._known(method)))

    def baselines(self) -> tuple[tuple[str, Baseline], ...]:
        """Return the methods that have a baseline, each with it: see :meth:`baseline`.

        They are the same objects until a call changes them, and cost little: whatever is parked
        asks for them.
        """
        if self.notes:
            self._count()
        known = self._methods.copy().items()
        found = [(name, method.generations.baseline()) for name, method in known]
        return tuple((name, baseline) for name, baseline in found if baseline is not None)

    def slow_share(self, method: str = "") -> float | None:
        """Return which share of the latest 50 live calls took longer than the reference.

        Calls that failed do not count, nor do those before the latest outage, which say nothing of
        how the dependency is since. It is None while fewer than 10 are known, and 0.0 if there is
        no reference.

        Args:
            method: the method; empty for all calls, each compared with its own method's.
        """
        self._count()
        latest = list(self._latest.copy())
        if method:
            latest = [(method, took) for each in self._known(method) for took in each.latest.copy()]
        known = self._methods.copy()
        slow = sum(name in known and known[name].is_slow(seconds) for name, seconds in latest)
        return slow / len(latest) if len(latest) >= FEWEST else None

    def dump(self) -> tuple[MethodDurations, ...]:
        """Return what is known of each method, for a snapshot."""
        self._count()
        known = sorted(self._methods.copy().items())
        return tuple(each.dump(name) for name, each in known)

    def load(self, content: Iterable[MethodDurations]) -> None:
        """Continue with what :meth:`dump` returned, in place of what is known."""
        self.notes.append(partial(self._load, tuple(content)))

    def _known(self, method: str) -> Collection[_Method]:
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
                    self._count_notes()
                finally:
                    self._lock.release()
        finally:
            inside.discard(thread)

    def _count_notes(self) -> None:
        # Each of these is one step, and other threads may go on noting between them.
        notes = self.notes[:]
        del self.notes[: len(notes)]
        if _QUICK.issuperset(map(type, notes)):  # as nearly always
            self._take_quick(notes)
            return
        for kind, group in groupby(notes, type):
            if kind is partial:
                for step in group:
                    step()
            elif kind is list:
                for (name, live, failed, closed), alike in groupby(group, _KIND):
                    self._take_full(name, list(alike), live=live, failed=failed, closed=closed)
            else:
                self._take_quick(list(group))

    def _take_quick(self, seconds: list[float]) -> None:
        """Count calls that were noted quickly."""
        if seconds:
            method, counts = self._add("", seconds, failed=False)
            self._keep_latest("", method, seconds)
            # When the last of them ended is not known: at the latest now, or with the half minute.
            last = math.nextafter(end_of_generation(self._quick_at), -math.inf)
            ended = max(min(self._clock(), last), self._quick_at)
            method.generations.add(ended, counts, self._replayed_at)

    def _take_full(
        self, name: str, calls: list[Any], *, live: bool, failed: bool, closed: bool
    ) -> None:
        """Count calls of one method that are alike."""
        seconds = [call[1] for call in calls]
        method, counts = self._add(name, seconds, failed=failed)
        self._quick_at = ended = calls[-1][0]
        if not live:
            self._replayed_at = ended
        elif not failed:
            self._keep_latest(name, method, seconds)
            if not closed:
                return
            if generation_at(ended) == generation_at(calls[0][0]):  # as nearly always
                method.generations.add(ended, counts, self._replayed_at)
            else:
                for call in calls:
                    alone = counted((call[1],))
                    method.generations.add(call[0], alone, self._replayed_at)

    def _add(self, name: str, seconds: list[float], *, failed: bool) -> tuple[_Method, Counts]:
        """Add calls to the histogram of a method."""
        counts = counted(seconds)
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = _Method()
        (method.failed if failed else method.answered).include(counts)
        return method, counts

    def _keep_latest(self, name: str, method: _Method, seconds: list[float]) -> None:
        latest = seconds[-LATEST:]
        method.latest.extend(latest)
        self._latest.extend(zip(repeat(name), latest, strict=False))

    def _open(self, now: float) -> None:
        self._latest.clear()
        for method in self._methods.values():
            method.latest.clear()
            method.generations.opened(now)

    def _load(self, content: Iterable[MethodDurations]) -> None:
        self._methods = {each.method: _Method(each) for each in content}
        self._restored = self._totals()
        self._latest.clear()


class _Method:
    """What is known of one method.

    Attributes:
        answered: all calls that the dependency answered, from the first on.
        failed: all calls that failed.
        latest: seconds of the latest live calls that were answered since the latest outage began.
        generations: live calls while the circuit was closed.
    """

    __slots__ = ("answered", "failed", "generations", "latest")

    def __init__(self, former: MethodDurations | None = None) -> None:
        self.answered = Counts()
        self.failed = Counts()
        self.latest: deque[float] = deque(maxlen=LATEST)
        self.generations = Generations()
        if former is not None:
            self.answered.load(former.answered)
            self.failed.load(former.failed)
            self.generations.load(former.baseline)

    def is_slow(self, seconds: float) -> bool:
        """Return whether a call took longer than the reference, if there is one."""
        baseline = self.generations.baseline()
        return baseline is not None and seconds > baseline.reference

    def dump(self, name: str) -> MethodDurations:
        """Return it as a value."""
        return MethodDurations(
            method=name,
            answered=self.answered.histogram(),
            failed=self.failed.histogram(),
            baseline=self.generations.quiet().histogram(),
        )
