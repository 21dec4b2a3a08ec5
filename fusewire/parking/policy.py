"""What becomes of a message: pure decisions, no I/O."""

from __future__ import annotations

import dataclasses
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusewire.errors import CircuitOpenError
from fusewire.parking.record import MAX_TEXT, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Done:
    """The handler has dealt with it."""


@dataclass(frozen=True, slots=True)
class Park:
    """It waits for `record.dependency`."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delay:
    """It comes back after `tier` seconds."""

    record: Record
    tier: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A person decides."""

    record: Record


Verdict = Done | Park | Delay | Dead


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """How failed attempts are retried.

    Attributes:
        max_attempts: failed attempts after which a message is dead. Probes, made while the circuit
            is not closed, are not among them, or a long outage would kill what waits for its end.
        tiers: seconds to wait after the first, second, … failed attempt; the last repeats.
        now: the wall clock in milliseconds since 1970, for the times that people read.
    """

    max_attempts: int
    tiers: tuple[float, ...]
    now: Callable[[], int]

    def park(self, record: Record, dependency: str, reason: str, *, wait: float) -> Park:
        """Wait for `dependency`, without an attempt; it may admit again in `wait` seconds."""
        now = self.now()
        return Park(
            dataclasses.replace(
                record,
                dependency=dependency,
                reason=reason,
                times_parked=record.times_parked + 1,
                first_parked_at_ms=record.first_parked_at_ms or now,
                parked_at_ms=now,
                # The first parking leaves it free to go round once in the same open time.
                waits_until_ms=now + round(wait * 1000) if record.times_parked else None,
            )
        )

    def dead(self, record: Record, reason: str, error: BaseException | None = None) -> Dead:
        """Put it aside for a person."""
        if error is not None:
            record = self._failed(record, error)
        return Dead(dataclasses.replace(record, reason=reason))

    def may_go_round(self, record: Record) -> bool:
        """Tell whether it may go to the tail of its lane: once in each open time, not more."""
        return record.waits_until_ms is None or self.now() >= record.waits_until_ms

    def expired(self, record: Record) -> bool:
        """Tell whether it is of no use any more."""
        return record.not_after_ms is not None and self.now() > record.not_after_ms

    def failed(
        self,
        record: Record,
        error: BaseException,
        *,
        waiting_for: tuple[str, float] | None,
        blame: Sequence[str],
        in_outage: bool,
    ) -> Verdict:
        """Judge a failed attempt.

        Args:
            record: the message's history.
            error: what the handler raised.
            waiting_for: the first of its dependencies whose circuit is not closed, if any, and the
                seconds until that may admit again.
            blame: the breakers whose calls failed in this attempt.
            in_outage: whether a circuit was not closed when the attempt began: it was a probe.
        """
        if record.at_most_once:
            # Whatever was raised, and by whatever stands around the call: it may have been made.
            return self.dead(record, "ambiguous", error)
        record = self._failed(record, error)
        if in_outage:
            record = dataclasses.replace(record, outage_attempts=record.outage_attempts + 1)
        else:
            record = dataclasses.replace(record, attempts=record.attempts + 1)
        if record.attempts >= self.max_attempts:
            return self.dead(record, "exhausted")
        if waiting_for is not None:
            dependency, wait = waiting_for
            return self.park(record, dependency, "failed", wait=wait)
        dependency = blame[0] if blame else record.dependency
        record = dataclasses.replace(record, reason="failed", dependency=dependency)
        return Delay(record, self.tiers[min(max(record.attempts, 1), len(self.tiers)) - 1])

    def _failed(self, record: Record, error: BaseException) -> Record:
        now = self.now()
        return dataclasses.replace(
            record,
            first_failed_at_ms=record.first_failed_at_ms or now,
            failed_at_ms=now,
            exception=f"{type(error).__module__}.{type(error).__qualname__}",
            exception_message=_storable(lambda: str(error))[:MAX_TEXT],
            # The end of a stack is where it happened.
            stack=_storable(lambda: "".join(traceback.format_exception(error)))[-MAX_TEXT:],
        )


def _storable(describe: Callable[[], str]) -> str:
    """Return a text that every broker can store, whatever the error is made of."""
    try:
        return describe().encode("utf-8", "backslashreplace").decode()
    except Exception as failed:  # noqa: BLE001 - an error whose own text cannot be made
        return f"(its text cannot be made: {type(failed).__name__})"


def rejection_in(error: BaseException) -> CircuitOpenError | None:
    """Find the rejection that an error comes from: itself, a cause, a context, or in a group."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, CircuitOpenError):
            return current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
    return None
