"""The payments server: it charges once for each key, and declines what costs too much.

``python server.py PORT LEDGER`` serves until it is ended. The charge and the record of its key are
committed in one transaction of SQLite. So a server that dies in the middle of a charge has made it
and knows its key, or neither.
"""

from __future__ import annotations

import sqlite3
import sys
from concurrent import futures
from contextlib import closing

import grpc

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply, ChargeRequest, Status
from fusewire.demo.payments.v1.payments_pb2_grpc import (
    PaymentsServicer,
    add_PaymentsServicer_to_server,
)
from fusewire.idempotency import SQLiteStore, idempotent

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
LIMIT_CENTS = 100_000

# No constraint: a charge that was made twice would stand there twice.
TABLE = "CREATE TABLE charges (reference TEXT, amount_cents INTEGER);"


class Payments(PaymentsServicer):
    """Takes the money."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store

    def Charge(self, request: ChargeRequest, context: grpc.ServicerContext) -> ChargeReply:  # noqa: N802 - the name in the .proto
        """Charge a card, once for each key."""
        ledger = self._store.current()  # in the transaction in which the key is recorded
        if request.amount_cents > LIMIT_CENTS:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the card is declined")
        ledger.execute(
            "INSERT INTO charges VALUES (?, ?)", (request.reference, request.amount_cents)
        )
        return ChargeReply(status=Status.STATUS_CHARGED)


def main(port: str, ledger: str) -> None:
    """Serve until the process is ended."""
    store = SQLiteStore(ledger)
    with closing(sqlite3.connect(ledger)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'charges'").fetchone():
            database.executescript(f"BEGIN; {TABLE} {store.ddl} COMMIT;")
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[idempotent(store, [CHARGE])])
    add_PaymentsServicer_to_server(Payments(store), server)  # type: ignore[abstract] # Charge only
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
