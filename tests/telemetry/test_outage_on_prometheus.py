"""What a real Prometheus answers that has scraped the demo through an outage.

The test at the end writes the table of docs/prometheus.md to ``build/prometheus.md``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fusewire.telemetry._source import METRICS

if TYPE_CHECKING:
    from tests.support.scraped_outage import ScrapedOutage

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]

STATE = "circuit_breaker_state"
REJECTED = 'rate(circuit_breaker_calls_total{result="rejected"}[5m])'
FAILED = (
    'rate(circuit_breaker_calls_total{result="failure"}[5m]) '
    "/ rate(circuit_breaker_calls_total[5m])"
)
TRANSITIONS = "increase(circuit_breaker_state_transitions_total[1h])"
ARTICLE = (STATE, REJECTED, FAILED, TRANSITIONS)

RULES = re.findall(
    r"- record: (\S+)", (ROOT / "monitoring" / "rules.yml").read_text(encoding="utf-8")
)


def values(outage: ScrapedOutage, query: str, moment: str) -> list[float]:
    return [value for _, value in outage.prometheus.query(query, outage.moments[moment])]


def test_the_demo_lost_nothing(outage: ScrapedOutage) -> None:
    assert outage.report.faults == []
    assert outage.report.parked > 0


def test_the_state_of_all_circuits(outage: ScrapedOutage) -> None:
    assert values(outage, STATE, "closed") == [0, 0]
    assert set(values(outage, STATE, "open")) <= {1, 2}
    assert len(values(outage, STATE, "open")) == 2
    assert values(outage, STATE, "after") == [0, 0]


def test_the_rate_of_rejected_calls(outage: ScrapedOutage) -> None:
    assert values(outage, REJECTED, "closed") == [0, 0]
    assert max(values(outage, REJECTED, "open")) > 0.5


@pytest.mark.parametrize("moment", ["closed", "open", "after"])
def test_the_articles_failure_rate_is_1_or_no_number(outage: ScrapedOutage, moment: str) -> None:
    found = values(outage, FAILED, moment)
    assert found
    assert {value for value in found if not math.isnan(value)} <= {1.0}


def test_the_failure_ratio_of_the_rules_is_that_of_the_counters(outage: ScrapedOutage) -> None:
    ratio = "instance:circuit_breaker_failures:ratio_rate5m"
    assert all(0 < value < 1 for value in values(outage, ratio, "open"))
    admitted = 'sum without (result) (circuit_breaker_calls_total{result=~"success|failure"})'
    failed = 'sum without (result) (circuit_breaker_calls_total{result="failure"})'
    whole = values(outage, f"{failed} / {admitted}", "after")
    assert values(outage, ratio, "after") == pytest.approx(whole, rel=0.2)


def test_the_first_opening_is_seen(outage: ScrapedOutage) -> None:
    at = outage.moments["after"]
    raw = {
        (labels["instance"], labels["from_state"], labels["to_state"]): value
        for labels, value in outage.prometheus.query("circuit_breaker_state_transitions_total", at)
    }
    assert {count for (_, old, new), count in raw.items() if (old, new) == ("closed", "open")}
    for labels, value in outage.prometheus.query(TRANSITIONS, at):
        count = raw[labels["instance"], labels["from_state"], labels["to_state"]]
        # Prometheus extrapolates: 1.03 for 1.
        assert value == pytest.approx(count, rel=0.2), labels


def test_a_gauge_misses_changes_that_the_counter_has(outage: ScrapedOutage) -> None:
    changes = sum(values(outage, f"changes({STATE}[1h])", "after"))
    transitions = sum(values(outage, "circuit_breaker_state_transitions_total", "after"))
    assert changes <= transitions


def test_messages_are_counted_as_in_the_demos_report(outage: ScrapedOutage) -> None:
    query = 'sum by (queue) (fusewire_messages_total{event="replayed"})'
    shown = {
        labels["queue"].rpartition("-")[2]: value
        for labels, value in outage.prometheus.query(query, outage.moments["after"])
    }
    report = outage.report
    assert shown == {"charges": report.replayed, "orders": report.orders_replayed}
    query = "sum(fusewire_parked_seconds_count)"
    assert values(outage, query, "after") == [report.replayed + report.orders_replayed]


def test_what_waits_is_shown_while_it_waits(outage: ScrapedOutage) -> None:
    lanes = 'job:fusewire_lane_messages:sum{lane="payments"}'
    # Few at first: on a busy machine a call may fail before the outage.
    assert max(values(outage, lanes, "closed")) < min(values(outage, lanes, "open"))
    assert values(outage, lanes, "after") == [0, 0]
    # Not while a probe is made.
    blocked = 'max_over_time(fusewire_lane_blocked{lane="payments"}[10s])'
    assert values(outage, blocked, "open") == [1, 1]
    assert values(outage, 'fusewire_lane_blocked{lane="payments"}', "after") == [0, 0]
    assert set(values(outage, "fusewire_broker_connected", "open")) == {1}


def test_no_rule_fails(outage: ScrapedOutage) -> None:
    assert outage.prometheus.broken_rules() == {}
    assert RULES
    assert [name for name in RULES if name not in outage.prometheus.names()] == []


def test_every_metric_of_a_single_process_was_scraped(outage: ScrapedOutage) -> None:
    names = outage.prometheus.names()
    missing = {
        metric.name for metric in METRICS if not {metric.name, f"{metric.name}_count"} & names
    }
    # Of several processes that share a scrape; of circuits that have a window of calls; and of
    # files of settings and watched stores of keys, which the demo has none of.
    assert missing == {
        "circuit_breaker_processes",
        "circuit_breaker_window_failure_ratio",
        "circuit_breaker_window_slow_ratio",
        "fusewire_config_hash",
        "fusewire_config_last_reload_successful",
        "fusewire_config_reloads_total",
        "fusewire_config_restart_required",
        "fusewire_idempotency_requests_total",
    }


def test_the_table_of_the_page(outage: ScrapedOutage) -> None:
    moments = ("closed", "open", "replay", "after")
    lines = [
        f"| query | {' | '.join(moments)} |",
        f"|---|{'---|' * len(moments)}",
        *(
            f"| `{query.replace('|', chr(92) + '|')}` | "
            + " | ".join(_cell(outage, query, moment) for moment in moments)
            + " |"
            for query in (*ARTICLE, *RULES)
        ),
    ]
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "prometheus.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(lines) == 2 + 4 + len(RULES)


def _cell(outage: ScrapedOutage, query: str, moment: str) -> str:
    """Return what the client's series show, or those of its queue."""
    found = outage.prometheus.query(query, outage.moments[moment])
    own = [
        (labels, value)
        for labels, value in found
        if labels.get("instance", outage.instance) == outage.instance
        and labels.get("queue", "-charges").endswith("-charges")
        and labels.get("lane", "payments") == "payments"
    ]
    return ", ".join(_value(labels, value) for labels, value in own) or "absent"


def _value(labels: dict[str, str], value: float) -> str:
    if "from_state" in labels:
        return f"{labels['from_state']} to {labels['to_state']} {value:.2f}"
    of = f"{labels['result']} " if "result" in labels else ""
    return f"{of}{value:.3g}"
