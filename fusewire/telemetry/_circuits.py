"""The metrics of circuits."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fusewire._locks import make_lock
from fusewire.breaker import CircuitMode, CircuitState, Durations
from fusewire.telemetry._growth import Growth
from fusewire.telemetry._metrics import Combine, Kind, Metric, Readings, without

if TYPE_CHECKING:
    from collections.abc import Collection

    from fusewire.breaker import BreakerRegistry, CircuitBreaker, Figures
    from fusewire.telemetry._metrics import Labels

OTHER = "_other"
"""The name under which circuits without series of their own are counted together."""

_CIRCUIT = ("circuit_name",)

STATE = Metric(
    "circuit_breaker_state",
    _CIRCUIT,
    "Current circuit breaker state (0=closed, 1=open, 2=half-open)",
    combine=Combine.MAX,
)
CALLS = Metric(
    "circuit_breaker_calls_total",
    (*_CIRCUIT, "result"),
    "Total calls through circuit breaker",
    Kind.COUNTER,
)
TRANSITIONS = Metric(
    "circuit_breaker_state_transitions_total",
    (*_CIRCUIT, "from_state", "to_state"),
    "Circuit breaker state transitions",
    Kind.COUNTER,
)
MODE = Metric(
    "circuit_breaker_mode",
    _CIRCUIT,
    "What was set by hand (0=automatic, 1=forced open, 2=disabled, 3=metrics only)",
    combine=Combine.MAX,
)
OPEN_SECONDS = Metric(
    "circuit_breaker_open_seconds_total",
    _CIRCUIT,
    "Seconds in which no calls were admitted: open, or forced open",
    Kind.COUNTER,
)
IGNORED = Metric(
    "circuit_breaker_ignored_calls_total",
    _CIRCUIT,
    "Calls that said nothing about the dependency: cancelled, abandoned, or wrong themselves",
    Kind.COUNTER,
)
SLOW = Metric(
    "circuit_breaker_slow_calls_total",
    _CIRCUIT,
    "Calls that took longer than slow_call_duration, whatever their result",
    Kind.COUNTER,
)
LATE = Metric(
    "circuit_breaker_late_results_total",
    _CIRCUIT,
    "Results that came after the state had changed, and so were not counted",
    Kind.COUNTER,
)
EXPIRED = Metric(
    "circuit_breaker_expired_leases_total",
    _CIRCUIT,
    "Probes that were never settled, whose places were taken back",
    Kind.COUNTER,
)
FALLBACKS = Metric(
    "circuit_breaker_fallbacks_total",
    (*_CIRCUIT, "outcome"),
    "Fallbacks that were asked in place of a call, by whether they answered",
    Kind.COUNTER,
)
RETRY_AFTER = Metric(
    "circuit_breaker_retry_after_seconds",
    _CIRCUIT,
    "Seconds until a call may be admitted; 0 if one would be admitted now",
    combine=Combine.MAX,
)
PROBES = Metric(
    "circuit_breaker_probes_running",
    _CIRCUIT,
    "Probes in flight",
)
FAILURE_RATIO = Metric(
    "circuit_breaker_window_failure_ratio",
    _CIRCUIT,
    "Share of failures in the window, from 0 to 1; absent below minimum_calls",
    combine=Combine.MAX,
)
SLOW_RATIO = Metric(
    "circuit_breaker_window_slow_ratio",
    _CIRCUIT,
    "Share of slow calls in the window, from 0 to 1; absent below minimum_calls",
    combine=Combine.MAX,
)
DURATION = Metric(
    "circuit_breaker_call_duration_seconds",
    (*_CIRCUIT, "result"),
    "How long calls took that succeeded or failed",
    Kind.HISTOGRAM,
    bounds=Durations().totals().answered.bounds,  # the same for all circuits
)
PROCESSES = Metric(
    "circuit_breaker_processes",
    (*_CIRCUIT, "state"),
    "Live processes by the state of their circuit; only where several processes share one scrape",
)
LEFT_OUT = Metric(
    "fusewire_metrics_circuits_left_out",
    (),
    f'Circuits beyond max_circuits, which are counted together as circuit_name="{OTHER}"',
)

BASIC = (STATE, CALLS, TRANSITIONS, MODE, OPEN_SECONDS, LEFT_OUT)
DETAIL = (IGNORED, SLOW, LATE, EXPIRED, FALLBACKS, RETRY_AFTER, PROBES, FAILURE_RATIO, SLOW_RATIO)

_STATES = {
    CircuitState.CLOSED: 0,
    CircuitState.OPEN: 1,
    CircuitState.HALF_OPEN: 2,
    CircuitState.FORCED_OPEN: 1,
    CircuitState.DISABLED: 0,
    CircuitState.METRICS_ONLY: 0,
}
_MODES = {
    CircuitMode.AUTOMATIC: 0,
    CircuitMode.FORCED_OPEN: 1,
    CircuitMode.DISABLED: 2,
    CircuitMode.METRICS_ONLY: 3,
}


class CircuitReader:
    """Reads the circuits of a registry.

    Args:
        registry: where they are.
        detail: whether to read the metrics of :data:`DETAIL` too.
        durations: names or patterns of the circuits whose durations are read.
        max_circuits: how many circuits get series of their own. The others are added up.
        processes: whether to read :data:`PROCESSES`.
        restored: whether durations include those that came from snapshots.
    """

    def __init__(
        self,
        registry: BreakerRegistry,
        *,
        detail: bool,
        durations: Collection[str],
        max_circuits: int,
        processes: bool,
        restored: bool,
    ) -> None:
        self._registry = registry
        self._detail = detail
        self._durations = tuple(durations)
        self._max_circuits = max_circuits
        self._processes = processes
        self._restored = restored
        self._lock = make_lock()
        # Whether a circuit has series of its own. Decided once, or its calls would count twice.
        self._own: dict[str, bool] = {}
        self._others: dict[CircuitBreaker, Growth] = {}
        self._other_totals = Readings()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it may read."""
        return (
            *BASIC,
            *(DETAIL if self._detail else ()),
            *((DURATION,) if self._durations else ()),
            *((PROCESSES,) if self._processes else ()),
        )

    def has_own_series(self, name: str) -> bool:
        """Return whether the circuit called `name` was read with series of its own."""
        return self._own.get(name, False)

    def read(self, readings: Readings) -> None:
        """Add what all circuits show now."""
        with self._lock:
            breakers = tuple(self._registry)
            self._choose({breaker.name for breaker in breakers})
            others: dict[CircuitBreaker, Growth] = {}
            for breaker in breakers:
                figures = breaker.figures()
                if self._own[breaker.name]:
                    self._read_one(readings, figures, breaker.name)
                else:
                    others[breaker] = self._others.get(breaker) or Growth()
                    self._add_to_others(readings, figures, others[breaker])
            self._others = others
            readings.include(self._other_totals)
            readings.add(LEFT_OUT, (), len(others))

    def _choose(self, names: set[str]) -> None:
        """Forget circuits that are gone, and decide about new ones."""
        self._own = {name: own for name, own in self._own.items() if name in names}
        room = self._max_circuits - sum(self._own.values())
        for name in sorted(names - self._own.keys()):
            self._own[name] = room > 0
            room -= 1

    def _add_to_others(self, readings: Readings, figures: Figures, growth: Growth) -> None:
        """Add a circuit to the one series of many. Its counts stay there when it is gone."""
        one, totals = Readings(), self._other_totals
        self._read_one(one, figures, OTHER)
        for metric, values in one.numbers.items():
            for labels, value in values.items():
                if metric.kind is Kind.COUNTER:
                    totals.add(metric, labels, growth.of(metric, labels, value))
                else:
                    readings.add(metric, labels, value)
        for metric, histograms in one.histograms.items():
            for labels, histogram in histograms.items():
                more = growth.of_histogram(metric, labels, histogram)
                totals.add_histogram(metric, labels, more)

    def _read_one(self, readings: Readings, figures: Figures, name: str) -> None:
        add, counters, circuit = readings.add, figures.counters, (name,)
        add(STATE, circuit, _STATES[figures.state])
        add(CALLS, (name, "success"), counters.succeeded)
        add(CALLS, (name, "failure"), counters.failed)
        add(CALLS, (name, "rejected"), counters.rejected)
        for each in counters.transitions:
            add(TRANSITIONS, (name, each.old.value, each.new.value), each.count)
        add(MODE, circuit, _MODES[figures.mode])
        add(OPEN_SECONDS, circuit, counters.open_seconds)
        if self._detail:
            _read_detail(readings, figures, circuit)
        durations = figures.durations
        if durations is not None and self._wants_durations(figures.name):
            answered, failed = durations.answered, durations.failed
            if not self._restored and durations.restored is not None:
                answered = without(answered, durations.restored.answered)
                failed = without(failed, durations.restored.failed)
            readings.add_histogram(DURATION, (name, "success"), answered)
            readings.add_histogram(DURATION, (name, "failure"), failed)
        if self._processes:
            add(PROCESSES, (name, figures.state.value), 1)

    def _wants_durations(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._durations)


def _read_detail(readings: Readings, figures: Figures, circuit: Labels) -> None:
    add, counters = readings.add, figures.counters
    add(IGNORED, circuit, counters.ignored)
    add(SLOW, circuit, counters.slow)
    add(LATE, circuit, counters.late)
    add(EXPIRED, circuit, counters.expired)
    add(FALLBACKS, (*circuit, "answered"), counters.fallbacks_answered)
    add(FALLBACKS, (*circuit, "failed"), counters.fallbacks_failed)
    add(RETRY_AFTER, circuit, figures.retry_after)
    add(PROBES, circuit, figures.probes_running)
    if figures.failure_rate is not None:
        add(FAILURE_RATIO, circuit, figures.failure_rate)
    if figures.slow_call_rate is not None:
        add(SLOW_RATIO, circuit, figures.slow_call_rate)
