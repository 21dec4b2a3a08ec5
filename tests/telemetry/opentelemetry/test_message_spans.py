"""The spans of messages, from their publisher through outages to the dead queue, by their ids."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.aio_pika import AioPikaInstrumentor
from opentelemetry.trace import SpanKind, StatusCode

from fusewire.brokers import Message, open_broker
from fusewire.parking import MessageEvent, ParkingConsumer, Reject, RetryPolicy
from tests.support.dependency import Dependency
from tests.support.waiting import until
from tests.telemetry.opentelemetry.conftest import Spans, ids, links, traceparent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from aio_pika.abc import AbstractIncomingMessage
    from opentelemetry.sdk.trace import TracerProvider

    from fusewire.breaker import BreakerRegistry
    from fusewire.brokers import HeaderValue
    from fusewire.telemetry.opentelemetry import Instrumentation

SQLITE = pytest.mark.parametrize("address", ["sqlite"], indirect=True)


@pytest.fixture(params=["instrumented", "plain"])
def aio_pika_is(request: pytest.FixtureRequest, tracer_provider: TracerProvider) -> Iterator[str]:
    if request.param == "instrumented":
        AioPikaInstrumentor().instrument(tracer_provider=tracer_provider)
    yield request.param
    if request.param == "instrumented":
        AioPikaInstrumentor().uninstrument()


class Bench:
    """A queue, its publisher and its consumers."""

    def __init__(self, address: str, queue: str, registry: BreakerRegistry) -> None:
        self.address = address
        self.queue = queue
        self.registry = registry
        self.events: list[MessageEvent] = []

    async def publish(self, body: str) -> None:
        """Publish with the current context: by aio-pika where that is used, else by the broker."""
        if not self.address.startswith("amqp"):
            headers: dict[str, Any] = {}
            propagate.inject(headers)
            message = Message(
                body=body.encode(), message_id=body, routing_key=self.queue, headers=headers
            )
            async with open_broker(self.address) as broker:
                await broker.publish(self.queue, message)
            return
        sent = aio_pika.Message(body.encode(), message_id=body, correlation_id="talk")
        propagate.inject(sent.headers)  # an instrumented publisher puts its own span there
        async with await aio_pika.connect(self.address) as connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(sent, routing_key=self.queue)

    @asynccontextmanager
    async def consumer(
        self, handler: Any, telemetry: Instrumentation | None, **options: Any
    ) -> AsyncIterator[ParkingConsumer]:
        consumer = ParkingConsumer(
            self.address, queue=self.queue, handler=handler, registry=self.registry, **options
        )
        consumer.add_listener(self.events.append)
        if telemetry is not None:
            telemetry.watch(consumer)
        async with consumer:
            running = asyncio.create_task(consumer.run())
            try:
                yield consumer
            finally:
                consumer.stop()
                await asyncio.wait_for(running, 40)

    def happened(self, outcome: str) -> int:
        return sum(event.outcome == outcome for event in self.events)


@pytest.fixture
async def bench(
    address: str, queue_name: str, forget_queue: Callable[[str], None], registry: BreakerRegistry
) -> Bench:
    for suffix in ("parked.payments", "delay.50"):
        forget_queue(f"{queue_name}.{suffix}")
    async with open_broker(address) as broker:
        await broker.create_queue(queue_name)
    return Bench(address, queue_name, registry)


async def test_parked_replayed_and_dead_each_is_linked_to_what_it_comes_from(
    bench: Bench,
    telemetry: Instrumentation,
    tracer_provider: TracerProvider,
    spans: Spans,
    aio_pika_is: str,
) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()
    tracer = tracer_provider.get_tracer("shop")
    seen: list[tuple[str, dict[str, Any]]] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append((str(baggage.get_baggage("tenant")), dict(message.headers)))
        with tracer.start_as_current_span("charge"):
            await dependency(message)
            raise Reject("card 4111 1111 1111 1111 is stolen", reason="fraud")

    async with bench.consumer(handler, telemetry, lanes={"payments": ["payments"]}):
        with tracer.start_as_current_span("place order"):
            token = context.attach(baggage.set_baggage("tenant", "blue"))
            await bench.publish("a")
            context.detach(token)
        await until(lambda: bench.happened("parked") == 1)
        dependency.recover()
        await until(lambda: bench.happened("dead") == 1)

    place = spans.one("place order")
    publisher = place
    if aio_pika_is == "instrumented" and bench.address.startswith("amqp"):
        publisher = spans.one(f",{bench.queue} send")
    first, replay = spans.called(f"process {bench.queue}")
    park = spans.one(f"park {bench.queue}.parked.payments")
    dead = spans.one(f"dead-letter {bench.queue}.dead")
    charges = spans.called("charge")

    # What is received for the first time belongs to the publisher's trace.
    assert {first.kind, replay.kind} == {SpanKind.CONSUMER}
    assert ids(first.parent) == ids(publisher)
    assert links(first) == {"origin": ids(publisher)}
    assert ids(charges[0].parent) == ids(first)
    assert charges[0].events[0].name == "circuit_breaker.rejected"
    assert (park.kind, ids(park.parent)) == (SpanKind.CLIENT, ids(first))
    assert first.status.status_code is StatusCode.UNSET

    # A replay is a trace of its own, linked to the publisher and to what parked it.
    assert replay.parent is None
    assert ids(replay)[0] not in {ids(place)[0], ids(first)[0]}
    assert links(replay) == {"origin": ids(publisher), "move": ids(park)}
    assert ids(charges[1].parent) == ids(replay)
    assert (dead.kind, ids(dead.parent)) == (SpanKind.CLIENT, ids(replay))
    assert replay.status.status_code is StatusCode.ERROR

    # What the publisher wrote is what it wrote; what is ours is seen by nobody.
    async with open_broker(bench.address) as broker:
        (stored,) = await broker.peek(f"{bench.queue}.dead", limit=1)
    assert stored.headers["traceparent"] == traceparent(publisher)
    assert stored.headers["fusewire-moved-by"] == traceparent(dead)
    for tenant, headers in seen:
        assert tenant == "blue"
        assert headers["traceparent"] == traceparent(publisher)
        assert "fusewire-moved-by" not in headers


async def test_attributes_follow_the_conventions(
    bench: Bench, telemetry: Instrumentation, spans: Spans
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        raise Reject("card 4111 1111 1111 1111 is stolen", reason="fraud")

    async with bench.consumer(handler, telemetry):
        await bench.publish("a")
        await until(lambda: bench.happened("dead") == 1)
    process = spans.one(f"process {bench.queue}")
    rabbitmq = bench.address.startswith("amqp")
    system = "rabbitmq" if rabbitmq else "sqlite"
    expected: dict[str, Any] = {
        "messaging.system": system,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": bench.queue,
        "messaging.message.id": "a",
        "error.type": "fusewire.parking.Reject",
        "fusewire.operation_id": "a",
        "fusewire.outcome": "dead",
        "fusewire.reason": "fraud",
        "fusewire.attempts": 1,
        "fusewire.times_parked": 0,
    }
    if rabbitmq:
        expected["messaging.message.conversation_id"] = "talk"
        expected["messaging.rabbitmq.destination.routing_key"] = bench.queue
    assert dict(process.attributes or {}) == expected
    assert process.instrumentation_scope is not None
    assert process.instrumentation_scope.name == "fusewire"
    assert process.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    move = spans.one(f"dead-letter {bench.queue}.dead")
    assert dict(move.attributes or {}) == {
        "messaging.system": system,
        "messaging.operation.name": "dead-letter",
        "messaging.operation.type": "send",
        "messaging.destination.name": f"{bench.queue}.dead",
        "messaging.message.id": "a",
        "fusewire.operation_id": "a",
    }
    assert "card 4111" not in process.to_json() + move.to_json()


@SQLITE
async def test_what_is_delayed_is_a_trace_of_its_own_too(
    bench: Bench, telemetry: Instrumentation, tracer_provider: TracerProvider, spans: Spans
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        if not message.redelivered:
            raise ValueError("card 4111")

    retry = RetryPolicy(delays=(0.05,))
    async with bench.consumer(handler, telemetry, retry=retry):
        with tracer_provider.get_tracer("shop").start_as_current_span("place order"):
            await bench.publish("a")
        await until(lambda: bench.happened("handled") == 1)
    first, again = spans.called(f"process {bench.queue}")
    delay = spans.one(f"delay {bench.queue}")
    origin = ids(spans.one("place order"))
    assert ids(first.parent) == origin
    assert (first.attributes or {})["error.type"] == "ValueError"
    assert first.status.status_code is StatusCode.ERROR
    assert again.parent is None
    assert links(again) == {"origin": origin, "move": ids(delay)}
    assert again.status.status_code is StatusCode.UNSET
    assert "card" not in first.to_json()


@SQLITE
async def test_an_attempt_in_place_is_a_trace_of_its_own_linked_to_the_one_before(
    bench: Bench, telemetry: Instrumentation, spans: Spans
) -> None:
    calls: list[object] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        calls.append(message)
        if len(calls) < 3:
            raise ValueError

    retry = RetryPolicy(delays=(0.2,))
    async with bench.consumer(handler, telemetry, retry=retry, on_open="pause"):
        await bench.publish("a")
        await until(lambda: bench.happened("handled") == 1)
    one, two, three = spans.called(f"process {bench.queue}")
    assert [span.parent for span in (one, two, three)] == [None] * 3
    assert len({ids(span)[0] for span in (one, two, three)}) == 3
    assert [links(span) for span in (one, two, three)] == [
        {},
        {"attempt": ids(one)},
        {"attempt": ids(two)},
    ]
    assert one.end_time is not None
    assert two.start_time is not None
    assert two.start_time - one.end_time > 50_000_000  # the wait between them belongs to neither
    assert (three.attributes or {})["fusewire.outcome"] == "handled"


@SQLITE
async def test_a_message_without_a_context_has_a_trace_of_its_own_whatever_the_consumer_runs_in(
    bench: Bench, telemetry: Instrumentation, tracer_provider: TracerProvider, spans: Spans
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        pass

    await bench.publish("a")
    with tracer_provider.get_tracer("shop").start_as_current_span("main"):
        async with bench.consumer(handler, telemetry):
            await until(lambda: bench.happened("handled") == 1)
    process = spans.one(f"process {bench.queue}")
    assert process.parent is None
    assert links(process) == {}


@SQLITE
async def test_a_plain_handler_works_within_the_span_too(
    bench: Bench, telemetry: Instrumentation, tracer_provider: TracerProvider, spans: Spans
) -> None:
    tracer = tracer_provider.get_tracer("shop")

    def handler(message: AbstractIncomingMessage) -> None:
        with tracer.start_as_current_span("charge"):
            pass

    async with bench.consumer(handler, telemetry):
        await bench.publish("a")
        await until(lambda: bench.happened("handled") == 1)
    assert ids(spans.one("charge").parent) == ids(spans.one(f"process {bench.queue}"))


@SQLITE
@pytest.mark.parametrize("damaged", ["", "00-1-2-3", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_damaged_header_is_no_link_and_harms_no_message(
    bench: Bench, telemetry: Instrumentation, spans: Spans, damaged: str
) -> None:
    headers: dict[str, HeaderValue] = {
        "fusewire-format": 1,
        "fusewire-times-parked": 1,
        "fusewire-dependency": "payments",
        "fusewire-moved-by": damaged,
        "traceparent": 7,
    }

    async def handler(message: AbstractIncomingMessage) -> None:
        pass

    async with bench.consumer(handler, telemetry, depends_on="payments"):
        async with open_broker(bench.address) as broker:
            message = Message(body=b"a", message_id="a", headers=headers)
            await broker.publish(f"{bench.queue}.parked.payments", message)
        await until(lambda: bench.happened("replayed") == 1)
    assert links(spans.one(f"process {bench.queue}")) == {}


@SQLITE
async def test_nothing_is_traced_that_is_not_watched(
    bench: Bench, telemetry: Instrumentation, spans: Spans
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        assert trace.get_current_span() is trace.INVALID_SPAN

    async with bench.consumer(handler, None):
        await bench.publish("a")
        await until(lambda: bench.happened("handled") == 1)
    async with bench.consumer(handler, telemetry):
        telemetry.close()
        await bench.publish("b")
        await until(lambda: bench.happened("handled") == 2)
    assert spans.names() == set()
