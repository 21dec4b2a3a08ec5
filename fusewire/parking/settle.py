"""Reading deliveries and settling them: the only place where a message changes queue."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from typing import TYPE_CHECKING

from fusewire._validation import check_text
from fusewire.brokers import Station
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
)
from fusewire.parking._work import Work, original, view_of
from fusewire.parking.backoff import Backoff, level_of
from fusewire.parking.events import Happening, Listeners, MessageEvent
from fusewire.parking.policy import Dead, Delay, Done, FailurePolicy, Park, Verdict
from fusewire.parking.record import (
    OPERATION_ID,
    MalformedMessageError,
    Record,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Delivery, Topology
    from fusewire.parking._marks import Marks
    from fusewire.parking._unacknowledged import Unacknowledged
    from fusewire.parking.lanes import Dependencies
    from fusewire.parking.view import MessageView

logger = logging.getLogger("fusewire.parking")

RETURNS_BEFORE_ALONE = 3
"""Returns of a message after which it is suspected of killing its process, and handled alone."""

_POLL = 0.05
"""Seconds between looks at whether a handler that works on the same message has ended."""


class GiveBackError(Exception):
    """A delivery cannot be settled, or has been held for long enough: it has to go back.

    Attributes:
        tried: whether its handler was called, so that it is not stored anew as untried.
        settled: whether it is settled itself, or may be, so that only the others go back.
        expected: whether that is how its worker waits, and no sign of trouble.
    """

    def __init__(self, *, tried: bool, settled: bool = False, expected: bool = False) -> None:
        super().__init__()
        self.tried = tried
        self.settled = settled
        self.expected = expected


_NOT_STORED = (MoveRefusedError, BrokerUnavailableError)
"""Errors after which a message is known to be nowhere else."""


class Desk:
    """Reads what comes in, and carries out verdicts.

    Args:
        topology: the queues.
        dependencies: which lane a dependency has.
        policy: for what is malformed, expired or ambiguous from the beginning.
        identity: the user's function from a message to its operation id.
        hold_limit: seconds that a delivery may be held because it cannot be settled.
        stopping: set when the consumer ends.
        listeners: told of every settlement.
        unacknowledged: what was done and could not be acknowledged.
        marks: of attempts that were made with nothing else in flight.
        monotonic: for the hold limit.
    """

    def __init__(
        self,
        *,
        topology: Topology,
        dependencies: Dependencies,
        policy: FailurePolicy,
        identity: Callable[[AbstractIncomingMessage], str | None] | None,
        hold_limit: float,
        stopping: asyncio.Event,
        listeners: Listeners,
        unacknowledged: Unacknowledged,
        marks: Marks,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topology = topology
        self._dependencies = dependencies
        self._policy = policy
        self._identity = identity
        self._hold_limit = hold_limit
        self._stopping = stopping
        self._listeners = listeners
        self._unacknowledged = unacknowledged
        self._marks = marks
        self._monotonic = monotonic
        self._told_of_anonymous = False
        self._settling: set[Delivery] = set()

    async def open(
        self, delivery: Delivery, *, ending: Callable[[], bool], since: float | None = None
    ) -> Work | None:
        """Read a delivery. One that cannot be worked on is settled here, and None is returned.

        Args:
            delivery: what has come.
            ending: tells whether all that is in hand is to go back.
            since: when it came into hand, in monotonic seconds; now unless given.
        """
        since = self._monotonic() if since is None else since
        message = delivery.message
        try:
            record = read(
                message, operation_id=message.message_id or "", queue=self._topology.source
            )
            view = view_of(delivery, seen=record.may_have_been_seen)
            given = self._operation_id(view)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - ours, or of the user's function
            record = Record(
                operation_id=message.message_id or uuid.uuid4().hex, queue=self._topology.source
            )
            work = Work(delivery, record, view_of(delivery, seen=True), since, ending)
            await self.settle(work, self._policy.dead(record, "malformed", error))
            return None
        anonymous = not (given or record.operation_id)
        if given or anonymous:
            record = dataclasses.replace(record, operation_id=given or self._assigned())
        work = Work(delivery, record, view, since, ending, anonymous=anonymous, lone=record.lone)
        if delivery.redelivered and await self._was_done(work):
            return None
        if self._policy.expired(record):
            await self.settle(work, self._policy.dead(record, "expired"))
            return None
        if record.at_most_once and delivery.redelivered:
            # Somebody held it before and did not say what became of it.
            await self.settle(work, self._policy.dead(record, "ambiguous"))
            return None
        if (hop := self._policy.not_due(record)) is not None:
            await self.settle(work, hop)
            return None
        return work

    async def _was_done(self, work: Work) -> bool:
        """Settle `work` if this process has done it, and could not acknowledge it.

        If the handler still works on it, wait for its end: it is never run beside itself.

        Raises:
            GiveBackError: all that is in flight has to go back.
        """
        message = work.delivery.message
        while not work.anonymous and self._unacknowledged.is_running(message):
            if work.ending() or self.held_for(work) <= 0:
                raise GiveBackError(tried=False)
            await asyncio.sleep(_POLL)
        ended = self._unacknowledged.recall(message)
        work.survived = ended is not None
        if ended is None or not ended.done:
            return False
        work.record = ended.record
        logger.info(
            "operation %s was done before, and could not be acknowledged then",
            work.record.operation_id,
        )
        await self.settle(work, Done())
        return True

    async def settle(self, work: Work, verdict: Verdict) -> None:
        """Carry out `verdict`, trying again while the broker cannot.

        What must not be tried twice is moved once. When such a move ends in doubt, a second one
        would make two copies, and each of them would be tried: so it is dead as ambiguous then.

        Raises:
            GiveBackError: it could not be carried out within the hold limit, or while stopping.
        """
        self._settling.add(work.delivery)
        try:
            await self._until_settled(work, verdict)
        finally:
            self._settling.discard(work.delivery)

    async def _until_settled(self, work: Work, verdict: Verdict) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._carry_out(work.delivery, verdict)
            except DeliveryLostError as error:
                # The broker has it, or a copy, and gives it to somebody again.
                logger.warning("operation %s: %s", work.record.operation_id, error)
                self._remember(work, verdict)
                return
            except BrokerError as error:
                held = self._monotonic() - work.since
                logger.log(
                    level_of(error),
                    "operation %s cannot be moved and stays in hand for %.0f s at most: %s",
                    work.record.operation_id,
                    max(self._hold_limit - held, 0),
                    error,
                )
                if not isinstance(error, _NOT_STORED):
                    work.in_doubt = True
                    verdict = self._moved_once(work, verdict, error)
                back = held > self._hold_limit or work.ending()
                if back or await backoff.wait(self._stopping):
                    self._remember(work, verdict)
                    raise GiveBackError(
                        tried=work.goes_back_as_it_is, settled=work.in_doubt
                    ) from error
            except asyncio.CancelledError:
                work.in_doubt = True
                raise
            else:
                self._tell(work, verdict)
                if work.lone and (isinstance(verdict, Done) or not verdict.record.lone):
                    await self._marks.clear(work.record.operation_id)
                return

    def _moved_once(self, work: Work, verdict: Verdict, error: BrokerError) -> Verdict:
        if not work.record.at_most_once or isinstance(verdict, (Done, Dead)):
            return verdict
        return self._policy.dead(verdict.record, "ambiguous", error)

    def _remember(self, work: Work, verdict: Verdict) -> None:
        """Remember what `work` has come to, for when the broker delivers it again."""
        done = isinstance(verdict, Done)
        if not work.anonymous and (done or work.lone):
            self._unacknowledged.keep(work.delivery.message, work.record, done=done)

    def is_settling(self, delivery: Delivery) -> bool:
        """Tell whether `delivery` is moved or acknowledged just now, which soon ends."""
        return delivery in self._settling

    def held_for(self, work: Work) -> float:
        """Return the seconds that are left of the hold limit for `work`."""
        return self._hold_limit - (self._monotonic() - work.since)

    async def put_back(self, delivery: Delivery) -> None:
        """Let a delivery go that was not attempted; what must not be tried twice goes to its lane.

        Most just go back with their subscription. One that must not be tried twice is stored
        anew: a redelivery could not be told from one whose first try is in doubt.
        """
        await self._store_anew(delivery, lambda record: self._lane(record.dependency))

    async def put_back_in_source(self, delivery: Delivery) -> None:
        """Do the same for a delivery of the source queue, which nobody here consumes any more.

        To a lane it would go while that is still consumed here. What RabbitMQ has given out and
        could not deliver any more when a consumer is cancelled comes again as redelivered.
        """
        await self._store_anew(delivery, lambda _record: Station(self._topology.source))

    async def put_back_suspect(self, delivery: Delivery) -> None:
        """Store a delivery again if it is to be alone, whether or not its handler was called.

        A redelivery could not be told from one that killed its process.
        """
        message = delivery.message
        try:
            record = read(message, operation_id=message.message_id or "")
            if record.lone:
                await self._carry_out(delivery, self._policy.alone(record))
        except (BrokerError, MalformedMessageError) as error:
            logger.warning("message %s goes back as it is: %s", message.message_id, error)

    async def _store_anew(self, delivery: Delivery, to: Callable[[Record], Station]) -> None:
        message = delivery.message
        try:
            record = read(message, operation_id=message.message_id or "")
            if record.at_most_once and not delivery.redelivered:
                await delivery.move(to(record), record.write(original(delivery)))
        except (BrokerError, MalformedMessageError) as error:
            logger.warning("message %s goes back as it is: %s", message.message_id, error)

    def _lane(self, dependency: str) -> Station:
        return self._topology.parked(self._dependencies.lane(dependency))

    async def _carry_out(self, delivery: Delivery, verdict: Verdict) -> None:
        match verdict:
            case Done():
                await delivery.done()
            case Park(record):
                lane = self._lane(record.dependency)
                await delivery.move(lane, record.write(original(delivery)))
            case Delay(record, delay):
                source = Station(self._topology.source)
                await delivery.move(source, record.write(original(delivery)), delay=delay)
            case Dead(record):
                await delivery.move(self._topology.dead, record.write(original(delivery)))

    def _tell(self, work: Work, verdict: Verdict) -> None:
        record = work.record if isinstance(verdict, Done) else verdict.record
        match verdict:
            case Done():
                happening = Happening.REPLAYED if record.times_parked else Happening.HANDLED
            case Park():
                happening = Happening.PARKED
            case Delay():
                happening = Happening.DELAYED
            case Dead():
                happening = Happening.DEAD
                logger.error(
                    "operation %s is dead (%s) and waits in %s: %s %s",
                    record.operation_id,
                    record.reason,
                    self._topology.dead,
                    record.exception,
                    record.exception_message,
                )
        self._announce(happening, record, record.reason)
        if isinstance(verdict, Done) and record.doubtful_keys:
            logger.warning(
                "operation %s was handled without its call %s, which may have had an effect in an "
                "earlier attempt: if its request holds a time or a random value, it was made again "
                "under another idempotency key, and may have taken effect twice. Give such calls "
                "an idempotency-key of their own, made of the message's id",
                record.operation_id,
                record.doubtful_keys,
            )
            self._announce(Happening.IN_DOUBT, record, "key_not_sent_again")

    def _announce(self, happening: Happening, record: Record, reason: str) -> None:
        self._listeners.tell(
            MessageEvent(happening, record.operation_id, record.queue, record.dependency, reason)
        )

    def _operation_id(self, view: MessageView) -> str | None:
        """Ask the user's function for the operation id.

        Raises:
            TypeError: it gave something else than a text.
            SettingsError: it gave a text that cannot be stored.
        """
        given: object = None if self._identity is None else self._identity(view)
        if given is not None and not isinstance(given, str):
            raise TypeError(f"what operation_id returns must be a string or None, got {given!r}")
        return check_text("what operation_id returns", given) if given else None

    def _assigned(self) -> str:
        if not self._told_of_anonymous:
            self._told_of_anonymous = True
            logger.warning(
                "messages of %r have no message_id and no %s header: they get an operation id when "
                "they are first moved, and duplicates of them cannot be recognized",
                self._topology.source,
                OPERATION_ID,
            )
        return uuid.uuid4().hex
