"""OpenTelemetry's metrics are those of Prometheus, by name, attribute and value."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fusewire.breaker import BreakerRegistry
from fusewire.errors import SettingsError
from fusewire.parking import Depth, MessageEvent, MessageOutcome
from fusewire.telemetry._source import Source
from fusewire.telemetry.opentelemetry import instrument
from fusewire.telemetry.opentelemetry._instruments import Instruments, name_and_unit
from fusewire.telemetry.prometheus import export
from fusewire.testing import FakeClock
from tests.support.consumer_status import NOW, WELL

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.parking import ConsumerStatus, MessageTracer
    from fusewire.telemetry._metrics import Readings
    from fusewire.telemetry.opentelemetry import Instrumentation


class FakeConsumer:
    """Has a status, and events that a test makes."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[MessageEvent], None]] = []

    def status(self) -> ConsumerStatus:
        return replace(WELL, ready=Depth(5, NOW))

    def add_listener(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def trace_with(self, tracer: MessageTracer) -> Callable[[], None]:
        return lambda: None

    def tell(self, event: MessageEvent) -> None:
        for listener in self._listeners:
            listener(event)


def collected(reader: InMemoryMetricReader) -> dict[str, dict[tuple[Any, ...], Any]]:
    """Return values by metric and attributes."""
    data = reader.get_metrics_data()
    found: dict[str, dict[tuple[Any, ...], Any]] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    points[tuple((point.attributes or {}).values())] = getattr(
                        point, "value", point
                    )
    return found


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of a page, without what OpenTelemetry adds."""
    return {
        (
            sample.name,
            frozenset(
                (name, value)
                for name, value in sample.labels.items()
                if not name.startswith("otel_scope_")
            ),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name != "target"
    }


def test_circuits_are_shown_with_the_names_of_the_article(
    registry: BreakerRegistry, telemetry: Instrumentation, reader: InMemoryMetricReader
) -> None:
    breaker = registry.get("payments")
    with breaker.acquire():
        pass
    while breaker.can_execute():
        breaker.acquire().failure()
    metrics = collected(reader)
    assert metrics["circuit_breaker.state"] == {("payments",): 1}
    assert metrics["circuit_breaker.calls"] == {
        ("payments", "success"): 1,
        ("payments", "failure"): 2,
        ("payments", "rejected"): 0,
    }
    assert metrics["circuit_breaker.state_transitions"]["payments", "closed", "open"] == 1
    telemetry.close()
    assert collected(reader) == {}


def test_what_is_instrumented_later_is_shown_by_the_same_meter(
    registry: BreakerRegistry, reader: InMemoryMetricReader
) -> None:
    other = BreakerRegistry()
    registry.get("payments").acquire().success()
    other.get("payments").acquire().success()
    other.get("mail").acquire().failure()
    other.get("mail").force_open()
    meters = MeterProvider([reader])

    def succeeded() -> Any:
        calls = collected(reader).get("circuit_breaker.calls", {})
        return {name: count for (name, result), count in calls.items() if result == "success"}

    first = instrument(registry, meter_provider=meters)
    with instrument(other, meter_provider=meters, detail=True, durations=["*"]):
        assert succeeded() == {"payments": 2, "mail": 0}
        other.get("mail").reset()
        other.get("mail").acquire().success()
        metrics = collected(reader)
        assert metrics["circuit_breaker.ignored_calls"].keys() == {("payments",), ("mail",)}
        assert metrics["circuit_breaker.call_duration"]["mail", "success"].count == 1
        first.close()
        assert succeeded() == {"payments": 1, "mail": 1}
    assert succeeded() == {}
    with instrument(registry, meter_provider=meters):
        assert succeeded() == {"payments": 1}
    meters.shutdown()


@pytest.fixture
def scraped() -> PrometheusMetricReader:
    """Return a reader that is scraped through prometheus_client's own registry."""
    return PrometheusMetricReader()


def test_opentelemetrys_own_exporter_for_prometheus_shows_what_ours_shows(
    registry: BreakerRegistry, scraped: PrometheusMetricReader
) -> None:
    breaker = registry.get("payments")
    consumer, to = FakeConsumer(), CollectorRegistry()
    meters = MeterProvider([scraped])
    with (
        export(registry, to=to, detail=True, durations=["*"]) as ours,
        instrument(registry, meter_provider=meters, detail=True, durations=["*"]) as theirs,
    ):
        breaker.acquire().success()
        ours.watch(consumer)  # type: ignore[arg-type] # a fake of what is read
        theirs.watch(consumer)  # type: ignore[arg-type] # a fake of what is read
        consumer.tell(MessageEvent(MessageOutcome.HANDLED, "a", "orders"))
        consumer.tell(REPLAYED)
        breaker.acquire().failure()
        breaker.force_open()
        expected = samples(generate_latest(to).decode())
        shown = samples(generate_latest(REGISTRY).decode())
    meters.shutdown()
    changing = {key for key in expected if key[0].endswith("_seconds") or "open_seconds" in key[0]}
    # A histogram of OpenTelemetry's begins with the first that it counts.
    empty = {key for key in expected if is_of_a_histogram(key[0]) and not expected[key]} - {
        key for key in shown if is_of_a_histogram(key[0])
    }
    assert {key for key in shown if key[0].startswith(("circuit_breaker", "fusewire"))} == (
        expected.keys() - empty
    )
    for key in expected.keys() - empty - changing:
        assert shown[key] == pytest.approx(expected[key]), key


def is_of_a_histogram(name: str) -> bool:
    return name.endswith(("_bucket", "_count", "_sum"))


REPLAYED = MessageEvent(
    MessageOutcome.REPLAYED, "a", "orders", lane="x", first_parked_at=10.0, ended_at=17.0
)


def test_how_long_messages_were_parked_is_a_histogram(
    telemetry: Instrumentation, reader: InMemoryMetricReader
) -> None:
    consumer = FakeConsumer()
    telemetry.watch(consumer)  # type: ignore[arg-type] # a fake of what is read
    for event in (REPLAYED, MessageEvent(MessageOutcome.HANDLED, "b", "orders")):
        consumer.tell(event)
    ((attributes, point),) = collected(reader)["fusewire.parked"].items()
    assert attributes == ("orders", "x")
    assert (point.count, point.sum) == (1, pytest.approx(7.0))
    assert point.explicit_bounds[0] == 1.0


class Counted(Source):
    """A source that counts how often it is read."""

    reads = 0

    def read(self) -> Readings:
        self.reads += 1
        return super().read()


def test_one_reading_serves_all_instruments_of_a_collection(registry: BreakerRegistry) -> None:
    clock = FakeClock()
    source = Counted(registry, detail=True, durations=(), max_circuits=10, processes=False)
    one, other = InMemoryMetricReader(), InMemoryMetricReader()
    meters = MeterProvider([one, other])
    Instruments(source, meters.get_meter("test"), clock)
    assert source.reads == 1  # for what was counted before
    breaker = registry.get("payments")
    for succeeded in range(3):
        assert collected(one)["circuit_breaker.calls"]["payments", "success"] == succeeded
        assert source.reads == succeeded + 2
        breaker.acquire().success()
    collected(other)
    assert source.reads == 5
    clock.advance(2)
    collected(other)
    assert source.reads == 6
    meters.shutdown()


def test_names_are_those_of_prometheus_with_a_namespace_and_a_unit() -> None:
    source = Source(
        BreakerRegistry(), detail=True, durations=("*",), max_circuits=1, processes=False
    )
    named = {metric.name: name_and_unit(metric) for metric in source.metrics}
    assert named["circuit_breaker_calls_total"] == ("circuit_breaker.calls", "{call}")
    assert named["fusewire_messages_total"] == ("fusewire.messages", "{message}")
    assert named["fusewire_lane_head_age_seconds"] == ("fusewire.lane_head_age", "s")
    assert len(set(named.values())) == len(named)


@pytest.mark.parametrize(
    "arguments",
    [
        {"registry": "default"},
        {"tracer_provider": object()},
        {"meter_provider": object()},
        {"max_circuits": 0},
        {"detail": "yes"},
        {"durations": "*"},
    ],
)
def test_what_cannot_be_right_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(arguments))):
        instrument(**arguments)


def test_only_what_has_a_status_is_watched(telemetry: Instrumentation) -> None:
    with pytest.raises(SettingsError, match="watched must be a ParkingConsumer"):
        telemetry.watch(object())  # type: ignore[arg-type] # that is what is tested
