"""Reading what a circuit has counted, and counting what happens outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker._changes import Changes
from fusewire.breaker._figures import Figures
from fusewire.breaker._snapshot import Counters
from fusewire.breaker._states import CircuitState
from fusewire.breaker._windows import NoWindow

if TYPE_CHECKING:
    from fusewire.breaker._histogram import CallDurations
    from fusewire.breaker._states import Admission


class ReadableMachine(Changes):
    """A machine whose figures can be read."""

    __slots__ = ()

    def note_fallback(self, *, answered: bool) -> None:
        """Count that a fallback was asked in place of a call that was rejected or failed.

        The breaker's own fallbacks, and those of the interceptors, are counted without it. It is
        for code that answers calls itself.

        Args:
            answered: whether it gave an answer. Otherwise the caller got an error.
        """
        self._change_now(self._count_fallback, answered)

    def _count_fallback(self, _now: float, answered: bool) -> None:  # noqa: FBT001 - by position, as all arguments of a step
        self._answered += answered
        self._unanswered += not answered

    def _read_counters(self, now: float) -> Counters:
        return Counters(
            succeeded=self._succeeded,
            failed=self._failed,
            ignored=self._ignored,
            slow=self._slow,
            rejected=self._rejected.value(),
            late=self._late,
            expired=self._expired,
            opened=self._opened,
            transitions=self._totals.transitions,
            open_seconds=self._count_open_time(now),
            fallbacks_answered=self._answered,
            fallbacks_failed=self._unanswered,
        )

    def _look_and_read_figures(self, now: float, durations: CallDurations | None) -> Figures:
        return self._read_figures(now, self._look(now), durations)

    def _read_figures(
        self, now: float, look: Admission, durations: CallDurations | None
    ) -> Figures:
        settings, since = self._settings, self._totals.since
        if look.state is not self._state is CircuitState.OPEN:
            since = self._open_until  # half open since then, though no call has come yet
        calls, failed, slow = self._window.totals(now)
        rated = not isinstance(self._window, NoWindow) and calls >= settings.minimum_calls
        rates_slow = rated and settings.slow_call_duration is not None
        return Figures(
            name=self._name,
            state=look.state,
            state_seconds=max(now - since, 0.0),
            retry_after=look.retry_after,
            reason=self._reason,
            counters=self._read_counters(now),
            failure_rate=failed / calls if rated else None,
            slow_call_rate=slow / calls if rates_slow else None,
            calls=calls,
            failed=failed,
            slow=slow,
            consecutive_failures=self._consecutive,
            reopenings=self._reopenings,
            probes_running=len(self._probes),
            probes_succeeded=self._probes.succeeded,
            by=self._by,
            note=self._note,
            error_type=self._last_error.type,
            error_status=self._last_error.status,
            durations=durations,
        )
