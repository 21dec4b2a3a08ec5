"""What a program calls to have its circuits and messages shown by OpenTelemetry."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from fusewire._rejections import rejections
from fusewire._validation import COUNT, SWITCH, check, instance_of
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.telemetry._source import PATTERNS, Source
from fusewire.telemetry._watcher import Watcher
from fusewire.telemetry.opentelemetry._conventions import SCHEMA_URL, SCOPE
from fusewire.telemetry.opentelemetry._instruments import Instruments
from fusewire.telemetry.opentelemetry._tracer import SpanTracer, note_rejection

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import ExitStack

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


class Instrumentation(Watcher):
    """Shows circuits and messages until it is closed; made by :func:`instrument`.

    What it watches is traced too: the messages of a consumer, the calls of a store. Several show
    their metrics together, by the same instruments; OpenTelemetry keeps these, and those of a
    closed object give no values any more.
    """

    needs = (*Watcher.needs, "trace_with")

    def __init__(self, source: Source, instruments: Instruments, tracer: SpanTracer) -> None:
        super().__init__(source)
        self._tracer = tracer
        self._stack.callback(instruments.close)
        self._stack.callback(rejections.add(note_rejection))

    def _begin(self, consumer: Any, stack: ExitStack) -> None:
        super()._begin(consumer, stack)
        stack.callback(consumer.trace_with(self._tracer))


def instrument(
    registry: BreakerRegistry | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    detail: bool = False,
    durations: Collection[str] = (),
    max_circuits: int = 1000,
) -> Instrumentation:
    """Show all circuits that a registry has and will have, and what is watched.

    The metrics are those of :func:`fusewire.telemetry.prometheus.export`. They are read when they
    are collected; calls pay nothing for them. A rejection, of any registry, is an event on the span
    that is current where it happens.

    Args:
        registry: where the circuits are; the process's own by default.
        tracer_provider: makes spans; OpenTelemetry's global one by default.
        meter_provider: makes metrics; OpenTelemetry's global one by default.
        detail: show ignored, slow and late calls, probes and the window's ratios too.
        durations: names or patterns, such as ``"/payments.*"``, of the circuits that get a
            histogram of how long calls take. All calls of the registry are measured then. Each is
            recorded in a thread, or at the next collection, which takes 6 to 20 µs for it.
        max_circuits: how many circuits get series of their own. All others are added up as the
            circuit ``_other``.

    Raises:
        SettingsError: an argument is not valid.
    """
    check("registry", registry, instance_of(BreakerRegistry).or_none)
    check("tracer_provider", tracer_provider, instance_of(trace.TracerProvider).or_none)
    check("meter_provider", meter_provider, instance_of(metrics.MeterProvider).or_none)
    check("detail", detail, SWITCH)
    check("durations", durations, PATTERNS)
    check("max_circuits", max_circuits, COUNT)
    if registry is None:  # an empty one is false
        registry = default_registry()
    if durations:
        registry.measure_durations()
    source = Source(
        registry,
        detail=detail,
        durations=durations,
        max_circuits=max_circuits,
        processes=False,
        restored=False,  # the process that took a snapshot has recorded what it holds
    )
    release = version("fusewire")
    meter = metrics.get_meter(SCOPE, release, meter_provider, SCHEMA_URL)
    tracer = trace.get_tracer(SCOPE, release, tracer_provider, SCHEMA_URL)
    return Instrumentation(source, Instruments(source, meter), SpanTracer(tracer))
