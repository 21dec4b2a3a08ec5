"""The rules of the audit, from facts to findings. Nothing here asks a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.audit._by_amqp import is_absent, of_type
from fusewire.audit._findings import Finding, Severity
from fusewire.audit._remediation import Remediation
from fusewire.brokers.rabbitmq import DELIVERY_LIMIT_SINCE
from fusewire.brokers.topology import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.audit._facts import ExchangeFacts, Facts, QueueFacts
    from fusewire.brokers.rabbitmq import Layout

_CONSUMER_TIMEOUT = 1_800_000  # ms: RabbitMQ's default, of which up to half is used to wait
_REFUSING = {
    "classic": frozenset({"reject-publish", "reject-publish-dlx"}),
    # The other is invalid here, and treated as drop-head: RabbitMQ's rabbit_quorum_queue:overflow,
    # 3.10.8 and 4.0.5.
    "quorum": frozenset({"reject-publish"}),
}
_AT_LEAST_ONCE_FEATURE = "stream_queue"  # what the coordination of dead-lettering came with
_FEATURE_REQUIRED_SINCE = (3, 12)

_GOES = "its messages are lost without having been handled"
_KEPT = "only a replay or a person may take messages out of it"


def findings_of(layout: Layout, facts: Facts) -> list[Finding]:
    """Return what is unsafe about the queues of `layout`, the worst first."""
    rules = _Rules(layout, facts)
    order = list(Severity)
    return sorted(rules.findings(), key=lambda finding: order.index(finding.severity))


class _Rules:
    def __init__(self, layout: Layout, facts: Facts) -> None:
        self._layout = layout
        self._facts = facts
        self._remedy = Remediation(facts.virtual_host)

    def findings(self) -> Iterator[Finding]:
        layout, queues = self._layout, self._facts.queues
        for name in layout.queues:
            if queues.get(name) is None:
                yield is_absent(layout, name)
        if (source := queues.get(layout.source)) is not None:
            yield from self._any(layout.source, source)
            yield from self._source(layout.source, source)
            yield from self._consumed(layout.source, source)
        for lane in layout.topology.lanes:
            name = layout.parked(lane)
            if (parked := queues.get(name)) is not None:
                yield from self._any(name, parked)
                yield from self._keeping(name, parked)
                yield from self._consumed(name, parked)
                yield from self._lane(name, parked)
        for tier in layout.topology.delays:
            name = layout.delay(tier)
            if (delay := queues.get(name)) is not None:
                yield from self._any(name, delay)
                yield from self._delay(name, delay, tier)
        if (dead := queues.get(layout.dead)) is not None:
            yield from self._any(layout.dead, dead)
            yield from self._keeping(layout.dead, dead)
        if layout.exchange:
            yield from self._exchange(layout.exchange, self._facts.exchange)
        yield from self._unseen()

    def _any(self, name: str, queue: QueueFacts) -> Iterator[Finding]:
        yield from of_type(name, queue.type, self._remedy, source=name == self._layout.source)
        if not queue.durable or queue.auto_delete or queue.exclusive:
            yield Finding(
                Severity.LOSS,
                name,
                "is not durable, or is auto-delete or exclusive",
                f"it is deleted at a restart or with its last consumer, and {_GOES}",
                self._remedy.again(name, "declare it durable, neither auto-delete nor exclusive"),
            )
        if queue.limit("expires") is not None:
            yield Finding(
                Severity.LOSS,
                name,
                f"is deleted after {queue.limit('expires')} ms without a consumer",
                f"while the consumer is stopped or paused it has none, and {_GOES}",
                self._remedy.unset(name, queue, "expires"),
            )
        overflow = queue.setting("overflow") or "drop-head"
        refuses = overflow in _REFUSING.get(queue.type, ())
        for key in ("max-length", "max-length-bytes"):
            if (limit := queue.limit(key)) is not None and not refuses:
                yield Finding(
                    Severity.LOSS,
                    name,
                    f"has {key} {limit} and overflow {overflow}",
                    "at the limit the oldest message is dropped for the newest",
                    self._remedy.refuse(name, queue, {key: limit}),
                )

    def _source(self, name: str, queue: QueueFacts) -> Iterator[Finding]:
        caught = queue.setting("dead-letter-exchange") is not None
        severity = Severity.WARNING if caught else Severity.LOSS
        where = "is dead-lettered, out of Fusewire's sight," if caught else "is deleted"
        if (ttl := queue.limit("message-ttl")) is not None:
            yield Finding(
                severity,
                name,
                f"has a message TTL of {ttl} ms",
                f"a message that waits longer, for a stopped, paused or slow consumer, {where} "
                "without having been handled",
                self._remedy.unset(name, queue, "message-ttl"),
            )
        yield from self._delivery_limit(name, queue, severity, where)

    def _keeping(self, name: str, queue: QueueFacts) -> Iterator[Finding]:
        if (ttl := queue.limit("message-ttl")) is not None:
            yield Finding(
                Severity.LOSS,
                name,
                f"has a message TTL of {ttl} ms",
                _KEPT,
                self._remedy.unset(name, queue, "message-ttl"),
            )
        if queue.setting("dead-letter-exchange") is not None:
            yield Finding(
                Severity.WARNING,
                name,
                f"dead-letters to exchange {queue.setting('dead-letter-exchange')!r}",
                _KEPT,
                self._remedy.unset(name, queue, "dead-letter-exchange"),
            )
        yield from self._delivery_limit(name, queue, Severity.LOSS, "is dropped")

    def _delivery_limit(
        self, name: str, queue: QueueFacts, severity: Severity, fate: str
    ) -> Iterator[Finding]:
        limit = queue.delivery_limit(self._facts.version)
        if limit is None:
            return
        own = queue.arguments.get("x-delivery-limit")
        by_argument = isinstance(own, int) and own >= 0
        by_policy = "delivery-limit" in queue.policy
        set_by = "its argument" if by_argument else "a policy" if by_policy else "default"
        if by_argument:
            remedy = self._remedy.again(
                name, "declare it without one, on RabbitMQ 4 with x-delivery-limit=-1"
            )
        elif self._facts.version >= DELIVERY_LIMIT_SINCE:
            remedy = self._remedy.policy(name, {"delivery-limit": -1})
        else:
            remedy = self._remedy.unset(name, queue, "delivery-limit")
        yield Finding(
            severity,
            name,
            f"has a delivery limit of {limit}, by {set_by}",
            f"each return of a message counts: when a connection is lost, when it was held for too "
            f"long, in a parking queue when its circuit opens again; after {limit} it {fate}",
            remedy,
        )

    def _consumed(self, name: str, queue: QueueFacts) -> Iterator[Finding]:
        timeout = queue.limit("consumer-timeout")
        if timeout is not None and timeout < _CONSUMER_TIMEOUT:
            yield Finding(
                Severity.WARNING,
                name,
                f"has a consumer timeout of {timeout} ms",
                "a message that cannot be moved is held for up to 15 minutes, and a handler takes "
                "its time: RabbitMQ then closes the channel, and all in flight is handled again",
                self._remedy.unset(name, queue, "consumer-timeout"),
            )

    def _lane(self, name: str, queue: QueueFacts) -> Iterator[Finding]:
        single = queue.arguments.get("x-single-active-consumer") is True
        if self._layout.topology.single and not single:
            yield Finding(
                Severity.WARNING,
                name,
                "has no single active consumer, but one replica at a time is to replay",
                "every replica replays from it, so limits apply to each, not to all combined",
                self._remedy.again(name),
            )
        elif single and not self._layout.topology.single:
            yield Finding(
                Severity.WARNING,
                name,
                "has a single active consumer, but all replicas are to replay",
                "one replica at a time replays from it",
                self._remedy.again(name),
            )

    def _delay(self, name: str, queue: QueueFacts, tier: float) -> Iterator[Finding]:
        remedy = self._remedy.again(name)
        target, key = (
            queue.setting("dead-letter-exchange"),
            queue.setting("dead-letter-routing-key"),
        )
        if target is None or key != self._layout.source:
            yield Finding(
                Severity.LOSS,
                name,
                "dead-letters to nowhere" if target is None else f"dead-letters to {key!r}",
                f"a delayed message does not come back to {self._layout.source}",
                remedy,
            )
        elif target not in ("", self._layout.exchange):
            yield Finding(
                Severity.WARNING,
                name,
                f"dead-letters through exchange {target!r}, not {self._layout.exchange!r}",
                "delayed messages come back only if that exchange routes them",
                remedy,
            )
        strategy = queue.setting("dead-letter-strategy") or "at-most-once"
        if strategy != "at-least-once" or queue.setting("overflow") != "reject-publish":
            yield Finding(
                Severity.LOSS,
                name,
                f"dead-letters {strategy}, with overflow {queue.setting('overflow')}",
                "a delayed message is lost if it cannot be routed back in that moment; at least "
                "once takes x-dead-letter-strategy=at-least-once and x-overflow=reject-publish",
                self._remedy.unset(name, queue, "overflow")
                if strategy == "at-least-once" and queue.by_policy("overflow")
                else remedy,
            )
        elif self._facts.features.get(_AT_LEAST_ONCE_FEATURE) is False:
            yield Finding(
                Severity.LOSS,
                name,
                f"dead-letters at most once, without the feature flag {_AT_LEAST_ONCE_FEATURE}",
                "a delayed message is lost if it cannot be routed back in that moment",
                f"rabbitmqctl enable_feature_flag {_AT_LEAST_ONCE_FEATURE}",
            )
        ttl = queue.limit("message-ttl")
        if ttl != milliseconds(tier):
            yield Finding(
                Severity.WARNING,
                name,
                "has no message TTL" if ttl is None else f"has a message TTL of {ttl} ms",
                f"messages must come back after {milliseconds(tier)} ms",
                remedy,
            )

    def _exchange(self, name: str, exchange: ExchangeFacts | None) -> Iterator[Finding]:
        if exchange is None:
            yield Finding(
                Severity.WARNING,
                name,
                "is absent",
                "moves through it are refused, and the messages stay where they are",
                "a consumer declares it at its start if it may; `fusewire topology` prints it",
            )
            return
        made_anew = (
            "delete it while no consumer runs; the next start declares it and binds the queues"
        )
        if exchange.type != "direct":
            yield Finding(
                Severity.LOSS,
                name,
                f"is a {exchange.type} exchange, not a direct one",
                "a message may go to several queues, or to none",
                made_anew,
            )
        if exchange.alternate is not None:
            yield Finding(
                Severity.LOSS,
                name,
                f"has an alternate exchange, {exchange.alternate!r}",
                "if a queue is missing, its message goes there, and is confirmed as if stored",
                "use an exchange without one",
            )
        if not exchange.durable:
            yield Finding(
                Severity.WARNING,
                name,
                "is not durable",
                "after a restart moves through it are refused",
                made_anew,
            )
        layout = self._layout
        for queue in layout.queues:
            if self._facts.queues.get(queue) is not None and queue not in exchange.bound:
                yield Finding(
                    Severity.WARNING,
                    queue,
                    f"is not bound to exchange {name!r} by its name",
                    "delayed messages do not come back while it is not"
                    if queue == layout.source
                    else "moves to it are refused, and the messages stay where they are",
                    "a consumer binds it at its start if it may; `fusewire topology` prints it",
                )

    def _unseen(self) -> Iterator[Finding]:
        if not self._facts.policies_seen:
            yield Finding(
                Severity.UNCHECKED,
                "policies",
                "whether a policy sets something harmful for a queue or the exchange",
                "this user may not list policies, and RabbitMQ shows the one in effect only "
                "for queues with statistics",
                "ask as a user with the tag `policymaker` or `administrator`",
            )
        facts = self._facts
        if facts.version < _FEATURE_REQUIRED_SINCE and _AT_LEAST_ONCE_FEATURE not in facts.features:
            yield Finding(
                Severity.UNCHECKED,
                "feature flags",
                f"whether {_AT_LEAST_ONCE_FEATURE} is enabled",
                "delayed messages are dead-lettered at most once without it; this user may not "
                "list feature flags",
                "on a node: rabbitmqctl list_feature_flags; or ask as an administrator",
            )
        yield Finding(
            Severity.UNCHECKED,
            "consumer_timeout",
            "whether the nodes' own is 30 minutes or longer",
            "a message that cannot be moved is held for up to 15 minutes; RabbitMQ does not "
            "show this setting over the network",
            "on each node: rabbitmqctl environment | grep consumer_timeout",
        )
