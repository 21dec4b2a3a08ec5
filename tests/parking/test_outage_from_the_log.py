"""The log alone says what an outage was: figures, the queues and the server's ledger agree."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf.message import DecodeError

from fusewire.breaker import CircuitState
from fusewire.brokers import Message
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.interceptors import aio_interceptors
from fusewire.parking import _lane_log as lane_log_module
from fusewire.parking import _status_watch as watch_module
from fusewire.testing.faults import LossLedger, count_queues
from tests.support.logs import PIPELINES, Log, read_log
from tests.support.outage_log import Outage, rebuild
from tests.support.payments import CHANNEL_OPTIONS, CHARGE
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import Figures
    from tests.parking.conftest import Bench
    from tests.support.payments import PaymentsProcess

HEALTHY, DURING, PROBES = 10, 40, 3


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.02)
    monkeypatch.setattr(watch_module, "_INTERVAL", 0.05)
    monkeypatch.setattr(lane_log_module, "_SAY_AGAIN", 0.1)  # two outages in one test


class Run:
    """Orders that are paid for at a server which goes down twice, and what really happened."""

    def __init__(self, bench: Bench, server: PaymentsProcess) -> None:
        self._bench = bench
        self._server = server
        self.sent: list[str] = []
        self.down: list[tuple[float, float]] = []
        """When the server was killed, and when it answered again, in seconds since 1970."""

    async def send(self, number: int, *, unreadable: int = 0) -> None:
        for _ in range(number):
            reference = f"order-{len(self.sent)}"
            order = ChargeRequest(
                account="bob", amount_cents=1, currency="EUR", reference=reference
            )
            await self._publish(reference, order.SerializeToString())
        for _ in range(unreadable):
            await self._publish(f"unreadable-{len(self.sent)}", b"\xff")

    async def _publish(self, operation_id: str, body: bytes) -> None:
        self.sent.append(operation_id)
        message = Message(body=body, message_id=operation_id, routing_key=self._bench.queue)
        await self._bench.broker.publish(self._bench.queue, message)

    async def outage(self, log: Log) -> None:
        breaker = self._bench.registry.get(CHARGE)
        ended = len(log.of("lane.drained"))
        killed = time.time()
        self._server.kill()
        await self.send(DURING, unreadable=2)
        await until(lambda: breaker.figures().reopenings >= PROBES, "probes fail")
        self._server.start()
        self.down.append((killed, time.time()))
        await until(lambda: len(log.of("lane.drained")) > ended, "the lane is empty", limit=60)
        assert breaker.state is CircuitState.CLOSED

    def ledger(self) -> LossLedger:
        ledger = LossLedger()
        for operation_id in self.sent:
            ledger.published(operation_id)
        for operation_id, count in self._server.references().items():
            ledger.effect(operation_id, count)
        return ledger


@pytest.mark.parametrize(
    ("bench", "pipeline"),
    list(zip(["sqlite", "rabbitmq"], PIPELINES, strict=True)),
    indirect=["bench"],
)
async def test_an_outage_is_rebuilt_from_the_log_alone(
    bench: Bench, payments: PaymentsProcess, pipeline: str
) -> None:
    run = Run(bench, payments)
    interceptors = aio_interceptors(registry=bench.registry, idempotent=[CHARGE])
    channel = grpc.aio.insecure_channel(
        payments.target, interceptors=interceptors, options=CHANNEL_OPTIONS
    )
    async with channel:
        stub: Any = PaymentsStub(channel)

        async def on_order(message: AbstractIncomingMessage) -> None:
            await stub.Charge(ChargeRequest.FromString(message.body), timeout=1)

        with read_log(pipeline) as log:
            async with bench.consumer(
                on_order, depends_on=CHARGE, dead_on=DecodeError, max_attempts=50
            ) as consumer:
                await run.send(HEALTHY, unreadable=1)
                await until(lambda: len(bench.happened("handled")) == HEALTHY)
                await until(lambda: len(bench.happened("dead")) == 1)
                await run.outage(log)
                await run.outage(log)
                await until(lambda: payments.charges() == HEALTHY + 2 * DURING)
                ledger = run.ledger()
                await count_queues(ledger, bench.broker, consumer.topology)
            figures = bench.registry.get(CHARGE).figures()

    story = rebuild(log.records())
    assert len(story.outages) == 2
    _agree_with_the_figures(story.outages, figures)
    for outage, (killed, answered) in zip(story.outages, run.down, strict=True):
        _agree_with_the_clock(outage, killed, answered)
    _agree_with_the_events(story.outages, bench)

    account = ledger.sort()
    assert account.sound, account
    assert set(story.dead) == set(account.dead)
    assert set(story.dead.values()) == {"rejected"}
    assert len(account.handled) == len(run.sent) - len(story.dead)
    assert account.parked == account.delayed == account.in_source == ()


def _agree_with_the_figures(outages: list[Outage], figures: Figures) -> None:
    openings = [
        each.count
        for each in figures.counters.transitions
        if (each.old, each.new) == (CircuitState.CLOSED, CircuitState.OPEN)
    ]
    assert openings == [len(outages)]
    assert sum(outage.rejected for outage in outages) == figures.counters.rejected
    # The log counts from the opening to the closing; the figures leave out what was half open.
    assert 0 < figures.counters.open_seconds <= sum(outage.seconds for outage in outages)


def _agree_with_the_clock(outage: Outage, killed: float, answered: float) -> None:
    assert (outage.circuit, outage.cause) == (CHARGE, "consecutive_failures")
    assert outage.error_status == "UNAVAILABLE"
    assert outage.closed_at is not None
    assert outage.parked_at is not None
    assert outage.drained_at is not None
    assert killed <= outage.opened_at <= outage.parked_at <= outage.drained_at
    # The first successful probe may come before the test has seen that the server answers.
    assert outage.opened_at < outage.closed_at <= outage.drained_at
    assert outage.closed_at - killed >= (answered - killed) / 2
    assert outage.seconds == pytest.approx(outage.closed_at - outage.opened_at, abs=0.5)


def _agree_with_the_events(outages: list[Outage], bench: Bench) -> None:
    of_lanes = [event for event in bench.events if event.lane]
    for outage in outages:
        assert outage.parked == outage.replayed + outage.dead + outage.left
    replayed = [event for event in of_lanes if event.outcome == "replayed"]
    assert sum(outage.replayed for outage in outages) == len(replayed)
    dead = [event for event in of_lanes if event.outcome == "dead"]
    assert sum(outage.dead for outage in outages) == len(dead) == 4
    parked = {event.operation_id for event in bench.events if event.outcome == "parked"}
    assert sum(outage.parked for outage in outages) >= len(parked) >= 2 * DURING
