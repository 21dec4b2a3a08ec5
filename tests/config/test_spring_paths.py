"""Keys of a Spring Boot file that are written twice, and files of properties."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.config import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config, Problem

INSTANCES = "resilience4j.circuitbreaker.instances"


def test_a_key_that_a_document_writes_in_two_ways_is_a_warning(
    load_text: Callable[..., Config],
) -> None:
    text = f"{INSTANCES}.a: {{slidingWindowSize: 5, sliding-window-size: 6}}"
    config = load_text(text)
    assert config.circuits["a"].settings.window_calls == 6
    (warning,) = config.remarks
    assert warning.severity is Severity.WARNING
    assert str(warning) == (
        "1.yaml:1:65: slidingWindowSize of a must be given once, because this one replaces the "
        "other, got it again after 1.yaml:1:43; remove one of them"
    )


def test_a_key_that_several_files_write_is_none(load_text: Callable[..., Config]) -> None:
    first, second = (f"{INSTANCES}.a.slidingWindowSize: {size}" for size in (5, 6))
    env = {"RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE": "7"}
    config = load_text(first, second, env=env)
    assert config.circuits["a"].settings.window_calls == 7
    assert config.remarks == ()


def test_a_file_of_properties_is_refused_with_the_remedy(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    (problem,) = problems_of(f"{INSTANCES}.a.slidingWindowSize=5", suffix=".properties")
    assert str(problem) == (
        "1.properties: the file must be in YAML or JSON, got a file of properties; write its keys "
        "as YAML, where dots in keys are levels too: key: value"
    )
