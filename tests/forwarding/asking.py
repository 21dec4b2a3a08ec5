"""Shops that look for calls, and servers that are asked about them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from fusewire.brokers import Capabilities, SQLiteBroker
from fusewire.forwarding import CallPlace, CancelKind, Cancellation, ParkedCalls, ParkPolicy
from fusewire.idempotency.v1 import operations_pb2 as v1
from fusewire.idempotency.v1.operations_pb2_grpc import (
    OperationsServicer,
    add_OperationsServicer_to_server,
)
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import pending
from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

POLICY = ParkPolicy(reply=pending, idempotent=True)
METHODS = {CHARGE: POLICY}
REMOVED = Cancellation(kind=CancelKind.REMOVED, place=CallPlace.WAITING)


@contextlib.asynccontextmanager
async def storing(address: str, queue: str, **options: Any) -> AsyncIterator[ParkedCalls]:
    async with ParkedCalls(address, queue=queue, methods=METHODS, **options) as calls:
        yield calls


class Opaque(SQLiteBroker):
    """Cannot look up a message, as RabbitMQ cannot."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()


@contextlib.asynccontextmanager
async def opaque(path: Path, queue: str) -> AsyncIterator[ParkedCalls]:
    async with (
        Opaque(path / "opaque.db") as broker,
        ParkedCalls(broker, queue=queue, methods=METHODS) as calls,
    ):
        yield calls


class Fake(OperationsServicer):
    """A server that says of each call the state that its key names."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def Query(self, request: v1.QueryRequest, context: Any) -> v1.Operation:  # noqa: N802 - the name in the .proto
        return self._say("Query", request, context)

    def Cancel(self, request: v1.CancelRequest, context: Any) -> v1.Operation:  # noqa: N802 - as above
        return self._say("Cancel", request, context)

    def _say(self, asked: str, request: Any, context: Any) -> v1.Operation:
        self.asked.append((asked, request))
        word = request.idempotency_key
        if word.startswith("code "):
            context.abort(grpc.StatusCode[word.removeprefix("code ")], "as its key says")
        if word == "REFUSED":
            return v1.Operation(state=v1.STATE_ANSWERED, code=3)
        return v1.Operation(state=v1.State.Value(f"STATE_{word}"))


@contextlib.contextmanager
def serving(service: OperationsServicer | None) -> Iterator[str]:
    """Serve, and provide the address."""
    server = grpc.server(ThreadPoolExecutor(4))
    if service is not None:
        add_OperationsServicer_to_server(service, server)
    target = f"127.0.0.1:{reserve_port()}"
    server.add_insecure_port(target)
    server.start()
    try:
        yield target
    finally:
        server.stop(0).wait()
