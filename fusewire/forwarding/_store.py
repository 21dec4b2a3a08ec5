"""Where calls are stored: one event loop and one broker, for callers on any thread and any loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    FusewireError,
    UnconfirmedError,
)
from fusewire.forwarding._probe_duty import ProbeDuty
from fusewire.forwarding._receipt import Receipt
from fusewire.parking.internal import History

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from fusewire.brokers import Broker, HeaderValue, Message, Station, Topology
    from fusewire.forwarding._call import StoredCall
    from fusewire.forwarding._call_codec import CallCodec
    from fusewire.parking.internal import (
        BrokerContact,
        Dependencies,
        LiveCalls,
        Settlements,
        Tracing,
    )

T = TypeVar("T")

_MARGIN = 5.0
"""Seconds beyond its own limit that a caller waits for the store's event loop."""

_NO_ANSWER = "the event loop of ParkedCalls does not answer"
_CUT_OFF = "something else cancelled the task on the event loop of ParkedCalls: "
_MAY_BE_PARKED = "the call may or may not be parked"
_MAY_BE_DONE = "what was asked may or may not be done"


class Entry(NamedTuple):
    """A call to store, and why.

    Attributes:
        call: the call.
        breaker: the name of the breaker that it waits for.
        reason: ``circuit_open``, ``failed``, or ``submitted``.
        expires_after: seconds after which it is of no use; None for never.
        first_sent: when it was first sent, in seconds since 1970; None if it was not.
    """

    call: StoredCall
    breaker: str
    reason: str = "circuit_open"
    expires_after: float | None = None
    first_sent: float | None = None


class _ToStore(NamedTuple):
    """A call on its way to the broker."""

    lane: Station
    message: Message
    history: History
    receipt: Receipt


class CallStore:
    """Stores calls in the lanes of a queue.

    Args:
        topology: the queue and its lanes.
        dependencies: which lane is for which breaker.
        timeout: seconds that storing one call may take.
        settlements: reports each call that is stored.
        tracing: traces the storing of calls.
        contact: notified whether the broker answers.
        codec: writes calls into messages.
        asks: whether calls ask for their outcome.
        live_calls: what calls took while their dependencies were well, for who replays them.

    Attributes:
        broker: the broker that it stores in; None while it is closed, or the broker was not reached
            since it was opened.
        loop: the event loop that it works on; None while it is closed.
        thread: the thread of that loop.
        probes: whose calls are the probes of a circuit.
    """

    def __init__(
        self,
        topology: Topology,
        dependencies: Dependencies,
        *,
        timeout: float,
        settlements: Settlements,
        tracing: Tracing,
        contact: BrokerContact,
        codec: CallCodec,
        asks: bool,
        live_calls: LiveCalls,
    ) -> None:
        self._topology = topology
        self._dependencies = dependencies
        self._timeout = timeout
        self._settlements = settlements
        self._tracing = tracing
        self._contact = contact
        self._codec = codec
        self._asks = asks
        self._live_calls = live_calls
        self.probes = ProbeDuty(dependencies.lane)
        self.broker: Broker | None = None
        self._publish_from_thread: Callable[..., concurrent.futures.Future[None]] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: int | None = None
        self._pid = os.getpid()

    def open(self) -> None:
        """Store on the event loop that runs from now on, once there is a broker."""
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self._pid = os.getpid()

    def use(self, broker: Broker) -> None:
        """Store in `broker` from now on."""
        self.broker = broker
        # Of SQLite: a thread that waits needs no turn of the event loop.
        self._publish_from_thread = getattr(broker, "publish_from_thread", None)

    def close(self) -> None:
        """Store nothing from now on."""
        self.broker = self.loop = self.probes.forwarder = self._publish_from_thread = None

    async def store(self, entry: Entry) -> Receipt:
        """Store a call, from any event loop. Returns after the broker's confirm.

        Raises:
            UnconfirmedError: it may or may not be stored.
            FusewireError: it is not stored.
        """
        loop = self._check_open()
        with self._tracing.storing(entry.call.operation_id, entry.breaker) as headers:
            storing = self._publish(entry, headers)
            if loop is asyncio.get_running_loop():
                return await storing
            return await self._across(loop, storing, _MAY_BE_PARKED)

    def store_threadsafe(self, entry: Entry) -> Receipt:
        """Do as :meth:`store`, from a thread that may wait.

        Raises:
            UnconfirmedError: it may or may not be stored.
            FusewireError: it is not stored.
        """
        loop = self._check_open()
        if self.thread == threading.get_ident():
            raise FusewireError(
                "a sync gRPC call on the event loop's own thread cannot be parked, because it "
                "would wait for itself: use grpc.aio there, or make the call in a worker thread"
            )
        with self._tracing.storing(entry.call.operation_id, entry.breaker) as headers:
            if self._publish_from_thread is not None:
                return self._publish_directly(self._publish_from_thread, entry, headers)
            return self._wait_across(loop, self._publish(entry, headers), _MAY_BE_PARKED)

    async def ask(self, question: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
        """Ask the broker something, from any event loop.

        Raises:
            UnconfirmedError: no answer has come in time, and what was asked may have been done.
            BrokerError: as the broker says.
            FusewireError: this is not entered.
        """
        loop = self._check_open()
        asking = self._ask(question)
        if loop is asyncio.get_running_loop():
            return await asking
        return await self._across(loop, asking, _MAY_BE_DONE)

    def ask_threadsafe(self, question: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
        """Do as :meth:`ask`, from a thread that may wait.

        Raises:
            UnconfirmedError: no answer has come in time, and what was asked may have been done.
            BrokerError: as the broker says.
            FusewireError: this is not entered, or this is the event loop's own thread.
        """
        loop = self._check_open()
        if self.thread == threading.get_ident():
            raise FusewireError(
                "the event loop's own thread would wait for itself: use the method without _sync"
            )
        return self._wait_across(loop, self._ask(question), _MAY_BE_DONE)

    async def _ask(self, question: Callable[[Broker], Coroutine[Any, Any, T]]) -> T:
        if self.broker is None:
            raise BrokerUnavailableError("the broker was not reached yet")
        try:
            async with asyncio.timeout(self._timeout):
                return await question(self.broker)
        except TimeoutError as error:
            raise UnconfirmedError(
                f"the broker does not answer within park_timeout={self._timeout:g} s"
            ) from error

    def _publish_directly(
        self,
        publish: Callable[..., concurrent.futures.Future[None]],
        entry: Entry,
        headers: Mapping[str, HeaderValue],
    ) -> Receipt:
        """Publish without the event loop, which hears of it afterwards."""
        stored = self._to_store(entry, headers)
        failures = self._contact.failures

        def heard(error: Exception | None) -> None:
            if error is None:
                self._note_stored(stored, failures)
            elif isinstance(error, BrokerError):
                self._contact.failed(error)
                self._settlements.faults.note_refusal(error)

        try:
            publish(stored.lane, stored.message, heard=heard).result(self._timeout)
        except concurrent.futures.TimeoutError as error:
            raise self._too_late() from error
        return stored.receipt

    def _check_open(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            raise FusewireError(
                "this process was forked after ParkedCalls was entered, and has neither its thread "
                "nor its connections: enter a ParkedCalls in each process, after the fork"
            )
        if self.loop is None:
            raise FusewireError("this ParkedCalls is not entered, or was left: nothing is stored")
        return self.loop

    async def _across(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], doubt: str
    ) -> T:
        """Do `work` on the store's event loop, from another one."""
        try:
            async with asyncio.timeout(self._timeout + _MARGIN):
                return await asyncio.wrap_future(self._submit(loop, work))
        except TimeoutError as error:
            raise UnconfirmedError(_NO_ANSWER) from error
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise UnconfirmedError(_CUT_OFF + doubt) from error

    def _wait_across(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], doubt: str
    ) -> T:
        """Do `work` on the store's event loop, from a thread that waits."""
        future = self._submit(loop, work)
        try:
            return future.result(self._timeout + _MARGIN)
        except concurrent.futures.TimeoutError as error:
            future.cancel()
            raise UnconfirmedError(_NO_ANSWER) from error
        except concurrent.futures.CancelledError as error:
            raise UnconfirmedError(_CUT_OFF + doubt) from error

    def _submit(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]
    ) -> concurrent.futures.Future[T]:
        try:
            return asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError as error:  # the loop was closed in this moment
            work.close()
            raise FusewireError("this ParkedCalls was left: nothing is stored") from error

    async def _publish(self, entry: Entry, headers: Mapping[str, HeaderValue]) -> Receipt:
        if self.broker is None:
            # Also if it was left in this moment.
            unreachable = BrokerUnavailableError("the broker was not reached yet")
            self._settlements.faults.note_refusal(unreachable)
            raise unreachable
        stored = self._to_store(entry, headers)
        failures = self._contact.failures
        try:
            await self._publish_in_time(self.broker, stored.lane, stored.message)
        except BrokerError as error:
            self._settlements.faults.note_refusal(error)
            raise
        self._note_stored(stored, failures)
        return stored.receipt

    def _to_store(self, entry: Entry, headers: Mapping[str, HeaderValue]) -> _ToStore:
        now = time.time()
        call, end, first_sent = entry.call, entry.expires_after, entry.first_sent
        if end is not None:
            call = dataclasses.replace(call, not_after_ms=round((now + end) * 1000))
        if self._asks:
            call = dataclasses.replace(call, outcome=True)
        queue = self._topology.source
        history = History(
            operation_id=call.operation_id,
            queue=queue,
            dependency=entry.breaker,
            reason=entry.reason,
            times_parked=1,
            first_parked_at_ms=round(now * 1000),
            parked_at_ms=round(now * 1000),
            first_sent_ms=None if first_sent is None else round(first_sent * 1000),
            not_after_ms=call.not_after_ms,
            at_most_once=call.at_most_once,
            live_calls=self._live_calls.of(entry.breaker),
        )
        lane = self._topology.parked(self._dependencies.lane(entry.breaker))
        message = self._codec.write(call, history.headers(headers))
        receipt = Receipt(call.operation_id, call.method, now)
        return _ToStore(lane, message, history, receipt)

    def _note_stored(self, stored: _ToStore, failures: int) -> None:
        self._contact.answered(failures)
        self._settlements.stored(stored.history)

    def _too_late(self) -> UnconfirmedError:
        return UnconfirmedError(
            f"no confirmation within park_timeout={self._timeout:g} s: the call may or may not be "
            "parked"
        )

    async def _publish_in_time(self, broker: Broker, lane: Station, message: Message) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await broker.publish(lane, message)
        except BrokerError as error:
            self._contact.failed(error)
            raise
        except TimeoutError as error:
            raise self._too_late() from error
