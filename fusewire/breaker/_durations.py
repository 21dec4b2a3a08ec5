"""How long calls take, and how long they took while the dependency was well.

A call is only noted, in a short deque that needs no lock, and counted later with others.
"""

from __future__ import annotations

import math
import time
from collections import deque
from functools import partial
from itertools import groupby
from operator import itemgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeAlias

from fusewire._locks import inside, make_lock
from fusewire.breaker._generations import Baseline, Generations, baseline_of, generation_at
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

NOTES = 128
"""Calls that are noted before they are counted."""

_Call: TypeAlias = tuple[float, float, str, bool, bool, bool]
"""A call that is noted: when it ended, its seconds, its method, and whether it is live, whether it
failed, and whether the circuit was closed. A tuple, because an object would take twice as long."""

_KIND = itemgetter(2, 3, 4, 5)


class Durations:
    """Durations of the calls to one dependency, by method. Threads and tasks may share it.

    A breaker whose calls are measured has one, and says when its circuit opens and closes.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = make_lock()
        self._closed = True
        # Calls, and steps to take between them: `_Call | Callable[[], None]`, told apart by type.
        self._notes: deque[Any] = deque()
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
        self.note(self._clock(), seconds, method, live=live, failed=failed)

    def note(self, at: float, seconds: float, method: str, *, live: bool, failed: bool) -> None:
        """Do what :meth:`record` does, for a call that ended at the clock's time `at`."""
        notes = self._notes
        notes.append((at, seconds, method, live, failed, self._closed))
        if len(notes) >= NOTES:
            self._count(wait=False)

    def begin_outage(self, at: float | None = None) -> None:
        """Take note that the dependency is down: its circuit has opened. Idempotent.

        Args:
            at: when, by the clock; now by default.
        """
        if self._closed:
            self._closed = False
            self._notes.append(partial(self._open, self._clock() if at is None else at))

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
        self._notes.append(partial(self._load, tuple(content)))

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
        # Not until it is empty, because other threads may go on noting.
        notes = [self._notes.popleft() for _ in range(len(self._notes))]
        for kind, group in groupby(notes, type):
            if kind is tuple:
                self._take_calls(group)
            else:
                for step in group:
                    step()

    def _take_calls(self, calls: Iterable[_Call]) -> None:
        for (name, live, failed, closed), alike in groupby(calls, _KIND):
            taken = list(alike)
            seconds = [call[1] for call in taken]
            counts = counted(seconds)
            method = self._methods.get(name)
            if method is None:
                method = self._methods[name] = _Method()
            (method.failed if failed else method.answered).include(counts)
            if not live:
                self._replayed_at = taken[-1][0]
                continue
            if failed:
                continue
            latest = seconds[-LATEST:]
            method.latest.extend(latest)
            self._latest.extend((name, each) for each in latest)
            if closed:
                self._add_to_baseline(method.generations, taken, counts)

    def _add_to_baseline(
        self, generations: Generations, calls: list[_Call], counts: Counts
    ) -> None:
        ended = calls[-1][0]
        if generation_at(ended) == generation_at(calls[0][0]):  # as nearly always
            generations.add(ended, counts, self._replayed_at)
            return
        for at, seconds, *_ in calls:
            generations.add(at, counted((seconds,)), self._replayed_at)

    def _open(self, now: float) -> None:
        self._latest.clear()
        for method in self._methods.values():
            method.latest.clear()
            method.generations.opened(now)

    def _load(self, content: Iterable[MethodDurations]) -> None:
        self._methods = {each.method: _Method(each) for each in content}
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
