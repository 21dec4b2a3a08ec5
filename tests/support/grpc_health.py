"""A health service whose answers a test sets, and a server that a guarded channel finds down."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from tests.support.grpc_server import ECHO, ask, wait_until

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
HANGING = b"hanging"  # a server that says nothing; its channel is READY all the same
DOWN = ask(code="UNAVAILABLE")


class Health(grpc.GenericRpcHandler):
    """A health service whose answers a test sets."""

    def __init__(self) -> None:
        self.answer: bytes | grpc.StatusCode = SERVING
        self.asked: list[bytes] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        assert handler_call_details.method == "/grpc.health.v1.Health/Check"
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        answer = self.answer
        self.asked.append(request)
        if answer is HANGING:
            left = threading.Event()
            context.add_callback(left.set)
            left.wait(20)
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "")
        return bytes(answer)

    def wait(self, times: int) -> None:
        """Wait until it has been asked so many times more."""
        end = len(self.asked) + times
        wait_until(lambda: len(self.asked) >= end, "a health check")


def break_down(channel: Any) -> None:
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(ECHO)(DOWN)
