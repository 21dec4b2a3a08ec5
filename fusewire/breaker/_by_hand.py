"""What people and outside sources do to a circuit: set its state by hand, or keep it open."""

from __future__ import annotations

from fusewire._validation import SECONDS, TEXT, check
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._restoring import SnapshotChanges
from fusewire.breaker._states import BY_HAND, CircuitState

_ALL = tuple(CircuitState)


class ByHandChanges(SnapshotChanges):
    """A machine whose state can be set by hand."""

    __slots__ = ()

    def force_open(self, *, by: str = "", reason: str = "") -> None:
        """Reject all calls until :meth:`automatic` or :meth:`reset`.

        Args:
            by: who does it, for the log, the event and the figures.
            reason: why, for the same.

        Raises:
            SettingsError: one of them is no string.
        """
        self._by_hand(CircuitState.FORCED_OPEN, by, reason)

    def disable(self, *, by: str = "", reason: str = "") -> None:
        """Admit all calls and count nothing until :meth:`automatic` or :meth:`reset`.

        `by` and `reason` are as for :meth:`force_open`.
        """
        self._by_hand(CircuitState.DISABLED, by, reason)

    def metrics_only(self, *, by: str = "", reason: str = "") -> None:
        """Admit and count all calls, never opening, until :meth:`automatic` or :meth:`reset`.

        `by` and `reason` are as for :meth:`force_open`.
        """
        self._by_hand(CircuitState.METRICS_ONLY, by, reason)

    def automatic(self, *, by: str = "", reason: str = "") -> None:
        """End a state that was set by hand: start again, closed. Otherwise do nothing.

        `by` and `reason` are as for :meth:`force_open`.
        """
        self._by_hand(CircuitState.CLOSED, by, reason, only_from=BY_HAND)

    def reset(self, *, by: str = "", reason: str = "") -> None:
        """Start again, closed, with an empty window, whatever the state. Totals are kept.

        `by` and `reason` are as for :meth:`force_open`.
        """
        self._by_hand(CircuitState.CLOSED, by, reason)

    def hold_open(self, seconds: float) -> None:
        """Keep an open circuit open for at least `seconds` from now. Otherwise do nothing.

        Call this when another source, such as a health check, knows that the dependency is down.
        The hold expires on its own: repeat it for as long as it should last. No maximum applies.

        Raises:
            SettingsError: `seconds` is not a finite number above 0.
        """
        check("seconds", seconds, SECONDS)
        self._change(self._clock(), self._hold, seconds)

    def half_open(self, *, by: str = "", reason: str = "") -> None:
        """End the open time of an open circuit: the next calls are probes. Otherwise do nothing.

        `by` and `reason` are as for :meth:`force_open`.
        """
        self._by_hand(CircuitState.HALF_OPEN, by, reason, only_from=(CircuitState.OPEN,))

    def _by_hand(
        self,
        state: CircuitState,
        by: str,
        note: str,
        only_from: tuple[CircuitState, ...] = _ALL,
    ) -> None:
        check("by", by, TEXT)
        check("reason", note, TEXT)
        self._change(self._clock(), self._set_by_hand, state, by, note, only_from)

    def _set_by_hand(
        self,
        now: float,
        state: CircuitState,
        by: str,
        note: str,
        only_from: tuple[CircuitState, ...],
    ) -> None:
        if self._state in only_from:
            reason = Reason(Cause.BY_HAND)
            if state is CircuitState.FORCED_OPEN:
                self._set_reason(reason)
            self._enter(state, reason, now, by, note)

    def _hold(self, now: float, seconds: float) -> None:
        if self._state is CircuitState.OPEN:
            self._count_open_time(now)
            self._open_until = max(self._open_until, now + seconds)
            self._refresh()
