"""What spans say of calls that are rejected, parked and made later, beside OpenTelemetry's own."""

from __future__ import annotations

from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import grpc
import grpc.aio
import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation.grpc import aio_client_interceptors, client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel

from fusewire import CircuitOpenError, ParkedCalls
from fusewire.brokers import open_broker
from fusewire.interceptors import aio_interceptors, guard
from tests.support.waiting import until, until_sync
from tests.telemetry.opentelemetry.conftest import Spans, ids, links

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from fusewire.breaker import BreakerRegistry
    from fusewire.forwarding import Receipt
    from fusewire.parking import MessageEvent
    from fusewire.telemetry.opentelemetry import Instrumentation

CHARGE = "/shop.Payments/Charge"
Place = Literal["outside", "inside", "absent"]
PLACES = pytest.mark.parametrize("theirs", ["outside", "inside", "absent"])
SQLITE = pytest.mark.parametrize("address", ["sqlite"], indirect=True)


class Payments(grpc.GenericRpcHandler):
    """A server that keeps the metadata of its calls."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.server = server

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(self._charge)

    def _charge(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata.append(dict(context.invocation_metadata()))
        return b"charged"


@pytest.fixture
def payments() -> Iterator[Payments]:
    payments = Payments()
    yield payments
    payments.server.stop(None).wait(10)


@dataclass(frozen=True)
class Setting:
    """What a client is made of."""

    address: str
    queue: str
    payments: Payments
    registry: BreakerRegistry
    telemetry: Instrumentation
    provider: TracerProvider

    def span(self, name: str) -> Any:
        return self.provider.get_tracer("shop").start_as_current_span(name)

    def trip(self) -> None:
        breaker = self.registry.get(CHARGE)
        while breaker.can_execute():
            breaker.acquire().failure()
        breaker.hold_open(300)

    def recover(self) -> None:
        self.registry.get(CHARGE).half_open()


@pytest.fixture
def setting(
    request: pytest.FixtureRequest, address: str, queue_name: str, payments: Payments
) -> Setting:
    others = map(request.getfixturevalue, ("registry", "telemetry", "tracer_provider"))
    return Setting(address, queue_name, payments, *others)


class Shop:
    """A client whose calls are parked."""

    def __init__(self, calls: ParkedCalls, charge: Any) -> None:
        self.charge = charge
        self.events: list[MessageEvent] = []
        calls.add_listener(self.events.append)

    def happened(self, outcome: str) -> bool:
        return any(event.outcome == outcome for event in self.events)


def pending(_request: bytes, receipt: Receipt) -> bytes:
    return b"pending:" + receipt.operation_id.encode()


@contextmanager
def sync_shop(setting: Setting, theirs: Place) -> Iterator[Shop]:
    other = client_interceptor(tracer_provider=setting.provider)
    with ParkedCalls(setting.address, queue=setting.queue, registry=setting.registry) as calls:
        setting.telemetry.watch(calls)
        fallbacks = {CHARGE: calls.park(reply=pending, idempotent=True)}
        bare: Any = grpc.insecure_channel(setting.payments.target)
        if theirs == "inside":
            bare = intercept_channel(bare, other)
        with (
            guard(bare, registry=setting.registry, fallbacks=fallbacks) as channel,
            calls.forward_to(channel),
        ):
            seen = intercept_channel(channel, other) if theirs == "outside" else channel
            yield Shop(calls, seen.unary_unary(CHARGE))


@asynccontextmanager
async def aio_shop(setting: Setting, theirs: Place) -> AsyncIterator[Shop]:
    other = aio_client_interceptors(tracer_provider=setting.provider)
    async with ParkedCalls(
        setting.address, queue=setting.queue, registry=setting.registry
    ) as calls:
        setting.telemetry.watch(calls)
        fallbacks = {CHARGE: calls.park(reply=pending, idempotent=True)}
        ours = aio_interceptors(registry=setting.registry, fallbacks=fallbacks)
        interceptors = {
            "outside": [*other, *ours],
            "inside": [*ours, *other],
            "absent": [*ours],
        }[theirs]
        async with (
            grpc.aio.insecure_channel(
                setting.payments.target, interceptors=interceptors
            ) as channel,
            calls.forward_to(channel),
        ):
            yield Shop(calls, channel.unary_unary(CHARGE))


def check_spans(spans: Spans, queue: str, theirs: Place, reply: bytes, *, later: int) -> None:
    """Check that the call that is made later is linked to the span in which it was parked.

    Args:
        spans: all that were exported.
        queue: of the calls.
        theirs: where OpenTelemetry's interceptor is.
        reply: what the caller got.
        later: how many spans OpenTelemetry's interceptor makes of the later call.
    """
    request = spans.one("request")
    process = spans.one(f"process {queue}")
    clients = spans.called(CHARGE)  # by OpenTelemetry's interceptors
    parked_in = clients[0] if theirs == "outside" else request
    events = {event.name: dict(event.attributes or {}) for event in parked_in.events}
    assert set(events) >= {"circuit_breaker.rejected", "fusewire.parked"}
    assert events["fusewire.parked"] == {
        "fusewire.operation_id": reply.decode().removeprefix("pending:"),
        "circuit_name": CHARGE,
    }
    assert process.parent is None
    assert links(process) == {"origin": ids(parked_in)}
    sent = clients[1:] if theirs == "outside" else clients
    assert len(sent) == later
    assert {ids(client.parent) for client in sent} <= {ids(process)}


@PLACES
def test_a_sync_call_that_is_made_later_is_linked_to_its_request(
    setting: Setting, spans: Spans, theirs: Place
) -> None:
    setting.trip()
    with sync_shop(setting, theirs) as shop:
        with setting.span("request"):
            reply = shop.charge(b"order", timeout=10)
        assert reply.startswith(b"pending:")
        setting.recover()
        until_sync(lambda: shop.happened("replayed"))
    # The forwarder has the guarded channel, which is inside of their interceptor that is outside.
    check_spans(spans, setting.queue, theirs, reply, later=int(theirs == "inside"))


@PLACES
async def test_an_asyncio_call_that_is_made_later_is_linked_to_its_request(
    setting: Setting, spans: Spans, theirs: Place
) -> None:
    setting.trip()
    async with aio_shop(setting, theirs) as shop:
        with setting.span("request"):
            reply = await shop.charge(b"order", timeout=10)
        assert reply.startswith(b"pending:")
        setting.recover()
        await until(lambda: shop.happened("replayed"))
    check_spans(spans, setting.queue, theirs, reply, later=int(theirs != "absent"))


@SQLITE
def test_a_future_is_linked_to_the_span_in_which_it_began(setting: Setting, spans: Spans) -> None:
    setting.trip()
    with sync_shop(setting, "absent") as shop:
        with setting.span("request"):
            reply = shop.charge.future(b"order", timeout=10).result(10)
        setting.recover()
        until_sync(lambda: shop.happened("replayed"))
    check_spans(spans, setting.queue, "absent", reply, later=0)


@SQLITE
async def test_baggage_is_not_stored_with_a_call(setting: Setting) -> None:
    setting.trip()
    async with aio_shop(setting, "absent") as shop:
        with setting.span("request"):
            token = context.attach(baggage.set_baggage("card", "card-4111"))
            await shop.charge(b"order", timeout=10)
            context.detach(token)
        async with open_broker(setting.address) as broker:
            (stored,) = await broker.peek(f"{setting.queue}.parked.other", limit=1)
    assert "traceparent" in stored.headers
    assert "card-4111" not in str(stored)


@SQLITE
async def test_a_call_that_is_not_stored_says_nothing_of_being_parked(
    setting: Setting, spans: Spans
) -> None:
    setting.trip()
    fallbacks: dict[str, Any] = {}
    async with ParkedCalls(
        setting.address, queue=setting.queue, registry=setting.registry
    ) as calls:
        setting.telemetry.watch(calls)
        fallbacks[CHARGE] = calls.park(reply=pending, idempotent=True)
    ours = aio_interceptors(registry=setting.registry, fallbacks=fallbacks)
    async with grpc.aio.insecure_channel(setting.payments.target, interceptors=ours) as channel:
        charge: Any = channel.unary_unary(CHARGE)
        with (
            setting.span("request"),
            pytest.raises(CircuitOpenError),
        ):
            await charge(b"order", timeout=10)
    names = [event.name for event in spans.one("request").events]
    assert names == ["circuit_breaker.rejected"]


def rejections(span: ReadableSpan) -> list[dict[str, Any]]:
    return [
        dict(event.attributes or {})
        for event in span.events
        if event.name == "circuit_breaker.rejected"
    ]


def test_a_rejection_is_an_event_on_the_current_span(
    registry: BreakerRegistry,
    telemetry: Instrumentation,
    tracer_provider: TracerProvider,
    spans: Spans,
) -> None:
    breaker = registry.get("payments")
    breaker.force_open()
    tracer = tracer_provider.get_tracer("shop")
    with tracer.start_as_current_span("forced"), pytest.raises(CircuitOpenError):
        breaker.acquire()
    breaker.reset()
    while breaker.can_execute():
        breaker.acquire().failure()
    with tracer.start_as_current_span("open"), pytest.raises(CircuitOpenError):
        breaker.acquire()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()  # in no span
    telemetry.close()
    with tracer.start_as_current_span("after"), pytest.raises(CircuitOpenError):
        breaker.acquire()
    (forced,) = rejections(spans.one("forced"))
    (opened,) = rejections(spans.one("open"))
    assert (forced["circuit_name"], forced["state"]) == ("payments", "forced_open")
    assert opened["state"] == "open"
    assert 0 < opened["retry_after"] <= 0.3
    assert rejections(spans.one("after")) == []
