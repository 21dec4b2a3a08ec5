"""Waiting while the messages of a dependency fail alike, though its circuit is closed; no I/O.

An expired token or a full server fails every message, and none is to blame. So when several in a
row fail alike, the others wait, and one is tried from time to time.
"""

from __future__ import annotations

import logging
import random
import time
from enum import Enum, auto
from typing import TYPE_CHECKING

from fusewire._log_fields import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire.parking._failures import Failure

logger = logging.getLogger("fusewire.parking")

ALIKE_BY_CONDITION = 3
"""Different messages in a row that fail by one condition, after which the others wait."""

ALIKE = 10
"""Different messages in a row that fail alike otherwise, after which the others wait."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the first probe, and at most before any later one."""

_SAY_AGAIN = 600.0
"""Seconds between warnings of one pause."""

_MOST_REMEMBERED = 1000
"""Failed messages remembered for each dependency, and dependencies remembered."""


class Change(Enum):
    """What an attempt changed, for the log."""

    BEGAN = auto()
    STILL = auto()
    """A probe failed, and nothing was said for a while."""
    ENDED = auto()


class Pause:
    """Whether the messages of one dependency wait, and when one of them is tried.

    Not safe for threads; a consumer uses it on its event loop.

    Args:
        alike_by_condition: different messages in a row that fail by one condition, until it begins.
        now: monotonic seconds.
        chance: numbers from 0 and below 1, for the jitter.
    """

    def __init__(
        self,
        *,
        alike_by_condition: int = ALIKE_BY_CONDITION,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._alike_by_condition = alike_by_condition
        self._now = now
        self._chance = chance
        self._kind: str | None = None
        self._by_condition = False
        self._row: set[str] = set()
        self._failed_by_condition: set[str] = set()
        self._wait = 0.0
        self._due = 0.0
        self._probing = False
        self._said = 0.0
        self.began: float | None = None
        """When it began, in monotonic seconds; None while the messages do not wait."""

    @property
    def kind(self) -> str | None:
        """How the messages of the row fail, None if the last one succeeded."""
        return self._kind

    @property
    def holds_tried(self) -> bool:
        """Whether messages wait that have failed before and come back from their delay.

        They go on, unless no message is to blame: only a second attempt shows whether it is the
        first ones that fail.
        """
        return self.began is not None and self._by_condition

    def wait(self) -> float:
        """Return the seconds until a probe may begin; 0 if anything may begin now."""
        return 0.0 if self.began is None else max(self._due - self._now(), 0.0)

    def overdue(self) -> float:
        """Return the seconds for which a probe has been due, and nobody has begun one."""
        return 0.0 if self.began is None else max(self._now() - self._due, 0.0)

    def begin(self) -> bool:
        """Begin an attempt; return whether it is the probe."""
        if self.began is None or self.wait() > 0:
            return False
        self._probing = True
        # Until its end is known; but one that hangs must not keep all others waiting.
        self._due = self._now() + LONGEST_WAIT
        return True

    def release(self) -> None:
        """End a probe that says nothing: another may begin at once."""
        if self._probing:
            self._probing = False
            self._due = self._now()

    def failed(self, operation: str, kind: str, *, condition: bool, probe: bool) -> Change | None:
        """Note that the message `operation` failed, and whether it was the probe."""
        if self.began is not None:
            return self._probe_failed(kind) if probe else None
        if kind != self._kind:
            self._kind, self._by_condition, self._row = kind, condition, set()
        self._row.add(operation)
        # A message that comes round again has seen the others of its lane fail before it.
        again = condition and operation in self._failed_by_condition
        if condition:
            if len(self._failed_by_condition) >= _MOST_REMEMBERED:
                self._failed_by_condition.clear()
            self._failed_by_condition.add(operation)
        if not again and len(self._row) < (self._alike_by_condition if condition else ALIKE):
            return None
        self.began = self._said = self._now()
        self._wait = FIRST_WAIT
        self._put_off()
        return Change.BEGAN

    def succeeded(self) -> Change | None:
        """Note that a message was handled: nothing waits any more."""
        ended = self.began is not None
        self._kind, self.began, self._probing = None, None, False
        self._row.clear()
        self._failed_by_condition.clear()
        return Change.ENDED if ended else None

    def _probe_failed(self, kind: str) -> Change | None:
        self._probing = False
        if kind == self._kind:
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        self._put_off()
        if self._now() - self._said < _SAY_AGAIN:
            return None
        self._said = self._now()
        return Change.STILL

    def _put_off(self) -> None:
        # Half of it is certain, so that small draws in a row do not hammer what is full.
        self._due = self._now() + self._wait * (0.5 + self._chance() / 2)


class Pauses:
    """The pauses of a consumer, by dependency, and when its messages were handled last.

    Args:
        alike_by_condition: as for :class:`Pause`.
        now: monotonic seconds.
        now_ms: the wall clock, to compare with what messages carry.
        chance: numbers from 0 and below 1, for the jitter.
    """

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        alike_by_condition: int = ALIKE_BY_CONDITION,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._alike_by_condition = alike_by_condition
        self._now = now
        self._now_ms = now_ms
        self._chance = chance
        self._pauses: dict[str, Pause] = {}
        self._handled_at_ms: dict[str, int] = {}
        self._watchers: set[Callable[[], None]] = set()

    def wait(self, dependency: str, *, patience: float = 0.0, tried: bool = False) -> float:
        """Return the seconds until a message that needs `dependency` may be tried; 0 if now.

        Args:
            dependency: a breaker's name.
            patience: seconds for which a probe is left to others.
            tried: whether the message has failed before and comes back from its delay.
        """
        pause = self._pauses.get(dependency)
        if pause is None or pause.began is None or (tried and not pause.holds_tried):
            return 0.0
        wait = pause.wait()
        return wait or max(patience - pause.overdue(), 0.0)

    def holds(self, dependency: str) -> bool:
        """Return whether the messages of `dependency` wait, also if a probe of them is due."""
        pause = self._pauses.get(dependency)
        return pause is not None and pause.began is not None

    def begin(self, dependencies: Iterable[str]) -> tuple[str, ...]:
        """Begin an attempt; return the dependencies that it is the probe of."""
        if not self._pauses:
            return ()
        return tuple(
            name for name in dependencies if name in self._pauses and self._pauses[name].begin()
        )

    def release(self, probes: Iterable[str]) -> None:
        """End the probes of which an attempt said nothing."""
        for name in probes:
            if name in self._pauses:
                self._pauses[name].release()
                self._changed()

    def failed(self, failure: Failure, operation: str, *, probes: Iterable[str]) -> bool:
        """Note that a message failed; return whether it has to wait because others fail alike."""
        name = failure.dependency
        if not name:
            return False
        if name not in self._pauses:
            self._make_room()
            self._pauses[name] = Pause(
                alike_by_condition=self._alike_by_condition, now=self._now, chance=self._chance
            )
        pause = self._pauses[name]
        change = pause.failed(
            operation,
            failure.kind,
            condition=failure.condition is not None,
            probe=name in probes,
        )
        self._say(name, pause, change)
        self._changed()
        return pause.began is not None and pause.kind == failure.kind

    def succeeded(self, dependencies: Iterable[str]) -> None:
        """Note that a message that needs `dependencies` was handled."""
        for name in dependencies:
            self._handled_at_ms.pop(name, None)  # the order is that of the last time
            self._handled_at_ms[name] = self._now_ms()
            pause = self._pauses.pop(name, None)
            if pause is not None:
                began = pause.began
                if pause.succeeded() is Change.ENDED and began is not None:
                    logger.info(
                        "messages that need %r are handled again, %.0f s after they began to wait",
                        name,
                        self._now() - began,
                        extra=fields(
                            "messages.resumed", circuit=name, seconds=round(self._now() - began, 3)
                        ),
                    )
                self._changed()
        while len(self._handled_at_ms) > _MOST_REMEMBERED:
            del self._handled_at_ms[next(iter(self._handled_at_ms))]

    def handled_since(self, dependency: str, time_ms: int | None) -> bool:
        """Return whether a message that needs `dependency` was handled after `time_ms`."""
        handled = self._handled_at_ms.get(dependency)
        return handled is not None and time_ms is not None and handled > time_ms

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called after each change; returns the function that ends that."""
        self._watchers.add(changed)
        return lambda: self._watchers.discard(changed)

    def _changed(self) -> None:
        for changed in tuple(self._watchers):
            changed()

    def _make_room(self) -> None:
        if len(self._pauses) >= _MOST_REMEMBERED:
            idle = (name for name, pause in self._pauses.items() if pause.began is None)
            del self._pauses[next(idle, next(iter(self._pauses)))]

    def _say(self, name: str, pause: Pause, change: Change | None) -> None:
        if change in {Change.BEGAN, Change.STILL} and pause.began is not None:
            logger.warning(
                "messages that need %r %s alike (%s): they wait and lose no attempts, and one is "
                "tried again in %.0f s",
                name,
                "fail" if change is Change.BEGAN else "still fail",
                pause.kind,
                pause.wait(),
                extra=fields("messages.paused", circuit=name, reason=pause.kind),
            )
