"""What the Grafana dashboard shows: its rows of panels, and their queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

CIRCUITS = 'job=~"$job", circuit_name=~"$circuit"'
QUEUES = 'job=~"$job", queue=~"$queue"'
REPLAYS = 'job=~"$job", queue=~"$queue", circuit_name=~"$circuit|"'
RATE = "[$__rate_interval]"


class Curve(NamedTuple):
    """A query of a panel, and what its curves are called."""

    query: str
    legend: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A panel of curves.

    Attributes:
        title: its title.
        about: what it shows.
        queries: what is drawn.
        unit: Grafana's name of the unit.
        stacked: whether the curves stand on each other.
        most: the upper end of the axis, if it is known.
    """

    title: str
    about: str
    queries: Sequence[Curve]
    unit: str = "short"
    stacked: bool = False
    most: float | None = None


ROWS: dict[str, Sequence[Graph]] = {
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
    "Messages": (
        Graph(
            title="Parked messages",
            about="Ready ones, which all replicas see alike, and those in flight in each.",
            queries=[
                Curve(
                    "max by (queue, lane) (fusewire_lane_ready_messages"
                    f"{{{QUEUES}}}) + sum by (queue, lane) (fusewire_lane_in_flight_messages"
                    f"{{{QUEUES}}})",
                    "{{queue}} {{lane}}",
                )
            ],
        ),
        Graph(
            title="How long messages wait",
            about="The age of the lane's first message, and the time since the lane was empty.",
            queries=[
                Curve(
                    f"max by (queue, lane) (fusewire_lane_head_age_seconds{{{QUEUES}}})",
                    "{{queue}} {{lane}} first",
                ),
                Curve(
                    f"max by (queue, lane) (fusewire_lane_nonempty_seconds{{{QUEUES}}})",
                    "{{queue}} {{lane}} not empty",
                ),
            ],
            unit="s",
        ),
        Graph(
            title="How long parked messages waited",
            about="From the first parking until they were handled.",
            queries=[
                Curve(
                    f"histogram_quantile({share}, sum by (queue, lane, le) "
                    f"(rate(fusewire_parked_seconds_bucket{{{QUEUES}}}{RATE})))",
                    f"{{{{queue}}}} {{{{lane}}}} p{name}",
                )
                for share, name in ((0.5, 50), (0.99, 99))
            ],
            unit="s",
        ),
        Graph(
            title="Messages by what happened",
            about="Of all lanes; replayed ones were parked before.",
            queries=[
                Curve(
                    "sum by (queue, event, reason) (rate(fusewire_messages_total"
                    f"{{{QUEUES}}}{RATE})) > 0",
                    "{{queue}} {{event}} {{reason}}",
                )
            ],
            unit="reqps",
        ),
        Graph(
            title="Source queue",
            about="Messages that wait in the queue itself, and those in flight.",
            queries=[
                Curve(
                    f"max by (queue) (fusewire_queue_ready_messages{{{QUEUES}}})",
                    "{{queue}} ready",
                ),
                Curve(
                    f"sum by (queue) (fusewire_queue_in_flight_messages{{{QUEUES}}})",
                    "{{queue}} in flight",
                ),
            ],
        ),
        Graph(
            title="Delayed and dead messages",
            about="Dead ones wait for a person.",
            queries=[
                Curve(
                    f"max by (queue) (fusewire_delayed_messages{{{QUEUES}}})", "{{queue}} delayed"
                ),
                Curve(f"max by (queue) (fusewire_dead_messages{{{QUEUES}}})", "{{queue}} dead"),
            ],
        ),
        Graph(
            title="Troubles with the broker",
            about="Possible duplicates, and moves that failed and are tried again.",
            queries=[
                Curve(
                    f"sum by (queue) (rate(fusewire_redelivered_total{{{QUEUES}}}{RATE}))",
                    "{{queue}} redelivered",
                ),
                Curve(
                    "sum by (queue, reason) (rate(fusewire_moves_refused_total"
                    f"{{{QUEUES}}}{RATE}))",
                    "{{queue}} {{reason}}",
                ),
            ],
            unit="reqps",
        ),
        Graph(
            title="Connections",
            about="Share of the replicas whose broker answers, and that consume.",
            queries=[
                Curve(
                    f"avg by (queue) (fusewire_broker_connected{{{QUEUES}}})", "{{queue}} connected"
                ),
                Curve(
                    f"avg by (queue) (fusewire_consumer_subscribed{{{QUEUES}}})",
                    "{{queue}} subscribed",
                ),
                Curve(f"max by (queue) (fusewire_consumer_paused{{{QUEUES}}})", "{{queue}} paused"),
                Curve(
                    f"max by (queue, lane) (fusewire_lane_blocked{{{QUEUES}}})",
                    "{{queue}} {{lane}} blocked",
                ),
            ],
            most=1,
        ),
    ),
    "Replays": (
        Graph(
            title="Window and replays in flight",
            about="How many replays all replicas may have in flight, and have.",
            queries=[
                Curve(
                    f"sum by (queue, lane) (fusewire_replay_window{{{REPLAYS}}})",
                    "{{queue}} {{lane}} window",
                ),
                Curve(
                    f"sum by (queue, lane) (fusewire_replay_in_flight{{{REPLAYS}}})",
                    "{{queue}} {{lane}} in flight",
                ),
            ],
        ),
        Graph(
            title="Slow replays, and gain",
            about="Share of slow ones among the latest; share by which the window grows.",
            queries=[
                Curve(
                    f"max by (queue, lane) (fusewire_replay_slow_ratio{{{REPLAYS}}})",
                    "{{queue}} {{lane}} slow",
                ),
                Curve(
                    f"max by (queue, lane) (fusewire_replay_gain{{{REPLAYS}}})",
                    "{{queue}} {{lane}} gain",
                ),
            ],
            unit="percentunit",
        ),
        Graph(
            title="What counts as slow",
            about="Taken from live calls before the outage.",
            queries=[
                Curve(
                    f"max by (queue, lane) (fusewire_replay_reference_seconds{{{REPLAYS}}})",
                    "{{queue}} {{lane}}",
                )
            ],
            unit="s",
        ),
        Graph(
            title="Replicas",
            about="How many replay, of how many there are.",
            queries=[
                Curve(
                    f"sum by (queue, lane) (fusewire_replay_taking_part{{{REPLAYS}}})",
                    "{{queue}} {{lane}} take part",
                ),
                Curve(
                    f"max by (queue, lane) (fusewire_replay_replicas{{{REPLAYS}}})",
                    "{{queue}} {{lane}} known",
                ),
            ],
        ),
        Graph(
            title="Cuts of the window",
            about="By what caused them: a refusal, a late call.",
            queries=[
                Curve(
                    "sum by (queue, lane, cause) (increase(fusewire_replay_cuts_total"
                    f"{{{REPLAYS}}}{RATE}))",
                    "{{queue}} {{lane}} {{cause}}",
                )
            ],
        ),
        Graph(
            title="Versions, and circuits left out",
            about="Processes by version; circuits beyond max_circuits.",
            queries=[
                Curve('sum by (version) (fusewire_info{job=~"$job"})', "{{version}}"),
                Curve('max(fusewire_metrics_circuits_left_out{job=~"$job"})', "circuits left out"),
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
