"""The audit's rules: which facts are unsafe, and which are not."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from fusewire.audit import Severity
from fusewire.audit._by_amqp import findings_by_amqp
from fusewire.audit._facts import (
    ExchangeFacts,
    Facts,
    PolicyFacts,
    QueueFacts,
    effective_policy,
)
from fusewire.audit._rules import findings_of
from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout, kept_arguments, queue_arguments

PLAIN = Layout(Topology("q", delays=(1.0,)))
ROUTED = Layout(Topology("q", delays=(1.0,), options={"exchange": "x"}))
SINGLE = Layout(Topology("q", (), (1.0,), single=True))
NAMES = ("q", "q.parked.other", "q.delay.1000", "q.dead")
LOSS, WARNING, UNCHECKED = Severity.LOSS, Severity.WARNING, Severity.UNCHECKED


def made(layout: Layout = PLAIN, version: tuple[int, ...] = (3, 13, 7)) -> Facts:
    """Return the facts of queues made as Fusewire makes them."""
    arguments = {**queue_arguments(layout, version), "q": kept_arguments(version)}
    return Facts(
        version=version,
        queues={name: QueueFacts(arguments=its) for name, its in arguments.items()},
        exchange=ExchangeFacts(bound=frozenset(NAMES)) if layout.exchange else None,
        features={"stream_queue": True},
    )


def changed(name: str, facts: Facts | None = None, **changes: Any) -> Facts:
    """Return facts in which one queue is otherwise; arguments are added to those that it has."""
    facts = facts or made()
    queue = facts.queues[name]
    assert queue is not None
    arguments = {**queue.arguments, **changes.pop("arguments", {})}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    other = dataclasses.replace(queue, arguments=arguments, **changes)
    return dataclasses.replace(facts, queues={**facts.queues, name: other})


def found(facts: Facts, layout: Layout = PLAIN) -> list[tuple[Severity, str, str]]:
    """Return severity, subject and first words of what was found, without what none can check."""
    return [
        (finding.severity, finding.subject, finding.what)
        for finding in findings_of(layout, facts)
        if finding.subject != "consumer_timeout"
    ]


@pytest.mark.parametrize("layout", [PLAIN, ROUTED, SINGLE])
@pytest.mark.parametrize("version", [(3, 10, 8), (3, 13, 7), (4, 0, 5), (4, 3, 0)])
def test_queues_made_by_fusewire_are_found_safe(layout: Layout, version: tuple[int, ...]) -> None:
    assert found(made(layout, version), layout) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"type": "classic"}, "is a classic queue"),
        ({"durable": False}, "is not durable"),
        ({"auto_delete": True}, "is not durable"),
        ({"exclusive": True}, "is not durable"),
        ({"arguments": {"x-expires": 5000}}, "deleted after 5000 ms"),
        ({"policy": {"expires": 5000}}, "deleted after 5000 ms"),
        (
            {"arguments": {"x-overflow": None}, "policy": {"max-length": 9}},
            "max-length 9 and overflow drop-head",
        ),
        (
            {"arguments": {"x-overflow": "drop-head", "x-max-length-bytes": 9}},
            "max-length-bytes 9 and overflow drop-head",
        ),
        # Of a quorum queue's overflow the policy's is in effect, though the argument refuses.
        (
            {"policy": {"max-length": 9, "overflow": "drop-head"}},
            "max-length 9 and overflow drop-head",
        ),
        (
            {"policy": {"max-length": 9, "overflow": "reject-publish-dlx"}},
            "max-length 9 and overflow reject-publish-dlx",
        ),
    ],
)
def test_what_loses_messages_in_any_queue(name: str, changes: dict[str, Any], what: str) -> None:
    assert any(
        (severity, subject) == (LOSS, name) and what in said
        for severity, subject, said in found(changed(name, **changes))
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_length_limit_that_refuses_loses_nothing(name: str) -> None:
    assert found(changed(name, policy={"max-length": 9})) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_has_a_quorum_queue_refuse_though_its_argument_drops(name: str) -> None:
    arguments = {"x-overflow": "drop-head", "x-max-length": 9}

    assert found(changed(name, arguments=arguments, policy={"overflow": "reject-publish"})) == []


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_classic_queue_knows_two_ways_to_refuse(overflow: str) -> None:
    arguments = {"x-max-length": 9, "x-overflow": overflow}

    assert found(changed("q", type="classic", arguments=arguments)) == [
        (LOSS, "q", "is a classic queue")
    ]


def test_a_classic_queue_drops_by_its_argument_whatever_a_policy_says() -> None:
    arguments = {"x-max-length": 9, "x-overflow": "drop-head"}
    policy = {"overflow": "reject-publish"}
    facts = changed("q", type="classic", arguments=arguments, policy=policy)

    [finding] = [
        f for f in findings_of(PLAIN, facts) if f.what == "has max-length 9 and overflow drop-head"
    ]
    assert "delete_queue" in finding.remedy


@pytest.mark.parametrize("name", ["q", "q.parked.other", "q.dead"])
@pytest.mark.parametrize(
    "changes", [{"arguments": {"x-message-ttl": 1}}, {"policy": {"message-ttl": 1}}]
)
def test_a_ttl_loses_what_waits(name: str, changes: dict[str, Any]) -> None:
    assert found(changed(name, **changes)) == [(LOSS, name, "has a message TTL of 1 ms")]


def test_what_a_source_queue_dead_letters_is_not_lost() -> None:
    policy = {"message-ttl": 1, "dead-letter-exchange": "dlx", "delivery-limit": 5}

    assert {severity for severity, *_ in found(changed("q", policy=policy))} == {WARNING}


@pytest.mark.parametrize("name", ["q.parked.other", "q.dead"])
def test_kept_messages_are_not_dead_lettered(name: str) -> None:
    facts = changed(name, policy={"dead-letter-exchange": "dlx"})

    assert found(facts) == [(WARNING, name, "dead-letters to exchange 'dlx'")]


@pytest.mark.parametrize(
    ("version", "argument", "policy", "limit"),
    [
        ((3, 13), None, None, None),
        ((3, 13), 5, None, 5),
        ((3, 13), None, 7, 7),
        ((3, 13), 5, 7, 5),
        ((4, 0), None, None, 20),
        ((4, 0), -1, None, None),
        ((4, 0), None, -1, None),
        ((4, 0), -1, 7, 7),
        ((4, 0), 7, -1, 7),
    ],
)
def test_the_delivery_limit_in_effect_is_rabbitmqs(
    version: tuple[int, ...], argument: int | None, policy: int | None, limit: int | None
) -> None:
    queue = QueueFacts(
        arguments={} if argument is None else {"x-delivery-limit": argument},
        policy={} if policy is None else {"delivery-limit": policy},
    )

    assert queue.delivery_limit(version) == limit
    assert QueueFacts(type="classic").delivery_limit(version) is None


@pytest.mark.parametrize("name", ["q", "q.parked.other", "q.dead"])
@pytest.mark.parametrize(
    ("version", "changes", "what", "remedy"),
    [
        ((4, 0), {"arguments": {"x-delivery-limit": None}}, "20, by default", "set_policy"),
        ((4, 0), {"policy": {"delivery-limit": 3}}, "3, by a policy", '"delivery-limit": -1'),
        ((4, 0), {"arguments": {"x-delivery-limit": 3}}, "3, by its argument", "delete_queue"),
        ((3, 12), {"policy": {"delivery-limit": 3}}, "3, by a policy", "list_policies"),
        ((3, 12), {"arguments": {"x-delivery-limit": 3}}, "3, by its argument", "delete_queue"),
    ],
)
def test_a_delivery_limit_that_returns_reach_is_reported_with_the_way_to_lift_it(
    name: str, version: tuple[int, ...], changes: dict[str, Any], what: str, remedy: str
) -> None:
    facts = changed(name, made(version=version), **changes)

    [finding, _] = findings_of(PLAIN, facts)

    assert (finding.severity, finding.subject) == (LOSS, name)
    assert what in finding.what
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("changes", "severity", "what"),
    [
        ({"arguments": {"x-dead-letter-strategy": None}}, LOSS, "dead-letters at-most-once"),
        ({"arguments": {"x-overflow": None}}, LOSS, "with overflow None"),
        ({"policy": {"overflow": "drop-head"}}, LOSS, "with overflow drop-head"),
        ({"arguments": {"x-dead-letter-exchange": None}}, LOSS, "to nowhere"),
        ({"arguments": {"x-dead-letter-routing-key": "p"}}, LOSS, "dead-letters to 'p'"),
        ({"arguments": {"x-dead-letter-exchange": "y"}}, WARNING, "through exchange 'y'"),
        ({"policy": {"message-ttl": 10}}, WARNING, "a message TTL of 10 ms"),
        ({"arguments": {"x-message-ttl": None}}, WARNING, "has no message TTL"),
    ],
)
def test_a_delay_queue_gives_back_what_it_gets(
    changes: dict[str, Any], severity: Severity, what: str
) -> None:
    [(its_severity, subject, said)] = found(changed("q.delay.1000", **changes))

    assert (its_severity, subject) == (severity, "q.delay.1000")
    assert what in said


def test_a_policy_that_undoes_a_delay_queue_is_what_the_remedy_changes() -> None:
    facts = changed("q.delay.1000", policy={"overflow": "drop-head"})

    [finding, _] = findings_of(PLAIN, facts)

    assert "take overflow out of the policy" in finding.remedy


def test_delayed_messages_may_come_back_by_the_default_exchange() -> None:
    facts = changed("q.delay.1000", made(ROUTED), arguments={"x-dead-letter-exchange": ""})

    assert found(facts, ROUTED) == []


def test_at_least_once_takes_a_feature_flag() -> None:
    facts = dataclasses.replace(made(), features={"stream_queue": False})

    [(severity, subject, what)] = found(facts)

    assert (severity, subject) == (LOSS, "q.delay.1000")
    assert "stream_queue" in what


def test_what_could_not_be_seen_is_reported() -> None:
    facts = dataclasses.replace(made(version=(3, 10, 8)), features={}, policies_seen=False)

    assert [finding.subject for finding in findings_of(PLAIN, facts)] == [
        "policies",
        "feature flags",
        "consumer_timeout",
    ]


@pytest.mark.parametrize("single", [True, False])
def test_lanes_have_a_single_active_consumer_if_and_only_if_replays_are_single(
    single: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    as_made, asked = (
        Layout(dataclasses.replace(PLAIN.topology, single=value)) for value in (single, not single)
    )

    [(severity, subject, what)] = found(made(as_made), asked)

    assert (severity, subject) == (WARNING, "q.parked.other")
    assert "single active consumer" in what


@pytest.mark.parametrize("name", ["q", "q.parked.other"])
def test_a_short_consumer_timeout_is_reported(name: str) -> None:
    facts = changed(name, policy={"consumer-timeout": 60_000})

    assert found(facts) == [(WARNING, name, "has a consumer timeout of 60000 ms")]
    assert found(changed(name, policy={"consumer-timeout": 3_600_000})) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_queue_is_reported_and_loses_nothing(name: str) -> None:
    facts = made()
    facts = dataclasses.replace(facts, queues={**facts.queues, name: None})

    assert found(facts) == [(WARNING, name, "is absent")]


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        (None, (WARNING, "x", "is absent")),
        ({"type": "topic"}, (LOSS, "x", "is a topic exchange, not a direct one")),
        ({"alternate": "ae"}, (LOSS, "x", "has an alternate exchange, 'ae'")),
        ({"durable": False}, (WARNING, "x", "is not durable")),
        (
            {"bound": frozenset(NAMES[1:])},
            (WARNING, "q", "is not bound to exchange 'x' by its name"),
        ),
    ],
)
def test_an_exchange_that_does_not_route_as_it_should_is_reported(
    exchange: dict[str, Any] | None, expected: tuple[Severity, str, str]
) -> None:
    facts = made(ROUTED)
    assert facts.exchange is not None
    other = None if exchange is None else dataclasses.replace(facts.exchange, **exchange)

    assert found(dataclasses.replace(facts, exchange=other), ROUTED) == [expected]


def test_the_worst_comes_first() -> None:
    facts = changed("q", policy={"consumer-timeout": 1})
    facts = changed("q.dead", facts, policy={"message-ttl": 1})

    assert [finding.severity for finding in findings_of(PLAIN, facts)] == [LOSS, WARNING, UNCHECKED]


@pytest.mark.parametrize("layout", [PLAIN, ROUTED])
def test_without_management_everything_that_is_not_shown_is_not_checked(
    layout: Layout,
) -> None:
    types: dict[str, str | None] = dict.fromkeys(NAMES[:-1], "quorum")
    findings = findings_by_amqp(layout, types, (4, 0, 5), "/")

    assert [f.subject for f in findings if f.severity is WARNING] == ["q.dead"]
    assert {f.severity for f in findings} == {WARNING, UNCHECKED}
    assert "default of 20" in " ".join(f.what for f in findings)
    assert ("exchange" in {f.subject for f in findings}) == bool(layout.exchange)


def test_without_management_the_types_of_queues_are_reported_as_far_as_rabbitmq_names_them() -> (
    None
):
    types = {"q": "stream", "q.parked.other": "classic", "q.delay.1000": None, "q.dead": "stream"}
    findings = findings_by_amqp(PLAIN, types, (4, 0, 5), "/")

    told = [(f.severity, f.subject, f.what) for f in findings if f.severity is not UNCHECKED]
    assert told == [
        (LOSS, "q", "is a stream, which cannot be consumed as a queue"),
        (LOSS, "q.parked.other", "is a classic queue"),
        (WARNING, "q.dead", "is a stream, not a queue"),
    ]
    [types_unseen] = [f.what for f in findings if f.subject == "queue types"]
    assert types_unseen.endswith(": q.delay.1000")


def test_a_stream_as_source_is_reported_with_what_is_lost() -> None:
    [finding] = [f for f in findings_of(PLAIN, changed("q", type="stream")) if f.severity is LOSS]
    assert finding.subject == "q"
    assert "never be handled" in finding.why


def policy(pattern: str, *, priority: int = 0, apply_to: str = "queues", **definition: Any) -> Any:
    return PolicyFacts("p", pattern, apply_to, priority, definition)


@pytest.mark.parametrize(
    ("policies", "operators", "effective"),
    [
        ([policy("^q", a=1)], [], {"a": 1}),
        ([policy("^p", a=1)], [], {}),
        ([policy("q", a=1), policy("q", a=2, priority=1)], [], {"a": 2}),
        ([policy("q", a=1, apply_to="exchanges")], [], {}),
        ([policy("q", a=1, apply_to="all")], [], {"a": 1}),
        ([policy("q", a=1, apply_to="quorum_queues")], [], {"a": 1}),
        ([policy("q", a=1, apply_to="classic_queues")], [], {}),
        ([policy("q", a=3, b="x")], [policy("q", a=2, b="y")], {"a": 2, "b": "y"}),
        ([policy("q", a=1)], [policy("q", a=2)], {"a": 1}),
        # A negative delivery limit is none; where only one is set it is that one.
        ([policy("q", a=-1)], [policy("q", a=10)], {"a": 10}),
        ([policy("q", a=10)], [policy("q", a=-1)], {"a": 10}),
        ([policy("q", a=-1)], [policy("q", a=-1)], {"a": -1}),
    ],
)
def test_the_policy_in_effect_is_rabbitmqs(
    policies: list[PolicyFacts], operators: list[PolicyFacts], effective: dict[str, Any]
) -> None:
    assert effective_policy("q", policies, operators, queue_type="quorum") == effective


def test_a_pattern_that_cannot_be_read_is_no_match_of_nothing() -> None:
    with pytest.raises(re.error):
        effective_policy("q", [policy("(?<")], [])
