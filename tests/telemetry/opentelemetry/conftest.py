"""An SDK that keeps spans and metrics in memory, and what reads them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.telemetry.opentelemetry import Instrumentation, instrument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.trace import SpanContext


class Spans:
    """What was exported."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def called(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name, in the order of their beginnings."""
        found = [span for span in self._exporter.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.called(name)
        return span

    def names(self) -> set[str]:
        return {span.name for span in self._exporter.get_finished_spans()}


def ids(of: ReadableSpan | SpanContext | None) -> tuple[int, int]:
    """Return what a span is linked to by."""
    found = of.context if isinstance(of, ReadableSpan) else of
    assert found is not None
    return found.trace_id, found.span_id


def links(span: ReadableSpan) -> dict[str, tuple[int, int]]:
    """Return what a span is linked to, by what that is to it."""
    return {str((link.attributes or {})["fusewire.link"]): ids(link.context) for link in span.links}


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    return "00-{:032x}-{:016x}-{:02x}".format(*ids(span), span.context.trace_flags)


@pytest.fixture
def tracer_provider() -> Iterator[TracerProvider]:
    provider = TracerProvider()
    yield provider
    provider.shutdown()


@pytest.fixture
def spans(tracer_provider: TracerProvider) -> Spans:
    exporter = InMemorySpanExporter()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(exporter)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def registry() -> BreakerRegistry:
    settings = BreakerSettings(failure_threshold=2, recovery_timeout=0.3, half_open_max_calls=1)
    return BreakerRegistry(settings)


@pytest.fixture
def telemetry(
    tracer_provider: TracerProvider, reader: InMemoryMetricReader, registry: BreakerRegistry
) -> Iterator[Instrumentation]:
    meters = MeterProvider([reader])
    with instrument(registry, tracer_provider=tracer_provider, meter_provider=meters) as telemetry:
        yield telemetry
    meters.shutdown()


@pytest.fixture(params=["sqlite", "rabbitmq"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "rabbitmq":
        return str(request.getfixturevalue("amqp_url"))
    return f"sqlite:///{tmp_path}/broker.db"
