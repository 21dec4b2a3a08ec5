"""Reading how circuits and consumers stand, at a cost that any number of probes shares."""

from __future__ import annotations

import logging
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from fusewire._validation import SECONDS, check, check_text, instance_of, invalid
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.telemetry.health._verdicts import (
    CircuitHealth,
    Report,
    Verdict,
    judge_consumer,
    judge_liveness,
    judge_readiness,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire.breaker import CircuitBreaker
    from fusewire.parking import ConsumerStatus
    from fusewire.telemetry.health._verdicts import ConsumerHealth

logger = logging.getLogger("fusewire.telemetry")

_KEPT = 1.0
"""Seconds for which a report is kept: reading a thousand circuits takes some 15 ms."""


class HasStatus(Protocol):
    """A :class:`ParkingConsumer`, a :class:`ParkedCalls` or its forwarder."""

    def status(self) -> ConsumerStatus:
        """Return how it stands."""


class Health:
    """Answers probes for startup, readiness and liveness.

    An open circuit never fails liveness: a restart would forget the circuit and call the dependency
    that is down. It fails readiness only if `ready_needs` names it, and only while it admits no
    call: while it is open and its recovery time is not over, or forced open.

    Nothing is waited for, neither a broker nor a dependency. All methods may be called from any
    thread, and as often as one likes: a verdict reads only what it needs, and a report is kept for
    a second.

    Args:
        registry: the circuits; by default the default registry.
        consumers: consumers, stores of calls and forwarders: whatever has a `status()`.
        ready_needs: names of circuits without which the process is not ready, or patterns of names
            with ``*``, ``?`` and ``[…]`` as in a shell. Name only what the process can do nothing
            without: when the dependency fails, no replica is ready, and callers of the service get
            no answer at all, not even a fallback's.
        disconnected_after: seconds without a connection to its broker after which a consumer fails
            readiness. One that does not run fails it at once.
        stuck_after: seconds after which a consumer's event loop that has not turned fails liveness.
        clock: returns monotonic seconds.

    Raises:
        SettingsError: an argument cannot be right.
    """

    def __init__(
        self,
        registry: BreakerRegistry | None = None,
        *,
        consumers: Iterable[HasStatus] = (),
        ready_needs: Iterable[str] = (),
        disconnected_after: float = 60.0,
        stuck_after: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check("registry", registry, instance_of(BreakerRegistry).or_none)
        if registry is None:  # an empty one is false
            registry = default_registry()
        self._registry = registry
        self._consumers = _checked_consumers(consumers)
        self._ready_needs = _checked_needs(ready_needs)
        self._patterns = tuple(name for name in self._ready_needs if any(c in name for c in "*?["))
        self._disconnected_after = check("disconnected_after", disconnected_after, SECONDS)
        self._stuck_after = check("stuck_after", stuck_after, SECONDS)
        self._clock = clock
        self._kept: tuple[float, Report] | None = None
        self._readiness = _Logged("readiness", logging.WARNING)
        self._liveness = _Logged("liveness", logging.ERROR)

    def startup(self) -> Verdict:
        """Return whether the process has started: it has, because it can say so.

        Nothing else is asked: a process that is restarted because its broker or a dependency does
        not answer has gained nothing.
        """
        return Verdict()

    def readiness(self) -> Verdict:
        """Return whether the process should be given work."""
        needed = self._read_circuits(breaker for breaker in self._registry if self._needs(breaker))
        return self._readiness.note(judge_readiness(needed.values(), self._read_consumers()))

    def liveness(self) -> Verdict:
        """Return whether the process works, so that a restart would not help."""
        return self._liveness.note(judge_liveness(self._read_consumers()))

    def report(self) -> Report:
        """Return how everything stands now, or stood less than a second ago."""
        now = self._clock()
        kept = self._kept
        if kept is not None and 0 <= now - kept[0] < _KEPT:
            return kept[1]
        circuits, consumers = self._read_circuits(self._registry), self._read_consumers()
        known = {*circuits, *self._patterns}
        report = Report(
            startup=self.startup(),
            readiness=self._readiness.note(judge_readiness(circuits.values(), consumers)),
            liveness=self._liveness.note(judge_liveness(consumers)),
            circuits=circuits,
            unknown=tuple(name for name in self._ready_needs if name not in known),
            consumers=consumers,
        )
        self._kept = (now, report)
        return report

    def _read_circuits(self, breakers: Iterable[CircuitBreaker]) -> dict[str, CircuitHealth]:
        return {
            breaker.name: CircuitHealth(
                figures=breaker.figures(durations=False),
                settings=breaker.settings,
                needed=self._needs(breaker),
            )
            for breaker in breakers
        }

    def _read_consumers(self) -> tuple[ConsumerHealth, ...]:
        return tuple(
            judge_consumer(each.status(), self._disconnected_after, self._stuck_after)
            for each in self._consumers
        )

    def _needs(self, breaker: CircuitBreaker) -> bool:
        name = breaker.name
        return name in self._ready_needs or any(fnmatchcase(name, each) for each in self._patterns)


class _Logged:
    """Logs when the answer to a probe changes, because an orchestrator shows to nobody why.

    Args:
        probe: what it is called.
        level: how grave it is if it fails.
    """

    def __init__(self, probe: str, level: int) -> None:
        self._probe = probe
        self._level = level
        self._last: Verdict | None = None

    def note(self, verdict: Verdict) -> Verdict:
        """Return the verdict, and log it if it is another one than the last."""
        last, self._last = self._last, verdict
        if last is None and not verdict.passes:  # as at most starts
            logger.info("%s does not pass yet: %s", self._probe, "; ".join(verdict.reasons))
        elif last is not None and last.passes and not verdict.passes:
            logger.log(self._level, "%s fails: %s", self._probe, "; ".join(verdict.reasons))
        elif last is not None and verdict.passes and not last.passes:
            logger.info("%s passes now", self._probe)
        return verdict


def _checked_consumers(consumers: Iterable[HasStatus]) -> tuple[HasStatus, ...]:
    if hasattr(consumers, "status"):
        raise invalid("consumers", "a list", consumers, "write consumers=[consumer]")
    found = tuple(consumers)
    for each in found:
        if not callable(getattr(each, "status", None)):
            raise invalid("consumers", "objects with a status()", each)
    return found


def _checked_needs(needs: Iterable[str]) -> tuple[str, ...]:
    if isinstance(needs, str):
        raise invalid("ready_needs", "a list of names", needs, f"write ready_needs=[{needs!r}]")
    found = tuple(needs)
    for each in found:
        check_text("a name of ready_needs", each)
    return found
