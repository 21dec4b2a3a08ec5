"""What the dashboard shows of circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitoring.graph import CIRCUITS, RATE, Curve, Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

CIRCUIT_ROWS: dict[str, Sequence[Graph]] = {
    "Circuits": (
        Graph(
            title="Calls",
            about="Calls by result. Rejected ones were never sent.",
            queries=[
                Curve(
                    f"sum by (result) (rate(circuit_breaker_calls_total{{{CIRCUITS}}}{RATE}))",
                    "{{result}}",
                )
            ],
            unit="reqps",
            stacked=True,
        ),
        Graph(
            title="Failures among admitted calls",
            about="Without the rejected calls, which would make it fall while things get worse.",
            queries=[
                Curve(
                    "sum by (circuit_name) (rate(circuit_breaker_calls_total"
                    f'{{{CIRCUITS}, result="failure"}}{RATE})) / (sum by (circuit_name) '
                    f'(rate(circuit_breaker_calls_total{{{CIRCUITS}, result=~"success|failure"}}'
                    f"{RATE})) > 0)",
                    "{{circuit_name}}",
                )
            ],
            unit="percentunit",
            most=1,
        ),
        Graph(
            title="Time without admitted calls",
            about="Share of the replicas, and of the time, for which the circuit was open.",
            queries=[
                Curve(
                    "avg by (circuit_name) (rate(circuit_breaker_open_seconds_total"
                    f"{{{CIRCUITS}}}{RATE}))",
                    "{{circuit_name}}",
                )
            ],
            unit="percentunit",
            most=1,
        ),
        Graph(
            title="Transitions",
            about="Counted by the circuits: the state above misses what is shorter than a scrape.",
            queries=[
                Curve(
                    "sum by (circuit_name, from_state, to_state) "
                    f"(increase(circuit_breaker_state_transitions_total{{{CIRCUITS}}}{RATE})) > 0",
                    "{{circuit_name}}: {{from_state}} to {{to_state}}",
                )
            ],
        ),
        Graph(
            title="Set by hand",
            about="0 automatic, 1 forced open, 2 disabled, 3 metrics only.",
            queries=[
                Curve(
                    f"max by (circuit_name) (circuit_breaker_mode{{{CIRCUITS}}})",
                    "{{circuit_name}}",
                )
            ],
            most=3,
        ),
        Graph(
            title="Durations",
            about="Of calls that ended well; export(durations=…) has to name the circuits.",
            queries=[
                Curve(
                    f"histogram_quantile({share}, sum by (circuit_name, le) "
                    "(rate(circuit_breaker_call_duration_seconds_bucket"
                    f'{{{CIRCUITS}, result="success"}}{RATE})))',
                    f"{{{{circuit_name}}}} p{name}",
                )
                for share, name in ((0.5, 50), (0.99, 99))
            ],
            unit="s",
        ),
    ),
    "Circuits in detail, with export(detail=True)": (
        Graph(
            title="Seconds until a call may be admitted",
            about="0 if one would be admitted now.",
            queries=[
                Curve(
                    f"max by (circuit_name) (circuit_breaker_retry_after_seconds{{{CIRCUITS}}})",
                    "{{circuit_name}}",
                )
            ],
            unit="s",
        ),
        Graph(
            title="Window",
            about="Shares among the calls that decide; absent below minimum_calls.",
            queries=[
                Curve(
                    f"max by (circuit_name) (circuit_breaker_window_failure_ratio{{{CIRCUITS}}})",
                    "{{circuit_name}} failures",
                ),
                Curve(
                    f"max by (circuit_name) (circuit_breaker_window_slow_ratio{{{CIRCUITS}}})",
                    "{{circuit_name}} slow",
                ),
            ],
            unit="percentunit",
            most=1,
        ),
        Graph(
            title="Other calls",
            about="Ignored and slow calls, late results, probes that were never settled.",
            queries=[
                Curve(
                    f"sum by (circuit_name) (rate(circuit_breaker_{name}_total"
                    f"{{{CIRCUITS}}}{RATE}))",
                    f"{{{{circuit_name}}}} {legend}",
                )
                for name, legend in (
                    ("ignored_calls", "ignored"),
                    ("slow_calls", "slow"),
                    ("late_results", "late"),
                    ("expired_leases", "expired"),
                )
            ],
            unit="reqps",
        ),
        Graph(
            title="Fallbacks",
            about="Asked in place of calls that were rejected or failed.",
            queries=[
                Curve(
                    "sum by (circuit_name, outcome) (rate(circuit_breaker_fallbacks_total"
                    f"{{{CIRCUITS}}}{RATE}))",
                    "{{circuit_name}} {{outcome}}",
                )
            ],
            unit="reqps",
        ),
        Graph(
            title="Probes in flight",
            about="Calls that find out whether the dependency has recovered.",
            queries=[
                Curve(
                    f"sum by (circuit_name) (circuit_breaker_probes_running{{{CIRCUITS}}})",
                    "{{circuit_name}}",
                )
            ],
        ),
        Graph(
            title="Processes by state",
            about="Only where several processes share one scrape.",
            queries=[
                Curve(
                    f"sum by (circuit_name, state) (circuit_breaker_processes{{{CIRCUITS}}})",
                    "{{circuit_name}} {{state}}",
                )
            ],
        ),
    ),
}

# Open if any replica says so; else half open if any does.
STATE_QUERY = (
    f"max by (circuit_name) (circuit_breaker_state{{{CIRCUITS}}} == 1) "
    f"or max by (circuit_name) (circuit_breaker_state{{{CIRCUITS}}})"
)
STATES = {0: ("closed", "green"), 1: ("open", "red"), 2: ("half open", "orange")}
