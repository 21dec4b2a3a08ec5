"""A client of the tests' server, and what it sees of a call."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import grpc

from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.idempotency import IDEMPOTENCY_TRAILER, Action
from fusewire.idempotency.v1.operations_pb2 import CancelRequest, Operation, QueryRequest
from fusewire.idempotency.v1.operations_pb2_grpc import OperationsStub

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
_LIMIT = 20.0  # seconds


class Seen(NamedTuple):
    """What a client sees of a call.

    Attributes:
        code: the status' name.
        details: its text.
        trailers: the trailing metadata, without ours.
        reply: the reply's bytes.
        word: the value of our trailer; None if there is none.
    """

    code: str
    details: str
    trailers: tuple[tuple[str, str | bytes], ...]
    reply: bytes
    word: str | None

    @property
    def told(self) -> tuple[Any, ...]:
        """All but our own trailer."""
        return self[:4]


class Client:
    """A client of the server at a port of the loopback interface."""

    def __init__(self, port: int) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 100),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._charge = self._channel.unary_unary(CHARGE)
        self._operations = OperationsStub(self._channel)

    def start(
        self,
        what: str,
        operation: str,
        *,
        key: str | None = "",
        amount: int = 0,
        timeout: float = _LIMIT,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        """Begin a call, whose future is returned. The key is the operation's name by default."""
        request = ChargeRequest(account=what, reference=operation, amount_cents=amount)
        if key is not None:
            metadata = (("idempotency-key", key or operation), *metadata)
        return self._charge.future(request.SerializeToString(), timeout=timeout, metadata=metadata)

    def ask(self, what: str, operation: str, **options: Any) -> Seen:
        """Make a call, and return what is seen of it."""
        return seen(self.start(what, operation, **options))

    def operate(
        self,
        action: Action,
        key: str,
        *,
        method: str = CHARGE,
        first_sent_ms: int | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Operation:
        """Ask the service `Operations`."""
        query = action is Action.QUERY
        kind: Any = QueryRequest if query else CancelRequest
        call: Any = self._operations.Query if query else self._operations.Cancel
        request = kind(method=method, idempotency_key=key)
        if first_sent_ms is not None:
            request.first_sent_at.FromMilliseconds(first_sent_ms)
        operation: Operation = call(request, timeout=_LIMIT, metadata=metadata)
        return operation

    def close(self) -> None:
        self._channel.close()


def seen(call: Any) -> Seen:
    """Wait for a call and return what is seen of it."""
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
        call.result(_LIMIT)
    metadata = tuple((key, value) for key, value in call.trailing_metadata() or ())
    words = [str(value) for key, value in metadata if key == IDEMPOTENCY_TRAILER]
    others = tuple(pair for pair in metadata if pair[0] != IDEMPOTENCY_TRAILER)
    code = call.code()
    reply = call.result() if code is grpc.StatusCode.OK else b""
    return Seen(code.name, call.details(), others, reply, words[0] if words else None)
