"""What people and outside sources do to a circuit: set its state by hand, or keep it open."""

from __future__ import annotations

from fusewire._validation import SECONDS, check
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._restoring import SnapshotChanges
from fusewire.breaker._states import BY_HAND, CircuitState

_ALL = tuple(CircuitState)


class ByHandChanges(SnapshotChanges):
    """A machine whose state can be set by hand."""

    __slots__ = ()

    def force_open(self) -> None:
        """Reject all calls until :meth:`automatic` or :meth:`reset`."""
        self._by_hand(CircuitState.FORCED_OPEN)

    def disable(self) -> None:
        """Admit all calls and count nothing until :meth:`automatic` or :meth:`reset`."""
        self._by_hand(CircuitState.DISABLED)

    def metrics_only(self) -> None:
        """Admit and count all calls, never opening, until :meth:`automatic` or :meth:`reset`."""
        self._by_hand(CircuitState.METRICS_ONLY)

    def automatic(self) -> None:
        """End a state that was set by hand: start again, closed. Otherwise do nothing."""
        self._by_hand(CircuitState.CLOSED, only_from=BY_HAND)

    def reset(self) -> None:
        """Start again, closed, with an empty window, whatever the state. Totals are kept."""
        self._by_hand(CircuitState.CLOSED)

    def hold_open(self, seconds: float) -> None:
        """Keep an open circuit open for at least `seconds` from now. Otherwise do nothing.

        Call this when another source, such as a health check, knows that the dependency is down.
        The hold expires on its own: repeat it for as long as it should last. No maximum applies.

        Raises:
            SettingsError: `seconds` is not a finite number above 0.
        """
        check("seconds", seconds, SECONDS)
        self._change(self._clock(), self._hold, seconds)

    def half_open(self) -> None:
        """End the open time of an open circuit: the next calls are probes. Otherwise do nothing."""
        self._by_hand(CircuitState.HALF_OPEN, only_from=(CircuitState.OPEN,))

    def _by_hand(self, state: CircuitState, only_from: tuple[CircuitState, ...] = _ALL) -> None:
        self._change(self._clock(), self._set_by_hand, state, only_from)

    def _set_by_hand(
        self, now: float, state: CircuitState, only_from: tuple[CircuitState, ...]
    ) -> None:
        if self._state in only_from:
            reason = Reason(Cause.BY_HAND)
            if state is CircuitState.FORCED_OPEN:
                self._set_reason(reason)
            self._enter(state, reason, now)

    def _hold(self, now: float, seconds: float) -> None:
        if self._state is CircuitState.OPEN:
            self._count_open_time(now)
            self._open_until = max(self._open_until, now + seconds)
            self._refresh()
