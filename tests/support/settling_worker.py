"""The shop of a run, or a forwarder of its calls, as a process that dies by chance.

All of them forward. The shop commits a payment to its own table before it asks for it, and enters
into another table each outcome that it learns, without a constraint: an outcome that comes twice
stands there twice. When it was killed it asks again, under the same key, for what it knows no
answer to.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tests.support.settling import (
    CHARGE,
    CHARGE_SOON,
    DELAYS,
    OUTCOME_DELAYS,
    TRANSFER,
    Deaths,
    Payment,
    Run,
    SharedPage,
    parse,
    payment,
    wrong_clock,
)

_RUN, _ROLE, _LIFE = parse(sys.argv)
_PAGE = SharedPage(_RUN)
_NOW = _PAGE.clock(_ROLE)

with wrong_clock(_NOW):
    from fusewire import (
        BreakerRegistry,
        BreakerSettings,
        CircuitOpenError,
        ParkedCalls,
        RetryPolicy,
    )
    from fusewire.errors import FusewireError
    from fusewire.forwarding import (
        PARKED_METADATA,
        Encryption,
        KeyRing,
        Outcome,
        ParkPolicy,
        Receipt,
    )
    from fusewire.interceptors import aio_interceptors
    from fusewire.operation import FIRST_SENT_METADATA, IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

_RETRY = RetryPolicy(delays=DELAYS, max_attempts=30)
_OUTCOME_RETRY = RetryPolicy(delays=OUTCOME_DELAYS, max_attempts=100)

_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_TIMEOUT = 2.0  # seconds for one attempt
_SOON = 6.0  # seconds for which CHARGE_SOON is of use
_AT_ONCE = 64  # payments
_AGAIN = 1.0  # seconds until the shop asks again for what failed

TABLES = """
CREATE TABLE IF NOT EXISTS payments (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, asked_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_name ON payments (name);
CREATE INDEX IF NOT EXISTS by_status ON payments (status);
CREATE TABLE IF NOT EXISTS outcomes (
    name TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL, final INTEGER NOT NULL
);
"""


class Table:
    """The shop's own tables.

    A payment is ``asked``, then ``pending`` or ``failed``, then as it has ended. It is ``unknown``
    if it failed, or the shop died, and it must not be asked for again.
    """

    def __init__(self, run: Run) -> None:
        self._database = sqlite3.connect(run.file("shop.db"), isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")  # what was killed leaves its pages
        self._database.executescript(TABLES)

    def next(self) -> int:
        ((last,),) = self._database.execute("SELECT max(number) FROM payments")
        return 0 if last is None else last + 1

    def numbers(self, status: str) -> list[int]:
        found = self._database.execute("SELECT number FROM payments WHERE status = ?", (status,))
        return [number for (number,) in found]

    def ask(self, number: int, name: str) -> None:
        values = (number, name, round(_NOW() * 1000))
        self._database.execute("INSERT INTO payments VALUES (?, ?, 'asked', ?)", values)

    def ask_again(self, number: int) -> int:
        """Return when it was first asked for."""
        ((asked_ms,),) = self._database.execute(
            "UPDATE payments SET status = 'asked' WHERE number = ? RETURNING asked_ms", (number,)
        )
        return int(asked_ms)

    def note(self, number: int, status: str) -> None:
        """Note how it stands, unless its outcome was here first."""
        self._database.execute(
            "UPDATE payments SET status = ? WHERE number = ? AND status = 'asked'", (status, number)
        )

    def enter(self, name: str, source: str, kind: str, *, final: bool) -> None:
        """Enter an outcome."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(
                "INSERT INTO outcomes VALUES (?, ?, ?, ?)", (name, source, kind, final)
            )
            self._database.execute("UPDATE payments SET status = ? WHERE name = ?", (kind, name))


class Shop:
    """Asks for payments.

    Args:
        run: the run.
        calls: queues them.
        channel: makes them.
        table: its own tables.
    """

    def __init__(self, run: Run, calls: ParkedCalls, channel: Any, table: Table) -> None:
        self._run = run
        self._calls = calls
        self._methods = {
            method: channel.unary_unary(method) for method in (CHARGE, CHARGE_SOON, TRANSFER)
        }
        self._table = table
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def sell(self) -> None:
        """Ask for all payments, and again for those that have failed."""
        for number in self._table.numbers("asked"):  # in an earlier life
            left = "failed" if payment(self._run, number).repeatable else "unknown"
            self._table.note(number, left)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_again(group))
            for number in range(self._table.next(), self._run.payments):
                await asyncio.sleep(1 / self._run.rate)
                await self._free.acquire()
                group.create_task(self._pay(number))

    async def _ask_again(self, group: asyncio.TaskGroup) -> None:
        while True:
            for number in self._table.numbers("failed"):
                first_sent = self._table.ask_again(number)
                await self._free.acquire()
                group.create_task(self._pay(number, first_sent))
            await asyncio.sleep(_AGAIN)

    async def _pay(self, number: int, first_sent: int | None = None) -> None:
        chosen = payment(self._run, number)
        if first_sent is None:
            self._table.ask(number, chosen.name)
        try:
            status = await self._make(chosen, first_sent)
        finally:
            self._free.release()
        self._table.note(number, status)

    async def _make(self, chosen: Payment, first_sent: int | None) -> str:
        """Make a payment, or queue it, and return its status."""
        name = chosen.name
        metadata = [(IDEMPOTENCY_KEY, name)]
        if first_sent is not None:
            metadata.append((FIRST_SENT_METADATA, str(first_sent)))
        try:
            if chosen.submitted:
                await self._calls.submit(CHARGE, name.encode(), operation_id=name)
                return "pending"
            reply = await self._methods[chosen.method](
                name.encode(), metadata=metadata, timeout=_TIMEOUT
            )
        except grpc.RpcError as error:
            return self._failed(chosen, error)
        except FusewireError:
            return "failed"
        if reply != b"pending":
            self._table.enter(name, "answer", f"ok {reply.decode()}", final=True)
        return "pending"

    def _failed(self, chosen: Payment, error: Any) -> str:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION and error.details() == "refused":
            self._table.enter(chosen.name, "answer", "refused", final=True)
            return "refused"
        if chosen.repeatable:
            return "failed"
        parked = dict(tuple(error.trailing_metadata() or ())).get(PARKED_METADATA)
        rejected = isinstance(error, CircuitOpenError)
        return "not made" if rejected and parked == "no" else "unknown"


class Dying(grpc.aio.UnaryUnaryClientInterceptor):
    """Dies before a replay is sent, and after it was answered."""

    def __init__(self, deaths: Deaths) -> None:
        self._deaths = deaths

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        self._deaths.at("before a replay was sent", 1 / 1500)
        call = await continuation(client_call_details, request)
        await call.code()
        self._deaths.at("after a replay was answered", 1 / 500)
        return call


def _keys(run: Run) -> KeyRing:
    stored = json.loads(run.file("keys.json").read_text())
    keys = {name: bytes.fromhex(key) for name, key in stored["keys"].items()}
    return KeyRing(keys, write_with=stored["write_with"])


async def main(run: Run, role: str, life: int, page: SharedPage) -> None:
    """Be the shop or a forwarder, until SIGTERM."""
    deaths, registry = (
        Deaths(run, role, life, page),
        BreakerRegistry(BreakerSettings(failure_threshold=3, recovery_timeout=run.open_time)),
    )
    table = Table(run) if role == "shop" else None

    def pending(request: bytes, receipt: Receipt) -> bytes:
        del request, receipt
        deaths.at("after the receipt", 1 / 300)
        return b"pending"

    async def settle(outcome: Outcome) -> None:
        assert table is not None
        if deaths.happens(1 / 100):
            raise RuntimeError("the shop's database is away")
        deaths.at("before an outcome was entered", 1 / 1500)
        answer = "" if outcome.reply is None else f" {outcome.reply.decode()}"
        table.enter(outcome.operation_id, "outcome", f"{outcome.kind}{answer}", final=outcome.final)
        deaths.at("after an outcome was entered", 1 / 1500)

    async with ParkedCalls(
        run.address,
        queue=run.queue,
        methods={
            CHARGE: ParkPolicy(reply=pending, idempotent=True),
            CHARGE_SOON: ParkPolicy(reply=pending, idempotent=True, expires_after=_SOON),
            TRANSFER: ParkPolicy(reply=pending, at_most_once=True),
        },
        registry=registry,
        park_timeout=3,
        replay_timeout=5,
        retry=_RETRY,
        on_outcome=None if table is None else settle,
        outcomes=True,
        outcome_retry=_OUTCOME_RETRY,
        encryption=Encryption(keys=lambda: _keys(run)),
    ) as calls:
        if table is None:
            interceptors = [*aio_interceptors(registry=registry), Dying(deaths)]
        else:
            interceptors = aio_interceptors(registry=registry, fallbacks=calls.fallbacks())
        async with grpc.aio.insecure_channel(
            run.target, interceptors=interceptors, options=_OPTIONS
        ) as channel:
            if table is None:
                await calls.run(channel)
                return
            async with calls.forward_to(channel):  # it knows how long live calls take
                await _until_sigterm(Shop(run, calls, channel, table).sell())


async def _until_sigterm(work: Any) -> None:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


if __name__ == "__main__":
    asyncio.run(main(_RUN, _ROLE, _LIFE, _PAGE))
