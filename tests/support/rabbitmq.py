"""The RabbitMQ that the tests use: which one it is, and how to reach it.

One of three, the first that can be had:

1. the one at ``FUSEWIRE_TEST_AMQP_URL``;
2. a container of ``FUSEWIRE_TEST_RABBITMQ_IMAGE`` (``rabbitmq:4-management``), where a Docker
   engine answers and has, or can pull, the image;
3. a private ``rabbitmq-server`` process, installed from Debian's packages where it is missing, the
   tests run as root, and ``FUSEWIRE_TEST_INSTALL`` is not ``0``.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import pamqp.frame
from pamqp.commands import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

URL_VARIABLE = "FUSEWIRE_TEST_AMQP_URL"
IMAGE_VARIABLE = "FUSEWIRE_TEST_RABBITMQ_IMAGE"
OWN_VARIABLE = "FUSEWIRE_TEST_OWN_RABBITMQ"


class NoRabbitMQError(RuntimeError):
    """None of the ways to a RabbitMQ is open. The message says what to do."""


class RabbitMQ(Protocol):
    """A RabbitMQ for tests."""

    how: str
    """Where it comes from: ``environment``, ``testcontainers`` or ``private node``."""

    @property
    def url(self) -> str:
        """Its AMQP URL."""

    @property
    def version(self) -> str:
        """The version that it says it is, for example ``3.10.8``."""

    def close(self) -> None:
        """Release it: stop it if it is ours."""


class OwnRabbitMQ(RabbitMQ, Protocol):
    """A RabbitMQ that is ours, so that a test may do to it what it likes."""

    def kill(self) -> None:
        """End it at once, as a power cut would; its data stay. Returns when it is gone.

        A quorum queue that was declared less than about a second ago may come back without a leader
        on RabbitMQ 3.10, and then never answers. A stop and a start before the kill settle it.
        """

    def stop(self) -> None:
        """Shut it down in order; its data stay. Returns when it is gone."""

    def start(self) -> None:
        """Start it again after a kill or a stop, at the same URL. Returns when it answers."""

    def pause(self) -> None:
        """Hang it: connections stay open and nothing answers."""

    def resume(self) -> None:
        """Let it go on after a pause."""

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on it and return what that prints. Takes about a second."""

    @property
    def running(self) -> bool:
        """Whether it has been started and neither killed nor stopped since."""


class GivenRabbitMQ:
    """The RabbitMQ that the environment names: used, and otherwise left alone."""

    how = "environment"

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.version = server_version(url)
        except OSError as error:
            raise NoRabbitMQError(
                f"{URL_VARIABLE} is set, but no RabbitMQ answers at "
                f"{urlsplit(url).hostname}:{urlsplit(url).port or 'its default port'}: {error}"
            ) from error

    def close(self) -> None:
        """Leave it as it is."""


def server_version(url: str, timeout: float = 5.0) -> str:
    """Begin an AMQP connection with the server at `url` and return the version that it names.

    Raises:
        OSError: nothing answers within `timeout` seconds, or what answers is no AMQP server.
    """
    parts = urlsplit(url)
    tls = parts.scheme == "amqps"
    host = parts.hostname or "localhost"
    with socket.create_connection((host, parts.port or (5671 if tls else 5672)), timeout) as plain:
        stream = (
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) if tls else plain
        )
        with stream:
            stream.sendall(b"AMQP\x00\x00\x09\x01")
            # A frame's head is its type, channel and size: 1 + 2 + 4 bytes; its end mark is 1 byte.
            head = _read_exactly(stream, 7)
            body = _read_exactly(stream, int.from_bytes(head[3:7], "big") + 1)
    _, _, frame = pamqp.frame.unmarshal(head + body)
    if not isinstance(frame, Connection.Start):
        raise ConnectionError(f"{host} answers, but not as an AMQP server does")
    return str(frame.server_properties["version"])


def _read_exactly(stream: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        chunk = stream.recv(size - len(got))
        if not chunk:
            raise ConnectionError("the server closed the connection while it was being opened")
        got += chunk
    return bytes(got)


def wait_for_version(url: str, limit: float, alive: Callable[[], bool]) -> str:
    """Wait until the server at `url` answers, and return its version.

    Raises:
        TimeoutError: it has not within `limit` seconds.
        ChildProcessError: `alive` says that it has ended.
    """
    deadline = time.monotonic() + limit
    while True:
        try:
            return server_version(url)
        except OSError as error:
            if not alive():
                raise ChildProcessError("it ended while it was starting") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not answer within {limit:.0f} s") from error
            time.sleep(0.05)


def given_url() -> str | None:
    """Return the URL that the environment names, if it names one."""
    return os.environ.get(URL_VARIABLE) or None
