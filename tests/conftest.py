"""What every test gets: the event loop, a RabbitMQ, names of its own."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import secrets
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from aio_pika.exceptions import AMQPError

from fusewire.brokers.rabbitmq import Layout
from fusewire.brokers.topology import Topology
from tests.support import leftovers, stuck
from tests.support.amqp import connect
from tests.support.payments import PaymentsProcess
from tests.support.postgres import NoPostgresError, Postgres, SharedPostgres
from tests.support.processes import close_reaper
from tests.support.rabbitmq import NoRabbitMQError, OwnRabbitMQ, RabbitMQ
from tests.support.rabbitmq_choice import BROKER, Broker
from tests.support.rabbitmq_managed import Managed, VirtualHost, managed_rabbitmq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from xdist.workermanage import WorkerController  # type: ignore[import-untyped]  # has none


# A busy machine is slow, which is no failure of what is tested.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

_SHARED = "rabbitmq"
_SHARED_POSTGRES = "postgres"
_POSTGRES = pytest.StashKey[SharedPostgres]()


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script's shell starts what it runs in the background so, and children inherit it: the
        # programs that tests interrupt would not end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    given = getattr(config, "workerinput", {})
    if given:
        stuck.keep_stderr(config)
    config.stash[BROKER] = Broker(shared=given.get(_SHARED))
    config.stash[_POSTGRES] = SharedPostgres(given.get(_SHARED_POSTGRES))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Start the servers that pytest-xdist's workers share; the hook of each worker's start."""
    broker = node.config.stash[BROKER]
    with contextlib.suppress(NoRabbitMQError):  # the workers look for one themselves, and say so
        node.workerinput[_SHARED] = broker.get().url
    with contextlib.suppress(NoPostgresError):
        node.workerinput[_SHARED_POSTGRES] = node.config.stash[_POSTGRES].get().url


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable(
    config: pytest.Config,
) -> Generator[None, object, object]:
    """Escape what pytest-xdist's workers cannot send: it takes no unpaired surrogates."""
    data = yield
    return _encodable(data) if hasattr(config, "workerinput") else data


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _encodable(one) for key, one in value.items()}
        case list():
            return [_encodable(one) for one in value]
        case tuple():
            return tuple(_encodable(one) for one in value)
    return value


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Find or start the RabbitMQ now if a test needs it: that may take longer than a test may."""
    needed = any("rabbitmq" in getattr(item, "fixturenames", ()) for item in session.items)
    if not needed or session.config.option.collectonly:
        return
    broker = session.config.stash[BROKER]
    with contextlib.suppress(NoRabbitMQError):  # each test that needs it says so itself
        broker.get()
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        for line in (*broker.remarks, broker.describe()):
            terminal.write_line(line)


pytest_runtestloop = leftovers.pytest_runtestloop
pytest_runtest_setup = leftovers.pytest_runtest_setup
pytest_runtest_teardown = leftovers.pytest_runtest_teardown
pytest_timeout_set_timer = stuck.pytest_timeout_set_timer


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if line := config.stash[BROKER].describe():
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[BROKER].close()
    config.stash[_POSTGRES].close()
    close_reaper()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: grpc.aio and aio-pika know no other loop."""
    return "asyncio"


_SLOW = ("faults", "demo", "parking", "forwarding", "brokers", "audit")
"""Folders whose tests mostly wait. They come first: a worker that begins them late ends late."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have all async tests use `_one_loop`. Autouse would make anyio take up the others too."""
    tests = Path(__file__).parent
    items.sort(
        key=lambda item: (
            item.path.is_relative_to(tests) and item.path.relative_to(tests).parts[0] not in _SLOW
        )
    )
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "_one_loop")


@pytest.fixture(scope="session")
async def _one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Run all async tests on one event loop.

    grpcio has one completion queue for all loops of a process: the last event of a call that a test
    cancelled may come when that test's loop is closed, and then raises in another test.
    """
    yield  # noqa: PT022 - a generator: anyio keeps the loop while there is something to end


@pytest.fixture(scope="session")
def rabbitmq(pytestconfig: pytest.Config) -> RabbitMQ:
    """Provide the RabbitMQ that all tests share. None may kill it or change its settings."""
    return pytestconfig.stash[BROKER].get()


@pytest.fixture
def amqp_url(rabbitmq: RabbitMQ) -> str:
    """Provide the AMQP URL of the shared RabbitMQ."""
    return rabbitmq.url


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Postgres:
    """Provide the PostgreSQL that all tests share. None may kill it or change its settings."""
    return pytestconfig.stash[_POSTGRES].get()


@pytest.fixture(scope="module")
def _module_rabbitmq(pytestconfig: pytest.Config) -> Iterator[OwnRabbitMQ]:
    try:
        another = pytestconfig.stash[BROKER].start_another()
    except NoRabbitMQError as error:
        pytest.skip(f"needs a RabbitMQ that a test may kill: {error}")
    with contextlib.closing(another):
        yield another


@pytest.fixture
def private_rabbitmq(_module_rabbitmq: OwnRabbitMQ) -> OwnRabbitMQ:
    """Provide a RabbitMQ that a test may kill, stop, pause and start; its module's own, running."""
    _module_rabbitmq.start()
    return _module_rabbitmq


@pytest.fixture(scope="session")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    """Provide a RabbitMQ with its management API. Tests keep to virtual hosts of their own."""
    try:
        with managed_rabbitmq(tmp_path_factory.mktemp("managed")) as found:
            yield found
    except NoRabbitMQError as error:
        pytest.skip(f"needs a RabbitMQ with its management API: {error}")


@pytest.fixture
def virtual_host(managed: Managed) -> Iterator[VirtualHost]:
    """Provide a virtual host of the test's own, with a space in its name."""
    with managed.virtual_host() as host:
        yield host


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    """Provide the demo's payments server, running, as a process that a test may kill."""
    server = PaymentsProcess(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def forget_queue(rabbitmq: RabbitMQ) -> Iterator[Callable[[str], None]]:
    """Provide a function that takes the name of a queue to delete after the test, if it exists."""
    names: list[str] = []
    yield names.append
    if names:
        _delete_queues(rabbitmq.url, names)


@pytest.fixture
def queue_name(forget_queue: Callable[[str], None]) -> str:
    """Provide a queue name that no other test has.

    The queue, and its dead, delay and ``other`` lane's queues, are deleted after the test. Further
    lanes are named to `forget_queue`, or left, and go with the broker where that is the tests' own.
    """
    name = f"test-{secrets.token_hex(5)}"
    for queue in (name, *Layout(Topology(name)).derived):
        forget_queue(queue)
    return name


def _delete_queues(url: str, names: list[str]) -> None:
    """Delete the queues that exist; the broker takes the deletion of one that does not as done."""

    async def delete() -> None:
        async with asyncio.timeout(30):
            connection = await connect(url)
            async with connection, connection.channel() as channel:
                for name in names:
                    await channel.queue_delete(name)

    def run() -> None:
        # A test that killed its broker leaves nothing to delete.
        with contextlib.suppress(AMQPError, OSError):
            asyncio.run(delete())

    # In a thread: the event loop of an async test belongs to the thread that runs the tests.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
