"""The worker is killed with SIGKILL in the middle of a move."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import open_broker
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.faults.conftest import Outsider
    from tests.support.payments import PaymentsProcess

WORKER = Path(__file__).with_name("worker.py")
ROOT = WORKER.parents[2]


def worker(url: str, queue: str, server: PaymentsProcess, when: str, log: Path) -> KeptProcess:
    command = ["-m", "tests.faults.worker", url, queue, server.target, when]
    return KeptProcess([sys.executable, *command], cwd=ROOT, log=log)


@pytest.mark.parametrize("when", ["confirmed", "published"])
async def test_a_worker_killed_in_mid_move_loses_nothing_and_its_duplicate_is_recognized(
    amqp_url: str,
    queue_name: str,
    payments: PaymentsProcess,
    outsider: Outsider,
    when: str,
) -> None:
    tmp_path = payments.ledger.parent
    await outsider.declare(queue_name)
    payments.kill()
    await outsider.order(queue_name, "order-1")
    first = worker(amqp_url, queue_name, payments, when, tmp_path / "first.log")
    assert first.wait(60) == -signal.SIGKILL
    lane = f"{queue_name}.parked.other"

    async def both() -> bool:
        return await outsider.count(lane) == 1 and await outsider.count(queue_name) == 1

    await until(both)  # published and confirmed by the broker, and never acknowledged

    log = tmp_path / "second.log"
    with worker(amqp_url, queue_name, payments, "never", log):
        await until(lambda: log.exists() and f"wait in {lane}" in log.read_text())

    async def given_back() -> bool:
        return await outsider.count(lane) == 2  # one may have been in flight, as a probe

    await until(given_back)
    async with open_broker(amqp_url) as broker:
        copies = await broker.peek(lane, limit=5)
    assert [copy.headers["fusewire-operation-id"] for copy in copies] == ["order-1"] * 2

    payments.start()
    with worker(amqp_url, queue_name, payments, "never", tmp_path / "third.log"):
        await until(lambda: payments.repeated().total() >= 1, limit=60)

        async def drained() -> bool:
            return await outsider.count(lane) == 0 and await outsider.count(queue_name) == 0

        await until(drained)
    assert dict(payments.references()) == {"order-1": 1}
    (key,) = payments.effects()
    assert key.startswith("order-1/")
    assert await outsider.count(f"{queue_name}.dead") == 0
