"""What a program calls to have its circuits and messages shown by OpenTelemetry."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from opentelemetry import metrics, trace

from fusewire._rejections import rejections
from fusewire._validation import COUNT, SWITCH, check, instance_of, invalid
from fusewire.breaker import BreakerRegistry, default_registry
from fusewire.telemetry._source import Source
from fusewire.telemetry.opentelemetry._conventions import SCHEMA_URL, SCOPE
from fusewire.telemetry.opentelemetry._instruments import Instruments
from fusewire.telemetry.opentelemetry._tracer import SpanTracer, note_rejection

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer


class Instrumentation:
    """Shows circuits and messages until it is closed; made by :func:`instrument`.

    It is a context manager that closes itself.
    """

    def __init__(self, source: Source, instruments: Instruments, tracer: SpanTracer) -> None:
        self._source = source
        self._instruments = instruments
        self._tracer = tracer
        self._stack = ExitStack()
        self._stack.callback(instruments.close)
        self._stack.callback(rejections.add(note_rejection))

    def watch(self, consumer: ParkingConsumer | ParkedCalls) -> Callable[[], None]:
        """Trace the messages of a consumer, or the calls of a store, and show its metrics.

        Returns:
            A function that ends it. Call it when the consumer is not used any more; its counts
            stay.

        Raises:
            SettingsError: it cannot be watched, or it is traced already.
        """
        for name in ("status", "add_listener", "trace_with"):
            if not callable(getattr(consumer, name, None)):
                raise invalid("consumer", "a ParkingConsumer or ParkedCalls", consumer)
        with ExitStack() as stack:
            stack.callback(consumer.trace_with(self._tracer))
            stack.callback(self._source.watch(consumer))
            queue = consumer.status().queue
            stack.callback(consumer.add_listener(partial(self._instruments.count, queue)))
            ends = stack.pop_all()
        self._stack.callback(ends.close)
        return ends.close

    def close(self) -> None:
        """End all of it. OpenTelemetry keeps the instruments, which give no values any more."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Return the instrumentation."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def instrument(
    registry: BreakerRegistry | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    detail: bool = False,
    max_circuits: int = 1000,
) -> Instrumentation:
    """Show all circuits that a registry has and will have, and what is watched.

    The metrics are those of :func:`fusewire.telemetry.prometheus.export`, except the durations of
    calls. They are read when they are collected; calls pay nothing for them. A rejection, of any
    registry, is an event on the span that is current where it happens.

    Args:
        registry: where the circuits are; the process's own by default.
        tracer_provider: makes spans; OpenTelemetry's global one by default.
        meter_provider: makes metrics; OpenTelemetry's global one by default.
        detail: show ignored, slow and late calls, probes and the window's ratios too.
        max_circuits: how many circuits get series of their own. All others are added up as the
            circuit ``_other``.

    Raises:
        SettingsError: an argument is not valid.
    """
    check("registry", registry, instance_of(BreakerRegistry).or_none)
    check("tracer_provider", tracer_provider, instance_of(trace.TracerProvider).or_none)
    check("meter_provider", meter_provider, instance_of(metrics.MeterProvider).or_none)
    check("detail", detail, SWITCH)
    check("max_circuits", max_circuits, COUNT)
    if registry is None:  # an empty one is false
        registry = default_registry()
    source = Source(
        registry, detail=detail, durations=(), max_circuits=max_circuits, processes=False
    )
    release = version("fusewire")
    meter = metrics.get_meter(SCOPE, release, meter_provider, SCHEMA_URL)
    tracer = trace.get_tracer(SCOPE, release, tracer_provider, SCHEMA_URL)
    return Instrumentation(source, Instruments(source, meter), SpanTracer(tracer))
