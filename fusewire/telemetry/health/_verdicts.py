"""What a probe is answered, and why. Pure: it judges what has been read."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from fusewire.breaker import BreakerSettings, CircuitState, Figures
from fusewire.parking import ConsumerStatus  # noqa: TC001 - see fusewire/_public.py

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a probe.

    Attributes:
        reasons: why the probe fails, in words; empty if it passes.
    """

    reasons: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether the probe passes."""
        return not self.reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitHealth:
    """A circuit in a report.

    Attributes:
        figures: what was read of it.
        settings: its settings at that time.
        needed: whether readiness needs it.
    """

    figures: Figures
    settings: BreakerSettings
    needed: bool

    @property
    def not_ready(self) -> str | None:
        """Why it fails readiness; None if it does not.

        An open circuit whose time is over is half open, although nothing has changed yet: the next
        call is its probe. If that were not ready, no call would come, and it would never close.
        """
        name, state = self.figures.name, self.figures.state
        if self.needed and state is CircuitState.OPEN:
            return f"circuit {name!r} is open for another {self.figures.retry_after:.1f} s"
        if self.needed and state is CircuitState.FORCED_OPEN:
            return f"circuit {name!r} is forced open"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHealth:
    """A consumer in a report, a store of calls or a forwarder.

    Attributes:
        status: what was read of it.
        not_ready: why it fails readiness; None if it does not.
        stuck: why it fails liveness; None if it does not.
    """

    status: ConsumerStatus
    not_ready: str | None
    stuck: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How circuits and consumers stand, and what each probe is answered.

    Attributes:
        startup: whether the process has started.
        readiness: whether it should be given work.
        liveness: whether it works, so that a restart would not help.
        circuits: the circuits, by name.
        unknown: names that readiness needs and that no circuit has yet. They fail nothing: a
            circuit is made by its first call.
        consumers: the consumers, in the order in which they were given.
    """

    startup: Verdict
    readiness: Verdict
    liveness: Verdict
    circuits: Mapping[str, CircuitHealth]
    unknown: tuple[str, ...]
    consumers: tuple[ConsumerHealth, ...]


def judge_readiness(
    circuits: Iterable[CircuitHealth], consumers: Iterable[ConsumerHealth]
) -> Verdict:
    """Say whether a process should be given work."""
    reasons = chain((each.not_ready for each in circuits), (each.not_ready for each in consumers))
    return Verdict(tuple(reason for reason in reasons if reason is not None))


def judge_liveness(consumers: Iterable[ConsumerHealth]) -> Verdict:
    """Say whether a process works. Circuits do not matter."""
    return Verdict(tuple(each.stuck for each in consumers if each.stuck is not None))


def judge_consumer(
    status: ConsumerStatus, disconnected_after: float, stuck_after: float
) -> ConsumerHealth:
    """Say whether a consumer fails a probe.

    Args:
        status: what was read of it.
        disconnected_after: seconds without a connection that are too long.
        stuck_after: seconds for which an event loop may not turn.
    """
    consumer = f"the consumer of {status.queue!r}"
    not_ready = stuck = None
    away = status.at - status.connection_changed_at
    if status.halted:
        not_ready = f"{consumer} has stopped: {status.halted}"
    elif status.loop_turned_at is None:  # not yet, or not any more: it drains, or has ended
        not_ready = f"{consumer} does not run"
    elif not status.connected and away >= disconnected_after:
        not_ready = f"{consumer} has not been connected for {away:.0f} s"
    still = 0.0 if status.loop_turned_at is None else status.at - status.loop_turned_at
    if still >= stuck_after:
        stuck = f"the event loop of {consumer} has not turned for {still:.0f} s"
    return ConsumerHealth(status=status, not_ready=not_ready, stuck=stuck)
