"""What a tracer is asked for, and that messages are handled whatever it does."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.errors import SettingsError
from fusewire.parking import MessageEvent, ReceivedMessage, Reject, Retry
from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.brokers import Station
    from tests.parking.conftest import Bench

SQLITE = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
current: ContextVar[str] = ContextVar("current", default="nothing")


class Recorder:
    """A tracer that writes down what it is asked for."""

    def __init__(self) -> None:
        self.received: list[ReceivedMessage] = []
        self.spans: list[Span] = []
        self.settled: list[MessageEvent] = []

    def begin(self, received: ReceivedMessage) -> Span:
        self.received.append(received)
        self.spans.append(Span(self, received.operation_id))
        return self.spans[-1]

    @contextmanager
    def storing(self, operation_id: str, breaker: str) -> Iterator[dict[str, Any]]:
        yield {}

    @property
    def open(self) -> int:
        return sum(not span.ended for span in self.spans)

    def notes(self, operation_id: str) -> list[list[str]]:
        return [span.notes for span in self.spans if span.operation_id == operation_id]


class Span:
    def __init__(self, recorder: Recorder, operation_id: str) -> None:
        self._recorder = recorder
        self.operation_id = operation_id
        self.notes: list[str] = []
        self.ended = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        token = current.set(self.operation_id)
        try:
            yield
        finally:
            current.reset(token)
            self.notes.append("attempt")

    def failed(self, error: BaseException) -> None:
        self.notes.append(type(error).__name__)

    @contextmanager
    def move(self, operation: str, to: Station) -> Iterator[str]:
        yield f"{operation} of {self.operation_id}"
        self.notes.append(f"{operation} to {to.kind}")

    def settled(self, event: MessageEvent) -> None:
        self._recorder.settled.append(event)
        self.notes.append(event.outcome)

    def end(self) -> None:
        self.ended += 1


class Broken(Recorder):
    """A tracer of which one thing after the other raises."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def begin(self, received: ReceivedMessage) -> Span:
        span = super().begin(received)
        if self._what == "begin":
            raise LookupError("begin")

        def broken(*_: object) -> Any:
            raise LookupError(self._what)

        @contextmanager
        def broken_at_its_end(*_: object) -> Iterator[str]:
            yield ""
            raise LookupError(self._what)

        where, _, at = self._what.partition(" ")
        setattr(span, where, broken_at_its_end if at else broken)
        return span


async def test_each_message_is_traced_until_it_is_settled(bench: Bench) -> None:
    tracer, dependency = Recorder(), Dependency(bench.registry)
    seen: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        seen.append(current.get())
        assert "fusewire-moved-by" not in message.headers
        await dependency(message)

    await bench.send("a")
    async with bench.consumer(handler, depends_on="payments") as consumer:
        consumer.trace_with(tracer)
        await until(lambda: bench.happened("handled") == ["a"])
        dependency.trip()
        await bench.send("b")
        await until(lambda: bench.happened("parked") == ["b"])
        parked = await bench.broker.peek(f"{bench.queue}.parked.payments", limit=1)
        dependency.recover()
        await until(lambda: bench.happened("replayed") == ["b"])
    assert seen == ["a", "b"]
    assert tracer.notes("a") == [["attempt", "handled"]]
    assert tracer.notes("b") == [["park to lane", "parked"], ["attempt", "replayed"]]
    assert [span.ended for span in tracer.spans] == [1, 1, 1]
    first, new, replay = tracer.received
    assert (first.again, new.again, replay.again) == (False, False, True)
    assert (new.lane, replay.lane) == ("", "payments")
    assert (new.moved_by, replay.moved_by) == ("", "park of b")
    assert first.system == bench.broker.capabilities.system in {"sqlite", "rabbitmq"}
    assert [message.headers["fusewire-moved-by"] for message in parked] in ([], ["park of b"])


@SQLITE
async def test_a_tracer_learns_what_kind_of_failure_it_was_and_where_its_message_went(
    bench: Bench,
) -> None:
    tracer = Recorder()
    attempts: Counter[str] = Counter()

    async def handler(message: AbstractIncomingMessage) -> None:
        attempts[str(message.message_id)] += 1
        match message.message_id:
            case "later" if attempts["later"] == 1:
                raise Retry(after=0)
            case "unwanted":
                raise Reject("no such order")
            case "fails":
                raise ValueError("card 4111")

    await bench.send("later", "unwanted", "fails")
    async with bench.consumer(handler, max_attempts=2) as consumer:
        consumer.trace_with(tracer)
        await until(lambda: len(bench.happened("dead")) == 2 and len(bench.happened("handled")))
    assert tracer.notes("later") == [
        ["attempt", "delay to source", "postponed"],
        ["attempt", "handled"],
    ]
    assert tracer.notes("unwanted") == [["attempt", "Reject", "dead-letter to dead", "dead"]]
    assert tracer.notes("fails") == [
        ["attempt", "ValueError", "delay to source", "delayed"],
        ["attempt", "ValueError", "dead-letter to dead", "dead"],
    ]


@SQLITE
async def test_a_move_that_nobody_traces_does_not_keep_the_name_of_an_earlier_one(
    bench: Bench,
) -> None:
    tracer, dependency = Recorder(), Dependency(bench.registry)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency, depends_on="payments", max_attempts=1) as consumer:
        end = consumer.trace_with(tracer)
        await until(lambda: bench.happened("parked") == ["a"])
        end()
    dependency.recover()

    async def fails(_: object) -> None:
        raise ValueError

    async with bench.consumer(fails, depends_on="payments", max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])
    (dead,) = await bench.dead()
    assert "fusewire-moved-by" not in dead.headers
    assert tracer.open == 0


@SQLITE
async def test_attempts_in_place_are_one_trace(bench: Bench) -> None:
    tracer, calls = Recorder(), Counter[str]()

    async def handler(_: object) -> None:
        calls["all"] += 1
        if calls["all"] < 3:
            raise ValueError

    await bench.send("a")
    async with bench.consumer(handler, on_open="pause") as consumer:
        consumer.trace_with(tracer)
        await until(lambda: bench.happened("handled") == ["a"])
    assert tracer.notes("a") == [
        ["attempt", "ValueError", "attempt", "ValueError", "attempt", "handled"]
    ]


@SQLITE
async def test_what_goes_back_to_its_queue_ends_its_trace(bench: Bench) -> None:
    tracer, dependency = Recorder(), Dependency(bench.registry)
    dependency.trip()
    await bench.send("a")
    async with bench.consumer(dependency, on_open="pause") as consumer:
        consumer.trace_with(tracer)
        await until(lambda: consumer.status().paused_by == "payments" and not tracer.open)
        assert tracer.notes("a") == [["attempt"]]
        dependency.recover()
        await until(lambda: bench.happened("handled") == ["a"])
    assert tracer.notes("a") == [["attempt"], ["attempt", "handled"]]
    assert [span.ended for span in tracer.spans] == [1, 1]


@SQLITE
async def test_what_is_cut_off_ends_its_trace(bench: Bench) -> None:
    tracer, began = Recorder(), asyncio.Event()

    async def handler(_: object) -> None:
        began.set()
        await asyncio.Event().wait()

    await bench.send("a")
    async with bench.consumer(handler, shutdown_timeout=0) as consumer:
        consumer.trace_with(tracer)
        await asyncio.wait_for(began.wait(), 10)
    assert tracer.notes("a") == [["attempt"]]
    assert [span.ended for span in tracer.spans] == [1]


@SQLITE
@pytest.mark.parametrize(
    "what", ["begin", "attempt", "attempt late", "failed", "move", "move late", "settled", "end"]
)
async def test_messages_are_handled_whatever_a_tracer_raises(
    bench: Bench, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        calls.append(str(message.message_id))
        if len(calls) == 1:
            raise ValueError

    await bench.send("a")
    async with bench.consumer(handler) as consumer:
        consumer.trace_with(Broken(what))
        await until(lambda: bench.happened("handled") == ["a"])
    assert calls == ["a", "a"]
    assert bench.happened("delayed") == ["a"]
    errors = [record for record in caplog.records if "the tracer" in record.message]
    assert errors
    assert all(record.levelno == logging.ERROR for record in errors)


@SQLITE
async def test_a_consumer_has_one_tracer_at_a_time(bench: Bench) -> None:
    async with bench.consumer(print) as consumer:
        end = consumer.trace_with(Recorder())
        with pytest.raises(SettingsError, match="there is a tracer already"):
            consumer.trace_with(Recorder())
        end()
        consumer.trace_with(Recorder())
