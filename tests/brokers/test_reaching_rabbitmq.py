"""Ways to a RabbitMQ: over TLS, to a virtual host of any name, to one of several nodes."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import trustme

from fusewire.audit import audit
from fusewire.brokers import Message, RabbitMQBroker, Topology, open_broker
from fusewire.brokers.rabbitmq import Layout
from fusewire.brokers.rabbitmq._addresses import addresses, virtual_host
from fusewire.errors import BrokerUnavailableError, SettingsError
from fusewire.testing.faults import FaultProxy
from tests.support.messages import drain, take
from tests.support.ports import reserve_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rabbitmq_managed import Managed, Tls, VirtualHost


@pytest.fixture
def tls(managed: Managed) -> Tls:
    if managed.tls is None:
        pytest.skip("the RabbitMQ that the environment names need not speak TLS")
    return managed.tls


def amqps(tls: Tls, host: VirtualHost, query: str = "") -> str:
    return f"amqps://guest:guest@127.0.0.1:{tls.amqp_port}/{host.path}{query}"


async def store_and_take(broker: RabbitMQBroker) -> None:
    await broker.create_queue("orders")
    await broker.publish("orders", Message(body=b"kept"))
    [message] = await drain(broker, "orders", 1)
    assert message.body == b"kept"


async def test_an_authority_may_be_named_in_the_address(
    tls: Tls, virtual_host: VirtualHost
) -> None:
    broker = open_broker(amqps(tls, virtual_host, f"?cafile={tls.authority}"))
    assert isinstance(broker, RabbitMQBroker)
    async with broker:
        await store_and_take(broker)


async def test_tls_settings_may_be_given_as_a_context(tls: Tls, virtual_host: VirtualHost) -> None:
    context = ssl.create_default_context(cafile=str(tls.authority))
    async with RabbitMQBroker(amqps(tls, virtual_host), ssl_context=context) as broker:
        await store_and_take(broker)


@pytest.mark.parametrize("authority", ["the system's", "another"])
async def test_a_server_that_nobody_vouches_for_is_refused(
    tls: Tls, virtual_host: VirtualHost, tmp_path: Path, authority: str
) -> None:
    query = ""
    if authority == "another":
        trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
        query = f"?cafile={tmp_path / 'another.pem'}"
    with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        async with RabbitMQBroker(amqps(tls, virtual_host, query)):
            pass


async def test_a_certificate_file_that_is_not_there_is_reported(
    tls: Tls, virtual_host: VirtualHost
) -> None:
    with pytest.raises(BrokerUnavailableError, match="No such file"):
        async with RabbitMQBroker(amqps(tls, virtual_host, "?cafile=/nowhere.pem")):
            pass


@pytest.mark.parametrize("name", ["a/b/c", "100%", "größe", "q?x=1#y", "a&b;c,d"])
async def test_a_virtual_host_may_have_any_name(managed: Managed, name: str) -> None:
    with managed.virtual_host(name) as host:
        async with RabbitMQBroker(host.url, management=managed.management) as broker:
            assert broker._consuming.virtual_host == host.name
            await store_and_take(broker)
            await broker.prepare(Topology("orders"))
            audited = await audit(broker, Topology("orders"))
            assert [finding.subject for finding in audited] == ["consumer_timeout"]


async def test_a_virtual_host_that_is_not_there_is_reported(managed: Managed) -> None:
    with pytest.raises(BrokerUnavailableError, match=r"check.*the virtual host"):
        async with RabbitMQBroker(f"{managed.amqp}/nowhere"):
            pass


async def test_a_queue_may_have_any_name_that_the_client_writes(
    virtual_host: VirtualHost,
) -> None:
    topology = Topology("orders/eu-1 @#,+.:_", ("/pay.v1.Pay/Charge", "größe % *"), (0.1,))
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue(topology.source)
        await broker.prepare(topology)
        for queue in (*Layout(topology).derived, topology.source):
            await broker.publish(queue, Message(body=b"kept"))
        for lane in topology.lanes:
            [parked] = await drain(broker, topology.parked(lane), 1)
            assert parked.body == b"kept"
        await drain(broker, topology.source, 2)  # with the delayed one


async def test_the_next_node_is_taken_where_one_does_not_answer(
    virtual_host: VirtualHost,
) -> None:
    nobody = f"amqp://guest:guest@127.0.0.1:{reserve_port()}/{virtual_host.path}"
    broker = open_broker(f"{nobody}, {virtual_host.url}")
    assert isinstance(broker, RabbitMQBroker)
    async with broker:
        await store_and_take(broker)


async def test_a_connection_that_is_lost_is_made_again_with_another_node(
    virtual_host: VirtualHost,
) -> None:
    there = urlsplit(virtual_host.url)
    assert there.hostname
    assert there.port
    async with (
        FaultProxy(there.hostname, there.port) as first,
        FaultProxy(there.hostname, there.port) as second,
    ):
        address = ",".join(
            virtual_host.url.replace(f":{there.port}/", f":{proxy.port}/")
            for proxy in (first, second)
        )
        async with RabbitMQBroker(address) as broker:
            await broker.create_queue("orders")
            subscription = await broker.subscribe("orders", prefetch=1)
            assert (first.connections, second.connections) == (2, 0)
            first.refuse()
            with pytest.raises(BrokerUnavailableError):
                await asyncio.wait_for(subscription.receive(), 10)
            await subscription.release()
            await until(lambda: first.connections == 0)
            await broker.publish("orders", Message(body=b"x"))
            subscription = await broker.subscribe("orders", prefetch=1)
            [delivery] = await take(subscription, 1)
            await delivery.done()
            await subscription.release()
            assert (first.connections, second.connections) == (0, 2)


async def test_where_no_node_answers_each_is_reported_without_its_password() -> None:
    ports = [reserve_port(), reserve_port()]
    address = ",".join(f"amqp://user:secret@127.0.0.1:{port}/" for port in ports)
    with pytest.raises(BrokerUnavailableError) as caught:
        async with RabbitMQBroker(address):
            pass
    assert all(f"127.0.0.1:{port}" in str(caught.value) for port in ports)
    assert "secret" not in str(caught.value)


def test_a_comma_in_a_password_parts_nothing() -> None:
    [only] = addresses("amqp://user:a,b@host/shop")

    assert (only.password, virtual_host(only)) == ("a,b", "shop")


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("amqp://a/shop,amqp://b/", "got the virtual hosts '/', 'shop'"),
        ("amqp://", "must name a host"),
    ],
)
def test_addresses_that_cannot_be_of_one_cluster_are_refused(address: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        RabbitMQBroker(address)
