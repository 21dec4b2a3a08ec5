"""Reading deliveries and settling them: the only place where a message changes queue."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from typing import TYPE_CHECKING

from fusewire._key_text import ASSIGNED
from fusewire._validation import check_text
from fusewire.brokers import Station
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    MoveRefusedError,
)
from fusewire.parking._asking import ask
from fusewire.parking._decisions import (
    Answered,
    Dead,
    Delay,
    Done,
    Ending,
    FailurePolicy,
    Park,
    Recycle,
    Verdict,
)
from fusewire.parking._history import (
    OPERATION_ID,
    History,
    MalformedMessageError,
    from_headers,
)
from fusewire.parking._in_flight import InFlight, original, view_of
from fusewire.parking._waiting import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Delivery, Message, Topology
    from fusewire.parking._dependencies import Dependencies
    from fusewire.parking._failure_log import FailureLog
    from fusewire.parking._marks import Marks
    from fusewire.parking._receiver import Receiver
    from fusewire.parking._replies import Replies, Reply
    from fusewire.parking._settlements import Settlements
    from fusewire.parking._tracing import Tracing
    from fusewire.parking._unacknowledged import Unacknowledged
    from fusewire.parking._view import MessageView

logger = logging.getLogger("fusewire.parking")

RETURNS_BEFORE_ALONE = 3
"""Returns of a message after which it is suspected of killing its process, and handled alone."""

_POLL = 0.05
"""Seconds between looks at whether a handler that works on the same message has ended."""


_NOT_STORED = (MoveRefusedError, BrokerUnavailableError)
"""Errors after which a message is known to be nowhere else."""


class Settler:
    """Reads what comes in, and carries out verdicts.

    Args:
        topology: the queues.
        dependencies: which lane a dependency has.
        policy: for what is malformed, expired or ambiguous from the beginning.
        identity: the user's function from a message to its operation id.
        hold_limit: seconds that a delivery may be held because it cannot be settled.
        stopping: set when the consumer ends.
        settlements: reports every settlement.
        failures: where what the user's function raises is logged.
        unacknowledged: what was done and could not be acknowledged.
        marks: of attempts that were made with nothing else in flight.
        tracing: traces moves.
        replies: says what there is to say of messages that have ended; None if there is nothing.
        publish: stores what is said of a message that stays.
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
        settlements: Settlements,
        failures: FailureLog,
        unacknowledged: Unacknowledged,
        marks: Marks,
        tracing: Tracing,
        replies: Replies | None,
        publish: Callable[[Station, Message], Awaitable[None]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topology = topology
        self._dependencies = dependencies
        self._policy = policy
        self._identity = identity
        self._hold_limit = hold_limit
        self._stopping = stopping
        self._settlements = settlements
        self._failures = failures
        self._unacknowledged = unacknowledged
        self._marks = marks
        self._tracing = tracing
        self._replies = replies
        self._publish = publish
        self._monotonic = monotonic
        self._told_of_anonymous = False
        self._settling: set[Delivery] = set()

    async def open(
        self, delivery: Delivery, receiver: Receiver, *, since: float | None = None
    ) -> InFlight | Recycle | None:
        """Read a delivery. One that cannot be worked on is settled here.

        Args:
            delivery: what has come.
            receiver: what it came through.
            since: when it came, in monotonic seconds; now unless given.

        Returns:
            None for a delivery that is settled, and Recycle for one that could not be settled.
        """
        since = self._monotonic() if since is None else since
        message = delivery.message
        self._settlements.faults.redelivered += delivery.redelivered
        try:
            history = from_headers(
                message, operation_id=message.message_id or "", queue=self._topology.source
            )
            view = view_of(delivery, seen=history.may_have_been_seen)
            given = self._operation_id(view)
        except Exception as error:  # noqa: BLE001 - ours, or of the user's function
            history = History(
                operation_id=message.message_id or uuid.uuid4().hex, queue=self._topology.source
            )
            if not isinstance(error, MalformedMessageError):
                self._failures.note(history, error)
            item = InFlight(delivery, history, view_of(delivery, seen=True), since, receiver)
            return await self.settle(item, self._policy.dead(history, "malformed", error))
        anonymous = not (given or history.operation_id)
        if anonymous or (given and given != history.operation_id):
            history = dataclasses.replace(history, operation_id=given or self._assigned())
        item = InFlight(
            delivery, history, view, since, receiver, anonymous=anonymous, lone=history.lone
        )
        if delivery.redelivered:
            # A forwarder may have sent what it stores, but not before it came to wait here.
            item.history = item.history.sent_first(item.history.parked_at_ms)
        if receiver.lane:
            self._settlements.taken(item)
        known = await self._done_before(item) if delivery.redelivered else None
        ending = known or self._untried(item)
        return item if ending is None else await self.settle(item, ending)

    def _untried(self, item: InFlight) -> Verdict | None:
        """Return what becomes of `item` without an attempt; None if it may be tried."""
        if self._policy.expired(item.history):
            return self._policy.dead(item.history, "expired")
        if item.history.at_most_once and item.delivery.redelivered:
            # Somebody held it before and did not say what became of it.
            return self._policy.dead(item.history, "ambiguous")
        return self._policy.not_due(item.history)

    async def _done_before(self, item: InFlight) -> Done | Recycle | None:
        """Return how `item` ends if this process has done it, and could not acknowledge it.

        If the handler still works on it, wait for its end: it is never run beside itself.
        """
        message = item.delivery.message
        while not item.anonymous and self._unacknowledged.is_running(message):
            if item.receiver.ending or self.held_for(item) <= 0:
                return Recycle(tried=False)
            await asyncio.sleep(_POLL)
        ended = self._unacknowledged.recall(message)
        item.survived = ended is not None
        if ended is None or not ended.done:
            return None
        item.history, item.view.answer = ended.history, ended.answer
        logger.info(
            "operation %s was done before, and could not be acknowledged then",
            item.history.operation_id,
        )
        return Done()

    async def settle(self, item: InFlight, ending: Ending | None) -> Recycle | None:
        """Carry out `ending`, trying again while the broker cannot.

        What must not be tried twice is moved once. When such a move ends in doubt, a second one
        would make two copies, and each of them would be tried: so it is dead as ambiguous then.

        Returns:
            None if there is nothing left to do; else why and how all that is in flight goes back.
            That is `ending` itself, or `ending` could not be carried out within the hold limit, or
            while stopping.
        """
        if ending is None or isinstance(ending, Recycle):
            self._tracing.end(item)
            return ending
        self._settling.add(item.delivery)
        try:
            return await self._until_settled(item, ending)
        finally:
            self._settling.discard(item.delivery)
            self._tracing.end(item)

    async def _until_settled(self, item: InFlight, verdict: Verdict) -> Recycle | None:
        backoff: Backoff | None = None
        while True:
            try:
                settled = await self._carry_out(item, verdict)
            except DeliveryLostError as error:
                # The broker has it, or a copy, and gives it to somebody again.
                self._settlements.lost(item, error)
                self._remember(item, verdict)
                return None
            except BrokerError as error:
                held = self._monotonic() - item.since
                self._settlements.held(item, error, max(self._hold_limit - held, 0))
                if not isinstance(error, _NOT_STORED):
                    item.in_doubt = True
                    verdict = self._moved_once(item, verdict, error)
                backoff = backoff or Backoff()
                back = held > self._hold_limit or item.receiver.ending
                if back or await backoff.wait(self._stopping):
                    self._remember(item, verdict)
                    return Recycle(tried=item.goes_back_as_it_is, settled=item.in_doubt)
            except asyncio.CancelledError:
                item.in_doubt = True
                raise
            else:
                self._settlements.settled(item, settled)
                if item.span is not None:
                    self._tracing.settled(item, self._settlements.event(item, settled))
                if item.lone and (isinstance(settled, Done) or not settled.history.lone):
                    await self._marks.clear(item.history.operation_id)
                return None

    def _moved_once(self, item: InFlight, verdict: Verdict, error: BrokerError) -> Verdict:
        if not item.history.at_most_once or isinstance(verdict, (Done, Dead)):
            return verdict
        return self._policy.dead(verdict.history, "ambiguous", error)

    def _remember(self, item: InFlight, verdict: Verdict) -> None:
        """Remember what `item` has come to, for when the broker delivers it again."""
        done = isinstance(verdict, Done)
        if not item.anonymous and (done or item.lone):
            answer = item.view.answer
            self._unacknowledged.keep(item.delivery.message, item.history, done=done, answer=answer)

    def is_settling(self, delivery: Delivery) -> bool:
        """Return whether `delivery` is being moved or acknowledged, which soon ends."""
        return delivery in self._settling

    def held_for(self, item: InFlight) -> float:
        """Return the seconds that are left of the hold limit for `item`."""
        return self._hold_limit - (self._monotonic() - item.since)

    async def put_back(self, delivery: Delivery) -> None:
        """Let a delivery go that was not attempted; what must not be tried twice goes to its lane.

        Most just go back with their subscription. One that must not be tried twice is stored
        again: a redelivery cannot be distinguished from one whose first try is in doubt.
        """
        await self._store_anew(delivery, lambda history: self._lane(history.dependency))

    async def put_back_in_source(self, delivery: Delivery) -> None:
        """Do the same for a delivery of the source queue, which nobody here consumes any more.

        To a lane it would go while that is still consumed here. What RabbitMQ has given out and
        could not deliver any more when a consumer is cancelled comes again as redelivered.
        """
        await self._store_anew(delivery, lambda _record: Station(self._topology.source))

    async def put_back_suspect(self, delivery: Delivery) -> None:
        """Store a delivery again if it is to be alone, whether or not its handler was called.

        A redelivery cannot be distinguished from one that killed its process.
        """
        message = delivery.message
        try:
            history = from_headers(message, operation_id=message.message_id or "")
            if history.lone:
                verdict = self._policy.alone(history)
                _, to, delay = self._way(verdict)
                message = verdict.history.to_headers(original(delivery))
                await self._store(delivery, to, message, delay)
        except (BrokerError, MalformedMessageError) as error:
            logger.warning("message %s goes back as it is: %s", message.message_id, error)

    async def _store_anew(self, delivery: Delivery, to: Callable[[History], Station]) -> None:
        message = delivery.message
        try:
            history = from_headers(message, operation_id=message.message_id or "")
            if history.at_most_once and not delivery.redelivered:
                await self._store(delivery, to(history), history.to_headers(original(delivery)))
        except (BrokerError, MalformedMessageError) as error:
            logger.warning("message %s goes back as it is: %s", message.message_id, error)

    def _lane(self, dependency: str) -> Station:
        return self._topology.parked(self._dependencies.lane(dependency))

    async def _carry_out(self, item: InFlight, verdict: Verdict) -> Verdict | Answered:
        """Carry `verdict` out; return what has become of `item`."""
        reply: Reply | None = None
        if self._replies is not None and isinstance(verdict, Done | Dead):
            reply = self._replies.of(item, verdict)
        if reply is not None and reply.final:
            await self._store(item.delivery, Station(reply.queue), reply.message)
            return verdict if isinstance(verdict, Done) else Answered(verdict.history)
        if reply is not None and not item.noticed:
            await self._publish(Station(reply.queue), reply.message)
            item.noticed = True
        if isinstance(verdict, Done):
            await item.delivery.done()
        else:
            await self._move(item, verdict)
        return verdict

    async def _move(self, item: InFlight, verdict: Park | Delay | Dead) -> None:
        delivery = item.delivery
        operation, to, delay = self._way(verdict)
        with self._tracing.move(item, operation, to) as moved_by:
            message = verdict.history.moved(moved_by).to_headers(original(delivery))
            await self._store(delivery, to, message, delay)

    async def _store(
        self, delivery: Delivery, to: Station, message: Message, delay: float = 0.0
    ) -> None:
        try:
            await delivery.move(to, message, delay=delay)
        except DeliveryLostError:
            raise  # it is moved, or comes again
        except BrokerError as error:
            self._settlements.faults.note_refusal(error)
            raise

    def _way(self, verdict: Park | Delay | Dead) -> tuple[str, Station, float]:
        """Return what a move is called, where it goes, and after how many seconds it is there."""
        match verdict:
            case Park(history):
                return "park", self._lane(history.dependency), 0.0
            case Delay(_, delay):
                return "delay", Station(self._topology.source), delay
            case Dead():
                return "dead-letter", self._topology.dead, 0.0

    def _operation_id(self, view: MessageView) -> str | None:
        """Ask the user's function for the operation id.

        Raises:
            TypeError: it gave something else than a text.
            SettingsError: it gave a text that cannot be stored.
        """
        given: object = None
        if self._identity is not None:
            given = ask("operation_id", self._identity, view)
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
        return f"{ASSIGNED}{uuid.uuid4().hex}"
