"""An exchange of the user's choice, and how few permissions an application can do with."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import TYPE_CHECKING

import pytest

from fusewire import ParkedCalls
from fusewire.audit import Permissions, definitions, permissions
from fusewire.brokers import Message, RabbitMQBroker, Topology
from fusewire.brokers._names import mark_name
from fusewire.brokers.rabbitmq import Layout
from fusewire.errors import BrokerError, MoveRefusedError, SettingsError, UnconfirmedError
from fusewire.parking import RetryPolicy
from tests.support.messages import drain, take, until_depth
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.rabbitmq_managed import Managed, VirtualHost

BOTH = pytest.mark.parametrize(
    "topology",
    [
        Topology("orders 1+2", ("/pay.v1.Pay/Charge",), (0.1, 600.0), options={"exchange": name})
        for name in ("", "parking lot")
    ],
    ids=["default exchange", "exchange"],
)


async def make_source(host: VirtualHost, topology: Topology) -> None:
    async with RabbitMQBroker(host.url) as administrator:
        await administrator.create_queue(topology.source)


def user(host: VirtualHost, allowed: Permissions) -> str:
    return host.user(allowed.configure, allowed.write, allowed.read)


async def park_delay_and_put_aside(broker: RabbitMQBroker, topology: Topology) -> None:
    """Take a message of each through all the moves that a consumer makes."""
    await broker.publish(topology.parked("other"), Message(body=b"parked"))
    [parked] = await drain(broker, topology.parked("other"), 1)
    assert parked.body == b"parked"
    await broker.publish(topology.source, Message(body=b"delayed", routing_key="first"), delay=0.1)
    subscription = await broker.subscribe(topology.source, prefetch=1)
    [delayed] = await take(subscription, 1)
    assert (delayed.message.body, delayed.message.routing_key) == (b"delayed", "first")
    await delayed.move(topology.dead, delayed.message)
    await subscription.release()
    await until_depth(broker, topology.dead, 1)


@BOTH
async def test_the_printed_permissions_are_enough_to_declare_and_move(
    virtual_host: VirtualHost, topology: Topology
) -> None:
    await make_source(virtual_host, topology)
    url = user(virtual_host, permissions(topology, declares=True))
    async with RabbitMQBroker(url) as broker:
        await broker.prepare(topology)
        await park_delay_and_put_aside(broker, topology)


@BOTH
async def test_they_are_enough_to_make_the_source_queue_too(
    virtual_host: VirtualHost, topology: Topology
) -> None:
    url = user(virtual_host, permissions(topology, declares=True, makes_source=True))
    async with ParkedCalls(
        url,
        queue=topology.source,
        retry=RetryPolicy(delays=topology.delays),
        exchange=topology.options["exchange"],
    ) as calls:
        assert calls.topology.source == topology.source


@BOTH
async def test_where_all_was_imported_nothing_but_marks_may_be_configured(
    virtual_host: VirtualHost, topology: Topology
) -> None:
    url = user(virtual_host, permissions(topology))
    name = virtual_host.users[0]
    virtual_host.definitions(
        definitions(topology, (3, 10), virtual_host=virtual_host.name, with_source=True, user=name)
    )
    allowed = virtual_host.managed.api("GET", f"permissions/{virtual_host.path}/{name}")
    assert allowed["configure"] == permissions(topology).configure
    assert re.fullmatch(allowed["configure"], mark_name("orders 1+2", "0123.1"))
    assert not any(re.fullmatch(allowed["configure"], queue) for queue in Layout(topology).derived)
    async with RabbitMQBroker(url) as broker:
        await broker.prepare(topology)
        await park_delay_and_put_aside(broker, topology)
        await broker.mark("orders 1+2", "0123.1")
        assert await broker.is_marked("orders 1+2", "0123.1")
        await broker.unmark("orders 1+2", "0123.1")


@BOTH
async def test_without_the_permission_what_is_absent_is_told_with_what_to_do(
    virtual_host: VirtualHost, topology: Topology
) -> None:
    await make_source(virtual_host, topology)
    async with RabbitMQBroker(user(virtual_host, permissions(topology))) as broker:
        with pytest.raises(BrokerError, match=r"ACCESS_REFUSED.*fusewire topology"):
            await broker.prepare(topology)


@BOTH
@pytest.mark.parametrize("kind", ["configure", "write", "read"])
async def test_no_permission_is_printed_that_is_not_needed(
    managed: Managed, topology: Topology, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    topology = dataclasses.replace(topology, delays=(0.1,))
    allowed = permissions(topology, declares=True)
    names = getattr(allowed, kind)[2:-2].split("|")
    for left_out in names:
        others = [name for name in names if name != left_out]
        lacking = dataclasses.replace(allowed, **{kind: f"^({'|'.join(others)})$"})
        with managed.virtual_host() as another:
            await make_source(another, topology)
            caplog.clear()
            missed = False
            async with RabbitMQBroker(user(another, lacking)) as broker:
                try:
                    await broker.prepare(topology)
                    for station in topology.stations[:-1]:  # not the dead
                        await (await broker.subscribe(station, prefetch=1)).release()
                    await broker.publish(topology.dead, Message(body=b"x"))
                    await broker.mark("orders 1+2", "0123.1")
                except BrokerError:
                    missed = True
            assert missed or "does not let us bind" in caplog.text, left_out


async def test_an_exchange_spares_the_permission_to_write_to_every_queue(
    virtual_host: VirtualHost,
) -> None:
    topology = Topology("orders", options={"exchange": "parking"})
    await make_source(virtual_host, topology)
    url = user(virtual_host, permissions(topology, declares=True))
    async with RabbitMQBroker(url) as broker:
        await broker.prepare(topology)
        with pytest.raises(MoveRefusedError, match=r"not stored.*'amq\.default'"):
            await broker.publish("somebody else's", Message(body=b"x"))
        await broker.publish(topology.dead, Message(body=b"x"))


async def test_a_refused_publish_is_not_in_doubt_and_the_original_stays(
    virtual_host: VirtualHost,
) -> None:
    topology = Topology("orders")
    await make_source(virtual_host, topology)
    async with RabbitMQBroker(virtual_host.url) as administrator:
        await administrator.prepare(topology)
        await administrator.publish("orders", Message(body=b"x"))
        async with RabbitMQBroker(virtual_host.user("^$", "^$", ".*")) as broker:
            subscription = await broker.subscribe("orders", prefetch=1)
            [delivery] = await take(subscription, 1)
            with pytest.raises(MoveRefusedError, match=r"not stored.*write permission"):
                await delivery.move(topology.dead, delivery.message)
            assert not delivery.lost
            await subscription.release()
        await until_depth(administrator, "orders", 1)
        assert await administrator.depth(topology.dead) == 0


async def test_a_refusal_after_a_message_was_stored_leaves_those_in_flight_in_doubt(
    virtual_host: VirtualHost,
) -> None:
    # The broker asks once for a channel, unless its permissions expire, as those of tokens do.
    await make_source(virtual_host, Topology("orders"))
    async with RabbitMQBroker(virtual_host.user("^$", "^$", ".*")) as broker:
        publisher = await broker._publisher.open()
        publisher.permitted.add("")
        with pytest.raises(UnconfirmedError, match="may or may not be stored"):
            await broker.publish("orders", Message(body=b"x"))


async def test_a_queue_that_may_not_be_read_is_reported_with_the_permission(
    virtual_host: VirtualHost,
) -> None:
    await make_source(virtual_host, Topology("orders"))
    async with RabbitMQBroker(virtual_host.user(".*", ".*", "^$")) as broker:
        with pytest.raises(BrokerError, match="read permission"):
            await broker.subscribe("orders", prefetch=1)
        with pytest.raises(BrokerError, match="read permission"):
            await broker.peek("orders", limit=1)


async def test_a_missing_binding_refuses_the_move(
    virtual_host: VirtualHost, caplog: pytest.LogCaptureFixture
) -> None:
    topology = Topology("orders", options={"exchange": "parking"})
    given = definitions(topology, (3, 10), virtual_host=virtual_host.name, with_source=True)
    virtual_host.definitions({**given, "bindings": []})
    url = user(virtual_host, permissions(topology))
    async with RabbitMQBroker(url) as broker:
        with caplog.at_level(logging.INFO):
            await broker.prepare(topology)
        assert "taken for bound already" in caplog.text
        with pytest.raises(MoveRefusedError, match="bound to exchange 'parking'"):
            await broker.publish(topology.dead, Message(body=b"x"))


async def test_an_exchange_with_a_name_that_the_client_cannot_write_is_reported(
    virtual_host: VirtualHost,
) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        with pytest.raises(SettingsError, match=r"exchange must be .* got 'párking'"):
            await broker.prepare(Topology("orders", options={"exchange": "párking"}))


async def test_what_is_absent_is_made_and_bound_and_what_is_there_is_left(
    virtual_host: VirtualHost,
) -> None:
    topology = Topology("orders", options={"exchange": "parking"})
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue("orders")
        await broker.prepare(topology)
        await broker.prepare(topology)
    made = virtual_host.managed.api("GET", f"exchanges/{virtual_host.path}/parking")
    assert (made["type"], made["durable"]) == ("direct", True)

    def bound() -> bool:
        bindings = virtual_host.managed.api(
            "GET", f"exchanges/{virtual_host.path}/parking/bindings/source"
        )
        return {(b["destination"], b["routing_key"]) for b in bindings} == {
            (queue, queue) for queue in ("orders", *Layout(topology).derived)
        }

    await until(bound)
