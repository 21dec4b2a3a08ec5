"""A client of RabbitMQ's management API, for the audit only: a few GETs.

http.client in a thread: the audit is made once and needs no speed, and an HTTP library would be a
dependency of everybody's for it. Redirects are not followed and proxies not used, so that the
credentials go where the address says and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from fusewire.audit._facts import (
    ExchangeFacts,
    Facts,
    PolicyFacts,
    QueueFacts,
    effective_policy,
)
from fusewire.errors import BrokerError, BrokerUnavailableError

if TYPE_CHECKING:
    from fusewire.brokers.rabbitmq import Layout, ManagementAddress

_Policies: TypeAlias = "tuple[list[PolicyFacts], list[PolicyFacts]]"
"""Those of users, and those of operators."""

_MAX_ANSWER = 8 * 2**20  # bytes; a virtual host with thousands of policies has less
_EFFECTIVE = "effective_policy_definition"
_PORTS = {"http": 15672, "https": 15671}


class _RefusedError(BrokerError):
    """The user is not allowed to ask this."""


class Management:
    """The management API at one address."""

    def __init__(self, address: ManagementAddress) -> None:
        self.where = str(address.url)
        """The address without credentials, for messages."""
        user = f"{address.user}:{address.password}".encode()
        self._authorization = base64.b64encode(user).decode()
        self._host = address.url.host or ""
        self._port = address.url.explicit_port or _PORTS[address.url.scheme]
        self._path = address.url.raw_path.rstrip("/")
        self._timeout = address.timeout
        self._ssl_context = address.ssl_context

    async def facts(self, layout: Layout, *, virtual_host: str, version: tuple[int, ...]) -> Facts:
        """Return the facts about the queues of `layout` that the audit needs.

        Raises:
            BrokerUnavailableError: nobody answers.
            BrokerError: what is answered is of no use; the message says why.
        """
        host = quote(virtual_host, safe="")
        listed = await self._policies(host)
        answers: dict[str, dict[str, Any] | None] = {
            name: await self._get(f"queues/{host}/{quote(name, safe='')}") for name in layout.queues
        }
        try:
            queues = {
                name: None if its is None else _queue(name, its, listed)
                for name, its in answers.items()
            }
            exchange = None
            if layout.exchange:
                exchange = await self._exchange(host, layout.exchange, listed)
        except re.error as error:
            raise BrokerError(
                f"the pattern of a policy in virtual host {virtual_host!r} cannot be read: {error}"
            ) from error
        try:
            features = await self._list("feature-flags")
        except _RefusedError:
            features = []
        return Facts(
            version=version,
            virtual_host=virtual_host,
            queues=queues,
            exchange=exchange,
            features={str(flag.get("name")): flag.get("state") == "enabled" for flag in features},
            policies_seen=listed is not None
            or (not layout.exchange and all(_EFFECTIVE in its for its in answers.values() if its)),
        )

    async def _policies(self, host: str) -> _Policies | None:
        """Return the policies and operator policies; None if the user may not list them."""
        try:
            return (
                _policies(await self._list(f"policies/{host}")),
                _policies(await self._list(f"operator-policies/{host}")),
            )
        except _RefusedError:
            return None

    async def _exchange(
        self, host: str, name: str, listed: _Policies | None
    ) -> ExchangeFacts | None:
        path = f"exchanges/{host}/{quote(name, safe='')}"
        answers = await self._get(path)
        if answers is None:
            return None
        policy = effective_policy(name, *(listed or ([], [])), kind="exchange")
        arguments = answers.get("arguments") or {}
        alternate = arguments.get("alternate-exchange", policy.get("alternate-exchange"))
        return ExchangeFacts(
            type=str(answers.get("type")),
            durable=answers.get("durable") is True,
            alternate=None if alternate is None else str(alternate),
            bound=frozenset(
                str(binding.get("destination"))
                for binding in await self._list(f"{path}/bindings/source")
                if binding.get("destination_type") == "queue"
                and binding.get("routing_key") == binding.get("destination")
            ),
        )

    async def _list(self, path: str) -> list[dict[str, Any]]:
        answers = await self._get(path)
        return (
            [item for item in answers if isinstance(item, dict)]
            if isinstance(answers, list)
            else []
        )

    async def _get(self, path: str) -> Any:
        return await asyncio.to_thread(self._ask, f"{self._path}/api/{path}")

    def _ask(self, path: str) -> Any:
        """Send a request; return None if there is nothing of that name."""
        connection = self._connection()
        try:
            connection.request(
                "GET", path, headers={"Authorization": f"Basic {self._authorization}"}
            )
            with connection.getresponse() as answer:
                body = answer.read(_MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise BrokerUnavailableError(
                f"the management API at {self.where} cannot be asked ({error!r}): check the "
                "address, that the plugin rabbitmq_management is enabled, and TLS"
            ) from error
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise _RefusedError(
                f"the management API at {self.where} refuses its user ({answer.status}): give it "
                "the tag `management` and permissions in the virtual host, or another user's "
                "credentials in the URL"
            )
        if answer.status != http.client.OK or len(body) > _MAX_ANSWER:
            raise BrokerError(
                f"the management API at {self.where} answers {answer.status} with "
                f"{min(len(body), _MAX_ANSWER)} bytes or more: is it the right address?"
            )
        try:
            return json.loads(body)
        except ValueError as error:
            raise BrokerError(
                f"what answers at {self.where} is no management API: it gives no JSON"
            ) from error

    def _connection(self) -> http.client.HTTPConnection:
        if self._ssl_context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout, context=self._ssl_context
        )


def _policies(answers: list[dict[str, Any]]) -> list[PolicyFacts]:
    return [
        PolicyFacts(
            name=str(policy.get("name")),
            pattern=str(policy.get("pattern")),
            apply_to=str(policy.get("apply-to")),
            priority=int(policy.get("priority") or 0),
            definition=dict(policy.get("definition") or {}),
        )
        for policy in answers
    ]


def _queue(name: str, answers: dict[str, Any], listed: _Policies | None) -> QueueFacts:
    kind = str(answers.get("type"))
    if listed is None:
        policy = answers.get(_EFFECTIVE) or {}
    else:
        policy = effective_policy(name, *listed, queue_type=kind)
    return QueueFacts(
        type=kind,
        durable=answers.get("durable") is True,
        auto_delete=answers.get("auto_delete") is True,
        exclusive=answers.get("exclusive") is True,
        arguments=dict(answers.get("arguments") or {}),
        policy=dict(policy),
    )
