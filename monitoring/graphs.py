"""What the Grafana dashboard shows: its rows of panels, and their queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitoring.circuit_graphs import CIRCUIT_ROWS
from monitoring.graph import QUEUES, RATE, REPLAYS, Curve, Graph

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS: dict[str, Sequence[Graph]] = {
    **CIRCUIT_ROWS,
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
    "Settings from files": (
        Graph(
            title="Settings in effect",
            about="Replicas by the hash of their settings: one, but for the time of a change.",
            queries=[Curve('sum by (hash) (fusewire_config_hash{job=~"$job"})', "{{hash}}")],
            stacked=True,
        ),
        Graph(
            title="Files that had changed",
            about="How many were applied, and refused because of their problems.",
            queries=[
                Curve(
                    'sum by (result) (increase(fusewire_config_reloads_total{job=~"$job"}'
                    f"{RATE}))",
                    "{{result}}",
                )
            ],
        ),
    ),
    "Idempotency keys": (
        Graph(
            title="Requests with keys",
            about="By what became of them: made, given again, refused and why.",
            queries=[
                Curve(
                    "sum by (method, result) "
                    f'(rate(fusewire_idempotency_requests_total{{job=~"$job"}}{RATE}))',
                    "{{method}} {{result}}",
                )
            ],
            unit="reqps",
        ),
        Graph(
            title="Requests that a person looks at",
            about="In doubt, or under a key of another request.",
            queries=[
                Curve(
                    "sum by (method, result) (increase(fusewire_idempotency_requests_total"
                    f'{{job=~"$job", result=~"in-doubt|key-reused"}}{RATE}))',
                    "{{method}} {{result}}",
                )
            ],
        ),
    ),
}
