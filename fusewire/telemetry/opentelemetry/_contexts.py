"""The contexts of traces that messages carry in their headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import Getter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from fusewire.brokers import HeaderValue, Message

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class _Headers(Getter["Mapping[str, HeaderValue]"]):
    """Reads headers of messages, whose values may be anything."""

    def get(self, carrier: Mapping[str, HeaderValue], key: str) -> list[str] | None:
        value = carrier.get(key)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        return [value] if isinstance(value, str) else None

    def keys(self, carrier: Mapping[str, HeaderValue]) -> list[str]:
        return list(carrier)


_HEADERS = _Headers()


def without_span(of: Context) -> Context:
    """Return a context in which no span is current."""
    return trace.set_span_in_context(trace.INVALID_SPAN, of)


def context_of(message: Message) -> Context:
    """Return what a message carries, baggage included; and of the context here all but the span.

    The consumer itself may run in a span: its messages have nothing to do with that.
    """
    here = without_span(context.get_current())
    return propagate.extract(message.headers, context=here, getter=_HEADERS)


def headers_for_later() -> dict[str, HeaderValue]:
    """Return the current context as headers, without baggage, which may hold what is not stored."""
    headers: dict[str, HeaderValue] = {}
    propagate.inject(headers, context=baggage.clear())
    return headers


def span_context(of: Context) -> SpanContext | None:
    """Return what identifies the current span of a context; None if there is none."""
    found = trace.get_current_span(of).get_span_context()
    return found if found.is_valid else None


def to_traceparent(span: Span) -> str:
    """Return what identifies a span in the form of W3C's ``traceparent``; empty if nothing does."""
    of = span.get_span_context()
    if not of.is_valid:
        return ""
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"


def from_traceparent(text: str) -> SpanContext | None:
    """Return the span that :func:`to_traceparent` has put into words; None if it is none."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    found = trace.SpanContext(trace_id, span_id, True, trace.TraceFlags(flags))  # noqa: FBT003 - positional in all releases of the API
    return found if found.is_valid else None
