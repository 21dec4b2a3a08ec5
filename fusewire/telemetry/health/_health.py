"""Reading how circuits and consumers stand, at a cost that any number of probes shares."""

from __future__ import annotations

import logging
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from fusewire._validation import SECONDS, check, check_text, instance_of, invalid
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.telemetry.health._verdicts import CircuitHealth, Report, Verdict, judge_consumer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fusewire.parking import ConsumerStatus

logger = logging.getLogger("fusewire.telemetry")

_KEPT = 0.5
"""Seconds for which a report is kept. A probe that asks ten times a second sees a change within a
second, and costs no more than two readings a second."""


class HasStatus(Protocol):
    """A :class:`ParkingConsumer`, a :class:`ParkedCalls` or its forwarder."""

    def status(self) -> ConsumerStatus:
        """Return how it stands."""


class Health:
    """Answers probes for startup, readiness and liveness.

    An open circuit never fails liveness: a restart would forget the circuit and call the dependency
    that is down. It fails readiness only if `ready_needs` names it, and only while it admits no
    call: while it is open and its recovery time is not over, or forced open.

    A probe waits for nothing, and reports are kept for half a second. All methods may be called
    from any thread.

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
        self._needs = _checked_needs(ready_needs)
        self._patterns = tuple(need for need in self._needs if any(c in need for c in "*?["))
        self._disconnected_after = check("disconnected_after", disconnected_after, SECONDS)
        self._stuck_after = check("stuck_after", stuck_after, SECONDS)
        self._clock = clock
        self._kept: tuple[float, Report] | None = None

    def startup(self) -> Verdict:
        """Return whether the process has started."""
        return self.report().startup

    def readiness(self) -> Verdict:
        """Return whether the process should be given work."""
        return self.report().readiness

    def liveness(self) -> Verdict:
        """Return whether the process works, so that a restart would not help."""
        return self.report().liveness

    def report(self) -> Report:
        """Return how everything stands now, or stood less than half a second ago."""
        now = self._clock()
        last = self._kept
        if last is not None and 0 <= now - last[0] < _KEPT:
            return last[1]
        report = self._read()
        self._kept = (now, report)
        _log_changes(None if last is None else last[1], report)
        return report

    def _read(self) -> Report:
        circuits = {
            breaker.name: CircuitHealth(
                figures=breaker.figures(durations=False),
                settings=breaker.settings,
                needed=self._is_needed(breaker.name),
            )
            for breaker in self._registry
        }
        known = {*circuits, *self._patterns}
        return Report(
            circuits=circuits,
            unknown=tuple(need for need in self._needs if need not in known),
            consumers=tuple(
                judge_consumer(each.status(), self._disconnected_after, self._stuck_after)
                for each in self._consumers
            ),
        )

    def _is_needed(self, name: str) -> bool:
        return name in self._needs or any(fnmatchcase(name, each) for each in self._patterns)


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


def _log_changes(last: Report | None, report: Report) -> None:
    """Log when the answer to a probe has changed: an orchestrator shows it to nobody."""
    if last is None:
        last = Report(circuits={}, unknown=(), consumers=())
    for probe, before, now, level in (
        ("readiness", last.readiness, report.readiness, logging.WARNING),
        ("liveness", last.liveness, report.liveness, logging.ERROR),
    ):
        if before.passes and not now.passes:
            logger.log(level, "%s fails: %s", probe, "; ".join(now.reasons))
        elif now.passes and not before.passes:
            logger.info("%s passes again", probe)
