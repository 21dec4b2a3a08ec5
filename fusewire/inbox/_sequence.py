"""The sequence of a message, written once: what is claimed, recorded and rolled back, and when.

:meth:`Inbox.steps` yields the same steps as a server's interceptor, on the same table. A record of
a consumer has ``consumer:<name>`` where that of a call has its method, which begins with a slash.
It has no reply: that it is there says that the message was handled.

How the message ends is an error that is raised, as in any handler: the consumer judges it.
"""

from __future__ import annotations

import logging
import secrets
import time
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from fusewire._key_text import ASSIGNED
from fusewire._log_fields import fields
from fusewire._throttle import Throttle
from fusewire.idempotency import Answer, NoTransactionError, Reason
from fusewire.idempotency.internal import (
    CLAIM_BYTES,
    FAILED,
    MADE,
    NEVER,
    OK,
    REPLAYED,
    Claimed,
    Commit,
    Doubt,
    Due,
    Execute,
    Failed,
    Found,
    Handle,
    Identity,
    Refuse,
    Replay,
    Resume,
    Rollback,
    Trouble,
    answer_parameters,
    fingerprint_of,
    identity_parameters,
    on_record,
    stored_key,
    take,
)
from fusewire.operation import current_operation
from fusewire.parking import MessageView, Reject, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.idempotency.internal import AioStore, Step, SyncStore, Taken

logger = logging.getLogger("fusewire.inbox")

CONSUMER = "consumer:"
"""What the method of a consumer's records begins with. No method of gRPC's does."""

_CONFLICT = (
    Reason.CONFLICT,
    "the database rolled the claim back because of another transaction",
)
_PASSING = {
    Trouble.KEY_BUSY: (Reason.IN_PROGRESS, "it is being handled elsewhere"),
    Trouble.BUSY: (Reason.BUSY, "the database is locked by another writer"),
    Trouble.CONFLICT: _CONFLICT,
}
"""Why a message that could not be claimed is postponed: it is no fault of anybody's."""

_FOR_GOOD = {
    "key-reused": "its operation id was used for a message with another body",
    "cancelled": "its operation id was cancelled",
}


class HandlerEnd(Enum):
    """How a handler has ended that raised nothing."""

    DONE = "done"
    """Its work is to be committed, in the transaction that is still open."""
    ENDED_IT = "ended it"
    """It has ended the transaction itself."""
    UNWANTED = "unwanted"
    """It does not want the message, or has failed: the message knows what becomes of it."""


class _End(NamedTuple):
    """How a message has ended.

    Attributes:
        result: what it is counted as.
        error: what the consumer judges it by; None if it wants to have it acknowledged.
    """

    result: str
    error: Exception | None = None


class Inbox:
    """What one consumer remembers, and the sequence of its messages.

    Args:
        store: where it is remembered.
        consumer: the consumer's name.
        keep: seconds for which a message is remembered.
        wait: seconds that a message waits for another one with its operation id.
        sweep: seconds between sweeps; None for none.
        now: the time, in seconds since 1970.

    Attributes:
        method: what stands in the place of a call's method.
        sweep_due: whether it is time to sweep.
    """

    def __init__(
        self,
        store: SyncStore | AioStore,
        consumer: str,
        *,
        keep: float,
        wait: float,
        sweep: float | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.method = f"{CONSUMER}{consumer}"
        self.sweep_due = Due(sweep)
        self._consumer = consumer
        self._requests = store.requests
        self._requests.expect([self.method])
        self._sql = store.sql
        self._trouble = store.trouble
        self._keep_ms = round(keep * 1000)
        self._wait = wait
        self._now = now
        self._told = False
        self._throttle = Throttle()

    def steps(self, message: AbstractIncomingMessage) -> Generator[Step, Any, None]:
        """Return the steps of a message.

        Raises:
            Reject: it can never be handled once.
            Retry: it cannot be handled now, which is no fault of its own.
            Exception: whatever the handler has raised, or the database.
        """
        end = _End(FAILED)
        try:
            end = yield from self._sequence(message)
        finally:
            self._requests.count(self.method, end.result)
        if end.error is not None:
            raise end.error

    def _sequence(self, message: AbstractIncomingMessage) -> Generator[Step, Any, _End]:
        if (operation_id := _identity_of(message)) is None:
            text = (
                "it has no operation id, so that it cannot be recognized when it comes again: "
                "publish it with a message_id, or give the consumer operation_id="
            )
            return _End(str(Reason.KEY_MISSING), Reject(text, reason="key-missing"))
        identity = Identity("", self.method, stored_key(operation_id))
        claim = secrets.token_bytes(CLAIM_BYTES)
        claimed = identity_parameters(identity) | {
            "claim": claim,
            "fingerprint": fingerprint_of(message.body),
        }
        taken = yield from self._take(claimed)
        if not isinstance(taken, Claimed):
            yield Rollback()
            return self._declined(operation_id, taken, claimed)
        end: HandlerEnd = yield Handle()
        if end is HandlerEnd.UNWANTED:
            yield Rollback()
            return _End(FAILED)
        if end is HandlerEnd.ENDED_IT:
            yield from self._claim_again(claimed)
        expires_at = min(self._now_ms() + self._keep_ms, NEVER)
        answered = claimed | answer_parameters(Answer(OK)) | {"expires_at": expires_at}
        if not (yield Commit(Execute(self._sql.finish, answered))):
            raise self._lost()
        return _End(MADE)

    def _take(self, claimed: dict[str, Any]) -> Generator[Step, Any, Taken]:
        return take(self._sql, self._trouble, claimed, lease_ms=None, now_ms=self._now_ms)

    def _claim_again(self, claimed: dict[str, Any]) -> Generator[Step, Any, None]:
        """Find one's own claim, which the handler has committed together with its work.

        Raises:
            NoTransactionError: it has rolled both back.
        """
        logger.error(
            "consumer %r: its handler has ended the transaction itself, so its work and the memory "
            "of the message were not committed together: leave the end to once(), or use "
            "savepoints",
            self._consumer,
            extra=fields("idempotency.not_joined", method=self.method),
        )
        yield Rollback()
        taken = yield from self._take(claimed)
        if not isinstance(self._decided(taken, claimed), Resume):
            raise self._lost()

    def _lost(self) -> NoTransactionError:
        return NoTransactionError(
            f"the handler of consumer {self._consumer!r} has rolled back the transaction that its "
            "message was claimed in: leave the end to once(), or use savepoints"
        )

    def _decided(
        self, taken: Taken, claimed: dict[str, Any]
    ) -> Resume | Replay | Refuse | Doubt | None:
        if not isinstance(taken, Found):
            return None
        return on_record(
            taken.record, claimed["fingerprint"], claimed["claim"], now_ms=taken.now_ms
        )

    def _declined(self, operation_id: str, taken: Taken, claimed: dict[str, Any]) -> _End:
        """Return how a message ends that is not handled, or was handled before."""
        if isinstance(taken, Failed):
            return self._not_claimed(operation_id, taken.error)
        match self._decided(taken, claimed):
            case Replay():
                logger.info(
                    "operation %s was handled by consumer %r before",
                    operation_id,
                    self._consumer,
                    extra=fields("inbox.duplicate", operation_id=operation_id, method=self.method),
                )
                return _End(REPLAYED)
            case Refuse(reason):
                return _End(str(reason), self._refused(reason))
            case Doubt():
                text = (
                    f"consumer {self._consumer!r} has begun it, its handler has ended the "
                    "transaction itself, and nobody knows whether its work was done"
                )
                return _End(str(Reason.IN_DOUBT), Reject(text, reason="in-doubt"))
            case _:
                reason, why = _CONFLICT
                return _End(str(reason), Retry(why, after=self._wait))

    def _not_claimed(self, operation_id: str, error: Exception) -> _End:
        if (passing := _PASSING.get(self._trouble(error))) is None:
            return _End(str(Reason.UNAVAILABLE), error)
        reason, why = passing
        retry = Retry(f"operation {operation_id}: {why}", after=self._wait)
        retry.__cause__ = error
        return _End(str(reason), retry)

    def _refused(self, reason: Reason) -> Reject | Retry:
        if (why := _FOR_GOOD.get(reason)) is not None:
            return Reject(f"consumer {self._consumer!r}: {why}", reason=str(reason))
        return Retry(f"consumer {self._consumer!r}: {reason}", after=self._wait)

    def warn_unasked(self) -> None:
        """Warn once of a handler that has succeeded without asking for its transaction."""
        if self._told:
            return
        self._told = True
        logger.warning(
            "consumer %r: its handler has not asked for the store's current transaction, so its "
            "work is not committed together with the memory of the message. Work with "
            "store.current()",
            self._consumer,
            extra=fields("idempotency.not_joined", method=self.method),
        )

    def log_sweep(self, error: Exception) -> None:
        """Log that sweeping failed; of many alike, one a minute."""
        if (unsaid := self._throttle.unsaid(error)) is not None:
            logger.error(
                "consumer %r: sweeping what has expired failed: %s",
                self._consumer,
                error,
                exc_info=error,
                extra=fields("idempotency.failed", method=self.method, count=unsaid),
            )

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def end_of(message: AbstractIncomingMessage, *, is_open: bool) -> HandlerEnd:
    """Return how a handler of `message` has ended that raised nothing."""
    if isinstance(message, MessageView) and message.unwanted:
        return HandlerEnd.UNWANTED
    return HandlerEnd.DONE if is_open else HandlerEnd.ENDED_IT


def take_back_ack(message: AbstractIncomingMessage) -> None:
    """Have the consumer judge an error of a handler that has acknowledged `message` before."""
    if isinstance(message, MessageView):
        message.take_back_ack()


def _identity_of(message: AbstractIncomingMessage) -> str | None:
    """Return the operation id by which `message` is recognized, None if it has none."""
    operation = current_operation()
    operation_id = (message.message_id or "") if operation is None else operation.id
    return None if operation_id.startswith(ASSIGNED) else operation_id or None
