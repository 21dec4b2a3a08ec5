"""``fusewire audit``: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aio_pika
import pytest
from typer.testing import CliRunner

from fusewire.brokers import RabbitMQBroker, Topology
from fusewire.cli._app import app

if TYPE_CHECKING:
    from typer.testing import Result

    from tests.support.rabbitmq_managed import VirtualHost

LANE = "/payments.v1.Payments/Charge"


def run(*options: str, **environment: str) -> Result:
    return CliRunner().invoke(
        app,
        ["audit", "--queue", "orders", *options],
        env={"FUSEWIRE_ADDRESS": None, "FUSEWIRE_MANAGEMENT_URL": None, **environment},
    )


@pytest.fixture
def prepared(virtual_host: VirtualHost) -> VirtualHost:
    async def prepare() -> None:
        async with RabbitMQBroker(virtual_host.url) as broker:
            await broker.create_queue("orders")
            await broker.prepare(
                Topology("orders", (LANE,), (1.0,), options={"exchange": "parking"})
            )

    asyncio.run(prepare())
    return virtual_host


def options(host: VirtualHost) -> list[str]:
    return [
        *("--address", host.url, "--management", host.managed.management),
        *("--lane", LANE, "--delay-tier", "1", "--exchange", "parking"),
    ]


def test_queues_that_are_safe_end_it_with_0(prepared: VirtualHost) -> None:
    done = run(*options(prepared))

    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("orders: 0 that could lose messages, 0 warnings, 1 not checked\n")


def test_what_could_lose_messages_ends_it_with_1_and_says_what_to_do(
    prepared: VirtualHost,
) -> None:
    prepared.policy(r"parked", message_ttl=5000)

    done = run(*options(prepared))

    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert f"loss: orders.parked.{LANE}" in lines
    assert "  has a message TTL of 5000 ms" in lines
    assert f"    rabbitmqctl list_policies -p '{prepared.name}'" in lines


def test_warnings_alone_end_it_with_0(prepared: VirtualHost) -> None:
    done = run(*options(prepared), "--single")

    assert done.exit_code == 0
    assert "warning: orders.parked.other" in done.stdout


def test_json_has_the_whole_of_each_finding(prepared: VirtualHost) -> None:
    prepared.policy(r"dead", message_ttl=5000)

    done = run(*options(prepared), "--format", "json")

    worst = json.loads(done.stdout)[0]
    assert worst.pop("why")
    assert worst.pop("remedy")
    assert worst == {
        "severity": "loss",
        "subject": "orders.dead",
        "what": "has a message TTL of 5000 ms",
    }


def test_addresses_may_come_from_the_environment_where_no_process_list_shows_them(
    prepared: VirtualHost,
) -> None:
    done = run(
        *("--lane", LANE, "--delay-tier", "1", "--exchange", "parking"),
        FUSEWIRE_ADDRESS=prepared.url,
        FUSEWIRE_MANAGEMENT_URL=prepared.managed.management,
    )

    assert "1 not checked" in done.stdout


def test_without_management_it_says_what_was_not_checked(prepared: VirtualHost) -> None:
    done = run("--address", prepared.url, "--exchange", "parking", "--delay-tier", "1")

    assert done.exit_code == 3  # neither safe nor unsafe
    assert "not checked: limits" in done.stdout
    assert "--management" in done.stdout


def test_without_management_a_queue_of_the_wrong_type_ends_it_with_1(
    prepared: VirtualHost,
) -> None:
    async def declare(kind: str) -> None:
        async with await aio_pika.connect(prepared.url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("orders")
            await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": kind})

    for kind in ("classic", "stream"):
        asyncio.run(declare(kind))
        done = run("--address", prepared.url)
        assert done.exit_code == 1
        assert "loss: orders\n" in done.stdout
        assert f"is a {kind}" in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        ["--address", "amqp://user:secret@127.0.0.1:1/"],
        ["--address", "sqlite:///x.db"],
        ["--address", "amqp://user:secret@127.0.0.1:1/", "--management", "ftp://user:secret@x"],
    ],
)
def test_an_audit_that_cannot_be_made_ends_with_2_and_shows_no_password(wrong: list[str]) -> None:
    done = run(*wrong)

    assert done.exit_code == 2
    assert done.stderr.startswith("fusewire audit: ")
    assert "secret" not in done.output
    assert "Traceback" not in done.output
