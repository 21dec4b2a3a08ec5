"""The demo's payments server as a process that tests kill, and its ledger, read from its file."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import grpc

from fusewire.demo.payments.v1.payments_pb2 import ENTRY_KIND_CHARGE
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"
GET_BALANCE = "/fusewire.demo.payments.v1.Payments/GetBalance"

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
"""So that a channel notices a server that is back; gRPC's own limit is two minutes."""


def wait_until_ready(target: str, limit: float = 30.0) -> None:
    """Wait until a server answers; a method that it does not have will do.

    Not by grpc.channel_ready_future: the thread that it leaves raises when the channel is closed.
    """
    with grpc.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        call = channel.unary_unary("/nothing.Nothing/Ask")
        try:
            call(b"", timeout=limit, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise


class PaymentsProcess:
    """A payments server that keeps its port and its ledger over kills and restarts."""

    def __init__(
        self, folder: Path, program: Sequence[str] = ("-m", "fusewire.demo.server")
    ) -> None:
        self._program = program
        self.port = reserve_port()
        self.ledger = folder / "ledger.db"
        self._log = folder / "server.log"
        self._process: KeptProcess | None = None
        self.think_time = 0.0
        """Seconds between the commit of a charge and its reply, from the next start on."""

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        arguments = ["--port", str(self.port), "--ledger", str(self.ledger)]
        arguments += ["--think-time", str(self.think_time)]
        self._process = KeptProcess([sys.executable, *self._program, *arguments], log=self._log)
        wait_until_ready(self.target)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process = None

    def hang(self) -> None:
        """Stop it with SIGSTOP: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.pause()

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def effects(self) -> Counter[str]:
        """Count the charges of each operation id."""
        return self._count("SELECT operation_id FROM entries WHERE kind = ?", ENTRY_KIND_CHARGE)

    def references(self) -> Counter[str]:
        """Count the charges of each reference."""
        return self._count("SELECT reference FROM entries WHERE kind = ?", ENTRY_KIND_CHARGE)

    def charges(self) -> int:
        """Count the references that were charged."""
        return len(self.references())

    def repeated(self) -> Counter[str]:
        """Count the attempts at each operation that had been made before."""
        return self._count("SELECT operation_id FROM repeated WHERE method = ?", CHARGE)

    def references_by_key(self) -> dict[str, str]:
        """Return which charge each operation id belongs to."""
        query = "SELECT operation_id, reference FROM entries WHERE kind = ?"
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as database:
            return dict(database.execute(query, (ENTRY_KIND_CHARGE,)))

    def _count(self, query: str, argument: object) -> Counter[str]:
        with closing(sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)) as database:
            return Counter(row[0] for row in database.execute(query, (argument,)))


def wait_for_effects(server: PaymentsProcess, count: int, limit: float = 60.0) -> None:
    """Wait until the ledger has charges of `count` references."""
    until_sync(lambda: len(server.references()) >= count, f"{count} charges", limit=limit)
