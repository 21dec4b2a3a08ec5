"""The examples of docs/prometheus.md export what the page says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import prometheus_client

from fusewire import default_registry
from fusewire.brokers import open_broker
from tests.docs.examples import run_examples
from tests.support.scraping import scrape
from tests.support.waiting import until

if TYPE_CHECKING:
    import pytest
    from aio_pika.abc import AbstractIncomingMessage

PAGE = Path(__file__).parents[2] / "docs" / "prometheus.md"


async def on_order(_: AbstractIncomingMessage) -> None:
    pass


async def test_the_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[int] = []
    monkeypatch.setattr(prometheus_client, "start_http_server", served.append)
    address = f"sqlite:///{tmp_path}/orders.db"
    names = run_examples(PAGE, {"ADDRESS": address, "on_order": on_order})
    try:
        assert served == [9464]
        default_registry().get("test-of-the-page")
        shown = scrape(prometheus_client.REGISTRY)
        assert shown("circuit_breaker_state", circuit_name="test-of-the-page") == 0
        async with open_broker(address) as broker:
            await broker.create_queue("orders")
        consuming = asyncio.ensure_future(names["consume"]())
        connected = "fusewire_broker_connected"
        await until(lambda: scrape(prometheus_client.REGISTRY)(connected, queue="orders") == 1)
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        assert scrape(prometheus_client.REGISTRY)(connected, queue="orders") is None
    finally:
        names["exporter"].close()
        default_registry().remove("test-of-the-page")


def test_the_rules_and_alerts_of_the_page_are_there() -> None:
    text = PAGE.read_text("utf-8")
    folder = PAGE.parents[1] / "monitoring"
    rules = (folder / "rules.yml").read_text("utf-8")
    alerts = (folder / "alerts.yml").read_text("utf-8")
    named = [line.split()[-1] for line in (rules + alerts).splitlines() if "- record:" in line]
    named += [line.split()[-1] for line in alerts.splitlines() if "- alert:" in line]
    assert named
    assert [name for name in named if f"`{name}`" not in text] == []
