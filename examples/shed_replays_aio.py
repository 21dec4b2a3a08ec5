"""A grpc.aio server with a bounded queue, which sheds replays before anything else.

``python examples/shed_replays_aio.py 50051`` serves payments, four at a time; up to 32 calls wait.
A call whose metadata says ``fusewire-replay: 1`` waits behind all others, and makes room for them
when the queue is full.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any] | None


class BoundedQueue:
    """Calls that run or wait. Replays wait behind the others, and are shed first."""

    def __init__(self, at_a_time: int, most_waiting: int) -> None:
        self._free = at_a_time
        self._most_waiting = most_waiting
        self._live: deque[asyncio.Future[bool]] = deque()
        self._replays: deque[asyncio.Future[bool]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._live) + len(self._replays)

    async def enter(self, *, replay: bool) -> bool:
        """Wait for a turn, which leave() ends. Return False instead if the call is shed."""
        if self._free:
            self._free -= 1
            return True
        if self.waiting >= self._most_waiting:
            if replay or not self._replays:
                return False
            self._replays.pop().set_result(False)  # the latest replay makes room
        line = self._replays if replay else self._live
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            return await asyncio.shield(turn)
        except asyncio.CancelledError:  # its caller's deadline, or a cancellation
            if not turn.done():
                line.remove(turn)
            elif turn.result():
                self.leave()
            raise

    def leave(self) -> None:
        """End a turn, and begin the next."""
        line = self._live or self._replays
        if line:
            line.popleft().set_result(True)
        else:
            self._free += 1


class SheddingInterceptor(grpc.aio.ServerInterceptor):
    """Has each unary call wait in a queue before its handler runs."""

    def __init__(self, queue: BoundedQueue) -> None:
        self._queue = queue

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Put the queue before a handler; streams run without."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        replay = ("fusewire-replay", "1") in handler_call_details.invocation_metadata
        behavior = handler.unary_unary

        async def in_turn(request: Any, context: Any) -> Any:
            if not await self._queue.enter(replay=replay):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
            try:
                return await behavior(request, context)
            finally:
                self._queue.leave()

        return grpc.unary_unary_rpc_method_handler(
            in_turn, handler.request_deserializer, handler.response_serializer
        )


async def charge(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Take its time, and charge nobody."""
    del context
    await asyncio.sleep(0.02)
    return request


async def main(port: str) -> None:
    queue = BoundedQueue(at_a_time=4, most_waiting=32)
    server = grpc.aio.server(interceptors=[SheddingInterceptor(queue)])
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Charge": grpc.unary_unary_rpc_method_handler(charge)
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("shop.Payments", methods)]
    )
    print("listening on", server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
