"""A RabbitMQ in a container of the tests' own, by testcontainers."""

from __future__ import annotations

import gc
import os
import secrets
import socket
import sys
import time
import warnings
from ipaddress import ip_network
from typing import TYPE_CHECKING

import docker
from docker.errors import DockerException, ImageNotFound
from requests import RequestException
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer

from tests.support.ports import reserve_port
from tests.support.processes import reaper
from tests.support.rabbitmq import IMAGE_VARIABLE, NoRabbitMQError, wait_for_version

if TYPE_CHECKING:
    from testcontainers.core.docker_client import DockerClient

_PROBE_LIMIT = 3  # seconds for a Docker engine to answer
_PULL_LIMIT = 300.0  # seconds for the image to arrive
_PULL_SILENCE = 30  # seconds without a word of progress
_START_LIMIT = 90.0  # seconds
_STOP_LIMIT = 30  # seconds
_AMQP = "5672/tcp"


def image() -> str:
    """Return the name of the image to use."""
    return os.environ.get(IMAGE_VARIABLE) or "rabbitmq:4-management"


def docker_answers() -> bool:
    """Return whether a Docker engine answers, within a few seconds."""
    with warnings.catch_warnings():
        # Where nobody listens, docker-py's UnixHTTPConnection.connect drops its socket unclosed.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _ping()
        gc.collect()
    return answers


def _ping() -> bool:
    try:
        client = docker.from_env(timeout=_PROBE_LIMIT)
    except DockerException:  # no socket, or one that nobody listens at
        return False
    try:
        return bool(client.ping())
    except (DockerException, RequestException):
        return False
    finally:
        client.close()


def have_image() -> None:
    """Make sure that the engine has the image, pulling it where it must.

    Raises:
        NoRabbitMQError: the image cannot be had.
    """
    deadline = time.monotonic() + _PULL_LIMIT
    client = docker.from_env(timeout=_PULL_SILENCE)
    try:
        try:
            client.images.get(image())
        except ImageNotFound:
            # Of docker-py's two ways to pull, this is the one that can be given up.
            for progress in client.api.pull(image(), stream=True, decode=True):
                if "error" in progress:
                    raise NoRabbitMQError(
                        f"the image {image()} cannot be had: {progress['error']}"
                    ) from None
                if time.monotonic() > deadline:
                    raise NoRabbitMQError(
                        f"the image {image()} did not arrive within {_PULL_LIMIT:.0f} s"
                    ) from None
    except (DockerException, RequestException) as error:
        raise NoRabbitMQError(f"the image {image()} cannot be had: {error}") from error
    finally:
        client.close()


def _shares_loopback(engine: DockerClient) -> bool:
    """Return whether a port on the engine's loopback interface can be reached from here.

    It can where the engine is local, unless the tests run in one of its own containers.
    """
    if engine.host() not in ("localhost", "127.0.0.1"):
        return False
    if engine.get_connection_mode() is ConnectionMode.docker_host:
        return True
    # The tests run in a container: none of this engine's, if its bridge's own address is ours too.
    bridge = engine.client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    address = bridge.get("Gateway") or str(
        ip_network(bridge["Subnet"])[1]
    )  # older engines: the first
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


class RabbitMQContainer:
    """A RabbitMQ node in a container: starts when made, and ends with the tests at the latest."""

    how = "testcontainers"

    def __init__(self) -> None:
        # The tests' own reaper removes the container. testcontainers' would be one more image to
        # have, and a container that may command the engine.
        testcontainers_config.ryuk_disabled = True
        begin = time.monotonic()
        name = f"fusewire-tests-{secrets.token_hex(6)}"
        self._removal = [sys.executable, "-c", _REMOVE, name]
        reaper().tell("command", self._removal)  # before there is one to remove
        self._container = DockerContainer(image(), name=name)
        # A port that we choose stays the same when the container is started again.
        self._port = reserve_port()
        self._on_loopback = _shares_loopback(self._container.get_docker_client())
        self._container.with_bind_ports(_AMQP, self._port)
        if self._on_loopback:
            self._container.ports[_AMQP] = ("127.0.0.1", self._port)  # type: ignore[assignment]  # docker takes both
        self.running = False
        try:
            self._container.start()
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise
        self.start_time = time.monotonic() - begin

    def _wait_until_it_answers(self) -> None:
        if self._on_loopback:
            address = f"127.0.0.1:{self._port}"
        else:
            host = self._container.get_container_host_ip()
            address = f"{host}:{self._container.get_exposed_port(5672)}"
        self.url = f"amqp://guest:guest@{address}/"
        self.version = wait_for_version(self.url, _START_LIMIT, self._alive)
        self.running = True

    def _alive(self) -> bool:
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return wrapped.status in ("created", "running")

    def start(self) -> None:
        """Start it again after a kill or a stop, at the same URL. Returns when it answers."""
        if not self.running:
            self._container.get_wrapped_container().start()
            self._wait_until_it_answers()

    def kill(self) -> None:
        """End it at once, as a power cut would; its data stay. Returns when it is gone."""
        if self.running:
            self.running = False
            self._container.get_wrapped_container().kill()
            self._container.get_wrapped_container().wait(timeout=_STOP_LIMIT)

    def stop(self) -> None:
        """Shut it down in order; its data stay. Returns when it is gone."""
        if self.running:
            self.running = False
            self._container.get_wrapped_container().stop(timeout=_STOP_LIMIT)

    def pause(self) -> None:
        """Hang it: connections stay open and nothing answers."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._container.get_wrapped_container().unpause()

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` in it and return what that prints. Takes about a second."""
        done = self._container.exec(["rabbitmqctl", "--quiet", *arguments])
        if done.exit_code != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed: {done.output.decode()}")
        return done.output.decode()

    def close(self) -> None:
        """Remove the container, with its data."""
        self.running = False
        self._container.stop()
        reaper().tell("forget", self._removal)


_REMOVE = """
import sys, docker
docker.from_env(timeout=20).containers.get(sys.argv[1]).remove(force=True, v=True)
"""
