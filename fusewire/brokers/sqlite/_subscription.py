"""One receiver of one queue, and its deliveries.

What a job has done to the file is noted in the job's callback and never in the task that waits for
it: a task may be cancelled at any point, and what was claimed for it is then received by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio

from fusewire.brokers._names import queue_name
from fusewire.brokers.sqlite._store import Claimed, Store
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    DeliveryLostError,
    UnconfirmedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fusewire.brokers.message import Message
    from fusewire.brokers.sqlite._receivers import Receiver
    from fusewire.brokers.topology import Station

T = TypeVar("T")

_RETRY = 1.0  # seconds between attempts to give messages back to a file that cannot be written

logger = logging.getLogger("fusewire.brokers.sqlite")


class Submit(Protocol):
    """How a subscription has the broker run a job."""

    def __call__(self, run: Callable[[Store], T], *, wakes: str | None = None) -> asyncio.Future[T]:
        """Queue `run`; when it has succeeded, receivers of the queue `wakes` look at once."""


class SQLiteSubscription:
    """Claims from the file what `prefetch` leaves room for. Made by the broker."""

    def __init__(
        self,
        receiver: Receiver,
        queue: str,
        *,
        prefetch: int,
        submit: Submit,
        forget: Callable[[Receiver], None],
    ) -> None:
        self.queue = queue
        self._receiver = receiver
        self._prefetch = prefetch
        self._submit = submit
        self._forget = forget
        self._claimed: deque[Claimed] = deque()  # held, and not received yet
        self._received: set[int] = set()  # held, received, and not settled
        self._claiming = False
        self._quiet = False
        self._look = True  # there may be something to claim
        self._changed = asyncio.Event()
        self._ended: Exception | None = None
        self._given_back: asyncio.Future[None] | None = None

    async def receive(self) -> SQLiteDelivery:
        """Wait for the next message; see :meth:`Subscription.receive`.

        Raises:
            BrokerUnavailableError: the lease or the file is lost, or the subscription was released.
            QueueNotFoundError: the queue is gone.
        """
        while True:
            self._changed.clear()
            if self._ended is not None:
                raise self._ended.with_traceback(None)
            if self._claimed:
                claimed = self._claimed.popleft()
                self._received.add(claimed.id)
                return SQLiteDelivery(self, claimed)
            self._claim()
            await self._changed.wait()

    async def quiesce(self) -> Sequence[SQLiteDelivery]:
        """Claim no more. What was not received is requeued as if it had never been claimed."""
        if self._ended is not None or self._quiet:
            return ()
        self._quiet = True
        self._claimed.clear()
        # A claim that is on its way is carried out before this job.
        quiesce = partial(Store.quiesce, receiver=self._receiver, received=sorted(self._received))
        with contextlib.suppress(BrokerError):  # then it is requeued when this is released
            await asyncio.shield(self._submit(quiesce, wakes=self.queue))
        return ()

    async def release(self) -> None:
        """Requeue all messages, in order, and end. Never raises."""
        self.end(BrokerUnavailableError(f"the subscription to {self.queue!r} was released"))
        if self._given_back is not None:
            with anyio.CancelScope(shield=True):  # bounded by the busy timeout
                await asyncio.wait([self._given_back])

    def look_again(self) -> None:
        """Note that the queue may hold something new."""
        self._look = True
        self._changed.set()

    def end(self, why: Exception) -> None:
        """Requeue all messages; `receive` raises `why` from now on."""
        if self._ended is None:
            self.lose(why)
            self._give_back()

    def lose(self, why: Exception) -> None:
        """Note that no message is held any more; `receive` raises `why` from now on."""
        if self._ended is None:
            self._ended = why
            self._claimed.clear()
            self._changed.set()
            self._forget(self._receiver)

    def holds(self, claimed: Claimed) -> bool:
        """Return whether a message is held and not settled."""
        return self._ended is None and claimed.id in self._received

    def settle(
        self, claimed: Claimed, run: Callable[..., None], *, wakes: str | None = None
    ) -> asyncio.Future[None]:
        """Settle a message by `run`, of :class:`Store`; then there is room for another."""
        run = partial(run, receiver=self._receiver, id_=claimed.id)
        future = self._submit(run, wakes=wakes)
        future.add_done_callback(partial(self._note_settled, claimed.id))
        return future

    def _claim(self) -> None:
        room = self._prefetch - len(self._received)
        if self._claiming or self._quiet or not self._look or room < 1:
            return
        self._claiming = True
        self._look = False
        claim = self._submit(
            partial(Store.claim, queue=self.queue, receiver=self._receiver, limit=room)
        )
        claim.add_done_callback(partial(self._note_claimed, room))

    def _note_claimed(self, room: int, claim: asyncio.Future[list[Claimed]]) -> None:
        self._claiming = False
        if claim.cancelled():
            return
        error = claim.exception()
        if isinstance(error, UnconfirmedError):  # the lease decides whether it is held
            self.end(BrokerUnavailableError(str(error)))
        elif isinstance(error, Exception):
            self.end(error)
        elif self._ended is None and not self._quiet:  # else the job after this one requeued it
            claimed = claim.result()
            self._claimed.extend(claimed)
            self._look = self._look or len(claimed) == room
        self._changed.set()

    def _note_settled(self, id_: int, settled: asyncio.Future[None]) -> None:
        if settled.cancelled():
            return
        error = settled.exception()
        if error is None or isinstance(error, DeliveryLostError):
            self._received.discard(id_)
            self._changed.set()

    def _give_back(self) -> None:
        try:
            self._given_back = self._submit(
                partial(Store.release, receiver=self._receiver, handed=sorted(self._received)),
                wakes=self.queue,
            )
        except BrokerError as error:  # closed meanwhile, or forked
            logger.debug("the lease decides: %s", error)
        else:
            self._given_back.add_done_callback(self._note_given_back)

    def _note_given_back(self, given_back: asyncio.Future[None]) -> None:
        if given_back.cancelled() or given_back.exception() is None:
            return
        # The lease is renewed as long as the receiver's row is there: it cannot be left to expire.
        logger.warning(
            "what was received from %r cannot be given back: %s; trying again",
            self.queue,
            given_back.exception(),
        )
        given_back.get_loop().call_later(_RETRY, self._give_back)


class SQLiteDelivery:
    """One message that was received and is not settled.

    Attributes:
        message: the message as it was stored.
        redelivered: whether it was received before and not settled.
        returned: how many receivers died while they held it: their process ended, or gave no sign
            of life for the length of its lease. What is released does not count.
        counts_returns: whether `returned` is a count: always.
    """

    __slots__ = ("_claimed", "_settled", "_subscription", "message", "redelivered", "returned")

    counts_returns = True

    def __init__(self, subscription: SQLiteSubscription, claimed: Claimed) -> None:
        self._subscription = subscription
        self._claimed = claimed
        self._settled = False
        self.message = claimed.message
        self.redelivered = claimed.redelivered
        self.returned = claimed.deaths

    @property
    def lost(self) -> bool:
        """Whether this receiver no longer holds it, and has not settled it."""
        return not self._settled and not self._subscription.holds(self._claimed)

    async def done(self) -> None:
        """Take the message off its queue for good.

        Raises:
            DeliveryLostError: it is no longer held, or the file could not be written: then
                the subscription ends and the message comes again.
        """
        settled = self._settle(Store.done)
        try:
            await asyncio.shield(settled)
        except DeliveryLostError:
            raise
        except BrokerError as error:
            self._subscription.end(error)
            raise DeliveryLostError(f"could not be taken off its queue: {error}") from error

    async def move(self, to: Station | str, message: Message, *, delay: float = 0.0) -> None:
        """Take the message off its queue and store `message` in `to`, in one transaction.

        Raises:
            MoveRefusedError: there is no such queue; the original is still held.
            BrokerUnavailableError: not stored; the original is still held.
            UnconfirmedError: the disk failed in the commit; the original is still held.
            DeliveryLostError: the original is no longer held; nothing was stored.
            TypeError: a header holds what `HeaderValue` does not allow.
        """
        move = partial(Store.move, to=to, message=message, delay=delay)
        wakes = None if delay else queue_name(to)
        await asyncio.shield(self._settle(move, wakes=wakes))

    def _settle(
        self, run: Callable[..., None], *, wakes: str | None = None
    ) -> asyncio.Future[None]:
        settled = self._subscription.settle(self._claimed, run, wakes=wakes)
        settled.add_done_callback(self._note_settled)
        return settled

    def _note_settled(self, settled: asyncio.Future[None]) -> None:
        if not settled.cancelled() and settled.exception() is None:
            self._settled = True
