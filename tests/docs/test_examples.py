"""The programs of examples/ do what they say."""

from __future__ import annotations

import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Message, open_broker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.payments import PaymentsProcess

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, *arguments: str, folder: Path) -> KeptProcess:
    return KeptProcess(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=folder,
        log=folder / f"{Path(name).name}.log",
    )


def test_queue_payments_sync(payments: PaymentsProcess, tmp_path: Path) -> None:
    log = tmp_path / "queue_payments_sync.py.log"

    def answers() -> list[tuple[str, str]]:
        # What is logged stands there too, and perhaps in the same line: with PYTHONUNBUFFERED, the
        # end of a line is written apart from it.
        answer = re.compile(r"(STATUS_[A-Z]+) ([0-9a-f]{32})")
        return answer.findall(log.read_text(encoding="utf-8"))

    @contextmanager
    def running() -> Iterator[tuple[str, str]]:
        before = len(answers()) if log.exists() else 0
        process = example("queue_payments_sync.py", payments.target, folder=tmp_path)
        until_sync(lambda: len(answers()) > before)
        yield answers()[-1]
        process.send(signal.SIGINT)
        assert process.wait(30) == 0

    with running() as (status, _):
        assert status == "STATUS_CHARGED"
    payments.kill()
    with running() as (status, stored):
        assert status == "STATUS_PENDING"
    payments.start()
    with running():
        until_sync(lambda: stored in payments.effects())


@pytest.mark.timeout(300)  # on a loaded machine
def test_queue_payments(tmp_path: Path) -> None:
    ports = map(str, (reserve_port(), reserve_port()))
    process = example("queue_payments/run.py", "--ports", *ports, folder=tmp_path)

    assert process.wait(240) == 0
    lines = (tmp_path / "run.py.log").read_text("utf-8").splitlines()
    states = [line.split()[-1] for line in lines if line.startswith("  order ")]
    assert states[2:7] == ["CHARGED", "DECLINED", "PENDING", "PENDING", "PENDING"]
    assert states[7:] == ["CHARGED", "DECLINED", "CHARGED", "DECLINED", "CHARGED"]


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
