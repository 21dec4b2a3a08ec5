"""A call's server is asked what became of it, and to cancel it."""

from __future__ import annotations

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from fusewire.brokers import FoundMessage, SQLiteBroker, Topology, open_broker
from fusewire.errors import BrokerUnavailableError, FusewireError, UnconfirmedError
from fusewire.forwarding import (
    CallPlace,
    CancelKind,
    Cancellation,
    FoundCall,
    Outcome,
    ParkedCalls,
    ServerWord,
)
from fusewire.idempotency import SQLiteStore, add_operations, idempotent
from fusewire.interceptors import aio_interceptors, guard
from tests.forwarding.asking import METHODS, POLICY, REMOVED, Fake, opaque, serving, storing
from tests.forwarding.conftest import CHARGE
from tests.forwarding.shop import aio_shop, pending
from tests.support.ports import reserve_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fusewire.breaker import BreakerRegistry
    from tests.forwarding.conftest import PaymentsServer


WORDS = {
    "ANSWERED": (ServerWord.MADE, CancelKind.TOO_LATE),
    "REFUSED": (ServerWord.REFUSED, CancelKind.TOO_LATE),
    "IN_PROGRESS": (ServerWord.IN_PROGRESS, CancelKind.TOO_LATE),
    "IN_DOUBT": (ServerWord.IN_DOUBT, CancelKind.TOO_LATE),
    "CANCELLED": (ServerWord.CANCELLED, CancelKind.CANCELLED),
    "NOT_FOUND": (ServerWord.NOT_MADE, CancelKind.NOT_CANCELLED),
    "STALE": (ServerWord.STALE, CancelKind.NOT_CANCELLED),
    "code INVALID_ARGUMENT": (ServerWord.NOT_RECORDED, CancelKind.NOT_CANCELLED),
    "code PERMISSION_DENIED": (ServerWord.DENIED, CancelKind.NOT_CANCELLED),
    "code UNAVAILABLE": (ServerWord.NO_ANSWER, CancelKind.UNKNOWN),
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def target(fake: Fake) -> Iterator[str]:
    with serving(fake) as target:
        yield target


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A server of ours that recognizes keys: its address, and the requests that it has done."""
    made: list[bytes] = []

    def charge(request: bytes, context: grpc.ServicerContext) -> bytes:
        made.append(request)
        return b"charged"

    store = SQLiteStore(tmp_path / "keys.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "keys.db")) as database:
        database.executescript(store.ddl)
    service, method = CHARGE.strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(charge)}
    interceptor = idempotent(store, [CHARGE], effects="elsewhere", lease=30)
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[interceptor])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    add_operations(server, store, authorize=lambda context, action, method, key: True)
    target = f"127.0.0.1:{reserve_port()}"
    server.add_insecure_port(target)
    server.start()
    yield target, made
    server.stop(0).wait()


async def test_each_word_of_a_server_says_what_is_known_and_what_became_of_a_cancellation(
    tmp_path: Path, queue_name: str, target: str
) -> None:
    async with (
        opaque(tmp_path, queue_name) as calls,
        grpc.aio.insecure_channel(target) as channel,
    ):
        for key, (word, kind) in WORDS.items():
            found = await calls.find(CHARGE, key, channel=channel)
            assert (found.place, found.server) == (CallPlace.UNKNOWN, word), key
            assert ("as its key says" in found.why) is key.startswith("code")
            cancelled = await calls.cancel(CHARGE, key, channel=channel)
            assert (cancelled.kind, cancelled.server) == (kind, word), key
            settled = kind in (CancelKind.TOO_LATE, CancelKind.CANCELLED)
            assert bool(cancelled.why) is not settled


def test_sync_code_finds_and_cancels_too(file: str, queue_name: str, target: str) -> None:
    with (
        ParkedCalls(file, queue=queue_name, methods=METHODS) as calls,
        grpc.insecure_channel(target) as channel,
    ):
        calls.submit_sync(CHARGE, b"a", operation_id="op-a")
        assert calls.find_sync(CHARGE, "op-a") == FoundCall(place=CallPlace.WAITING)
        assert calls.cancel_sync(CHARGE, "op-a", channel=channel) == REMOVED
        assert calls.cancel_sync(CHARGE, "CANCELLED", channel=channel) == Cancellation(
            kind=CancelKind.CANCELLED, place=CallPlace.NOT_HERE, server=ServerWord.CANCELLED
        )
        assert calls.find_sync(CHARGE, "ANSWERED", channel=channel) == FoundCall(
            place=CallPlace.NOT_HERE, server=ServerWord.MADE
        )
    with pytest.raises(FusewireError, match="not entered"):
        calls.find_sync(CHARGE, "op-a")


async def test_a_call_that_may_have_been_sent_is_not_removed_but_cancelled_at_its_server(
    file: str, queue_name: str, server: PaymentsServer, registry: BreakerRegistry, target: str
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with aio_shop(file, queue_name, server, registry, forward=False, policy=POLICY) as shop:
        await shop.charge("a", "CANCELLED")  # it fails, and is parked: it may have been made
        assert (await shop.calls.cancel(CHARGE, "CANCELLED")).kind is CancelKind.NOT_CANCELLED
        async with grpc.aio.insecure_channel(target) as channel:
            assert await shop.calls.cancel(CHARGE, "CANCELLED", channel=channel) == Cancellation(
                kind=CancelKind.CANCELLED, place=CallPlace.WAITING, server=ServerWord.CANCELLED
            )
        assert (await shop.calls.find(CHARGE, "CANCELLED")).place is CallPlace.WAITING


async def test_rabbitmq_cannot_look_up_a_call_and_its_server_is_asked(
    amqp_url: str, queue_name: str, target: str
) -> None:
    async with (
        storing(amqp_url, queue_name) as calls,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await calls.submit(CHARGE, b"a", operation_id="NOT_FOUND")
        found = await calls.find(CHARGE, "NOT_FOUND", channel=channel)
        assert (found.place, found.server) == (CallPlace.UNKNOWN, ServerWord.NOT_MADE)


async def test_the_server_is_told_when_the_call_was_first_sent(  # noqa: PLR0917 - fixtures
    file: str,
    queue_name: str,
    server: PaymentsServer,
    registry: BreakerRegistry,
    fake: Fake,
    target: str,
) -> None:
    server.answer = lambda key: grpc.StatusCode.UNAVAILABLE
    async with (
        aio_shop(file, queue_name, server, registry, forward=False, policy=POLICY) as shop,
        grpc.aio.insecure_channel(target) as channel,
    ):
        sent = (("fusewire-first-sent-ms", "1700000000000"),)
        await shop.charge("a", "STALE", metadata=sent)
        await shop.calls.find(CHARGE, "STALE", channel=channel)
        await shop.calls.submit(CHARGE, b"b", operation_id="NOT_FOUND")
        await shop.calls.find(CHARGE, "NOT_FOUND", channel=channel)
    [(_, told), (_, never)] = fake.asked
    assert (told.method, told.first_sent_at.ToMilliseconds()) == (CHARGE, 1_700_000_000_000)
    assert not never.HasField("first_sent_at")


async def test_a_server_without_the_service_says_so(tmp_path: Path, queue_name: str) -> None:
    with serving(None) as bare:
        async with (
            opaque(tmp_path, queue_name) as calls,
            grpc.aio.insecure_channel(bare) as channel,
        ):
            found = await calls.find(CHARGE, "op-a", channel=channel)
            assert found.server is ServerWord.NO_ANSWER
            assert "add_operations" in found.why
            cancelled = await calls.cancel(CHARGE, "op-a", channel=channel)
            assert cancelled.kind is CancelKind.NOT_CANCELLED


async def test_a_question_on_a_guarded_channel_is_never_queued(
    tmp_path: Path, queue_name: str, server: PaymentsServer, registry: BreakerRegistry
) -> None:
    server.stop()
    async with opaque(tmp_path, queue_name) as calls:
        fallbacks = {"*": calls.park(reply=pending, idempotent=True)}
        interceptors = aio_interceptors(registry=registry, fallbacks=fallbacks)
        async with grpc.aio.insecure_channel(server.target, interceptors=interceptors) as channel:
            cancelled = await calls.cancel(CHARGE, "op-a", channel=channel)
        guarded = guard(
            grpc.insecure_channel(server.target), registry=registry, fallbacks=fallbacks
        )
        with guarded as sync_channel:
            found = await calls.find(CHARGE, "op-a", channel=sync_channel)
        async with open_broker(f"sqlite:///{tmp_path}/opaque.db") as broker:
            assert await broker.depth(calls.topology.parked("other")) == 0
    assert (cancelled.kind, cancelled.server) == (CancelKind.UNKNOWN, ServerWord.NO_ANSWER)
    assert found.server is ServerWord.NO_ANSWER


async def test_a_circuit_that_is_open_and_a_channel_that_is_closed_have_sent_nothing(
    tmp_path: Path, queue_name: str, registry: BreakerRegistry, target: str
) -> None:
    async with opaque(tmp_path, queue_name) as calls:
        interceptors = aio_interceptors(registry=registry)
        async with grpc.aio.insecure_channel(target, interceptors=interceptors) as channel:
            assert (await calls.cancel(CHARGE, "CANCELLED", channel=channel)).why == ""
            for breaker in registry:
                breaker.force_open()
            cancelled = await calls.cancel(CHARGE, "CANCELLED", channel=channel)
            assert (cancelled.kind, cancelled.server) == (
                CancelKind.NOT_CANCELLED,
                ServerWord.NO_ANSWER,
            )
            for breaker in registry:
                breaker.reset()
        closed = await calls.cancel(CHARGE, "CANCELLED", channel=channel)
        assert closed.kind is CancelKind.NOT_CANCELLED
        assert "closed" in closed.why


async def test_a_call_that_is_cancelled_at_its_server_is_settled_as_cancelled_when_it_is_sent(
    file: str, queue_name: str, ours: tuple[str, list[bytes]], registry: BreakerRegistry
) -> None:
    target, made = ours
    outcomes: list[Outcome] = []
    async with (
        storing(file, queue_name, registry=registry, on_outcome=outcomes.append) as calls,
        grpc.aio.insecure_channel(
            target, interceptors=aio_interceptors(registry=registry)
        ) as channel,
        open_broker(file) as broker,
    ):
        await calls.submit(CHARGE, b"a", operation_id="op-a")
        subscription = await broker.subscribe(calls.topology.parked("other"), prefetch=1)
        await subscription.receive()  # a forwarder is about to send it
        assert await calls.cancel(CHARGE, "op-a", channel=channel) == Cancellation(
            kind=CancelKind.CANCELLED, place=CallPlace.IN_FLIGHT, server=ServerWord.CANCELLED
        )
        assert await calls.find(CHARGE, "op-a", channel=channel) == FoundCall(
            place=CallPlace.IN_FLIGHT, server=ServerWord.CANCELLED
        )
        await subscription.release()
        async with calls.forward_to(channel):
            await until(lambda: outcomes)
            await calls.submit(CHARGE, b"b", operation_id="op-b")
            await until(lambda: len(outcomes) == 2)
        late = await calls.cancel(CHARGE, "op-b", channel=channel)
        assert (late.kind, late.server) == (CancelKind.TOO_LATE, ServerWord.MADE)
    assert [(one.operation_id, one.kind) for one in outcomes] == [
        ("op-a", "cancelled"),
        ("op-b", "ok"),
    ]
    assert made == [b"b"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BrokerUnavailableError("the disk is gone"), CancelKind.NOT_CANCELLED),
        (UnconfirmedError("who knows"), CancelKind.UNKNOWN),
    ],
)
async def test_a_broker_that_fails_leaves_what_is_not_known_said(
    tmp_path: Path, queue_name: str, error: Exception, kind: CancelKind, target: str
) -> None:
    class Failing(SQLiteBroker):
        async def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
            raise error

    async with (
        Failing(tmp_path / "broker.db") as broker,
        ParkedCalls(broker, queue=queue_name, methods=METHODS) as calls,
        grpc.aio.insecure_channel(target) as channel,
    ):
        assert await calls.find(CHARGE, "op-a") == FoundCall(
            place=CallPlace.UNKNOWN, why=str(error)
        )
        assert await calls.find(CHARGE, "ANSWERED", channel=channel) == FoundCall(
            place=CallPlace.UNKNOWN, server=ServerWord.MADE, why=str(error)
        )
        assert await calls.cancel(CHARGE, "op-a") == Cancellation(
            kind=kind, place=CallPlace.UNKNOWN, why=str(error)
        )
        stale = await calls.cancel(CHARGE, "STALE", channel=channel)
        assert (stale.kind, stale.server) == (kind, ServerWord.STALE)
