"""What a user does to a call once it is made: one method for each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.support.grpc_calls import until
from tests.support.grpc_server import wait_until

if TYPE_CHECKING:
    from tests.support.grpc_server import EchoServer
    from tests.support.grpc_ways import Way


def _raise(_call: object) -> None:
    raise ValueError("a callback that raises")


class SyncUser:
    """What a user of a sync channel does to a call."""

    def __init__(self, way: Way, channel: Any, server: EchoServer) -> None:
        self._way = way
        self._channel = channel
        self._server = server
        self._before = server.seen()
        self.answers: list[Any] = []

    def _in_flight(self) -> None:
        begun = self._before["begun"] + 1
        wait_until(lambda: self._server.seen()["begun"] == begun, "the call's begin")

    def _stopped(self) -> None:
        cancelled = self._before["cancelled"] + 1
        wait_until(lambda: self._server.seen()["cancelled"] == cancelled, "the handler's end")

    def cancel_at_once(self, call: Any) -> None:
        self.answers.append(call.cancel())

    def cancel_in_flight(self, call: Any) -> None:
        self._in_flight()
        self.answers.append(call.cancel())
        self._stopped()

    def cancel_after_end(self, call: Any) -> None:
        if self._way.streams:
            self.answers.append(list(call))
        wait_until(call.done, "the call's end")
        self.answers.append(call.cancel())

    def cancel_what_never_begins(self, _call: Any) -> None:
        """Do nothing: on a sync channel it is over at once."""

    def close_in_flight(self, _call: Any) -> None:
        self._in_flight()
        self._channel.close()
        self._stopped()

    def call_back(self, call: Any) -> None:
        call.add_done_callback(_raise)


class AioUser:
    """What a user of an asyncio channel does to a call."""

    def __init__(self, way: Way, channel: Any, server: EchoServer) -> None:
        self._way = way
        self._channel = channel
        self._server = server
        self._before = server.seen()
        self.answers: list[Any] = []

    async def _in_flight(self) -> None:
        begun = self._before["begun"] + 1
        await until(lambda: self._server.seen()["begun"] == begun, "the call's begin")

    async def _stopped(self) -> None:
        cancelled = self._before["cancelled"] + 1
        await until(lambda: self._server.seen()["cancelled"] == cancelled, "the handler's end")

    async def cancel_at_once(self, call: Any) -> None:
        self.answers.append(call.cancel())

    async def cancel_in_flight(self, call: Any) -> None:
        await self._in_flight()
        self.answers.append(call.cancel())
        await self._stopped()

    async def cancel_after_end(self, call: Any) -> None:
        if self._way.streams:
            self.answers.append([message async for message in call])
        else:
            self.answers.append(await call)
        self.answers.append(call.cancel())

    async def cancel_what_never_begins(self, call: Any) -> None:
        # Of some shapes grpcio ends the call at once, of others never: see is_valid_metadata.
        for _ in range(30):
            if call.done():
                break
            await asyncio.sleep(0.01)
        self.answers.append(call.done())
        self.answers.append(call.cancel())

    async def close_in_flight(self, _call: Any) -> None:
        await self._in_flight()
        await self._channel.close()
        await self._stopped()

    async def call_back(self, call: Any) -> None:
        call.add_done_callback(_raise)
