"""The handler of stored calls: it sends them, and decides what their end means."""

from __future__ import annotations

import dataclasses
import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import grpc

from fusewire._key_text import IDEMPOTENCY_TRAILER, key_of_id
from fusewire._log_fields import fields
from fusewire._sendable import is_valid_metadata
from fusewire.breaker import CircuitState
from fusewire.errors import CircuitOpenError
from fusewire.forwarding._call import StoredCall, UnreadableCallError
from fusewire.forwarding._encryption import MissingKeyError
from fusewire.forwarding._outcome import ReplayOutcome, outcome_of
from fusewire.forwarding._outcome_kinds import CallStatus
from fusewire.forwarding._outcome_messages import Ended
from fusewire.forwarding._transport import ChannelClosedError
from fusewire.interceptors import CallEnd, read_retry_after
from fusewire.operation import FIRST_SENT_METADATA, IDEMPOTENCY_KEY, KeyEnd, current_operation
from fusewire.parking import Reject, Retry
from fusewire.parking.internal import Requeue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import CircuitBreaker
    from fusewire.forwarding._call_codec import CallCodec
    from fusewire.forwarding._policy import ParkPolicy
    from fusewire.forwarding._transport import Metadata, Transport
    from fusewire.operation import Operation
    from fusewire.parking import MessageView

logger = logging.getLogger("fusewire.forwarding")


_OF_WINDOW = 0.95
"""The part of a window after which a call is not sent again: clocks differ, and sending takes
time."""

_PROBED = frozenset({CircuitState.OPEN, CircuitState.HALF_OPEN})
"""States of a circuit whose next call shows whether its dependency is back."""

_DETAILS = "grpc-status-details-bin"

_PATIENCE = 1.0
"""Seconds after which a server is asked again that is busy, and does not say when to come back."""

_LONGEST_WAIT = 60.0
"""Seconds that it is waited for such a server at most, whatever it asks for."""


class ReplayHandler:
    """Handles each stored call.

    Args:
        transport: sends on the guarded channel, whose breakers and classification apply.
        codec: reads what is stored.
        timeout: seconds for one attempt of a call that was made without a deadline.
        stop: called if the channel is closed, to end the forwarder.
        halt: called if a call cannot be read here, to stop the forwarder until it can.
        methods: what is known of methods here, for calls that do not say it themselves.
        circuit: returns the breaker of a name, if there is one.
        now: the time, in seconds since 1970.
    """

    def __init__(
        self,
        transport: Transport,
        codec: CallCodec,
        timeout: float,
        *,
        stop: Callable[[], None],
        halt: Callable[[MissingKeyError], None],
        methods: Mapping[str, ParkPolicy] = MappingProxyType({}),
        circuit: Callable[[str], CircuitBreaker | None] = lambda _name: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._timeout = timeout
        self._stop = stop
        self._halt = halt
        self._methods = methods
        self._circuit = circuit
        self._now = now

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        """Send one stored call. Raises what tells the consumer what to do with its message."""
        operation = current_operation()
        if operation is None:
            raise RuntimeError("a stored call is only sent in the operation of its message")
        now = self._now()
        sent_before = operation.first_sent_ms
        call, metadata = await self._to_send(message, operation, now)
        timeout = self._seconds_for(call)
        # Whatever ends this attempt, from here on it may have been sent: a server may act on it.
        operation.first_sent_ms = round(now * 1000) if sent_before is None else sent_before
        try:
            reply = await self._transport.send(call, metadata, timeout)
        except CircuitOpenError:
            operation.first_sent_ms = sent_before
            raise  # nothing was sent: it waits
        except ChannelClosedError as error:
            logger.warning(
                "%s: the forwarder ends, and what is not settled stays parked",
                error,
                extra=fields("forwarder.ended"),
            )
            self._stop()
            if error.sent and call.at_most_once:
                raise Reject(str(error), reason=ReplayOutcome.AMBIGUOUS.value) from error
            raise Requeue from error
        except grpc.RpcError as error:
            end = _end_of(call, error, timeout)
            _note_answer(message, Ended(None, _status_of(end)))
            if end.key_end is KeyEnd.NO_EFFECT:
                operation.first_sent_ms = sent_before
            if self._is_over(call, end, error, sent_before=sent_before is not None):
                return
            raise
        _note_answer(message, Ended(reply, CallStatus(grpc.StatusCode.OK)))

    def _seconds_for(self, call: StoredCall) -> float:
        """Return how long one attempt may take."""
        timeout = call.timeout or self._timeout
        policy = self._methods.get(call.method)
        if policy is None or policy.probe_timeout is None or call.at_most_once:
            return timeout
        breaker = self._circuit(policy.breaker or call.method)
        probes = breaker is not None and breaker.state in _PROBED
        return min(timeout, policy.probe_timeout) if probes else timeout

    async def _to_send(
        self, message: AbstractIncomingMessage, operation: Operation, now: float
    ) -> tuple[StoredCall, Metadata]:
        """Return the call that a message stores, and the metadata that it is sent with.

        Raises:
            Reject: it cannot be sent, or must not be sent any more.
            Requeue: it cannot be read here and now.
        """
        try:
            call = self._with_policy(await self._read(operation.id, message))
        except UnreadableCallError as error:
            raise Reject(str(error), reason="malformed") from error
        except MissingKeyError as error:
            self._halt(error)  # others may have the key, or this one soon: it kills no call
            raise Requeue from error
        if call.not_after_ms is not None and now * 1000 > call.not_after_ms:
            raise Reject("its time is over, whatever its headers say", reason="expired")
        first_sent_ms = operation.first_sent_ms
        if is_stale(call, first_sent_ms, now):
            raise Reject(
                f"it was first sent {now - (first_sent_ms or 0) / 1000:.0f} s ago, and the window "
                f"for which the server knows its key is {call.window:g} s",
                reason=ReplayOutcome.STALE_KEY.value,
            )
        metadata = _metadata(call, operation)
        if not is_valid_metadata(metadata):
            raise Reject(f"its metadata cannot be sent: {call.metadata!r:.500}", reason="malformed")
        return call, metadata

    def _with_policy(self, call: StoredCall) -> StoredCall:
        """Return a call with the window and the statuses of its method, if it has none itself."""
        policy = self._methods.get(call.method)
        if policy is None or call.at_most_once or call.window is not None or call.done_on:
            return call
        if policy.window is None and not policy.done_on:
            return call
        return dataclasses.replace(call, window=policy.window, done_on=policy.done_on)

    async def _read(self, operation_id: str, message: AbstractIncomingMessage) -> StoredCall:
        try:
            return self._codec.read(operation_id, message.body, message.headers)
        except MissingKeyError as missing:
            if missing.key is None:
                raise
        await self._codec.refresh()
        return self._codec.read(operation_id, message.body, message.headers)

    def _is_over(
        self, call: StoredCall, end: CallEnd, error: grpc.RpcError, *, sent_before: bool
    ) -> bool:
        """Return whether the call is done, although its replay did not end OK.

        Raises:
            Reject: it must not or need not be sent again.
            Retry: it is to be sent again, but only later.
        """
        outcome = outcome_of(
            end.code,
            end.details,
            end.timeout,
            at_most_once=call.at_most_once,
            hinted=end.retry_after is not None,
            word=_word_in(end.trailing_metadata),
            sent_before=sent_before,
            done_on=call.done_on,
        )
        ended = f"{call.method} ended {end.code.name}"
        match outcome:
            case ReplayOutcome.DONE:
                return True
            case ReplayOutcome.RETRY:
                return False
            case ReplayOutcome.POSTPONED:
                wait = _PATIENCE if end.retry_after is None else end.retry_after
                raise Retry(ended, after=min(wait, _LONGEST_WAIT)) from error
            case _:
                raise Reject(ended, reason=outcome.value) from error


def is_stale(call: StoredCall, first_sent_ms: int | None, now: float) -> bool:
    """Return whether a call was first sent so long ago that its server may have forgotten its key.

    Args:
        call: the call.
        first_sent_ms: when it was first sent, in milliseconds since 1970; None if it was not.
        now: the time, in seconds since 1970.
    """
    if call.window is None or first_sent_ms is None:
        return False
    return now - first_sent_ms / 1000 >= call.window * _OF_WINDOW


def _metadata(call: StoredCall, operation: Operation) -> Metadata:
    pairs = (*call.metadata, (IDEMPOTENCY_KEY, key_of_id(operation.id)))
    if operation.first_sent_ms is None:
        return pairs
    return (*pairs, (FIRST_SENT_METADATA, str(operation.first_sent_ms)))


def _end_of(call: StoredCall, error: Any, timeout: float) -> CallEnd:
    trailing = tuple((key, value) for key, value in error.trailing_metadata() or ())
    return CallEnd(
        method=call.method,
        code=error.code(),
        details=error.details() or "",
        trailing_metadata=trailing,
        timeout=timeout,
        retry_after=read_retry_after(trailing),
    )


def _note_answer(message: AbstractIncomingMessage, ended: Ended) -> None:
    """Note what the server answered, for those who wait for it: the settler passes it on."""
    cast("MessageView", message).answer = ended


def _status_of(end: CallEnd) -> CallStatus:
    rich = [value for key, value in end.trailing_metadata if key == _DETAILS]
    details = rich[-1] if rich and isinstance(rich[-1], bytes) else b""
    return CallStatus(end.code, end.details, details)


def _word_in(trailing: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return what a server of ours says about the key."""
    words = [value for key, value in trailing if key == IDEMPOTENCY_TRAILER]
    return words[-1] if words and isinstance(words[-1], str) else None
