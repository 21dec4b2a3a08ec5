"""A RabbitMQ with its management API and a TLS listener, in which each test has a virtual host.

It is the one that ``FUSEWIRE_TEST_AMQP_URL`` and ``FUSEWIRE_TEST_MANAGEMENT_URL`` name, or a
private node. What is done to a virtual host of one's own does no harm to anybody else's.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

import trustme

from tests.support.ports import reserve_port
from tests.support.rabbitmq import given_url
from tests.support.rabbitmq_choice import start_private_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST = 2**20
"""Bytes of the longest message that the private node takes; others take more."""

MANAGEMENT_VARIABLE = "FUSEWIRE_TEST_MANAGEMENT_URL"


@dataclass(frozen=True)
class Tls:
    """Where the node speaks TLS, and how to know it."""

    amqp_port: int
    management_port: int
    authority: Path
    """The certificate of the authority that signed the node's."""


class Managed:
    """A RabbitMQ, and its management API.

    Attributes:
        amqp: its AMQP URL, without a virtual host.
        management: the URL of its management API.
        tls: how it speaks TLS; None where it was given by the environment.
    """

    def __init__(self, amqp: str, management: str, tls: Tls | None) -> None:
        self.amqp = amqp.rstrip("/")
        self.management = management.rstrip("/")
        self.tls = tls

    @contextlib.contextmanager
    def virtual_host(self, prefix: str = "fusewire") -> Iterator[VirtualHost]:
        """Make a virtual host, and remove it and its users after."""
        host = VirtualHost(self, f"{prefix} {secrets.token_hex(4)}")
        self.api("PUT", f"vhosts/{quote(host.name, safe='')}")
        administrator = urlsplit(self.amqp).username or "guest"
        host.permit(administrator)
        try:
            yield host
        finally:
            self.api("DELETE", f"vhosts/{quote(host.name, safe='')}")
            for user in host.users:
                self.api("DELETE", f"users/{user}")

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the management API; None where it has nothing of the name."""
        parts = urlsplit(self.management)
        login = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
        request = urllib.request.Request(  # noqa: S310 - the tests' own http address
            f"{parts.scheme}://{parts.hostname}:{parts.port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - see above
                said = answer.read()
        except HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise AssertionError(f"{method} {path}: {error.read().decode()}") from error
        return json.loads(said) if said else {}


class VirtualHost:
    """A virtual host for one test.

    Attributes:
        name: its name, which has a space in it.
        users: the users made for it.
    """

    def __init__(self, managed: Managed, name: str) -> None:
        self.managed = managed
        self.name = name
        self.users: list[str] = []

    @property
    def path(self) -> str:
        """Its name as addresses have it."""
        return quote(self.name, safe="")

    @property
    def url(self) -> str:
        """The AMQP URL of an administrator."""
        return f"{self.managed.amqp}/{self.path}"

    def user(self, configure: str, write: str, read: str, *, tags: str = "") -> str:
        """Make a user with these permissions, and return an AMQP URL for it."""
        name, password = f"user-{secrets.token_hex(4)}", secrets.token_hex(8)
        self.managed.api("PUT", f"users/{name}", {"password": password, "tags": tags})
        self.users.append(name)
        self.permit(name, configure, write, read)
        parts = urlsplit(self.managed.amqp)
        return f"amqp://{name}:{password}@{parts.hostname}:{parts.port or 5672}/{self.path}"

    def permit(self, user: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """Set a user's permissions."""
        self.managed.api(
            "PUT",
            f"permissions/{self.path}/{user}",
            {"configure": configure, "write": write, "read": read},
        )

    def policy(
        self, pattern: str, *, operator: bool = False, apply_to: str = "queues", **definition: Any
    ) -> None:
        """Set a policy for what has a name that matches."""
        self.managed.api(
            "PUT",
            f"{'operator-policies' if operator else 'policies'}/{self.path}/{secrets.token_hex(4)}",
            {
                "pattern": pattern,
                "definition": {key.replace("_", "-"): value for key, value in definition.items()},
                "apply-to": apply_to,
            },
        )

    def definitions(self, given: dict[str, Any]) -> None:
        """Import definitions, as ``rabbitmqctl import_definitions`` does."""
        self.managed.api("POST", "definitions", given)


@contextlib.contextmanager
def managed_rabbitmq(directory: Path) -> Iterator[Managed]:
    """Provide the RabbitMQ of this module, started for the block where it is ours.

    Args:
        directory: where certificates may be written.
    """
    amqp, management = given_url(), os.environ.get(MANAGEMENT_VARIABLE)
    if amqp and management:
        yield Managed(amqp, management, None)
        return
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(directory / "authority.pem")
    certificate.private_key_pem.write_to_path(directory / "node.key")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(directory / "node.pem", append=True)
    amqps, http, https = reserve_port(), reserve_port(), reserve_port()
    files = {
        "cacertfile": directory / "authority.pem",
        "certfile": directory / "node.pem",
        "keyfile": directory / "node.key",
    }
    node = start_private_node(
        plugins=["rabbitmq_management"],
        settings=[
            f"max_message_size = {LARGEST}",
            f"listeners.ssl.1 = 127.0.0.1:{amqps}",
            *(f"ssl_options.{key} = {path}" for key, path in files.items()),
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {http}",
            "management.ssl.ip = 127.0.0.1",
            f"management.ssl.port = {https}",
            *(f"management.ssl.{key} = {path}" for key, path in files.items()),
        ],
    )
    with contextlib.closing(node):
        yield Managed(
            node.url,
            f"http://guest:guest@127.0.0.1:{http}",
            Tls(amqps, https, directory / "authority.pem"),
        )
