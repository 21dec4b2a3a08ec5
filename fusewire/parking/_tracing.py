"""The seam for traces: what a tracer is asked for while messages are worked on and calls stored.

Without a tracer nothing is asked and nothing is made. What a tracer raises is logged and changes
nothing.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fusewire._throttle import Throttle
from fusewire.brokers import Message  # noqa: TC001 - see fusewire/_public.py
from fusewire.errors import SettingsError
from fusewire.parking._errors import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from fusewire.brokers import HeaderValue, Station
    from fusewire.parking._events import MessageEvent
    from fusewire.parking._in_flight import InFlight

_Given = TypeVar("_Given")

logger = logging.getLogger("fusewire.parking")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message that a consumer has received, for a :class:`MessageTracer`.

    Attributes:
        message: the message as it was stored; of its headers, ``fusewire-*`` are ours.
        system: what the broker calls itself, ``rabbitmq`` for example; see
            :attr:`Capabilities.system <fusewire.brokers.Capabilities.system>`.
        queue: its source queue.
        lane: the lane that it comes from; empty for one that comes from the source queue.
        operation_id: which unit of work.
        again: whether it was received before: it comes from a lane, from a delay or as redelivered.
        moved_by: what :meth:`MessageSpan.move` gave when it was moved last; empty if it was not
            moved, or not traced then.
    """

    message: Message
    system: str
    queue: str
    lane: str
    operation_id: str
    again: bool
    moved_by: str


class MessageSpan(Protocol):
    """The trace of one message, from the first call of its handler until it is settled."""

    def attempt(self) -> AbstractContextManager[object]:
        """Return a context for one call of the handler; what that calls belongs to the message."""

    def failed(self, error: BaseException) -> None:
        """Note that an attempt failed. The error's text may hold what is not for traces."""

    def move(self, operation: str, to: Station) -> AbstractContextManager[str]:
        """Return a context for moving the message to `to`.

        Args:
            operation: ``park``, ``delay`` or ``dead-letter``.
            to: where it goes.

        Returns:
            a context that gives the text that the message carries as its header
            ``fusewire-moved-by``; empty for none.
        """

    def settled(self, event: MessageEvent) -> None:
        """Note what became of the message. :meth:`end` follows."""

    def end(self) -> None:
        """End, whether or not the message was settled."""


class MessageTracer(Protocol):
    """Makes traces of messages and stored calls; see :meth:`ParkingConsumer.trace_with`.

    It is called on the event loop of the consumer, must not block, and sees bodies that are not for
    traces.
    """

    def begin(self, received: ReceivedMessage) -> MessageSpan:
        """Begin the trace of a message: its handler is called next, or it is moved."""

    def storing(
        self, operation_id: str, breaker: str
    ) -> AbstractContextManager[Mapping[str, HeaderValue]]:
        """Return a context for storing a call, which is entered in the context of its caller.

        It gives headers for the message that stores the call. If it is left without an exception,
        the call is stored.

        Args:
            operation_id: which unit of work.
            breaker: the name of the breaker that the call waits for.
        """


class Tracing:
    """The tracer of a consumer or store of calls, if it has one.

    Args:
        system: what the broker calls itself.
    """

    def __init__(self, system: str) -> None:
        self._system = system
        self._tracer: MessageTracer | None = None
        self._failures = Throttle()

    def set(self, tracer: MessageTracer) -> Callable[[], None]:
        """Trace with `tracer` from now on; return the function that ends it.

        Raises:
            SettingsError: there is a tracer already.
        """
        if self._tracer is not None:
            raise SettingsError(f"there is a tracer already, {self._tracer!r}: end that one first")
        self._tracer = tracer

        def end() -> None:
            if self._tracer is tracer:
                self._tracer = None

        return end

    def attempt(self, item: InFlight) -> AbstractContextManager[object]:
        """Return a context for a call of the handler."""
        span = self._span(item)
        return _UNTRACED if span is None else _Quiet(span.attempt, None, self._report)

    def failed(self, item: InFlight, error: BaseException | None) -> None:
        """Note how an attempt has ended that was made."""
        if item.span is not None and error is not None and not isinstance(error, Retry):
            self._quietly(item.span.failed, error)

    def move(self, item: InFlight, operation: str, to: Station) -> AbstractContextManager[str]:
        """Return a context for a move, which gives what the message is to say of it."""
        span = self._span(item)
        if span is None:
            return _UNMARKED
        return _Quiet(lambda: span.move(operation, to), "", self._report)

    def settled(self, item: InFlight, event: MessageEvent) -> None:
        """Note what became of `item`."""
        if item.span is not None:
            self._quietly(item.span.settled, event)

    def end(self, item: InFlight) -> None:
        """End the trace of `item`, if it has one."""
        span, item.span = item.span, None
        if span is not None:
            self._quietly(span.end)

    def storing(
        self, operation_id: str, breaker: str
    ) -> AbstractContextManager[Mapping[str, HeaderValue]]:
        """Return a context for storing a call."""
        tracer = self._tracer
        if tracer is None:
            return _NO_HEADERS
        return _Quiet(lambda: tracer.storing(operation_id, breaker), {}, self._report)

    def _span(self, item: InFlight) -> MessageSpan | None:
        """Return the span of `item`, begun now if it has none."""
        if item.span is None and self._tracer is not None:
            history, delivery = item.history, item.delivery
            item.span = self._quietly(
                self._tracer.begin,
                ReceivedMessage(
                    message=delivery.message,
                    system=self._system,
                    queue=history.queue,
                    lane=item.receiver.lane,
                    operation_id=history.operation_id,
                    again=history.may_have_been_seen or delivery.redelivered,
                    moved_by=history.moved_by,
                ),
            )
        return item.span

    def _quietly(self, function: Callable[..., _Given], *arguments: Any) -> _Given | None:
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message is worth more
            self._report(error)
            return None

    def _report(self, error: Exception) -> None:
        if self._failures.unsaid(error) is not None:
            logger.error("the tracer %r raised; it goes on", self._tracer, exc_info=error)


class _Quiet(Generic[_Given]):
    """A context of a tracer's. What it raises itself reaches nobody, and it swallows nothing."""

    __slots__ = ("_context", "_default", "_make", "_report")

    def __init__(
        self,
        make: Callable[[], AbstractContextManager[_Given]],
        default: _Given,
        report: Callable[[Exception], None],
    ) -> None:
        self._make = make
        self._default = default
        self._report = report
        self._context: AbstractContextManager[_Given] | None = None

    def __enter__(self) -> _Given:
        try:
            context = self._make()
            given = context.__enter__()
        except Exception as error:  # noqa: BLE001 - as above
            self._report(error)
            return self._default
        self._context = context
        return given

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._context is None:
            return
        try:
            self._context.__exit__(kind, error, trace)
        except Exception as raised:  # noqa: BLE001 - as above
            if raised is not error:
                self._report(raised)


_UNTRACED: AbstractContextManager[object] = nullcontext()
_UNMARKED = nullcontext("")
_NO_HEADERS: AbstractContextManager[Mapping[str, HeaderValue]] = nullcontext({})
