"""Malformed files: all problems at once, each with place, value, what is accepted and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire.config import ConfigError, Problem, Severity, load
from tests.config.malformed import BASES, CORPUS, TOGETHER, Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fusewire.config import Config


def assert_complete(problem: Problem) -> None:
    assert problem.place.source
    assert problem.subject
    assert problem.accepted
    assert problem.remedy
    assert str(problem).isprintable()  # on one line


@pytest.mark.parametrize("malformed", CORPUS, ids=lambda malformed: malformed.name)
def test_a_malformed_file(
    malformed: Malformed, problems_of: Callable[..., tuple[Problem, ...]]
) -> None:
    found = problems_of(malformed.text, env=malformed.env)
    for problem in found:
        assert_complete(problem)
        assert problem.severity is Severity.ERROR
    assert len(found) == len(malformed.problems), [str(each) for each in found]
    for problem, (place, value, remedy) in zip(found, malformed.problems, strict=True):
        said = str(problem)
        assert str(problem.place).partition(":")[2] == place, said
        assert value in problem.value, said
        assert remedy in problem.remedy, said


def test_all_problems_of_all_files_and_variables_come_at_once_and_in_order(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    corpus = [each for each in CORPUS if not each.env]
    env = {name: value for each in CORPUS for name, value in each.env.items() if name != "WAITS"}
    found = problems_of(*(each.text for each in corpus), env=env)
    numbers = [
        int(each.place.source.partition(".")[0]) for each in found if each.place.source[0].isdigit()
    ]
    assert numbers == sorted(numbers)
    # A circuit that all files name is not judged as a whole: it has problems.
    alone = {number for number, each in enumerate(corpus, 1) if each not in (*TOGETHER, *BASES)}
    assert set(numbers) >= alone
    assert {each.place.source for each in found} >= set(env)


def test_the_error_lists_its_problems(load_text: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text("fusewire: {breakers: {defaults: {mode: off, recovery_timeout: 1:30}}}")
    assert str(raised.value) == (
        "2 problems in the configuration:\n"
        "  1.yaml:1:34: a key of breakers.defaults must be one of preset, failure_threshold, "
        "recovery_timeout, half_open_max_calls, expected_exceptions, ignored_exceptions, "
        "window_calls, window_seconds, minimum_calls, failure_rate_threshold, "
        "slow_call_rate_threshold, slow_call_duration, max_wait, open_on_hanging, probe_lease, "
        "recovery_timeout_growth, recovery_timeout_max, recovery_timeout_jitter, ramp_duration, "
        "log_messages, got mode; remove it\n"
        "  1.yaml:1:63: breakers.defaults.recovery_timeout must be a duration above 0 (30s, 500ms, "
        "2m, 1h, PT30S, or a plain number of seconds), got '1:30'; write 1m30s; YAML 1.1 would "
        "read 90 here"
    )


def test_the_error_counts_and_lists_only_what_is_wrong(load_text: Callable[..., Config]) -> None:
    instance = "{slidingWindowSize: x, eventConsumerBufferSize: 5, colour: red}"
    with pytest.raises(ConfigError) as raised:
        load_text(f"resilience4j.circuitbreaker.instances.a: {instance}")
    assert str(raised.value).startswith("1 problem in the configuration:\n  1.yaml:1:62: slidingW")
    assert str(raised.value).count("\n") == 1
    assert len(raised.value.problems) == 3
    assert raised.value.errors == (raised.value.problems[0],)


@pytest.mark.parametrize(
    ("content", "place", "value"),
    [
        (b"fusewire: {}\n# caf\xe9\n", ":2:6", "the byte 0xe9"),
        (None, "", "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, content: bytes | None, place: str, value: str
) -> None:
    file = tmp_path / "fusewire.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(file, env={})
    (problem,) = raised.value.problems
    assert_complete(problem)
    assert str(problem.place) == f"{file}{place}"
    assert value in problem.value


@pytest.mark.parametrize("path", ["", ".", "a\0b", "/dev/null/x"])
def test_a_path_that_is_none(path: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        load(path, env={})
    (problem,) = raised.value.problems
    assert problem.remedy
