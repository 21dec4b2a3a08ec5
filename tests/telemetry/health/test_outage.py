"""A service is asked ten times a second through an outage, over HTTP and over grpc.health.v1."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import grpc
import pytest

from fusewire import BreakerRegistry, BreakerSettings, ParkingConsumer, guard
from fusewire.breaker import CircuitState, StateChanged
from fusewire.brokers import Message, open_broker
from fusewire.demo.payments.v1 import payments_pb2, payments_pb2_grpc
from fusewire.telemetry.health import Health, make_asgi_app, report_status
from tests.support.asgi_server import ask, serving
from tests.support.grpc_health_server import SERVING, Probe, health_server
from tests.support.payments import CHANNEL_OPTIONS, GET_BALANCE, PaymentsProcess
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aio_pika.abc import AbstractIncomingMessage

logger = logging.getLogger(__name__)

OPEN_TIME = 2.5
LIMIT = 1.0
"""Seconds within which readiness follows its circuit: what the documents promise."""

SETTINGS = BreakerSettings(failure_threshold=3, recovery_timeout=OPEN_TIME, half_open_max_calls=1)


class Sample(NamedTuple):
    """An answer to a probe, and between which times it was given."""

    asked: float
    answered: float
    passes: bool


class Outage:
    """The circuit's changes, and what probes were answered meanwhile.

    Attributes:
        opened: when the circuit opened, each time.
        closed: when it closed.
        samples: the answers, by probe.
    """

    def __init__(self) -> None:
        self.opened: list[float] = []
        self.closed: list[float] = []
        self.samples: dict[str, list[Sample]] = {}

    def note(self, event: StateChanged) -> None:
        if event.new is CircuitState.OPEN:
            self.opened.append(time.monotonic())
        elif event.new is CircuitState.CLOSED:
            self.closed.append(time.monotonic())

    def ask(self, probe: str, passes: Callable[[], bool]) -> None:
        asked = time.monotonic()
        found = passes()
        self.samples.setdefault(probe, []).append(Sample(asked, time.monotonic(), found))

    def ready(self) -> bool:
        return self.samples["http /readyz"][-1].passes and self.samples["grpc ready"][-1].passes

    def not_ready(self) -> bool:
        return not (
            self.samples["http /readyz"][-1].passes or self.samples["grpc ready"][-1].passes
        )

    def over(self) -> list[float]:
        """Return when each open time was over."""
        return [opened + OPEN_TIME for opened in self.opened]

    def delays(self, probe: str) -> Iterator[tuple[str, float]]:
        """Yield how long after each opening and each end of an open time it was answered so."""
        following = [*self.opened[1:], None]
        for opened, over, again in zip(self.opened, self.over(), following, strict=True):
            samples = [each for each in self.samples[probe] if each.asked > opened]
            failed = next(each for each in samples if not each.passes)
            yield "not ready", failed.answered - opened
            if again is None or again > over + LIMIT:  # else it need not have been seen
                back = next(each for each in samples if each.asked > failed.asked and each.passes)
                yield "ready", back.answered - over


@contextmanager
def repeating(act: Callable[[], object], interval: float) -> Iterator[None]:
    """Do something again and again in a thread, for the block."""
    stopping = threading.Event()

    def repeat() -> None:
        while not stopping.wait(interval):
            act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def consuming(address: str, registry: BreakerRegistry) -> Iterator[ParkingConsumer]:
    """Run a consumer whose messages need the circuit, and give it one each 100 ms."""
    stopping = threading.Event()

    async def handler(_: AbstractIncomingMessage) -> None:
        """Do nothing."""

    consumer = ParkingConsumer(
        address, queue="orders", handler=handler, depends_on=GET_BALANCE, registry=registry
    )

    async def consume() -> None:
        async with open_broker(address) as broker:
            await broker.create_queue("orders")
            async with consumer:
                running = asyncio.create_task(consumer.run(handle_signals=False))
                while not stopping.is_set():
                    message = Message(body=b"", routing_key="orders", message_id=uuid4().hex)
                    await broker.publish("orders", message)
                    await asyncio.sleep(0.1)
                consumer.stop()
                await running

    thread = threading.Thread(target=asyncio.run, args=[consume()])
    thread.start()
    try:
        until_sync(lambda: consumer.status().subscribed)
        yield consumer
    finally:
        stopping.set()
        thread.join()


class Service:
    """A service that calls a server through a circuit, consumes, and answers probes.

    Attributes:
        outage: what it goes through.
    """

    def __init__(self, folder: Path, target: str) -> None:
        self.outage = Outage()
        self._registry = BreakerRegistry(SETTINGS)
        self._registry.add_listener(self.outage.note, StateChanged)
        self._queues = f"sqlite:///{folder}/broker.db"
        self._channel = guard(
            grpc.insecure_channel(target, options=CHANNEL_OPTIONS), registry=self._registry
        )
        self._stub = payments_pb2_grpc.PaymentsStub(self._channel)

    def call(self) -> None:
        try:
            self._stub.GetBalance(payments_pb2.GetBalanceRequest(account="a"), timeout=1)
        except grpc.RpcError:
            """The circuit counts it."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for the block, and ask it all the time."""
        with (
            self._channel,
            consuming(self._queues, self._registry) as consumer,
            health_server() as (servicer, probe),
        ):
            health = Health(self._registry, consumers=[consumer], ready_needs=[GET_BALANCE])
            with (
                serving(make_asgi_app(health)) as address,
                report_status(health.readiness, servicer, service="ready"),
                report_status(health.liveness, servicer, service="live"),
                repeating(lambda: self._ask(address, probe), 0.1),
            ):
                until_sync(lambda: len(self.outage.samples) == 4)
                yield

    def _ask(self, address: str, probe: Probe) -> None:
        for path in ("/livez", "/readyz"):
            self.outage.ask(f"http {path}", lambda path=path: ask(address + path).status == 200)
        for service in ("live", "ready"):
            self.outage.ask(
                f"grpc {service}", lambda service=service: probe.check(service) == SERVING
            )


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    server = PaymentsProcess(tmp_path)
    server.start()
    yield server
    server.close()


def test_a_service_through_an_outage(tmp_path: Path, payments: PaymentsProcess) -> None:
    service = Service(tmp_path, payments.target)
    outage = service.outage
    with service.running():
        with repeating(service.call, 0.05):
            until_sync(outage.ready)
            payments.kill()
            until_sync(outage.not_ready)
        # Nobody calls any more, and nothing but time makes it ready again.
        until_sync(lambda: time.monotonic() > outage.over()[0] + LIMIT)
        until_sync(outage.ready)
        with repeating(service.call, 0.05):
            until_sync(lambda: len(outage.opened) == 2 and outage.not_ready())
            payments.start()
            until_sync(lambda: outage.closed and outage.ready())
        live = [outage.samples[probe] for probe in ("http /livez", "grpc live")]
        until_sync(lambda: min(map(len, live)) > 50)

    for probe in ("http /livez", "grpc live"):
        assert all(each.passes for each in outage.samples[probe])
    for probe in ("http /readyz", "grpc ready"):
        delays = list(outage.delays(probe))
        assert len(delays) >= 4
        for what, seconds in delays:
            logger.info("%s: %s after %.3f s", probe, what, seconds)
            assert -0.1 < seconds < LIMIT  # the circuit changed a little before its listener ran
