"""A consumer audits its queues when it starts, and starts whatever it finds."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.audit import Finding, Severity
from fusewire.brokers import RabbitMQBroker, SQLiteBroker
from fusewire.errors import BrokerUnavailableError
from fusewire.parking import ParkingConsumer
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rabbitmq_managed import VirtualHost

LOGGER = "fusewire.parking"


async def handler(message: Any) -> None:
    pass


async def test_what_is_unsafe_is_logged_with_the_reason_and_the_remedy(
    virtual_host: VirtualHost, caplog: pytest.LogCaptureFixture
) -> None:
    virtual_host.policy(r"^orders\.dead$", message_ttl=5000)
    broker = RabbitMQBroker(virtual_host.url, management=virtual_host.managed.management)
    async with broker:
        await broker.create_queue("orders")
        async with ParkingConsumer(broker, queue="orders", handler=handler):
            await until(lambda: "orders.dead (loss): has a message TTL of 5000 ms" in caplog.text)
    [record] = [record for record in caplog.records if record.name == LOGGER]
    assert record.levelno == logging.WARNING
    assert "rabbitmqctl list_policies" in record.message


async def test_without_the_management_api_one_line_says_what_was_not_checked(
    virtual_host: VirtualHost, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSEWIRE_MANAGEMENT_URL", raising=False)
    caplog.set_level(logging.INFO, LOGGER)
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        async with ParkingConsumer(broker, queue="orders", handler=handler):
            await until(lambda: "not checked" in caplog.text)
    [record] = [record for record in caplog.records if record.name == LOGGER]
    assert record.levelno == logging.INFO
    assert "FUSEWIRE_MANAGEMENT_URL" in record.message


@pytest.mark.parametrize("error", [BrokerUnavailableError("no answer"), ValueError("a defect")])
async def test_an_audit_that_fails_stops_no_consumer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    async def failing(*_: object) -> list[Finding]:
        raise error

    monkeypatch.setattr("fusewire.parking._auditing.audit", failing)
    async with SQLiteBroker(tmp_path / "x.db") as broker:
        await broker.create_queue("orders")
        async with ParkingConsumer(broker, queue="orders", handler=handler):
            await until(lambda: "were not audited" in caplog.text)


async def test_a_consumer_neither_waits_for_its_audit_nor_leaves_it_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: object) -> list[Finding]:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return [Finding(Severity.LOSS, "", "", "", "")]

    monkeypatch.setattr("fusewire.parking._auditing.audit", endless)
    async with SQLiteBroker(tmp_path / "x.db") as broker:
        await broker.create_queue("orders")
        async with ParkingConsumer(broker, queue="orders", handler=handler):
            await asyncio.wait_for(begun.wait(), 10)
            assert not ended.is_set()
        assert ended.is_set()
