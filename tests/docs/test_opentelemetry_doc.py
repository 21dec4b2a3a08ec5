"""docs/opentelemetry.md names what there is, and its examples work."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusewire.brokers import Message, open_broker
from fusewire.parking import MessageOutcome
from fusewire.telemetry.opentelemetry import _conventions as conventions
from tests.docs.examples import run_examples

if TYPE_CHECKING:
    from fusewire import ParkedCalls

PAGE = Path(__file__).parents[2] / "docs" / "opentelemetry.md"
TEXT = PAGE.read_text("utf-8")


async def test_the_examples_trace_a_message_and_show_the_metrics(tmp_path: Path) -> None:
    handled, served = asyncio.Event(), asyncio.Event()

    async def on_order(_: object) -> None:
        handled.set()

    async def serve(_: ParkedCalls) -> None:
        served.set()

    address = f"sqlite:///{tmp_path}/broker.db"
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    names: dict[str, Any] = run_examples(
        PAGE,
        {
            "AMQP": address,
            "exporter": exporter,
            "on_order": on_order,
            "reader": reader,
            "serve": serve,
        },
    )
    with names["telemetry"]:
        async with open_broker(address) as broker:
            await broker.create_queue("orders")
            await broker.publish("orders", Message(body=b"order", message_id="order-1"))
        consuming = asyncio.create_task(names["main"]())
        await asyncio.wait_for(handled.wait(), 20)
        shown = str(reader.get_metrics_data())
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        await names["offer"]()
    names["tracers"].force_flush()
    assert served.is_set()
    assert [span.name for span in exporter.get_finished_spans()] == ["process orders"]
    assert "fusewire.consumer_subscribed" in shown
    names["tracers"].shutdown()
    names["meters"].shutdown()


def test_the_page_names_every_attribute_and_event() -> None:
    constants = {
        value
        for name, value in vars(conventions).items()
        if name.isupper() and name not in {"SCHEMA_URL", "SCOPE", "TYPE_CHECKING"}
    }
    assert constants == {value for value in constants if f"`{value}`" in TEXT}
    ours = set(re.findall(r"`(fusewire\.[a-z_]+)`", TEXT))
    assert ours <= constants | {"fusewire.parked", "fusewire.lane_head_age"}


def test_the_page_names_every_outcome() -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith("| `fusewire.outcome`")]
    named = set(re.findall(r"`(\w+)`", row))
    assert named == {outcome.value for outcome in MessageOutcome} - {"in_doubt"}
