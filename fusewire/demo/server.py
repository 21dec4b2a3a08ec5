"""The payments server of the demo, a process of its own.

``python -m fusewire.demo.server --port 50051 --ledger payments.db``. It listens on the loopback
interface unless ``--host`` names another address, and writes ``ready`` to its standard output when
it does. It knows nothing about circuits and parking: it only honors the key in the metadata.
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
from typing import TYPE_CHECKING

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
from fusewire.operation import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

_THREADS = 32
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
        think_time: seconds between the commit of a charge and its reply. If the server is killed
            meanwhile, callers do not know that they were charged.
    """

    def __init__(self, ledger: Ledger, *, think_time: float = 0.0) -> None:
        self._ledger = ledger
        self._think_time = think_time

    def Charge(self, request: ChargeRequest, context: grpc.ServicerContext) -> ChargeReply:  # noqa: N802 - the name in the .proto
        """Take an amount from an account."""
        try:
            reply = self._ledger.charge(request, _operation_id(context))
        except RefusedError as error:
            context.abort(_CODES[error.wrong], str(error))
        if self._think_time:
            time.sleep(self._think_time)
        return reply

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
    # Without SO_REUSEPORT: two servers on one port would each get a part of the calls.
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=[("grpc.so_reuseport", 0)])
    add_PaymentsServicer_to_server(PaymentsService(ledger, think_time=think_time), server)
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
