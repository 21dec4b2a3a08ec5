"""One attempt: the user's handler, called once, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fusewire._causes import rejection_in
from fusewire.breaker import Outcome
from fusewire.errors import CircuitOpenError, FusewireError
from fusewire.operation import operation, without_fallbacks
from fusewire.parking._calling import HandlerCall, HandlerCalls, being_cancelled
from fusewire.parking._decisions import Recycle
from fusewire.parking._errors import INSTRUCTIONS, Reject, Requeue
from fusewire.parking._history import KEYS_BY_REQUEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import BreakerRegistry
    from fusewire.operation import CallNote, Operation, TimedCall
    from fusewire.parking._history import History
    from fusewire.parking._view import MessageView

    Handler: TypeAlias = Callable[[AbstractIncomingMessage], Awaitable[Any] | Any]


logger = logging.getLogger("fusewire.parking")

_UNKNOWN_WAIT = 1.0
"""Seconds until the next look at a circuit that refused, of which no more is known."""


class RedeliveryWantedError(FusewireError):
    """The handler gave the message back with ``requeue=True``; counted as a failed attempt."""


# Not frozen, although it does not change once it is known: one is made for each message.
@dataclass(slots=True)
class Attempt:
    """What came of one call of the handler.

    Attributes:
        error: what it raised, or None.
        rejection: the circuit's refusal that the error comes from; then it was not an attempt.
        failed_breakers: breakers whose calls were made and failed, in order.
        rejected: the handler rejected the message itself, without asking for it again.
        rejected_because: what it had caught when it did, or None.
        doubtful_keys: idempotency keys that the next attempt is to send again; after the last one,
            those of earlier attempts that it did not send.
        refused: breakers that refused a call, where none of the calls that were made failed.
        notes: how the guarded calls ended that did not end OK, in order.
        succeeded: breakers of whose calls one ended OK.
        timed: the calls that were answered and measured.
        seconds: how long the handler took; see :class:`HandlerCall`.
        first_sent_ms: when the call that the message stores was first sent, None if it was not.
    """

    error: BaseException | None = None
    rejection: CircuitOpenError | None = None
    failed_breakers: tuple[str, ...] = ()
    rejected: bool = False
    rejected_because: BaseException | None = None
    doubtful_keys: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[CallNote, ...] = ()
    succeeded: tuple[str, ...] = ()
    timed: tuple[TimedCall, ...] = ()
    seconds: float = 0.0
    first_sent_ms: int | None = None


_ALLOWED = nullcontext()
"""Leaves fallbacks as they are."""


class HandlerRunner:
    """Calls a handler, plain or coroutine, in the scope of an operation.

    Args:
        calls: the handler, and how it is called.
        guard_with: name of the breaker whose permit is taken around the handler, for handlers whose
            calls are not guarded themselves.
        registry: where that breaker is.
        unrecoverable: returns whether an error is the message's own fault.
        interrupted: called with a KeyboardInterrupt that ended a coroutine on the main thread.
    """

    def __init__(
        self,
        calls: HandlerCalls,
        *,
        guard_with: str | None,
        registry: BreakerRegistry,
        unrecoverable: Callable[[BaseException], bool],
        interrupted: Callable[[KeyboardInterrupt], None],
    ) -> None:
        self._calls = calls
        self._guard = guard_with
        self._registry = registry
        self._unrecoverable = unrecoverable
        self._interrupted = interrupted
        self._warned_of_swallowing = False
        self._warned_of_registry = False

    async def run(self, view: MessageView, history: History, *, replay: bool) -> Attempt | Recycle:
        """Call the handler once; return Recycle if it gave its message back.

        For what was parked before, fallbacks are suppressed: only real work settles it, also when
        it comes back by way of a delay.

        Args:
            view: the message as the handler sees it.
            history: the message's history.
            replay: whether the message comes from a lane.
        """
        call = HandlerCall(self._calls, view)
        fallbacks = without_fallbacks() if history.times_parked else _ALLOWED
        with _operation_of(history, replay=replay) as work, fallbacks:
            work.first_sent_ms = history.first_sent_ms
            try:
                if self._guard is None:
                    await call.run()
                else:
                    await self._guarded(self._guard, view, call, work)
            except asyncio.CancelledError as error:
                if being_cancelled():
                    raise
                # The handler's own, or grpc.aio's, of a call that was cancelled or whose channel
                # was closed.
                view.failure = error
            except KeyboardInterrupt as error:
                if call.on_loop and threading.current_thread() is threading.main_thread():
                    self._interrupted(error)
                    return Recycle(tried=True)
                # Python raises it for Ctrl-C on the main thread only. This one is the handler's.
                view.failure = error
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is judged and recorded
                view.failure = error
            finally:
                view.over = True
        if being_cancelled():
            # It was cut off and keeps that to itself: how far it came, nobody knows.
            raise asyncio.CancelledError
        attempt = self._attempt(view, work)
        if isinstance(attempt.error, Requeue):
            return Recycle(tried=False)
        attempt.doubtful_keys = _doubtful_keys(attempt, work, history)
        attempt.notes = work.notes
        attempt.seconds = call.seconds
        attempt.first_sent_ms = work.first_sent_ms
        return attempt

    async def _guarded(
        self, guard: str, view: MessageView, call: HandlerCall, work: Operation
    ) -> None:
        breaker = self._registry.get(guard)
        permit = breaker.acquire()
        try:
            with permit.lending():
                await call.run()
            if view.failure is not None:  # raised within process(), and swallowed further out
                raise view.failure  # noqa: TRY301 - judged like any other, just below
        except BaseException as error:
            if isinstance(error, INSTRUCTIONS) or self._unrecoverable(error):
                permit.release()  # it is about the message, and no sign of trouble
            else:
                permit.conclude(breaker.classify(error, permit.started), error)
            raise
        if not view.rejected:
            permit.conclude(Outcome.SUCCESS)
            work.note_success(guard)
        elif view.requeued and view.rejected_because is not None:
            because = view.rejected_because
            permit.conclude(breaker.classify(because), because)
        else:
            permit.release()

    def _attempt(self, view: MessageView, work: Operation) -> Attempt:
        failed_breakers, succeeded = tuple(work.failed), tuple(work.succeeded)
        error, rejected_because = _said(view)
        made = False
        if view.rejected or isinstance(error, Reject):
            rejection = self._reason(rejected_because, work)
            if error is None and rejection is None:
                return Attempt(
                    failed_breakers=failed_breakers,
                    rejected=True,
                    rejected_because=rejected_because,
                    succeeded=succeeded,
                )
            # A refusal by a circuit is never what ends a message. If the handler does not say why,
            # and a call of it failed, that was an attempt.
            error = rejection or error
            made = rejected_because is None and bool(failed_breakers)
        elif error is None:
            if work.rejected:
                self._warn_of_swallowing(work.rejected[0])
            return Attempt(failed_breakers=failed_breakers, succeeded=succeeded, timed=work.timed)
        else:
            rejection = None if isinstance(error, INSTRUCTIONS) else rejection_in(error)
        if rejection is not None:
            self._warn_of_registry(rejection.name)
            if made or rejection.name in failed_breakers:
                rejection = None  # a call was made and failed before the refusal
        refused = () if failed_breakers else tuple(work.rejected)
        return Attempt(error, rejection, failed_breakers, refused=refused, succeeded=succeeded)

    def _reason(
        self, rejected_because: BaseException | None, work: Operation
    ) -> CircuitOpenError | None:
        """Find the rejection for which a handler does not want its message.

        A handler that has left its `except` block does not say why. If a call of it was refused,
        that is the only reason known.
        """
        if rejected_because is not None or not work.rejected:
            return rejection_in(rejected_because)
        name = next((name for name in work.rejected if name in work.failed), work.rejected[0])
        if (breaker := self._registry.find(name)) is None:
            return CircuitOpenError(name, "open", _UNKNOWN_WAIT)
        look = breaker.look()
        return CircuitOpenError(name, look.state.value, look.retry_after)

    def _warn_of_swallowing(self, name: str) -> None:
        if not self._warned_of_swallowing:
            self._warned_of_swallowing = True
            logger.warning(
                "handler %s returned although circuit %r had refused a call of it, and its message "
                "counts as handled: if its work was not done, let CircuitOpenError through, and "
                "the message is parked (this is said once for each consumer)",
                self._calls.name,
                name,
            )

    def _warn_of_registry(self, name: str) -> None:
        if name not in self._registry and not self._warned_of_registry:
            self._warned_of_registry = True
            logger.warning(
                "circuit %r refused a call of handler %s and is not in the consumer's registry, "
                "which cannot see when it closes: give the consumer and the channel the same "
                "registry= (this is said once for each consumer)",
                name,
                self._calls.name,
            )


def _operation_of(history: History, *, replay: bool) -> operation:
    by_ordinal = history.key_scheme < KEYS_BY_REQUEST
    return operation(history.operation_id, keys_by_ordinal=by_ordinal, replay=replay)


def _doubtful_keys(attempt: Attempt, work: Operation, history: History) -> tuple[str, ...]:
    unsent = [key for key in history.doubtful_keys.split() if not work.has_sent(key)]
    if attempt.error is None and not attempt.rejected:
        return tuple(unsent)
    return tuple(dict.fromkeys([*unsent, *work.doubtful_keys]))


def _said(view: MessageView) -> tuple[BaseException | None, BaseException | None]:
    """Return the error that the handler ended with, if any, and why it did not want its message."""
    error, rejected_because = view.failure, view.rejected_because
    if error is not None and view.explicit:
        # It said what is to become of the message, and failed at something else afterwards.
        if error is not rejected_because:
            logger.error("a handler raised after it had settled its message", exc_info=error)
        error, rejected_because = None, rejected_because or error
    if view.rejected and view.requeued:
        error = RedeliveryWantedError("the handler asked for the message again")
        error.__cause__ = rejected_because
    if isinstance(error, Reject):
        rejected_because = error.__cause__ or error.__context__
    return error, rejected_because
