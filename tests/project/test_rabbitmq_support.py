"""The RabbitMQ that the tests use is there, is theirs alone, and goes when they go."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from tests.support import rabbitmq_choice, rabbitmq_node
from tests.support.amqp import connect
from tests.support.processes import KeptProcess, is_gone
from tests.support.rabbitmq import (
    URL_VARIABLE,
    GivenRabbitMQ,
    NoRabbitMQError,
    OwnRabbitMQ,
    RabbitMQ,
    server_version,
)
from tests.support.rabbitmq_choice import Broker
from tests.support.waiting import until_sync

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}


def loopback_only(pid: int) -> bool:
    """Return whether all listening TCP sockets of the process are bound to the loopback."""
    targets = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed since
            targets.append(str(entry.readlink()))
    sockets = {target[8:-1] for target in targets if target.startswith("socket:[")}
    addresses = [
        fields[1].partition(":")[0]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[9] in sockets  # 0A: listening
    ]
    loopback = {"0100007F", "00000000000000000000000001000000"}
    return bool(addresses) and set(addresses) <= loopback


async def test_a_quorum_queue_can_be_used_on_the_shared_broker(
    amqp_url: str, queue_name: str
) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(queue_name, durable=True, arguments=QUORUM)
        await channel.default_exchange.publish(aio_pika.Message(b"kept"), queue_name)
        message = await queue.get(timeout=10)
        await message.ack()
    assert message.body == b"kept"


def test_the_version_is_the_one_that_the_server_names(rabbitmq: RabbitMQ) -> None:
    assert rabbitmq.version == server_version(rabbitmq.url)
    assert int(rabbitmq.version.split(".")[0]) >= 3


async def test_a_queue_is_deleted_after_its_test(
    pytester: pytest.Pytester, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await inner_queue(pytester, monkeypatch, rabbitmq.url)
    async with await aio_pika.connect(rabbitmq.url) as connection:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue(name, passive=True)


async def inner_queue(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """Run a test of its own that declares a queue at `url`, and return the queue's name."""
    monkeypatch.setenv(URL_VARIABLE, url)
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    pytester.makepyfile("""
        import aio_pika, pathlib
        async def test_it(amqp_url, queue_name):
            async with await aio_pika.connect(amqp_url) as connection:
                channel = await connection.channel()
                await channel.declare_queue(queue_name, durable=True)
            pathlib.Path("name").write_text(queue_name)
    """)
    result = pytester.runpytest_subprocess("-p", "anyio", "-o", "anyio_mode=auto")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"RabbitMQ * from {URL_VARIABLE}"])
    return (pytester.path / "name").read_text()


async def test_a_killed_broker_comes_back_at_its_url_with_its_messages(
    private_rabbitmq: OwnRabbitMQ,
) -> None:
    url = private_rabbitmq.url
    async with await connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments=QUORUM)
    private_rabbitmq.stop()  # see OwnRabbitMQ.kill
    private_rabbitmq.start()
    connection = await connect(url)
    channel = await connection.channel()
    message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, "kept")
    private_rabbitmq.kill()
    with pytest.raises(OSError, match=r"refused|closed|reset"):
        server_version(url)
    with contextlib.suppress(aio_pika.exceptions.AMQPError):
        await connection.close()
    private_rabbitmq.start()
    assert private_rabbitmq.url == url
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept", ensure=False)
        assert (await queue.get(timeout=10)).body == b"kept"


def test_a_paused_broker_holds_connections_and_answers_nothing(
    private_rabbitmq: OwnRabbitMQ,
) -> None:
    private_rabbitmq.pause()
    try:
        with pytest.raises(TimeoutError):
            server_version(private_rabbitmq.url, timeout=0.3)
    finally:
        private_rabbitmq.resume()
    assert server_version(private_rabbitmq.url) == private_rabbitmq.version


def test_the_broker_of_a_module_can_be_commanded(private_rabbitmq: OwnRabbitMQ) -> None:
    assert private_rabbitmq.version in private_rabbitmq.ctl("version")
    with pytest.raises(RuntimeError, match="no_such_command"):
        private_rabbitmq.ctl("no_such_command")


def test_a_private_node_listens_on_loopback_only(private_rabbitmq: OwnRabbitMQ) -> None:
    if not isinstance(private_rabbitmq, rabbitmq_node.PrivateNode):
        pytest.skip("the engine binds a container's ports")
    assert all(loopback_only(pid) for pid in private_rabbitmq.pids)


def test_a_private_node_ends_when_the_test_run_is_killed(tmp_path: Path) -> None:
    if rabbitmq_node.find_server() is None:
        pytest.skip("rabbitmq-server is not installed, because a container is used")
    test = tmp_path / "test_it.py"
    test.write_text(
        "import time\n"
        "def test_it(rabbitmq, pytestconfig):\n"
        f"    with open({str(tmp_path / 'said')!r}, 'w') as said:\n"
        "        said.write(' '.join(map(str, (*rabbitmq.pids, rabbitmq.directory))) + '\\n')\n"
        "    time.sleep(60)\n"
    )
    tests = Path(__file__).parents[1]
    (tmp_path / "conftest.py").write_text((tests / "conftest.py").read_text())
    run = KeptProcess(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test],
        env={
            **{key: value for key, value in os.environ.items() if key != URL_VARIABLE},
            "PYTHONPATH": str(tests.parent),
            "DOCKER_HOST": "tcp://127.0.0.1:1",  # where no engine answers
        },
        cwd=tmp_path,
        log=tmp_path / "log",
    )
    said = tmp_path / "said"
    until_sync(lambda: said.exists() and said.read_text().endswith("\n"), limit=60)
    *pids, directory = said.read_text().split()
    assert not any(is_gone(int(pid)) for pid in pids)
    run.send_alone(signal.SIGKILL)
    until_sync(lambda: all(is_gone(int(pid)) for pid in pids) and not Path(directory).exists())
    run.wait(10)


def test_two_nodes_side_by_side_do_not_meet(private_rabbitmq: OwnRabbitMQ) -> None:
    if not isinstance(private_rabbitmq, rabbitmq_node.PrivateNode):
        pytest.skip("containers are apart by nature")
    with_its_own = rabbitmq_node.PrivateNode()
    try:
        private_rabbitmq.ctl("add_vhost", "mine")
        assert "mine" in private_rabbitmq.ctl("list_vhosts")
        assert "mine" not in with_its_own.ctl("list_vhosts")
    finally:
        with_its_own.close()


def test_without_any_way_to_a_broker_the_three_ways_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.setattr(rabbitmq_choice, "docker_answers", lambda: False)
    monkeypatch.setattr(rabbitmq_choice, "find_server", lambda: None)
    monkeypatch.setattr(rabbitmq_choice, "can_install", lambda: False)
    broker = Broker()
    with pytest.raises(NoRabbitMQError) as raised:
        broker.get()
    for way in (URL_VARIABLE, "Docker engine", "apt-get install rabbitmq-server"):
        assert way in str(raised.value)
    assert broker.describe().startswith("RabbitMQ: none")


def test_an_image_that_cannot_be_had_leads_to_a_private_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot() -> None:
        raise NoRabbitMQError("the image cannot be had: no network")

    node = object()
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.setattr(rabbitmq_choice, "docker_answers", lambda: True)
    monkeypatch.setattr(rabbitmq_choice, "have_image", cannot)
    monkeypatch.setattr(rabbitmq_choice, "start_private_node", lambda: node)
    broker = Broker()
    assert broker.get() is node
    assert "no network" in broker.remarks[0]


def test_an_address_where_nothing_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoRabbitMQError, match=rf"{URL_VARIABLE}.*127\.0\.0\.1:1"):
        GivenRabbitMQ("amqp://127.0.0.1:1/")
