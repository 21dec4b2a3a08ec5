"""Dead calls of which nobody knows whether they were made: what becomes of them when that is known.

:func:`reconcile` goes through a dead queue once. It asks about each such call, and either removes
it, or puts it back into a lane, or leaves it. Each of these is one operation of the broker, so a
process that is killed leaves the call in the dead queue, or has put it where it belongs, or both.
A call that is in both places is made once, by its key.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fusewire._key_text import key_of_id
from fusewire.brokers import OTHER_LANE
from fusewire.errors import QueueNotFoundError
from fusewire.forwarding._call import UnreadableCallError, check_format
from fusewire.forwarding._outcome import ReplayOutcome
from fusewire.forwarding._server_word import ServerWord
from fusewire.parking import MalformedMessageError
from fusewire.parking.internal import MOST_HELD, History, from_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.brokers import Broker, Delivery, Message, Station, Subscription, Topology

PUT_BACK = "reconciled"
"""Why a call is parked that a server has not made."""

_REPLIES = "replies"
"""The queue of a queue of calls where outcomes are kept, if somebody waits for them."""

_DOUBTFUL = frozenset(
    str(outcome.value)
    for outcome in (ReplayOutcome.AMBIGUOUS, ReplayOutcome.IN_DOUBT, ReplayOutcome.STALE_KEY)
)
"""Reasons of dead calls that may have been made."""


class Deed(StrEnum):
    """What becomes of a dead call."""

    REMOVE = "removed"
    """It leaves the dead queue: nothing is left to do."""
    PUT_BACK = "put back"
    """It goes to a lane and is made again, with the same key."""
    MARK = "marked"
    """It stays in the dead queue as ``refused``: it is known not to have been made."""
    LEAVE = "left"
    """It stays as it is: a person decides."""


_DEEDS = {
    ServerWord.MADE: Deed.REMOVE,
    ServerWord.CANCELLED: Deed.REMOVE,
    ServerWord.REFUSED: Deed.MARK,
    ServerWord.NOT_MADE: Deed.PUT_BACK,
}


@dataclass(frozen=True, slots=True)
class DoubtfulCall:
    """A dead call that may have been made.

    Attributes:
        history: its history.
        method: ``/pkg.Service/Method``.
    """

    history: History
    method: str

    @property
    def key(self) -> str:
        """The idempotency key that it was sent with."""
        return key_of_id(self.history.operation_id)

    @property
    def first_sent_ms(self) -> int | None:
        """When it was sent first, or earlier, in milliseconds since 1970; None if nobody knows.

        The earlier, the safer: a server that is told a time for which it keeps no records any more
        says that it does not know.
        """
        history = self.history
        if history.first_sent_ms is not None:
            return history.first_sent_ms
        times = (
            history.first_parked_at_ms,
            history.first_failed_at_ms,
            history.first_postponed_at_ms,
        )
        return min((time for time in times if time is not None), default=None)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What becomes of one call.

    Attributes:
        call: the call.
        word: what the server says of it.
        deed: what becomes of it.
        why: why that is not what follows from the word alone; empty if it is.
    """

    call: DoubtfulCall
    word: ServerWord
    deed: Deed
    why: str = ""


def read_doubtful(message: Message) -> DoubtfulCall | None:
    """Return the call that a dead message is, if it may have been made; None for all others."""
    try:
        check_format(message.headers)
        history = from_headers(message, operation_id=message.message_id or "")
    except (MalformedMessageError, UnreadableCallError):
        return None
    method = message.type or ""  # of encrypted calls too
    is_one = history.reason in _DOUBTFUL and history.operation_id and method.startswith("/")
    return DoubtfulCall(history, method) if is_one else None


def decide(call: DoubtfulCall, word: ServerWord, *, now_ms: int, awaited: bool) -> Reconciled:
    """Decide what becomes of a call.

    It is put back only if the server would know it: it records the keys of the method, and was told
    a time before which the call was not sent. Then the call is made once, also if an earlier
    sending arrives late, and one that was answered gets the same answer.

    Args:
        call: the call.
        word: what the server says of it.
        now_ms: the time.
        awaited: whether somebody waits for the answer, which the forwarder brings home.
    """
    deed, why = _DEEDS.get(word, Deed.LEAVE), ""
    if deed is Deed.LEAVE:
        return Reconciled(call, word, deed, f"the server's word is: {word}")
    answered = deed is not Deed.PUT_BACK
    if answered and awaited:
        deed, why = Deed.PUT_BACK, "the forwarder brings the answer home"
    if deed is Deed.PUT_BACK and call.first_sent_ms is None:
        deed, why = Deed.LEAVE, "when it was sent first is not known"
    elif not answered and (end := call.history.not_after_ms) is not None and end < now_ms:
        deed, why = Deed.LEAVE, "it was not made, and its time is over"
    return Reconciled(call, word, deed, why)


@dataclass(slots=True)
class Reconciling:
    """One pass through a dead queue.

    Attributes:
        broker: where it is; entered.
        topology: of the queue of calls.
        ask: asks a server about a call.
        record: called with what becomes of a call, before it is done.
        dry_run: whether nothing is done.
        at_a_time: calls that are asked about at a time.
        patience: seconds without another message after which the queue counts as read.
    """

    broker: Broker
    topology: Topology
    ask: Callable[[DoubtfulCall], Awaitable[ServerWord]]
    record: Callable[[Reconciled], None]
    dry_run: bool = False
    at_a_time: int = 16
    patience: float = 2.0
    _awaited: bool = False

    async def run(self) -> None:
        """Go through the dead queue as far as it can be held at a time, oldest first.

        What is not done goes back to its place when this returns.

        Raises:
            QueueNotFoundError: there is no dead queue.
            BrokerError: the broker failed, and what was not recorded is as it was.
        """
        self._awaited = await self._is_there(f"{self.topology.source}.{_REPLIES}")
        subscription = await self.broker.subscribe(self.topology.dead, prefetch=MOST_HELD)
        places = asyncio.Semaphore(self.at_a_time)
        try:
            await self._read(subscription, places)
        except BaseExceptionGroup as errors:  # the first has cancelled the others
            raise errors.exceptions[0] from None
        finally:
            await subscription.release()

    async def _is_there(self, queue: str) -> bool:
        try:
            await self.broker.depth(queue)
        except QueueNotFoundError:
            return False
        return True

    async def _read(self, subscription: Subscription, places: asyncio.Semaphore) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(MOST_HELD):
                try:
                    async with asyncio.timeout(self.patience):
                        delivery = await subscription.receive()
                except TimeoutError:
                    return
                call = read_doubtful(delivery.message)
                if call is not None:
                    await places.acquire()
                    group.create_task(self._reconcile(delivery, call, places))

    async def _reconcile(
        self, delivery: Delivery, call: DoubtfulCall, places: asyncio.Semaphore
    ) -> None:
        try:
            word, now_ms = await self.ask(call), int(time.time() * 1000)
            end = decide(call, word, now_ms=now_ms, awaited=self._awaited)
            self.record(end)
            if not self.dry_run:
                await self._do(delivery, end)
        finally:
            places.release()

    async def _do(self, delivery: Delivery, end: Reconciled) -> None:
        match end.deed:
            case Deed.REMOVE:
                await delivery.done()
            case Deed.PUT_BACK:
                await self._move(delivery, self.topology.parked(OTHER_LANE), _fresh(end))
            case Deed.MARK:
                refused = dataclasses.replace(
                    end.call.history, reason=str(ReplayOutcome.REFUSED.value)
                )
                await self._move(delivery, self.topology.dead, refused)

    async def _move(self, delivery: Delivery, to: Station, history: History) -> None:
        await delivery.move(to, history.to_headers(delivery.message))


def _fresh(end: Reconciled) -> History:
    """Return the history of a call that is put back: it has all its attempts again.

    It says when it was sent first, so that a server whose record has expired by then does not make
    it again. One that was answered has no time that could be over.
    """
    call = end.call
    return dataclasses.replace(
        call.history,
        first_sent_ms=call.first_sent_ms,
        not_after_ms=call.history.not_after_ms if end.word is ServerWord.NOT_MADE else None,
        reason=PUT_BACK,
        attempts=0,
        outage_attempts=0,
        refusals=0,
        times_parked=call.history.times_parked + 1,
        parked_at_ms=int(time.time() * 1000),
        waits_until_ms=None,
        lone=0,
    )
