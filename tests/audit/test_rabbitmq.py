"""The audit asks a real RabbitMQ, and only it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from fusewire.audit import Finding, Severity, audit
from fusewire.brokers import RabbitMQBroker, SQLiteBroker, Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.errors import (
    BrokerError,
    BrokerUnavailableError,
    MoveRefusedError,
    SettingsError,
)
from tests.support.messages import drain, number_of, publish_numbered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.rabbitmq_managed import Managed, VirtualHost

TOPOLOGY = Topology("orders 1+2", ("pay (v1)",), (1.0,), options={"exchange": "parking"})
LAYOUT = Layout(TOPOLOGY)


async def audited(
    host: VirtualHost, topology: Topology = TOPOLOGY, **options: Any
) -> list[Finding]:
    options = {"management": host.managed.management, **options}
    async with RabbitMQBroker(host.url, **options) as broker:
        return [
            finding
            for finding in await audit(broker, topology)
            if finding.subject != "consumer_timeout"
        ]


def anonymous(host: VirtualHost) -> str:
    """Return the management URL without a user: the AMQP address's is asked as."""
    return host.managed.management.replace("guest:guest@", "")


async def prepare(host: VirtualHost, topology: Topology = TOPOLOGY) -> None:
    async with RabbitMQBroker(host.url) as broker:
        await broker.create_queue(topology.source)
        await broker.prepare(topology)


@pytest.mark.parametrize("exchange", ["", "parking"])
@pytest.mark.parametrize("single", [False, True])
async def test_what_fusewire_makes_is_found_safe(
    virtual_host: VirtualHost,
    exchange: str,
    single: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    topology = Topology(
        "orders", ("pay (v1)",), (1.0,), single=single, options={"exchange": exchange}
    )
    await prepare(virtual_host, topology)

    assert await audited(virtual_host, topology) == []


async def test_policies_are_seen_at_once_those_of_operators_too(
    virtual_host: VirtualHost,
) -> None:
    await prepare(virtual_host)
    virtual_host.policy(r"\.dead$", message_ttl=5000)
    virtual_host.policy(r"\.dead$", operator=True, message_ttl=4000)
    virtual_host.policy(r"^parking$", apply_to="exchanges", alternate_exchange="elsewhere")

    found = await audited(virtual_host)

    assert [(finding.severity, finding.what) for finding in found] == [
        (Severity.LOSS, "has a message TTL of 4000 ms"),
        (Severity.LOSS, "has an alternate exchange, 'elsewhere'"),
    ]


async def test_a_policy_that_drops_parked_messages_is_found_though_their_queue_was_made_to_refuse(
    virtual_host: VirtualHost,
) -> None:
    await prepare(virtual_host)
    parked = TOPOLOGY.parked("other")
    virtual_host.policy(r"\.parked\.other$", max_length=2, overflow="drop-head")

    async with RabbitMQBroker(virtual_host.url) as broker:
        await publish_numbered(broker, parked, range(5))
        left = await drain(broker, parked, 2)

    assert [number_of(message) for message in left] == [3, 4]  # the trap: the others are gone
    [finding] = await audited(virtual_host)
    assert (finding.severity, finding.subject) == (Severity.LOSS, LAYOUT.parked("other"))
    assert finding.what == "has max-length 2 and overflow drop-head"


async def test_a_policy_that_refuses_is_found_safe_though_the_queue_was_made_to_drop(
    virtual_host: VirtualHost,
) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue(TOPOLOGY.source)
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-overflow": "drop-head"}
    async with RabbitMQBroker(virtual_host.url) as broker:
        if await broker._consuming.version() >= (4, 0):
            arguments["x-delivery-limit"] = -1
    connection = await aio_pika.connect(virtual_host.url)
    async with connection, connection.channel() as channel:
        await channel.declare_queue(LAYOUT.dead, durable=True, arguments=arguments)
    await prepare(virtual_host)
    virtual_host.policy(r"\.dead$", max_length=2, overflow="reject-publish")

    async with RabbitMQBroker(virtual_host.url) as broker:
        publishing = publish_numbered(broker, TOPOLOGY.dead, range(20))
        with pytest.raises(MoveRefusedError):  # of the third, or of one soon after
            await publishing
        [oldest] = await broker.peek(TOPOLOGY.dead, limit=1)

    assert number_of(oldest) == 0
    assert await audited(virtual_host) == []


async def test_queues_made_otherwise_are_seen_for_what_they_are(
    virtual_host: VirtualHost,
) -> None:
    connection = await aio_pika.connect(virtual_host.url)
    async with connection, connection.channel() as channel:
        await channel.declare_queue(TOPOLOGY.source, durable=True)
        await channel.declare_queue(LAYOUT.dead, durable=True, arguments={"x-expires": 99999})
        await channel.declare_exchange("parking", "topic")
        delay: dict[str, Any] = {"x-queue-type": "quorum", "x-message-ttl": 1000}
        await channel.declare_queue(LAYOUT.delay(1.0), durable=True, arguments=delay)

    found = {(finding.subject, finding.what) for finding in await audited(virtual_host)}

    assert found >= {
        (TOPOLOGY.source, "is a classic queue"),
        (LAYOUT.dead, "is a classic queue"),
        (LAYOUT.dead, "is deleted after 99999 ms without a consumer"),
        (LAYOUT.delay(1.0), "dead-letters to nowhere"),
        (LAYOUT.parked("other"), "is absent"),
        ("parking", "is a topic exchange, not a direct one"),
        (TOPOLOGY.source, "is not bound to exchange 'parking' by its name"),
    }


async def test_the_default_delivery_limit_of_version_4_is_found_and_its_remedy_lifts_it(
    virtual_host: VirtualHost,
) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        version = await broker._consuming.version()
    if version < (4, 0):
        pytest.skip(f"RabbitMQ {version} has no default delivery limit")
    connection = await aio_pika.connect(virtual_host.url)
    async with connection, connection.channel() as channel:
        quorum: dict[str, Any] = {"x-queue-type": "quorum"}
        await channel.declare_queue(TOPOLOGY.source, durable=True, arguments=quorum)
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.prepare(TOPOLOGY)

    [finding] = await audited(virtual_host)
    assert finding.what == "has a delivery limit of 20, by default"
    assert '{"delivery-limit": -1}' in finding.remedy

    virtual_host.policy(r"^orders 1\+2$", delivery_limit=-1)
    assert await audited(virtual_host) == []


async def test_without_the_api_only_what_is_absent_is_seen(virtual_host: VirtualHost) -> None:
    async with RabbitMQBroker(virtual_host.url) as broker:
        await broker.create_queue(TOPOLOGY.source)

    found = await audited(virtual_host, management=None)

    absent = {finding.subject for finding in found if finding.what == "is absent"}
    assert absent == set(LAYOUT.derived)
    assert {f.severity for f in found} == {Severity.WARNING, Severity.UNCHECKED}


async def test_the_address_may_come_from_the_environment(
    virtual_host: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(virtual_host)
    monkeypatch.setenv("FUSEWIRE_MANAGEMENT_URL", virtual_host.managed.management)

    assert await audited(virtual_host, management=None) == []


async def test_the_api_is_asked_over_tls_with_the_authority_that_is_named(
    virtual_host: VirtualHost, managed: Managed
) -> None:
    if managed.tls is None:
        pytest.skip("the RabbitMQ that the environment names need not speak TLS")
    await prepare(virtual_host)
    url = f"https://127.0.0.1:{managed.tls.management_port}"

    assert await audited(virtual_host, management=f"{url}?cafile={managed.tls.authority}") == []
    with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await audited(virtual_host, management=url)


async def test_a_user_who_may_list_no_policies_is_told_what_was_not_seen(
    virtual_host: VirtualHost,
) -> None:
    await prepare(virtual_host)
    virtual_host.policy(r"\.dead$", message_ttl=5000)
    address = virtual_host.user("^$", "^$", "^$", tags="management")

    async with RabbitMQBroker(address, management=anonymous(virtual_host)) as broker:
        found = {(finding.severity, finding.subject) for finding in await audit(broker, TOPOLOGY)}

    # RabbitMQ 4 lets it list them.
    assert (Severity.UNCHECKED, "policies") in found or (Severity.LOSS, LAYOUT.dead) in found


@pytest.mark.parametrize("tags", ["", "policymaker"])
async def test_a_user_who_may_not_ask_is_told_what_it_takes(
    virtual_host: VirtualHost, tags: str
) -> None:
    await prepare(virtual_host)
    address = virtual_host.user("^$", "^$", "^$", tags=tags)

    async with RabbitMQBroker(address, management=anonymous(virtual_host)) as broker:
        if tags:  # the user of the AMQP address
            found = [finding.subject for finding in await audit(broker, TOPOLOGY)]
            # RabbitMQ 3 lets administrators only see the feature flags.
            assert found in (["consumer_timeout"], ["feature flags", "consumer_timeout"])
        else:
            with pytest.raises(BrokerError, match="tag `management`") as caught:
                await audit(broker, TOPOLOGY)
            assert "user-" not in str(caught.value)


@contextmanager
def web_server(answer: Any) -> Iterator[tuple[int, list[str]]]:
    """Serve `answer`, a function of the handler; give the port, and the paths that were asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.end_headers()


def welcome(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"<html>Welcome</html>")


def flood(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(64):
            handler.wfile.write(b"[" * 2**20)
    except OSError:
        pass  # the other side has had enough


@pytest.mark.parametrize(
    ("answer", "named"), [(redirect, "302"), (welcome, "no JSON"), (flood, "8388608 bytes or more")]
)
async def test_what_is_no_management_api_is_reported(
    virtual_host: VirtualHost, answer: Any, named: str
) -> None:
    with web_server(answer) as (port, asked):
        management = f"http://someone:secret@127.0.0.1:{port}/prefix/"
        with pytest.raises(BrokerError, match=named) as caught:
            await audited(virtual_host, management=management)
    assert len(asked) == 1
    assert asked[0].startswith("/prefix/api/policies/fusewire%20")
    assert "secret" not in str(caught.value)


async def test_an_api_that_does_not_answer_is_given_up(virtual_host: VirtualHost) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    over = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    management = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        with pytest.raises(BrokerUnavailableError, match="cannot be asked"):
            await audited(virtual_host, management=management, timeout=0.5)
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("amqp://user:secret@x", "http:// or https://"),
        ("http://", "http:// or https://"),
        ("http://user:secret@x:port", "must be a URL"),
        ("https://user:secret@x?cafile=/nowhere.pem", "cafile of .* got '/nowhere.pem'"),
    ],
)
def test_a_wrong_address_is_reported_without_the_password(url: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        RabbitMQBroker("amqp://x", management=url)
    assert "secret" not in str(caught.value)


async def test_there_is_nothing_to_find_on_sqlite(tmp_path: Path) -> None:
    async with SQLiteBroker(tmp_path / "x.db") as broker:
        assert list(await audit(broker, TOPOLOGY)) == []
