"""A gRPC server with threads and a bounded queue, which sheds replays before anything else.

``python examples/shed_replays_sync.py 50051`` serves payments, four at a time; up to 32 calls wait.
A call whose metadata says ``fusewire-replay: 1`` waits behind all others, and makes room for them
when the queue is full.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any] | None

AT_A_TIME = 4
MOST_WAITING = 32
SPARE_THREADS = 4  # so that a call is refused at once while all others run or wait


class BoundedQueue:
    """Calls that run or wait. Replays wait behind the others, and are shed first."""

    def __init__(self, at_a_time: int, most_waiting: int) -> None:
        self._lock = threading.Lock()
        self._free = at_a_time
        self._most_waiting = most_waiting
        self._live: deque[SimpleQueue[bool]] = deque()
        self._replays: deque[SimpleQueue[bool]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._live) + len(self._replays)

    def enter(self, *, replay: bool) -> bool:
        """Wait for a turn, which leave() ends. Return False instead if the call is shed."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if self.waiting >= self._most_waiting:
                if replay or not self._replays:
                    return False
                self._replays.pop().put(item=False)  # the latest replay makes room
            turn: SimpleQueue[bool] = SimpleQueue()
            (self._replays if replay else self._live).append(turn)
        return turn.get()

    def leave(self) -> None:
        """End a turn, and begin the next."""
        with self._lock:
            line = self._live or self._replays
            if line:
                line.popleft().put(item=True)
            else:
                self._free += 1


class SheddingInterceptor(grpc.ServerInterceptor):
    """Has each unary call wait in a queue before its handler runs."""

    def __init__(self, queue: BoundedQueue) -> None:
        self._queue = queue

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Put the queue before a handler; streams run without."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        replay = ("fusewire-replay", "1") in handler_call_details.invocation_metadata
        behavior = handler.unary_unary

        def in_turn(request: Any, context: grpc.ServicerContext) -> Any:
            if not self._queue.enter(replay=replay):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
            try:
                if not context.is_active():  # its deadline, or a cancellation
                    context.abort(grpc.StatusCode.CANCELLED, "the caller has gone")
                return behavior(request, context)
            finally:
                self._queue.leave()

        return grpc.unary_unary_rpc_method_handler(
            in_turn, handler.request_deserializer, handler.response_serializer
        )


def charge(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Take its time, and charge nobody."""
    del context
    time.sleep(0.02)
    return request


def main(port: str) -> None:
    queue = BoundedQueue(AT_A_TIME, MOST_WAITING)
    server = grpc.server(
        ThreadPoolExecutor(AT_A_TIME + MOST_WAITING + SPARE_THREADS),
        interceptors=[SheddingInterceptor(queue)],
    )
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Charge": grpc.unary_unary_rpc_method_handler(charge)
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("shop.Payments", methods)]
    )
    print("listening on", server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
