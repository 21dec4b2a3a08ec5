"""Spans of messages: one for each attempt, and within it one for the move that follows."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanKind, StatusCode

from fusewire._error_types import error_type
from fusewire.parking import MessageOutcome
from fusewire.telemetry.opentelemetry import _conventions as names
from fusewire.telemetry.opentelemetry._contexts import (
    context_of,
    from_traceparent,
    headers_for_later,
    span_context,
    to_traceparent,
    without_span,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.trace import SpanContext, Tracer

    from fusewire.brokers import HeaderValue, Station
    from fusewire.errors import CircuitOpenError
    from fusewire.parking import MessageEvent, ReceivedMessage


class SpanTracer:
    """Traces messages and stored calls with spans.

    Args:
        tracer: makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, received: ReceivedMessage) -> ProcessSpan:
        """Begin the span of a message."""
        return ProcessSpan(self._tracer, received)

    @contextmanager
    def storing(self, operation_id: str, breaker: str) -> Iterator[Mapping[str, HeaderValue]]:
        """Have a stored call linked to its caller's span, and note on that span that it is."""
        yield headers_for_later()
        span = trace.get_current_span()
        if span.is_recording():
            attributes = {names.OPERATION_ID: operation_id, names.CIRCUIT: breaker}
            span.add_event(names.PARKED, attributes)


class ProcessSpan:
    """The span of a message that is processed.

    What is received for the first time belongs to the trace of its publisher. Everything else is a
    trace of its own, because a trace that goes on hours later is cut off by samplers and shown by
    no viewer: it is linked to the publisher, and to what it comes from.

    Args:
        tracer: makes the spans.
        received: the message.
    """

    def __init__(self, tracer: Tracer, received: ReceivedMessage) -> None:
        self._tracer = tracer
        self._received = received
        self._context = context_of(received.message)
        self._origin = span_context(self._context)
        self._attempted_at: int | None = None
        self._begin(
            parent=not received.again,
            after=from_traceparent(received.moved_by) if received.again else None,
            link="move",
        )

    def _begin(self, *, parent: bool, after: SpanContext | None, link: str) -> None:
        links = self._links()
        if after is not None:
            links.append(Link(after, {names.LINK: link}))
        self._span = self._tracer.start_span(
            f"process {self._received.queue}",
            context=self._context if parent else without_span(self._context),
            kind=SpanKind.CONSUMER,
            attributes=names.process_attributes(self._received),
            links=links,
        )

    def _links(self) -> list[Link]:
        """Return a link to the publisher, which there is to its child too, by the conventions."""
        return [] if self._origin is None else [Link(self._origin, {names.LINK: "origin"})]

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make it the current span while the handler works.

        An attempt that is made again in place has waited for that, and gets a span of its own.
        """
        if self._attempted_at is not None:
            before = self._span.get_span_context()
            self._span.end(self._attempted_at)
            self._begin(parent=False, after=before if before.is_valid else None, link="attempt")
        token = context.attach(trace.set_span_in_context(self._span, self._context))
        try:
            yield
        finally:
            context.detach(token)
            self._attempted_at = time.time_ns()

    def failed(self, error: BaseException) -> None:
        """Note the error's type. Its text may hold what is not for traces."""
        self._fail(error_type(type(error)))

    @contextmanager
    def move(self, operation: str, to: Station) -> Iterator[str]:
        """Make a span of a move, and give what identifies it."""
        message = self._received.message
        attributes = {
            names.SYSTEM: self._received.system,
            names.OPERATION_NAME: operation,
            names.OPERATION_TYPE: "send",
            names.DESTINATION: str(to),
            names.MESSAGE_ID: message.message_id or "",
            names.OPERATION_ID: self._received.operation_id,
        }
        span = self._tracer.start_span(
            f"{operation} {to}",
            context=trace.set_span_in_context(self._span, self._context),
            # Not PRODUCER: what is received later has the publisher's context as its creation's.
            kind=SpanKind.CLIENT,
            attributes={name: value for name, value in attributes.items() if value},
            links=self._links(),
        )
        try:
            yield to_traceparent(span)
        except BaseException as error:
            span.set_attribute(names.ERROR_TYPE, error_type(type(error)))
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    def settled(self, event: MessageEvent) -> None:
        """Note what became of the message."""
        attributes: dict[str, str | int] = {
            names.OUTCOME: event.outcome.value,
            names.REASON: event.reason,
            names.CIRCUIT: event.dependency,
            names.ATTEMPTS: event.attempts,
            names.TIMES_PARKED: event.times_parked,
        }
        if event.lane:
            attributes[names.LANE] = event.lane
        self._span.set_attributes(
            {name: value for name, value in attributes.items() if value != ""}
        )
        if event.outcome is MessageOutcome.DEAD and self._attempted_at is None:
            self._fail(event.reason)

    def end(self) -> None:
        """End the span."""
        self._span.end()

    def _fail(self, error_type: str) -> None:
        self._span.set_attribute(names.ERROR_TYPE, error_type)
        self._span.set_status(StatusCode.ERROR)


def note_rejection(rejection: CircuitOpenError) -> None:
    """Note on the current span that a circuit rejected a call."""
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(
            names.REJECTED,
            {
                names.CIRCUIT: rejection.name,
                names.STATE: str(rejection.state),
                names.RETRY_AFTER: rejection.retry_after,
            },
        )
