"""Two replicas consume one queue; one cannot reach the payments server, and believes it down."""

from __future__ import annotations

import contextlib
import secrets
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Topology
from fusewire.testing.faults._journal import SETTLED, SUBSCRIBED
from tests.faults.armed_worker import LANE, OPENED
from tests.faults.kill_case import KillCase, Notes
from tests.faults.outage import LIMIT, LONG, TIME_LIMIT
from tests.faults.queue_client import QueueClient, queues
from tests.faults.report import add_row
from tests.support.ports import reserve_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.faults.fork_client import ForkServer
    from tests.support.payments import PaymentsProcess
    from tests.support.rabbitmq import OwnRabbitMQ

MESSAGES = 5000 if LONG else 200


def parked_again(notes: Notes, lane: str) -> Counter[tuple[int, str]]:
    """Count how often what came from a lane went back to it: by open period and operation."""
    period = 0
    from_lane: set[int] = set()
    times: Counter[tuple[int, str]] = Counter()
    for entry in notes.read():
        period += entry.what == OPENED
        if entry.what == SUBSCRIBED and entry.detail.endswith(f" {lane}"):
            from_lane.add(entry.subscription)
        if entry.what == SETTLED and entry.detail == lane and entry.subscription in from_lane:
            times[period, entry.operation_id] += 1
    return times


@pytest.mark.long
@pytest.mark.timeout(TIME_LIMIT)
async def test_a_replica_that_believes_the_circuit_open_bounces_no_message_and_all_are_handled(
    broken_rabbitmq: OwnRabbitMQ,
    payments: PaymentsProcess,
    fork_server: ForkServer,
    pytestconfig: pytest.Config,
) -> None:
    broken_rabbitmq.start()
    case = KillCase(
        when="two replicas, one of which believes the circuit open",
        queue=f"test-{secrets.token_hex(5)}",
        references=[str(number) for number in range(MESSAGES)],
    )
    lane = str(Topology(case.queue, (LANE,)).parked(LANE))
    async with contextlib.aclosing(QueueClient(broken_rabbitmq.url)) as client:
        await client.declare(case.queue)
        url = broken_rabbitmq.url
        cut_off = fork_server.start(case, url=url, target=f"127.0.0.1:{reserve_port()}")
        whole = fork_server.start(case, url=url, target=payments.target)
        await client.order(case.queue, case.references, {})
        await until(lambda: payments.charges() == MESSAGES, str(case), limit=LIMIT)
        await until(lambda: client.empty(case.queue), str(case), limit=LIMIT)
        for pid in (cut_off, whole):
            fork_server.send(pid, signal.SIGTERM)
            await until(lambda pid=pid: fork_server.status(pid) is not None)
        account = await case.account(client, payments)
        for queue in queues(case.queue):
            await client.delete(queue)
    add_row(pytestconfig, case.when, [account], broker=f"RabbitMQ {broken_rabbitmq.version}")
    assert account.sound, str(account)
    assert set(account.handled) == set(case.references)
    assert set(payments.effects().values()) == {1}
    bounced = parked_again(case.journals[0], lane)
    assert bounced, "the replica that was cut off has probed"
    assert set(bounced.values()) == {1}
