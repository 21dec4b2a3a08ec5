"""What RabbitMQ reports about queues and exchanges, and which values are in effect."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fusewire.brokers.rabbitmq import DELIVERY_LIMIT_SINCE

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_DELIVERY_LIMIT = 20  # RabbitMQ 4.0's, for quorum queues
_APPLY_TO = {
    "queue": {"all", "queues"},
    "exchange": {"all", "exchanges"},
}
_APPLY_TO_TYPE = {
    "quorum": "quorum_queues",
    "classic": "classic_queues",
    "stream": "streams",
}


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """One policy of a virtual host."""

    name: str
    pattern: str
    apply_to: str
    priority: int
    definition: Mapping[str, Any]

    def covers(self, kind: str, queue_type: str, name: str) -> bool:
        """Return whether it applies to the queue or exchange of this name.

        Raises:
            re.error: its pattern is one that Python does not read, unlike Erlang.
        """
        targets = _APPLY_TO[kind] | {_APPLY_TO_TYPE.get(queue_type, "")}
        return self.apply_to in targets and re.search(self.pattern, name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """A queue that exists.

    Attributes:
        type: ``quorum``, ``classic`` or ``stream``.
        durable: whether it survives a restart.
        auto_delete: whether it goes with its last consumer.
        exclusive: whether it goes with its connection.
        arguments: what it was declared with.
        policy: the definition that is in effect, operator policies included.
    """

    type: str = "quorum"
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    def limit(self, key: str) -> int | None:
        """Return a limit in effect: the lower one if an argument and a policy set it."""
        given = self._given(key)
        return min(given) if given else None

    def setting(self, key: str) -> Any:
        """Return the value in effect of a key that is not a limit; None if nothing sets it."""
        return self.policy[key] if self.by_policy(key) else self.arguments.get(f"x-{key}")

    def by_policy(self, key: str) -> bool:
        """Return whether a policy sets the value in effect of a key that is not a limit.

        The argument goes before the policy, but not for the overflow of a quorum queue: see
        `policy_has_precedence` in RabbitMQ's rabbit_quorum_queue, 3.10.8 and 4.0.5.
        """
        policy_first = self.type == "quorum" and key == "overflow"
        return key in self.policy and (policy_first or f"x-{key}" not in self.arguments)

    def delivery_limit(self, version: tuple[int, ...]) -> int | None:
        """Return how often a message may be returned; None without a limit."""
        if self.type != "quorum":
            return None
        given = self._given("delivery-limit")
        if not given:
            return _DEFAULT_DELIVERY_LIMIT if version >= DELIVERY_LIMIT_SINCE else None
        # As rabbit_queue_type_util resolves it, seen on 4.0.5: -1 counts only where nothing else is
        # set beside it.
        limit = max(given) if min(given) < 0 else min(given)
        return limit if limit >= 0 else None

    def _given(self, key: str) -> list[int]:
        values = (self.arguments.get(f"x-{key}"), self.policy.get(key))
        return [value for value in values if isinstance(value, int)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """An exchange that exists.

    Attributes:
        type: such as ``direct``.
        durable: whether it survives a restart.
        alternate: the exchange for unroutable messages; None returns them to their publisher.
        bound: the queues that are bound to it by their own names.
    """

    type: str = "direct"
    durable: bool = True
    alternate: str | None = None
    bound: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the rules of the audit look at.

    Attributes:
        version: RabbitMQ's.
        virtual_host: for the commands that the remedies name.
        queues: by name; None for one that is absent.
        exchange: the configured one; None if it is absent, or none is configured.
        features: feature flags by name, and whether they are enabled; empty if unknown.
        policies_seen: whether all policies in effect are among the facts.
    """

    version: tuple[int, ...]
    virtual_host: str = "/"
    queues: Mapping[str, QueueFacts | None]
    exchange: ExchangeFacts | None = None
    features: Mapping[str, bool] = field(default_factory=dict)
    policies_seen: bool = True


def effective_policy(
    name: str,
    policies: list[PolicyFacts],
    operators: list[PolicyFacts],
    *,
    kind: str = "queue",
    queue_type: str = "",
) -> dict[str, Any]:
    """Determine which policy is in effect, as RabbitMQ does.

    The management API shows it too, with its statistics: ten seconds after a queue was made, and
    never where these are switched off.

    Raises:
        re.error: a pattern cannot be read.
    """
    merged = dict(_first(name, policies, kind, queue_type))
    for key, value in _first(name, operators, kind, queue_type).items():
        merged[key] = _stricter(merged.get(key), value)
    return merged


def _stricter(own: Any, operators: Any) -> Any:
    """Merge a value of a policy with that of an operator policy."""
    if not (isinstance(own, int) and isinstance(operators, int)):
        return operators
    # As rabbit_policy:merge_policy_value of 4.0.5: a negative delivery limit is none. No limit
    # can be negative before.
    return max(own, operators) if min(own, operators) < 0 else min(own, operators)


def _first(name: str, policies: list[PolicyFacts], kind: str, queue_type: str) -> Mapping[str, Any]:
    found = [policy for policy in policies if policy.covers(kind, queue_type, name)]
    return max(found, key=lambda policy: policy.priority).definition if found else {}
