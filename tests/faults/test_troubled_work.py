"""Work that is in trouble itself: it kills, is refused, goes another way each time, is forked."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire.brokers import Message, Topology, open_broker
from fusewire.demo._ledger import Ledger
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.server import make_server
from fusewire.testing.faults import LossLedger, count_queues
from tests.faults.armed_worker import DELAY_TIERS, LANE
from tests.faults.outage import LONG
from tests.faults.plain_worker import PARTS, POISON
from tests.faults.report import add_row
from tests.support.payments import PaymentsProcess
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fusewire.brokers import Broker
    from fusewire.testing.faults import Account

ROOT = Path(__file__).parents[2]
LIMIT = 600.0 if LONG else 100.0  # seconds that one step may take
MANY = 500 if LONG else 30
REFUSING = 180.0 if LONG else 6.0  # seconds for which a server refuses everything
MOST_CRASHES = 6

pytestmark = [pytest.mark.long, pytest.mark.timeout(3 * LIMIT)]


@dataclass
class Bench:
    """One queue on one broker, the workers on it and what they note."""

    address: str
    queue: str
    broker: Broker
    payments: PaymentsProcess
    folder: Path
    broker_name: str
    references: list[str] = field(default_factory=list)
    workers: list[KeptProcess] = field(default_factory=list)

    @property
    def topology(self) -> Topology:
        return Topology(self.queue, (LANE,), DELAY_TIERS)

    async def order(self, count: int, *, last: str = "") -> None:
        """Publish orders; the last of them by another name, if one is given."""
        begin = len(self.references)
        names = [f"{self.queue}-{number}" for number in range(begin, begin + count)]
        if last:
            names[-1] = f"{self.queue}-{last}"
        for name in names:
            body = ChargeRequest(
                account="shop", amount_cents=100, currency="EUR", reference=name
            ).SerializeToString()
            await self.broker.publish(self.queue, Message(body=body, message_id=name))
        self.references += names

    def start(self, handler: str = "one", *, forks: int = 0, ahead: Path | None = None) -> None:
        """Start a worker."""
        order = {
            "address": self.address,
            "queue": self.queue,
            "target": self.payments.target,
            "journal": str(self.folder / f"journal-{len(self.workers)}"),
            "folder": str(self.folder),
            "handler": handler,
            "forks": forks,
            "ahead": "" if ahead is None else str(ahead),
        }
        command = [sys.executable, "-m", "tests.faults.plain_worker", json.dumps(order)]
        self.workers.append(KeptProcess(command, cwd=ROOT, log=self.folder / "workers.log"))

    def stop(self) -> None:
        """End all workers in order."""
        for worker in self.workers:
            if worker.running:
                worker.send(signal.SIGTERM)
        for worker in self.workers:
            assert worker.wait(60) in {0, -signal.SIGKILL}

    async def passed(self, extra: Callable[[], bool] = lambda: True) -> None:
        """Wait until nothing waits in any queue but that of the dead, and nothing is in flight."""

        async def is_so() -> bool:
            assert any(worker.running for worker in self.workers), "no worker is left"
            topology = self.topology
            for station in (*topology.stations, topology.delayed):
                if station != topology.dead and await self.broker.depth(station):
                    return False
            return extra()

        await until(is_so, "all queues empty", limit=LIMIT)

    async def account(self, references: list[str], *, dead: int = 0) -> Account:
        """Sort what became of the charges `references`, and check it."""
        ledger = LossLedger()
        effects = self.payments.references()
        for reference in references:
            ledger.published(reference)
            ledger.effect(reference, effects[reference])
        whose = self.payments.references_by_key()
        for key, times in self.payments.repeated().items():
            ledger.repeat(whose[key], times)
        for journal in self.folder.glob("journal-*"):
            ledger.read(journal)
        await count_queues(ledger, self.broker, self.topology)
        account = ledger.sort()
        assert account.sound, str(account)
        assert len(account.dead) == dead, str(account)
        assert len(account.handled) == len(references) - dead, str(account)
        assert set(effects.values()) == {1}
        return account


@pytest.fixture(params=["sqlite", "rabbitmq"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    queue = f"test-{secrets.token_hex(5)}"
    name = "SQLite"
    if request.param == "rabbitmq":
        rabbitmq = request.getfixturevalue("broken_rabbitmq")
        rabbitmq.start()
        address, name = rabbitmq.url, f"RabbitMQ {rabbitmq.version}"
    else:
        address = f"sqlite:///{tmp_path}/broker.db"
    payments = RefusingPayments(tmp_path)
    async with open_broker(address) as broker:
        await broker.create_queue(queue)
        await broker.prepare(Topology(queue, (LANE,), DELAY_TIERS))
        bench = Bench(address, queue, broker, payments, tmp_path, name)
        try:
            yield bench
        finally:
            for worker in bench.workers:
                if worker.running:
                    worker.kill()
            payments.close()
            print((tmp_path / "workers.log").read_text()[-8000:])  # noqa: T201 - shown on failure


class RefusingPayments(PaymentsProcess, grpc.ServerInterceptor):
    """The payments server within this process, which refuses every call on request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.refusal: grpc.StatusCode | None = None
        self._server: grpc.Server | None = None
        self._ledger: Ledger | None = None

    def start(self) -> None:
        self._ledger = Ledger(self.ledger)
        self._server = make_server(self._ledger, interceptors=[self])
        self._server.add_insecure_port(self.target)
        self._server.start()

    def close(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
        if self._ledger is not None:
            self._ledger.close()

    kill = close

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        if self.refusal is None:
            return continuation(details)
        code = self.refusal

        def refuse(_request: object, context: grpc.ServicerContext) -> None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "200"),))
            context.abort(code, "not now")

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextlib.contextmanager
def counted(bench: Bench, config: pytest.Config, name: str) -> Iterator[list[Account]]:
    """Add the accounts of a fault to the table."""
    accounts: list[Account] = []
    yield accounts
    kind = "SQLite" if bench.address.startswith("sqlite") else "RabbitMQ"
    add_row(config, f"{name} ({kind})", accounts, broker=bench.broker_name)


async def test_a_message_that_kills_its_process_is_dead_and_no_other_is(
    bench: Bench, pytestconfig: pytest.Config
) -> None:
    bench.payments.start()
    await bench.order(10, last=POISON)
    crashes = 0
    bench.start()

    async def is_found() -> bool:
        nonlocal crashes
        if not bench.workers[-1].running:
            crashes += 1
            assert crashes <= MOST_CRASHES
            bench.start()
        return await bench.broker.depth(bench.topology.dead) == 1

    with counted(bench, pytestconfig, "a message that kills its process") as accounts:
        await until(is_found, "the message that kills is dead", limit=LIMIT)
        await bench.passed(lambda: bench.payments.charges() == 9)
        bench.stop()
        [dead] = await bench.broker.peek(bench.topology.dead, limit=9)
        assert dead.headers["fusewire-reason"] == "crashed"
        assert dead.message_id == bench.references[-1]
        accounts.append(await bench.account(bench.references, dead=1))


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED], ids=str
)
async def test_a_condition_that_lasts_kills_no_message(
    bench: Bench, pytestconfig: pytest.Config, status: grpc.StatusCode
) -> None:
    assert isinstance(bench.payments, RefusingPayments)
    bench.payments.refusal = status
    bench.payments.start()
    await bench.order(MANY)
    bench.start()
    with counted(bench, pytestconfig, f"{status.name} for {REFUSING:.0f} s") as accounts:
        begin = time.monotonic()
        await until(lambda: time.monotonic() - begin > REFUSING, "a while", limit=LIMIT)
        bench.payments.refusal = None
        await bench.passed(lambda: bench.payments.charges() == MANY)
        bench.stop()
        accounts.append(await bench.account(bench.references))


async def test_handlers_that_make_their_calls_in_another_order_each_time_charge_each_once(
    bench: Bench, pytestconfig: pytest.Config
) -> None:
    bench.payments.start()
    await bench.order(MANY)
    bench.start("in_another_order")
    with counted(bench, pytestconfig, "calls in another order on each attempt") as accounts:
        await bench.passed(lambda: bench.payments.charges() == PARTS * MANY)
        bench.stop()
        parts = [f"{name}.{part}" for name in bench.references for part in range(PARTS)]
        accounts.append(await bench.account(parts))


async def test_workers_forked_while_breakers_are_in_use_go_through_an_outage(
    bench: Bench, pytestconfig: pytest.Config
) -> None:
    await bench.order(MANY)  # the server is down
    bench.start(forks=3)
    with counted(bench, pytestconfig, "forked workers") as accounts:
        lane = bench.topology.parked(LANE)

        async def is_parked() -> bool:
            waiting = await bench.broker.depth(lane) + await bench.broker.depth(bench.queue)
            return not await bench.broker.depth(bench.queue) and waiting > 0

        await until(is_parked, "parked", limit=LIMIT)
        bench.payments.start()
        await bench.passed(lambda: bench.payments.charges() == MANY)
        bench.stop()
        accounts.append(await bench.account(bench.references))


@pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
async def test_a_clock_that_jumps_gives_nothing_to_two_workers(
    bench: Bench, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    bench.payments.start()
    await bench.order(MANY)
    for _ in range(2):
        bench.start(ahead=ahead)
    with counted(bench, pytestconfig, "the wall clock jumps") as accounts:
        await until(lambda: bench.payments.charges() > MANY // 5, "some charged", limit=LIMIT)
        for jump in ("3600", "-3600", "86400"):
            ahead.write_text(jump)
            await bench.order(MANY // 3)
            charged = len(bench.references) - MANY // 6
            await until(lambda c=charged: bench.payments.charges() >= c, "charged", limit=LIMIT)
        await bench.passed(lambda: bench.payments.charges() == len(bench.references))
        bench.stop()
        assert bench.payments.repeated().total() == 0
        accounts.append(await bench.account(bench.references))
