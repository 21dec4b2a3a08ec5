"""Snapshots of a circuit: taking one, and going on from one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.breaker._durations import Durations
from fusewire.breaker._events import Cause, Reason
from fusewire.breaker._reading import ReadableMachine
from fusewire.breaker._snapshot import Snapshot
from fusewire.breaker._windows import make_window
from fusewire.errors import CallError

if TYPE_CHECKING:
    from fusewire.breaker._states import Admission


class SnapshotChanges(ReadableMachine):
    """A machine that can be copied to a snapshot, and restored from one."""

    __slots__ = ()

    def _look_and_take_snapshot(self, now: float) -> Snapshot:
        return self._take_snapshot(now, self._look(now))

    def _take_snapshot(self, now: float, look: Admission) -> Snapshot:
        # Counted from the window's content at `now`: its own totals may include calls too old.
        content = self._window.dump(now)
        return Snapshot(
            name=self._name,
            state=look.state,
            retry_after=look.retry_after,
            reason=self._reason,
            consecutive_failures=self._consecutive,
            reopenings=self._reopenings,
            calls=sum(part.calls for part in content),
            failed=sum(part.failed for part in content),
            slow=sum(part.slow for part in content),
            probes_running=len(self._probes),
            probes_succeeded=self._probes.succeeded,
            counters=self._read_counters(now),
            window=content,
            by=self._by,
            note=self._note,
            error_type=self._last_error.type,
            error_status=self._last_error.status,
        )

    def _load_snapshot(self, now: float, snapshot: Snapshot) -> None:
        counters = snapshot.counters
        self._keep(CallError(snapshot.error_type, snapshot.error_status))
        self._rejected.set(counters.rejected)
        self._count_open_time(now)
        self._open_until = now + snapshot.retry_after
        self._enter(snapshot.state, Reason(Cause.RESTORED), now, snapshot.by, snapshot.note)
        self._set_reason(snapshot.reason)
        self._consecutive = snapshot.consecutive_failures
        self._reopenings = snapshot.reopenings
        self._probes.succeeded = snapshot.probes_succeeded
        self._window = make_window(self._settings, now)
        self._window.load(snapshot.window, now)
        self._succeeded, self._failed = counters.succeeded, counters.failed
        self._ignored, self._slow = counters.ignored, counters.slow
        self._late = counters.late
        self._expired, self._opened = counters.expired, counters.opened
        self._answered, self._unanswered = counters.fallbacks_answered, counters.fallbacks_failed
        # The restoring itself is no transition.
        self._totals.load(counters.transitions, counters.open_seconds, now)
        if snapshot.durations:
            self._start_measuring(now, Durations(self._clock)).load(snapshot.durations)
        self._refresh()
        self._apply_settings(now)
