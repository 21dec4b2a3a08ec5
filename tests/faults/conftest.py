"""A payments server to kill, and what another client sees on RabbitMQ."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any, Protocol

import aio_pika
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from tests.faults import report
from tests.faults.fork_client import ForkServer
from tests.faults.kill_case import KillCase
from tests.faults.outage import LONG, Fault, Outage, go_through
from tests.faults.queue_client import QueueClient, queues
from tests.faults.report import add_row
from tests.support.rabbitmq import NoRabbitMQError, OwnRabbitMQ
from tests.support.rabbitmq_choice import BROKER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.support.payments import PaymentsProcess


TIMES_VARIABLE = "FUSEWIRE_TEST_FAULTS_TIMES"
"""Says how often each test of this folder is to be run; once by default."""


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    report.show(terminalreporter, config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of this folder as often as the environment says: a fault may need luck."""
    times = int(os.environ.get(TIMES_VARIABLE, "1"))
    if times > 1:
        metafunc.fixturenames.append("_time")
        metafunc.parametrize("_time", range(times))


@pytest.fixture(scope="session", autouse=True)
def _table(pytestconfig: pytest.Config) -> Iterator[None]:
    report.begin(pytestconfig)
    yield
    report.write(pytestconfig)


@pytest.fixture
def fork_server(tmp_path: Path) -> Iterator[ForkServer]:
    log = tmp_path / "fork_server.log"
    fork_server = ForkServer(tmp_path, log)
    yield fork_server
    fork_server.close()
    print(log.read_text()[-8000:])  # noqa: T201 - pytest shows it where the test failed


@pytest.fixture(scope="session")
def broken_rabbitmq(pytestconfig: pytest.Config) -> Iterator[OwnRabbitMQ]:
    """Provide a RabbitMQ that all tests of this folder do harm to, one after the other."""
    try:
        another = pytestconfig.stash[BROKER].start_another()
    except NoRabbitMQError as error:
        pytest.skip(f"needs a RabbitMQ that a test may kill: {error}")
    with contextlib.closing(another):
        yield another


class Survive(Protocol):
    """Has a worker go through a fault, and checks what came of it."""

    async def __call__(
        self, fault: Fault, during: str, *, rabbitmq: OwnRabbitMQ, client_url: str = ""
    ) -> None: ...


@pytest.fixture
async def survive_on(
    payments: PaymentsProcess, fork_server: ForkServer, pytestconfig: pytest.Config
) -> Survive:
    """Provide a function that has a worker go through a fault on some RabbitMQ."""

    async def go(fault: Fault, during: str, *, rabbitmq: OwnRabbitMQ, client_url: str = "") -> None:
        rabbitmq.start()
        case = KillCase(
            when=f"{fault}, while {during}",
            queue=f"test-{secrets.token_hex(5)}",
            concurrency=20 if LONG else 4,
        )
        async with contextlib.aclosing(QueueClient(client_url or rabbitmq.url)) as client:
            outage = Outage(
                case,
                during,
                rabbitmq=rabbitmq,
                client=client,
                payments=payments,
                fork_server=fork_server,
            )
            account = await go_through(outage, fault)
            for queue in queues(case.queue):
                await client.delete(queue)
        add_row(pytestconfig, str(case), [account], broker=f"RabbitMQ {rabbitmq.version}")
        assert account.sound, str(account)
        assert {*account.handled, *account.removed} == set(case.references)
        assert set(payments.effects().values()) == {1}

    return go


@pytest.fixture
def survive(
    survive_on: Survive, broken_rabbitmq: OwnRabbitMQ
) -> Callable[[Fault, str], Awaitable[None]]:
    """Provide a function that has a worker go through a fault, and checks what came of it."""

    async def go(fault: Fault, during: str) -> None:
        await survive_on(fault, during, rabbitmq=broken_rabbitmq)

    return go


class Outsider:
    """A plain aio-pika client, which knows nothing of Fusewire."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def declare(self, queue: str) -> None:
        await self._channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})

    async def order(self, queue: str, reference: str) -> None:
        """Publish an order as a shop would: a persistent message with an id of its own."""
        body = ChargeRequest(
            account="shop", amount_cents=100, currency="EUR", reference=reference
        ).SerializeToString()
        message = aio_pika.Message(
            body, message_id=reference, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await self._channel.default_exchange.publish(message, queue)

    async def count(self, queue: str) -> int:
        """Count the messages that are ready in a queue."""
        declared = await self._channel.declare_queue(queue, passive=True)
        return int(declared.declaration_result.message_count)


@pytest.fixture
async def outsider(amqp_url: str) -> AsyncIterator[Outsider]:
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        yield Outsider(channel)
