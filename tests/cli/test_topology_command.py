"""``fusewire topology``: what it prints can be made, and is enough."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from fusewire import BreakerRegistry, ParkedCalls, ParkingConsumer
from fusewire.brokers import Message, RabbitMQBroker
from fusewire.brokers.rabbitmq import Layout
from fusewire.cli._app import app
from fusewire.parking import RetryPolicy
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.rabbitmq_managed import VirtualHost

LANE = "/payments.v1.Payments/Charge"


def printed(*options: str, queue: str = "orders") -> str:
    done = CliRunner().invoke(app, ["topology", "--queue", queue, *options], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def as_json(*options: str, queue: str = "orders") -> Any:
    return json.loads(printed("--format", "json", *options, queue=queue))


def commands(text: str, name: str) -> list[list[str]]:
    """Return the arguments of the printed rabbitmqctl commands of this name."""
    lines = [shlex.split(line) for line in text.splitlines() if "rabbitmqctl" in line]
    return [line[2:] for line in lines if line[1] == name]


@pytest.mark.parametrize("exchange", ["", "parking lot"])
async def test_what_it_prints_can_be_imported_and_then_a_consumer_needs_to_make_nothing(
    virtual_host: VirtualHost, exchange: str
) -> None:
    url = virtual_host.user("^$", "^$", "^$")
    async with RabbitMQBroker(virtual_host.url) as administrator:
        await administrator.create_queue("orders")
        virtual_host.definitions(
            as_json(
                *("--lane", LANE, "--delay-tier", "0.1", "--exchange", exchange),
                *("--vhost", virtual_host.name, "--user", virtual_host.users[0]),
                *("--rabbitmq", "3.10"),
            )
        )
        tried: list[bytes] = []

        async def handler(message: Any) -> None:
            tried.append(message.body)
            if len(tried) == 1:
                raise ValueError("the first attempt is delayed")

        registry = BreakerRegistry()
        registry.get(LANE).force_open()
        consumer = ParkingConsumer(
            url,
            queue="orders",
            handler=handler,
            depends_on=LANE,
            registry=registry,
            retry=RetryPolicy(delays=(0.1,)),
            exchange=exchange,
        )
        async with consumer:
            running = asyncio.create_task(consumer.run())
            await administrator.publish("orders", Message(body=b"x", message_id="x"))
            parked = consumer.topology.parked(LANE)

            async def is_parked() -> bool:
                return await administrator.depth(parked) == 1

            await until(is_parked)
            registry.get(LANE).reset()
            await until(lambda: tried == [b"x", b"x"])
            consumer.stop()
            await asyncio.wait_for(running, 40)


async def test_parked_calls_find_their_own_queue_made_too(virtual_host: VirtualHost) -> None:
    url = virtual_host.user("^$", "^$", "^$")
    virtual_host.definitions(
        as_json(
            *("--calls", "--vhost", virtual_host.name, "--user", virtual_host.users[0]),
            *("--rabbitmq", "3.10"),
            queue="charges",
        )
    )
    async with ParkedCalls(url, queue="charges"):
        pass


def test_the_consumer_and_the_command_mean_the_same_queues() -> None:
    consumer = ParkingConsumer("amqp://x", queue="orders", handler=print, depends_on=LANE)

    names = [queue["name"] for queue in as_json("--lane", LANE)["queues"]]

    assert names == list(Layout(consumer.topology).derived)


def test_the_arguments_are_those_of_the_version() -> None:
    def limits(version: str) -> list[Any]:
        queues = as_json("--rabbitmq", version)["queues"]
        return [queue["arguments"].get("x-delivery-limit") for queue in queues]

    assert set(limits("3.10")) == set(limits("3.13.7")) == {None}
    assert limits("4.x") == limits("4.2.1") == [-1, None, None, None, None, None, -1]


def test_single_lanes_have_one_active_consumer() -> None:
    lane, *_ = as_json("--single")["queues"]

    assert lane["arguments"]["x-single-active-consumer"] is True


def test_the_text_has_commands_that_can_be_copied() -> None:
    text = printed("--lane", "pay [v1]", "--exchange", "parking", "--vhost", "shop's")

    made_before, declares = commands(text, "set_permissions")
    marks = r"^(orders\.lone\..+)$"
    assert made_before[:4] == ["-p", "shop's", "USER", marks]
    assert "orders\\.delay\\.1000" in declares[3]
    for policy in commands(text, "set_policy"):
        assert json.loads(policy[4])["delivery-limit"] == -1
    assert "orders.parked.pay#20#5Bv1#5D" in text


async def test_the_policies_are_taken_by_rabbitmq(virtual_host: VirtualHost) -> None:
    overview = virtual_host.managed.api("GET", "overview")
    for policy in commands(printed("--rabbitmq", overview["rabbitmq_version"]), "set_policy"):
        _, _, _, pattern, definition, _, apply_to = policy
        assert apply_to == "queues"
        virtual_host.policy(pattern, **json.loads(definition))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rabbitmq", "3.9"], "3.10"),
        (["--rabbitmq", "newest"], "newest"),
        (["--delay-tier", "0"], "delays must be"),
        (["--lane", ""], "lanes"),
    ],
)
def test_what_cannot_be_right_is_reported_and_the_status_says_so(
    options: list[str], named: str
) -> None:
    done = CliRunner().invoke(app, ["topology", "--queue", "orders", *options])

    assert done.exit_code == 2
    assert named in done.stderr
