"""What is turned away, hangs or waits holds up nothing that could go on, and is not worn out."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.brokers import Message
from fusewire.operation import CallNote, current_operation
from fusewire.parking import _pauses, _solitude
from fusewire.parking._solitude import Solitude
from fusewire.parking._workers.ordered import OrderedWorker
from fusewire.testing import FakeClock
from tests.support.turning_away import PAYMENTS, Server, StatusError
from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Delivery
    from fusewire.parking._decisions import Recycle
    from tests.parking.conftest import Bench


@pytest.fixture
def server() -> Server:
    """A server that turns one account away."""
    server = Server()
    server.condition, server.status = "permission_denied", "PERMISSION_DENIED"
    server.turned_away = {"bad"}
    return server


async def send_good(bench: Bench, server: Server, count: int) -> None:
    """Send messages one by one, each once the one before was handled."""
    for number in range(count):
        await bench.send(f"good-{number}")
        await until(lambda number=number: f"good-{number}" in server.effects)


async def test_what_is_turned_away_while_others_are_handled_rests_as_after_any_failure(
    bench: Bench, server: Server
) -> None:
    async with bench.consumer(server, depends_on=PAYMENTS, max_attempts=10, delays=(0.05, 60.0)):
        await bench.send("bad")
        while server.calls.count("bad") < 2:
            await send_good(bench, server, 1)
            server.effects.clear()
        await send_good(bench, server, 20)
    # Without a rest, ten attempts take as long as ten calls.
    assert server.calls.count("bad") <= 3


async def test_messages_that_rest_leave_their_lane_to_those_behind_them(
    bench: Bench, server: Server
) -> None:
    lane = f"{bench.queue}.parked.{PAYMENTS}"
    await bench.broker.create_queue(lane)
    server.turned_away = {"bad-1", "bad-2", "bad-3"}
    parked: dict[str, Any] = {"fusewire-times-parked": 1, "fusewire-dependency": PAYMENTS}
    rests: dict[str, Any] = {
        "fusewire-reason": "condition",
        "fusewire-failed-at-ms": time.time_ns() // 1_000_000,
    }
    for body in sorted(server.turned_away):
        await bench.broker.publish(
            lane, Message(body=body.encode(), message_id=body, headers={**parked, **rests})
        )
    for body in ("good-1", "good-2"):
        await bench.broker.publish(
            lane, Message(body=body.encode(), message_id=body, headers=parked)
        )
    async with bench.consumer(server, depends_on=PAYMENTS, replay_concurrency=2, delays=(600.0,)):
        await until(lambda: sorted(server.effects) == ["good-1", "good-2"], limit=20)
    assert server.calls == server.effects
    assert bench.happened("dead") == []


async def test_in_order_what_is_turned_away_alone_runs_out_of_attempts_and_the_rest_is_handled(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(_pauses, "LONGEST_WAIT", 0.02)
    goods = [f"good-{number}" for number in range(8)]
    await bench.send("bad", *goods)
    async with bench.consumer(
        server, on_open="pause", depends_on=PAYMENTS, concurrency=1, max_attempts=2
    ):
        await until(lambda: bench.happened("dead") == ["bad"], limit=30)
        await until(lambda: sorted(server.effects) == goods)


async def test_a_circuit_that_opens_has_its_own_waits_and_no_pause_besides(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 600)
    breaker, down, effects = bench.registry.get(PAYMENTS), True, []
    all_in = asyncio.Barrier(12)

    async def call() -> None:
        if down:
            await all_in.wait()
            raise ConnectionError("nobody there")

    async def handler(message: AbstractIncomingMessage) -> None:
        await breaker.call_async(call)
        effects.append(message.body.decode())

    bodies = [f"m{number:02}" for number in range(12)]
    await bench.send(*bodies)
    async with bench.consumer(handler, depends_on=PAYMENTS, concurrency=12):
        await until(lambda: len(bench.happened("parked")) >= 10)
        down = False
        await until(lambda: sorted(effects) == bodies)


async def test_messages_that_fail_at_first_and_succeed_at_last_do_not_wait_for_each_other(
    bench: Bench, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pauses, "FIRST_WAIT", 600)
    bodies, tried = [f"m{number:02}" for number in range(40)], set()
    server.condition = None

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body not in tried:
            tried.add(message.body)
            operation = current_operation()
            assert operation is not None
            operation.note(CallNote(PAYMENTS, "success", "ABORTED"))
            raise StatusError("ABORTED")
        await server(message)

    await bench.send(*bodies)
    async with bench.consumer(handler, depends_on=PAYMENTS):
        await until(lambda: sorted(server.effects) == bodies)
    assert len(server.calls) == 40


@pytest.mark.parametrize(("kind", "failures"), [("condition", 4), ("otherwise", 12)])
async def test_a_success_of_an_undeclared_dependency_breaks_a_row_of_failures(
    bench: Bench, server: Server, kind: str, failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "otherwise":
        server.condition, server.status = None, "ABORTED"

    async def handler(message: AbstractIncomingMessage) -> None:
        if kind == "otherwise" and message.body.startswith(b"bad"):
            operation = current_operation()
            assert operation is not None
            operation.note(CallNote(PAYMENTS, "success", "ABORTED"))
            raise StatusError("ABORTED")
        await server(message)

    server.turned_away = {f"bad-{number}" for number in range(failures)}
    async with bench.consumer(handler, max_attempts=1, delays=(600.0,)):
        for number in range(failures):
            await bench.send(f"bad-{number}")
            await until(lambda number=number: len(bench.events) == 2 * number + 1)
            await bench.send(f"good-{number}")
            await until(lambda number=number: len(bench.events) == 2 * number + 2)
    assert "fail alike" not in caplog.text


async def test_an_at_most_once_message_one_of_whose_calls_was_made_is_not_tried_again(
    bench: Bench, server: Server
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        operation = current_operation()
        assert operation is not None
        operation.note_success("stock")
        await server(message)

    await bench.send("bad", headers={"fusewire-at-most-once": True})
    async with bench.consumer(handler, depends_on=PAYMENTS):
        await until(lambda: bench.happened("dead") == ["bad"])
    (dead,) = await bench.dead()
    assert dead.headers["fusewire-reason"] == "ambiguous"


async def test_in_order_an_at_most_once_message_that_waits_for_its_turn_is_not_blamed_for_a_stop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bytes] = []
    in_hand: list[bytes] = []
    release = asyncio.Event()
    in_turn = OrderedWorker._in_turn

    async def spied(self: OrderedWorker, delivery: Delivery) -> Recycle | None:
        in_hand.append(delivery.message.body)
        return await in_turn(self, delivery)

    async def handler(message: AbstractIncomingMessage) -> None:
        begun.append(message.body)
        await release.wait()

    monkeypatch.setattr(OrderedWorker, "_in_turn", spied)
    await bench.send("slow")
    await bench.send("once", headers={"fusewire-at-most-once": True})
    async with bench.consumer(handler, on_open="pause", concurrency=1, shutdown_timeout=0.5):
        await until(lambda: in_hand == [b"slow", b"once"])
        await until(lambda: begun == [b"slow"])
    release.set()
    async with bench.consumer(handler, on_open="pause", concurrency=1):
        await until(lambda: b"once" in begun or bench.happened("dead"))
        await until(lambda: len(bench.happened("handled") + bench.happened("dead")) == 2)
    assert bench.happened("dead") == []
    assert begun.count(b"once") == 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0)


@pytest.fixture
def solitude(clock: FakeClock) -> Solitude:
    return Solitude(clock)


def begin_alone(solitude: Solitude, clock: FakeClock, attempt: object) -> None:
    assert solitude.claim(attempt)
    clock.advance(1)
    assert solitude.alone()


def test_a_handler_that_hangs_alone_keeps_others_from_beginning_for_a_minute_at_most(
    solitude: Solitude, clock: FakeClock
) -> None:
    begin_alone(solitude, clock, "suspect")
    clock.advance(59)
    assert not solitude.enter("other")
    assert not solitude.asked("suspect")
    clock.advance(1)
    assert not solitude.enter("other")
    assert solitude.asked("suspect")
    solitude.share("suspect")  # it takes its mark away first
    assert solitude.enter("other")
    assert not solitude.claim("another suspect")  # it comes again later, and stops nothing


def test_a_handler_that_never_ends_is_not_waited_for_again_and_again(
    solitude: Solitude, clock: FakeClock
) -> None:
    assert solitude.enter("hangs")
    clock.advance(600)
    begin_alone(solitude, clock, "suspect")


def test_a_slow_handler_is_waited_for_and_then_the_others_go_on(
    solitude: Solitude, clock: FakeClock
) -> None:
    assert solitude.enter("slow")
    assert solitude.claim("suspect")
    clock.advance(59)
    assert solitude.alone() is False
    clock.advance(1)
    assert solitude.alone() is None
    solitude.leave("suspect")
    assert solitude.enter("other")


def test_a_forked_child_has_nothing_of_its_parents_in_flight() -> None:
    assert _solitude.process.claim("suspect")
    try:
        child = os.fork()
        if child == 0:
            os._exit(0 if _solitude.process.enter("other") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        _solitude.process.leave("suspect")


async def test_what_waits_for_one_that_is_alone_begins_no_more_once_the_consumer_stops(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    release, waits = asyncio.Event(), asyncio.Event()
    enter = _solitude.process.enter

    def spied(attempt: object) -> bool:
        entered = enter(attempt)
        if not entered:
            waits.set()
        return entered

    async def handler(message: AbstractIncomingMessage) -> None:
        begun.append(message.body.decode())
        await release.wait()

    monkeypatch.setattr(_solitude.process, "enter", spied)
    await bench.send("suspect", headers={"fusewire-lone": 1})
    async with bench.consumer(handler) as consumer:
        await until(lambda: begun == ["suspect"])
        await bench.send("other")
        await waits.wait()
        consumer.stop()
        assert consumer._stopping is not None
        await consumer._stopping.wait()
        release.set()
    assert begun == ["suspect"]
    assert bench.happened("handled") == ["suspect"]
