"""A report as JSON, in the words of Spring Boot's health endpoint and resilience4j's indicator.

Dashboards and alerts that know those words work without a change. The keys are those of
``CircuitBreakersHealthIndicator`` in resilience4j 2; what Fusewire does not know is left out, and
what is not known yet is null, where resilience4j writes ``-1.0%``.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from fusewire.breaker import CircuitState

if TYPE_CHECKING:
    from fusewire.parking import ConsumerStatus, LaneStatus
    from fusewire.telemetry.health._verdicts import CircuitHealth, ConsumerHealth, Report

UP, OUT_OF_SERVICE, DOWN, UNKNOWN = "UP", "OUT_OF_SERVICE", "DOWN", "UNKNOWN"

_WORDS = {
    CircuitState.CLOSED: UP,
    CircuitState.OPEN: "CIRCUIT_OPEN",
    CircuitState.HALF_OPEN: "CIRCUIT_HALF_OPEN",
}
"""For the states that are set by hand, resilience4j says UNKNOWN."""


def indicate(report: Report, *, details: bool) -> dict[str, Any]:
    """Return a report as an object for JSON.

    Args:
        report: what was read.
        details: whether to say more than whether everything is well: names, figures and reasons.
    """
    shown: dict[str, Any] = {"status": _overall(report)}
    if details:
        shown["components"] = {
            "circuitBreakers": _circuits(report),
            "consumers": _consumers(report),
        }
        shown["details"] = {
            probe: list(verdict.reasons)
            for probe, verdict in (("readiness", report.readiness), ("liveness", report.liveness))
        }
    return shown


def _overall(report: Report) -> str:
    if not report.liveness.passes:
        return DOWN
    return UP if report.readiness.passes else OUT_OF_SERVICE


def _circuits(report: Report) -> dict[str, Any]:
    shown = {name: _circuit(each) for name, each in report.circuits.items()}
    unknown = {name: {"status": UNKNOWN} for name in report.unknown}
    fails = any(each.not_ready for each in report.circuits.values())
    return {"status": OUT_OF_SERVICE if fails else UP, "details": {**shown, **unknown}}


def _circuit(circuit: CircuitHealth) -> dict[str, Any]:
    figures, settings = circuit.figures, circuit.settings
    return {
        "status": _WORDS.get(figures.state, UNKNOWN),
        "details": {
            "failureRate": _percent(figures.failure_rate),
            "failureRateThreshold": _percent(settings.failure_rate_threshold),
            "slowCallRate": _percent(figures.slow_call_rate),
            "slowCallRateThreshold": _percent(settings.slow_call_rate_threshold),
            "bufferedCalls": figures.calls,
            "slowCalls": figures.slow,
            "failedCalls": figures.failed,
            "notPermittedCalls": figures.counters.rejected,
            "state": figures.state.name,
            # What follows is not resilience4j's.
            "consecutiveFailures": figures.consecutive_failures,
            "retryAfterSeconds": round(figures.retry_after, 3),
            "lastErrorType": figures.error_type or None,
            "lastErrorStatus": figures.error_status or None,
            "neededForReadiness": circuit.needed,
        },
    }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{round(share * 100, 4)}%"


def _consumers(report: Report) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for each in report.consumers:
        queue = each.status.queue
        # There may be two of one queue, such as a store of calls and its forwarder.
        names = (f"{queue} ({number})" if number > 1 else queue for number in count(1))
        name = next(name for name in names if name not in shown)
        shown[name] = _consumer(each)
    words = [each["status"] for each in shown.values()]
    return {"status": max(words, key=_WORST_LAST.index, default=UP), "details": shown}


_WORST_LAST = (UP, OUT_OF_SERVICE, DOWN)


def _consumer(consumer: ConsumerHealth) -> dict[str, Any]:
    status = consumer.status
    return {
        "status": DOWN if consumer.stuck else OUT_OF_SERVICE if consumer.not_ready else UP,
        "details": {
            "running": status.running,
            "connected": status.connected,
            "connectionChangedSecondsAgo": _ago(status, status.connection_changed_at),
            "subscribed": status.subscribed,
            "lastDeliverySecondsAgo": _ago(status, status.last_delivery_at),
            "inFlight": status.in_flight,
            "pausedBy": status.paused_by,
            "eventLoopTurnedSecondsAgo": _ago(status, status.loop_turned_at),
            "lanes": {name: _lane(lane) for name, lane in status.lanes.items()},
        },
    }


def _lane(lane: LaneStatus) -> dict[str, Any]:
    return {
        "subscribed": lane.subscribed,
        "inFlight": lane.in_flight,
        "ready": None if lane.ready is None else lane.ready.ready,
        "waitsFor": list(lane.waits_for),
    }


def _ago(status: ConsumerStatus, when: float | None) -> float | None:
    return None if when is None else round(status.at - when, 3)
