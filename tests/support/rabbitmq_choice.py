"""Which RabbitMQ the tests use: the first of the ways that is open, and why not an earlier one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.debian import INSTALL_VARIABLE, NotInstalledError, can_install, install
from tests.support.rabbitmq import (
    IMAGE_VARIABLE,
    OWN_VARIABLE,
    URL_VARIABLE,
    GivenRabbitMQ,
    NoRabbitMQError,
    OwnRabbitMQ,
    RabbitMQ,
    given_url,
)
from tests.support.rabbitmq_container import (
    RabbitMQContainer,
    docker_answers,
    have_image,
    image,
)
from tests.support.rabbitmq_node import PrivateNode, find_server

if TYPE_CHECKING:
    from collections.abc import Sequence

THREE_WAYS = f"""\
These tests need a RabbitMQ (3.10 or later). Any of these three gives them one:
  - set {URL_VARIABLE} to the AMQP URL of one that may be used for tests, for example
    the one that `docker compose -f docker-compose.test.yml up -d --wait` starts;
  - run a Docker engine that has, or can pull, the image {image()}
    ({IMAGE_VARIABLE} names another);
  - install rabbitmq-server (apt-get install rabbitmq-server, brew install rabbitmq);
    as root on Debian the tests do that by themselves, unless {INSTALL_VARIABLE}=0."""


class Broker:
    """The RabbitMQ of a test run, found and started once, when the first test asks for it.

    Args:
        shared: the AMQP URL of the one that another process of this test run has started.

    Attributes:
        remarks: why a way was not taken, a line each.
    """

    def __init__(self, *, shared: str | None = None) -> None:
        self._shared = shared
        self._chosen: RabbitMQ | None = None
        self._failure: NoRabbitMQError | None = None
        self.remarks: list[str] = []

    def get(self) -> RabbitMQ:
        """Return the RabbitMQ of this run.

        Raises:
            NoRabbitMQError: there is none; it is looked for once only.
        """
        if self._failure is not None:
            raise self._failure
        if self._chosen is None:
            try:
                url = self._shared or given_url()
                self._chosen = GivenRabbitMQ(url) if url else self._start_own()
            except NoRabbitMQError as error:
                self._failure = error
                raise
        return self._chosen

    def _start_own(self) -> OwnRabbitMQ:
        if docker_answers():
            try:
                have_image()
                return RabbitMQContainer()
            except NoRabbitMQError as error:
                self.remarks.append(f"Docker answers, but {error}; trying a private node")
        return start_private_node()

    def start_another(self) -> OwnRabbitMQ:
        """Start one more RabbitMQ, for tests that do it harm. The caller closes it.

        A private node where that can be had, for it starts faster.

        Raises:
            NoRabbitMQError: none can be started here.
        """
        wanted = os.environ.get(OWN_VARIABLE) == "container"
        if wanted or (find_server() is None and docker_answers()):
            have_image()
            return RabbitMQContainer()
        return start_private_node()

    def describe(self) -> str:
        """Say in a line which RabbitMQ this run uses; empty when no test has asked for one."""
        if self._failure is not None:
            return "RabbitMQ: none, so the tests that need one fail"
        if self._chosen is None:
            return ""
        took = getattr(self._chosen, "start_time", None)
        started = f", started in {took:.1f} s" if took is not None else ""
        return f"RabbitMQ {self._chosen.version} from {_FROM[self._chosen.how]}{started}"

    def close(self) -> None:
        """End the RabbitMQ, where it is ours."""
        if self._chosen is not None:
            self._chosen.close()
            self._chosen = None


BROKER = pytest.StashKey[Broker]()
"""Where pytest's configuration keeps it."""

_FROM = {
    "environment": URL_VARIABLE,
    "testcontainers": f"testcontainers ({image()})",
    "private node": "a private node",
}


def start_private_node(*, plugins: Sequence[str] = (), settings: Sequence[str] = ()) -> PrivateNode:
    """Start a private node, installing RabbitMQ first where it is missing and that is allowed.

    Args:
        plugins: plugins to enable.
        settings: further lines of its configuration file.

    Raises:
        NoRabbitMQError: it is missing, and may not be installed.
    """
    if find_server() is None:
        if not can_install():
            raise NoRabbitMQError(THREE_WAYS)
        try:
            install("rabbitmq-server", find_server)
        except NotInstalledError as error:
            raise NoRabbitMQError(str(error)) from error
    return PrivateNode(plugins=plugins, settings=settings)
