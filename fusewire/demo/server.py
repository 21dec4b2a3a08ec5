"""The payments server of the demo, a process of its own.

``python -m fusewire.demo.server --port 50051 --ledger payments.db``. It listens on the loopback
interface unless ``--host`` names another address, and writes ``ready`` to its standard output when
it does. It knows nothing about circuits and parking: it only recognizes the key in the metadata,
by :mod:`fusewire.idempotency`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from fusewire.demo._ledger import Ledger, RefusedError, Wrong
from fusewire.demo.payments.v1.payments_pb2 import (
    ChargeReply,
    ChargeRequest,
    GetBalanceReply,
    GetBalanceRequest,
    RefundReply,
    RefundRequest,
    StatementEntry,
    StatementRequest,
)
from fusewire.demo.payments.v1.payments_pb2_grpc import (
    PaymentsServicer,
    add_PaymentsServicer_to_server,
)
from fusewire.idempotency import IDEMPOTENCY_TRAILER, add_operations, idempotent
from fusewire.operation import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SERVICE = "/fusewire.demo.payments.v1.Payments"
CHARGE, REFUND = f"{_SERVICE}/Charge", f"{_SERVICE}/Refund"

_THREADS = 32
_WAIT = 10.0  # seconds that a call waits for SQLite's one writer
_REPLAYED = "replayed"
_TICK = 0.2  # seconds until a signal is noticed whose arrival interrupts no wait, at most
_GRACE = 2.0  # seconds that calls in flight get when the server ends

_CODES = {
    Wrong.ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Wrong.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Wrong.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}


class PaymentsService(PaymentsServicer):
    """The service over a ledger.

    Args:
        ledger: the accounts, charges and refunds.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def Charge(self, request: ChargeRequest, context: grpc.ServicerContext) -> ChargeReply:  # noqa: N802 - the name in the .proto
        """Take an amount from an account."""
        try:
            return self._ledger.charge(request, _operation_id(context))
        except RefusedError as error:
            context.abort(_CODES[error.wrong], str(error))

    def Refund(self, request: RefundRequest, context: grpc.ServicerContext) -> RefundReply:  # noqa: N802 - the name in the .proto
        """Refund a charge."""
        try:
            return self._ledger.refund(request, _operation_id(context))
        except RefusedError as error:
            context.abort(_CODES[error.wrong], str(error))

    def GetBalance(  # noqa: N802 - the name in the .proto
        self, request: GetBalanceRequest, context: grpc.ServicerContext
    ) -> GetBalanceReply:
        """Return the balance of an account."""
        del context
        return GetBalanceReply(balance_cents=self._ledger.balance(request.account))

    def Statement(  # noqa: N802 - the name in the .proto
        self, request: StatementRequest, context: grpc.ServicerContext
    ) -> Iterator[StatementEntry]:
        """List the entries of an account, oldest first."""
        del context
        yield from self._ledger.statement(request.account)


class _AfterTheCommit(grpc.ServerInterceptor):
    """What the server does when a call was committed, and before it is answered.

    It notes what was answered from a record, for the report, and thinks about a charge. If the
    server is killed meanwhile, callers do not know that they were charged.
    """

    def __init__(self, ledger: Ledger, think_time: float) -> None:
        self._ledger = ledger
        self._think_time = think_time

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap the handlers of charges and refunds."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if method not in (CHARGE, REFUND):
            return handler

        def behave(request: Any, context: Any) -> Any:
            heard = _Trailers(context)
            try:
                reply = handler.unary_unary(request, heard)
            finally:
                if heard.replayed:
                    self._ledger.note_repeated(method, _operation_id(context) or "")
            if method == CHARGE and not heard.replayed:
                time.sleep(self._think_time)
            return reply

        return grpc.unary_unary_rpc_method_handler(
            behave, handler.request_deserializer, handler.response_serializer
        )


class _Trailers:
    """A call's context that remembers whether its answer comes from a record."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.replayed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.replayed = (IDEMPOTENCY_TRAILER, _REPLAYED) in trailers
        self._context.set_trailing_metadata(trailers)


def make_server(
    ledger: Ledger,
    *,
    think_time: float = 0.0,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> grpc.Server:
    """Make a server that charges and refunds once for each key, and that can be asked about it.

    Args:
        ledger: the accounts, charges and refunds.
        think_time: seconds between the commit of a charge and its reply.
        interceptors: what calls go through before anything else.
    """
    once = idempotent(ledger.store, [CHARGE, REFUND], wait=_WAIT)
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        # Without SO_REUSEPORT: two servers on one port would each get a part of the calls.
        options=[("grpc.so_reuseport", 0)],
        interceptors=[*interceptors, _AfterTheCommit(ledger, think_time), once],
    )
    add_PaymentsServicer_to_server(PaymentsService(ledger), server)
    # Everybody who reaches a demo may ask it anything.
    add_operations(server, ledger.store, authorize=lambda *_: True)
    return server


def serve(
    port: int,
    path: Path,
    *,
    host: str = "127.0.0.1",
    think_time: float = 0.0,
    standby_until: threading.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        port: the port to listen on.
        path: the ledger's file.
        host: the address to listen on; by default that of the loopback interface.
        think_time: seconds between the commit of a charge and its reply.
        standby_until: when to take the port, which another server has until then.

    Raises:
        RuntimeError: the port is taken.
    """
    over = threading.Event()
    begin = standby_until or threading.Event()

    def end(*_: object) -> None:
        over.set()
        begin.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    ledger = Ledger(path)
    server = make_server(ledger, think_time=think_time)
    if standby_until is not None:
        _say("standby")
        _wait_for(begin)
    if not over.is_set():
        server.add_insecure_port(f"{host}:{port}")
        server.start()
        _say("ready")
        _wait_for(over)
        server.stop(_GRACE).wait()
    ledger.close()


def _wait_for(event: threading.Event) -> None:
    """Wait for what a signal handler sets, and let Python call it.

    It calls handlers on the main thread only. A signal that strikes another thread, or this one
    just before it waits, does not interrupt the wait.
    """
    while not event.wait(_TICK):
        pass


def _operation_id(context: grpc.ServicerContext) -> str | None:
    for key, value in context.invocation_metadata():
        if key == IDEMPOTENCY_KEY and isinstance(value, str) and value:
            return value
    return None


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _end_with_parent(called: threading.Event) -> None:
    while os.read(0, 4096):
        called.set()
    os._exit(1)  # every acknowledged charge is on the disk


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="fusewire.demo.server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--think-time", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument(
        "--kept",
        action="store_true",
        help="end with the standard input: the parent is gone",
    )
    parser.add_argument(
        "--standby",
        action="store_true",
        help="take the port when a line comes from the standard input; until then it may be taken",
    )
    arguments = parser.parse_args()
    called = threading.Event()
    if arguments.kept or arguments.standby:
        threading.Thread(target=_end_with_parent, args=[called], daemon=True, name="parent").start()
    serve(
        arguments.port,
        arguments.ledger,
        host=arguments.host,
        think_time=arguments.think_time,
        standby_until=called if arguments.standby else None,
    )


if __name__ == "__main__":
    main()
