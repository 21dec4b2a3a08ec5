"""Placeholders, and what is never shown: what they stood for, and the passwords of URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config, Problem


def in_circuit(settings: str) -> str:
    return f"fusewire: {{breakers: {{circuits: {{a: {{{settings}}}}}}}}}"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("${WAIT}", 5.0),
        ("${wait}", 5.0),
        ("${my.wait-time}", 7.0),
        ("${NONE:3s}", 3.0),
        ("${NONE:${ALSO_NONE:4s}}", 4.0),
        ("${NONE:${WAIT}}", 5.0),
        ("${N}${UNIT}", 250 / 1000),
        ("${N}s", 250.0),
        ("${${NAME}}", 5.0),
        ("${NONE:PT1M}", 60.0),
    ],
)
def test_what_a_placeholder_stands_for(
    load_text: Callable[..., Config], written: str, seconds: float
) -> None:
    env = {"WAIT": "5s", "MY_WAITTIME": "7", "N": "250", "UNIT": "ms", "NAME": "WAIT"}
    config = load_text(in_circuit(f"recovery_timeout: '{written}'"), env=env)
    assert config.circuits["a"].settings.recovery_timeout == seconds
    place = config.circuits["a"].origins["recovery_timeout"].place
    assert place is not None
    assert place.placeholder.startswith("${")


def test_a_placeholder_may_be_any_kind_of_value(load_text: Callable[..., Config]) -> None:
    config = load_text(
        in_circuit("failure_threshold: '${N}', log_messages: '${L:true}', max_wait: '${X:null}'"),
        env={"N": "9"},
    )
    settings = config.circuits["a"].settings
    assert (settings.failure_threshold, settings.log_messages, settings.max_wait) == (9, True, None)


SECRET = "hunter2"  # noqa: S105 - an example
WRONG = [
    "recovery_timeout: '${S}'",
    "recovery_timeout: '${NONE:hunter2}'",
    "recovery_timeout: 'x${S}y'",
    "failure_threshold: '${S}'",
    "failure_threshold: '${NONE:${S}'",
    "mode: '${S}'",
    "preset: '${S}'",
    "base: '${S}'",
    "log_messages: '${S}'",
    "expected_exceptions: ['${S}']",
    "expected_exceptions: '${S}'",
    "recovery_timeout: amqp://user:hunter2@host/",
    "mode: 'https://u:hunter2@a@host'",
    "expected_exceptions: ['amqp://u:hunter2@host']",
    "'amqp://u:hunter2@host': 1",
    "base: 'amqp://u:hunter2@host'",
    f"mode: 'https://u:{'hunter2' * 99}@host'",
    "recovery_timeout: !<tag:u://a:hunter2@b> 5",
]


@pytest.mark.parametrize("settings", WRONG)
def test_no_problem_shows_a_secret(
    problems_of: Callable[..., tuple[Problem, ...]], settings: str
) -> None:
    found = problems_of(in_circuit(settings), env={"S": SECRET})
    assert SECRET not in "".join(map(repr, found))
    assert SECRET not in "".join(map(str, found))


SPRING = [
    "waitDurationInOpenState",
    "slidingWindowSize",
    "slidingWindowType",
    "failureRateThreshold",
    "initialState",
    "enableRandomizedWait",
    "randomizedWaitFactor",
    "baseConfig",
    "recordFailurePredicate",
]
FROM_A_VARIABLE = [
    *(in_circuit(each) for each in WRONG if "${S}'" in each and "NONE" not in each),
    "fusewire: {consumers: {q: {retry: {dead_on: '${S}', delays: ['${S}']}}}}",
    "fusewire: {forwarders: {q: {broker: 5, replay_timeout: '${S}'}}}",
    *(f"resilience4j.circuitbreaker.instances: {{a: {{{key}: '${{S}}'}}}}" for key in SPRING),
    "resilience4j.circuitbreaker.instances: {a: {recordExceptions: ['${S}', ValueError]}}",
]


@pytest.mark.parametrize("text", FROM_A_VARIABLE)
def test_no_remedy_depends_on_a_value_that_may_be_secret(
    problems_of: Callable[..., tuple[Problem, ...]], text: str
) -> None:
    # Each is nearly right somewhere, so that the remedy would name what is right. The one name of
    # a Java class is right for exceptions of our own form.
    values = ["OSEror", "1:30", "030%", "-0.3", "forced_opn", "30 seconds"]
    values += ["java.io.Secret"] * ("expected_exceptions" not in text)
    found = [problems_of(text, env={"S": value}) for value in values]
    assert len({tuple(each.remedy for each in problems) for problems in found}) == 1


def test_what_stands_beside_a_secret_in_a_list_is_shown(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    (problem,) = problems_of(
        "resilience4j.circuitbreaker.instances.a.recordExceptions: ['${S}', java.io.IOExceptio]",
        env={"S": "ValueError"},
    )
    assert problem.value == "'java.io.IOExceptio'"
    assert problem.remedy == "did you mean java.io.IOException?"


def test_a_problem_of_several_settings_shows_none_that_came_from_a_variable(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    (problem,) = problems_of(
        in_circuit("window_calls: '${CALLS}', minimum_calls: 9999"), env={"CALLS": "4321"}
    )
    assert str(problem) == (
        "1.yaml:1:79: breakers.circuits['a'].minimum_calls must be at most window_calls, got 9999; "
        "lower it, or raise window_calls"
    )
    (problem,) = problems_of(in_circuit("recovery_timeout_max: '${MAX}'"), env={"MAX": "4.5"})
    assert "4.5" not in str(problem)


def test_a_line_that_is_no_yaml_is_not_shown(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    for line in ('password: "hunter2', "password: @hunter2", "password: a: hunter2", "- hunter2"):
        found = problems_of(f"fusewire: {{}}\n{line}\n")
        assert SECRET not in repr(found)
