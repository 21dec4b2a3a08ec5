"""Measured calls: who records how long a call took, and as what.

Nothing is measured until it is asked for. Then each call that is timed is recorded once, where it
is settled: a permit by its circuit, a decorated call by its guard. An interceptor says on the
permit which method it calls and for which operation, because it is settled in another context.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fusewire.breaker._lending import LendingMachine
from fusewire.breaker._permit import RECORDED
from fusewire.breaker._states import FAILURE, IGNORED, CircuitState
from fusewire.operation import current_operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker._durations import Durations
    from fusewire.breaker._events import Reason
    from fusewire.breaker._permit import Permit
    from fusewire.breaker._settings import BreakerSettings
    from fusewire.breaker._states import Outcome


class MeasuringMachine(LendingMachine):
    """A machine whose calls may be measured.

    Attributes:
        durations: how long calls took; None while they are not measured.
    """

    __slots__ = ("durations",)

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        clock: Callable[[], float],
        rng: Callable[[], float],
    ) -> None:
        self.durations: Durations | None = None
        super().__init__(name, settings, clock, rng)

    def _start_measuring(self, now: float, durations: Durations) -> Durations:
        """Measure from now on, in `durations` unless calls are measured already."""
        if self.durations is None:
            self.durations = durations
            self._follow_state(now)
            self._refresh()
        return self.durations

    def _enter(
        self, state: CircuitState, reason: Reason, now: float, by: str = "", note: str = ""
    ) -> None:
        super()._enter(state, reason, now, by, note)
        self._follow_state(now)

    def _follow_state(self, now: float) -> None:
        if self.durations is None:
            return
        if self._state is CircuitState.CLOSED:
            self.durations.end_outage()
        else:
            self.durations.begin_outage(now)

    def _refresh(self) -> None:
        super()._refresh()
        if self.durations is not None:
            self._timed = True

    def _measure(self, durations: Durations, permit: Permit, now: float, outcome: Outcome) -> None:
        """Record the call of `permit`, which is about to be settled, unless it was recorded."""
        seconds = now - permit.started
        measured_as = permit.measured_as
        if (
            measured_as is RECORDED
            or permit.settled
            or outcome is IGNORED
            or seconds == -math.inf  # it is not timed
        ):
            return
        permit.measured_as = RECORDED
        method, operation = measured_as or ("", current_operation())
        failed = outcome is FAILURE
        if operation is None:
            durations.note(now, seconds, method, live=True, failed=failed)
        else:
            durations.note(now, seconds, method, live=not operation.replay, failed=failed)
            if not failed:
                operation.note_duration(self._name, method, seconds)

    def _measure_call(
        self, durations: Durations, now: float, seconds: float, *, failed: bool = False
    ) -> None:
        """Record a decorated call, which was answered or `failed`."""
        operation = current_operation()
        if operation is None:
            durations.note(now, seconds, "", live=True, failed=failed)
        else:
            durations.note(now, seconds, "", live=not operation.replay, failed=failed)
            if not failed:
                operation.note_duration(self._name, "", seconds)
