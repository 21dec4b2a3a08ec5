"""A payments server on PostgreSQL that makes each charge once.

DATABASE_URL=postgresql+psycopg://… PORT=50051 HTTP_PORT=8080 python payments.py --migrate

Its metrics are at http://127.0.0.1:8080/metrics: what became of the calls, by their keys.

With ``--migrate`` it makes its tables first. In a service of your own that is Alembic's work.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
from prometheus_client import start_http_server
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from fusewire.demo.payments.v1.payments_pb2 import STATUS_CHARGED, ChargeReply, ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import (
    PaymentsServicer,
    add_PaymentsServicer_to_server,
)
from fusewire.idempotency import idempotent
from fusewire.idempotency.sqlalchemy import SQLAlchemyStore, table
from fusewire.telemetry import prometheus

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
THREADS = 16
GRACE = 5.0  # seconds that calls get to end when the server is stopped


class Base(DeclarativeBase):
    """The base of the tables."""


class Entry(Base):
    """A charge."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str]
    amount_cents: Mapped[int]
    reference: Mapped[str]


table(Base.metadata)  # the table of the keys


class Payments(PaymentsServicer):
    """The service: charges only."""

    def __init__(self, store: SQLAlchemyStore) -> None:
        self._store = store

    def Charge(self, request: ChargeRequest, context: grpc.ServicerContext) -> ChargeReply:  # noqa: N802 - the name in the .proto
        """Enter a charge."""
        if request.amount_cents <= 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "amount_cents must be above 0")
        session = self._store.current()  # this call's own transaction
        session.add(
            Entry(
                account=request.account,
                amount_cents=request.amount_cents,
                reference=request.reference,
            )
        )
        return ChargeReply(status=STATUS_CHARGED, charge_id=uuid.uuid4().hex)


def main() -> None:
    # A dead connection of the pool is noticed before a call gets it.
    engine = create_engine(os.environ["DATABASE_URL"], pool_size=THREADS, pool_pre_ping=True)
    if "--migrate" in sys.argv:
        Base.metadata.create_all(engine)
    store = SQLAlchemyStore(sessionmaker(engine))
    once = idempotent(store, [CHARGE], threads=THREADS)
    prometheus.export().watch(store)
    host = os.environ.get("HOST", "127.0.0.1")
    start_http_server(int(os.environ["HTTP_PORT"]), addr=host)
    server = grpc.server(ThreadPoolExecutor(THREADS), interceptors=[once])
    add_PaymentsServicer_to_server(Payments(store), server)  # type: ignore[abstract] # only Charge is called
    server.add_insecure_port(f"{host}:{os.environ['PORT']}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(GRACE))
    server.wait_for_termination()
    engine.dispose()


if __name__ == "__main__":
    main()
