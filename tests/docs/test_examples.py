"""The programs of examples/ do what they say."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fusewire.brokers import Message, open_broker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from tests.support.processes import KeptProcess
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from tests.support.payments import PaymentsProcess

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, *arguments: str, folder: Path) -> KeptProcess:
    return KeptProcess(
        [sys.executable, EXAMPLES / name, *arguments], cwd=folder, log=folder / f"{name}.log"
    )


def test_queue_payments_sync(payments: PaymentsProcess, tmp_path: Path) -> None:
    def run() -> str:
        process = example("queue_payments_sync.py", payments.target, folder=tmp_path)
        assert process.wait(60) == 0
        log = tmp_path / "queue_payments_sync.py.log"
        lines = log.read_text(encoding="utf-8").splitlines()  # what is logged stands there too
        return [line for line in lines if line.startswith("STATUS_")][-1]

    assert run().startswith("STATUS_CHARGED")
    payments.kill()
    status, operation_id = run().split()
    assert status == "STATUS_PENDING"
    payments.start()
    until_sync(lambda: run() and operation_id in payments.effects())


async def test_wrap_consumer_sync(
    payments: PaymentsProcess, amqp_url: str, queue_name: str, tmp_path: Path
) -> None:
    order = ChargeRequest(account="bob", amount_cents=1, currency="EUR", reference="order-1")
    async with open_broker(amqp_url) as broker:
        await broker.create_queue(queue_name)
        message = Message(body=order.SerializeToString(), message_id="order-1")
        await broker.publish(queue_name, message)
    arguments = (payments.target, amqp_url, queue_name)
    process = example("wrap_consumer_sync.py", *arguments, folder=tmp_path)
    await until(lambda: "order-1" in payments.references())
    process.send(signal.SIGTERM)
    assert process.wait(30) == 0
