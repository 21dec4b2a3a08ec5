"""What a forwarder is made of."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from fusewire.errors import SettingsError
from fusewire.forwarding._handle import ForwarderHandle
from fusewire.forwarding._handler import ReplayHandler
from fusewire.forwarding._transport import check_guards, transport
from fusewire.parking import ParkingConsumer
from fusewire.parking.internal import keep_no_texts, settle_calls, share_reports

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Mapping

    from fusewire.breaker import BreakerRegistry
    from fusewire.forwarding._call_codec import CallCodec
    from fusewire.forwarding._encryption import MissingKeyError
    from fusewire.forwarding._entering import BrokerEntry
    from fusewire.forwarding._outcomes import CallReplies
    from fusewire.forwarding._policy import ParkPolicy
    from fusewire.parking import ReplayPolicy, RetryPolicy
    from fusewire.parking.internal import Settlements, Tracing


@dataclass(slots=True, kw_only=True)
class Forwarding:
    """Makes the forwarder of a store of calls.

    Attributes:
        queue: names the queues.
        methods: what may be queued, and how.
        lanes: lane name to the breakers whose calls share it.
        registry: where the channel's breakers are.
        retry: when a replay that failed is tried again.
        replay: how stored calls are replayed; it may change.
        exchange: what calls are moved through.
        replay_timeout: seconds for one attempt of a call that was made without a deadline.
        shutdown_timeout: seconds that replays may still take at the end.
        codec: reads what is stored.
        settlements: reports what becomes of calls.
        tracing: traces them.
        replies: says what became of them.
    """

    queue: str
    methods: Mapping[str, ParkPolicy]
    lanes: Mapping[str, Collection[str]] | None
    registry: BreakerRegistry
    retry: RetryPolicy
    replay: ReplayPolicy
    exchange: str
    replay_timeout: float
    shutdown_timeout: float
    codec: CallCodec
    settlements: Settlements
    tracing: Tracing
    replies: CallReplies

    def forwarder(
        self,
        channel: grpc.Channel | grpc.aio.Channel,
        entry: BrokerEntry,
        loop: asyncio.AbstractEventLoop,
        thread: int | None,
    ) -> ForwarderHandle:
        """Make a forwarder, which does not run yet.

        Args:
            channel: the guarded channel.
            entry: the way into the broker.
            loop: the event loop that it will run on.
            thread: the thread of that loop.

        Raises:
            SettingsError: the channel cannot be used.
        """
        if isinstance(channel, grpc.aio.Channel) and thread != threading.get_ident():
            raise SettingsError(
                "channel must be a sync one, got an asyncio channel, because this ParkedCalls runs "
                "on an event loop of its own: enter it with `async with` on the channel's loop"
            )
        sending = transport(channel)
        check_guards(channel, self.registry)

        def stop() -> None:
            forwarder.stop()

        def halt(missing: MissingKeyError) -> None:
            forwarder.halt(missing)

        handler = ReplayHandler(
            sending,
            self.codec,
            self.replay_timeout,
            stop=stop,
            halt=halt,
            methods=self.methods,
            circuit=self.registry.find,
        )
        consumer = ParkingConsumer(
            entry.broker,
            queue=self.queue,
            handler=handler,
            lanes=self.lanes,
            registry=self.registry,
            retry=self.retry,
            replay=self.replay,
            exchange=self.exchange,
            shutdown_timeout=self.shutdown_timeout,
        )
        share_reports(consumer, self.settlements, self.tracing)
        settle_calls(consumer, self.replies)
        if self.codec.encrypts:
            keep_no_texts(consumer)
        forwarder = ForwarderHandle(consumer, self.codec, entry.done, loop, thread)
        return forwarder
