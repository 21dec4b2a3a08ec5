"""Sections of a Spring Boot file: those that are not read, and files that say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.config import Severity, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fusewire.config import Config, Problem

BREAKER = "resilience4j.circuitbreaker.instances.a.slidingWindowSize: 5"
NOTHING = (
    "the file must be one that says something of breakers, consumers or forwarders, got nothing"
)


@pytest.mark.parametrize("section", ["circuitbreakers", "circuit-braker"])
@pytest.mark.parametrize(
    "text",
    [
        "resilience4j.{}.instances.a: {{slidingWindowSize: 5, minimumNumberOfCalls: 5}}",
        "resilience4j: {{{}: {{instances: {{a: {{slidingWindowSize: 5}}}}}}}}",
    ],
)
def test_a_section_that_is_nearly_that_of_circuit_breakers_is_a_warning(
    load_text: Callable[..., Config], section: str, text: str
) -> None:
    (warning,) = load_text(text.format(section)).remarks
    assert warning.severity is Severity.WARNING
    assert str(warning).partition(": ")[2] == (
        f"a key of resilience4j must be circuitbreaker to be read here, got {section}; "
        "did you mean circuitbreaker?"
    )


@pytest.mark.parametrize(
    ("section", "instead"),
    [
        ("retry", "consumers.QUEUE.retry"),
        ("bulkhead", "consumers.QUEUE.replay.concurrency"),
        ("ratelimiter", "consumers.QUEUE.replay.rate"),
        ("rate-limiter", "consumers.QUEUE.replay.rate"),
        ("timelimiter", "max_wait"),
        ("thread-pool-bulkhead", "in code"),
        ("cache", "nothing in Fusewire stands for it"),
    ],
)
def test_each_section_that_is_not_read_is_noted_once(
    load_text: Callable[..., Config], section: str, instead: str
) -> None:
    (note,) = load_text(f"resilience4j.{section}.instances.a: {{x: 5, y: 6}}\n{BREAKER}").remarks
    assert note.severity is Severity.NOTE
    assert str(note).startswith(f"1.yaml:1:1: resilience4j.{section} is not read: ")
    assert instead in note.remedy


def test_the_note_is_at_the_section(load_text: Callable[..., Config]) -> None:
    text = f"{BREAKER}\nresilience4j:\n  retry: {{instances: {{a: {{x: 5}}}}}}\n  cache:\n"
    assert [str(one.place) for one in load_text(text).remarks] == ["1.yaml:3:3", "1.yaml:4:3"]


@pytest.mark.parametrize(
    ("text", "also"),
    [
        ("resilience4j.retry.instances.a.maxAttempts: 3", ["resilience4j.retry is not read"]),
        ("resilience4j:", []),
        ("resilience4j: 5", []),
        ("fusewire: {}", []),
        ("fusewire: {breakers: {bases: {a: {preset: critical}}}}", []),
    ],
)
def test_a_file_of_which_nothing_is_read_is_a_warning(
    load_text: Callable[..., Config], text: str, also: list[str]
) -> None:
    warning, *others = load_text(text).remarks
    assert warning.severity is Severity.WARNING
    assert str(warning) == (
        f"1.yaml: {NOTHING}; write it below fusewire, or below resilience4j.circuitbreaker"
    )
    assert [one.subject for one in others] == also


def test_documents_of_profiles_that_were_left_out_are_named(
    load_text: Callable[..., Config],
) -> None:
    text = f"spring.config.activate.on-profile: prod\n{BREAKER}"
    (warning,) = load_text(text).remarks
    assert warning.remedy.endswith(", and give the profiles of documents that are for some")
    assert load_text(text, profile="prod").remarks == ()


def test_of_several_files_one_has_to_say_something(load_text: Callable[..., Config]) -> None:
    (warning,) = load_text("fusewire: {}", "fusewire: {}").remarks
    assert str(warning).startswith("1.yaml: one of the 2 files must be one that says something")
    assert load_text("fusewire: {}", BREAKER).remarks == ()
    assert load(env={}).remarks == ()


@pytest.mark.parametrize(
    "text", ["resilience4j: {circuitbreaker: {}}", "resilience4j.circuitbreaker:"]
)
def test_a_section_without_keys_is_a_warning(load_text: Callable[..., Config], text: str) -> None:
    (warning,) = load_text(text).remarks
    assert warning.severity is Severity.WARNING
    assert str(warning).partition(": ")[2] == (
        "resilience4j.circuitbreaker must be a mapping with instances or configs, got nothing; "
        "add them, or remove it"
    )


@pytest.mark.parametrize("value", ["5", "[instances]"])
def test_a_section_that_is_no_mapping_is_an_error(
    problems_of: Callable[..., tuple[Problem, ...]], value: str
) -> None:
    (error,) = problems_of(f"resilience4j: {{circuitbreaker: {value}}}")
    assert error.severity is Severity.ERROR
    assert error.remedy == "indent its keys below it, or remove it"


@pytest.mark.parametrize("key", ["circuitbreaker", "circuit-breaker", "circuitbreakers"])
def test_circuit_breakers_at_the_top_belong_below_resilience4j(
    problems_of: Callable[..., tuple[Problem, ...]], load_text: Callable[..., Config], key: str
) -> None:
    text = f"{key}.instances.a.slidingWindowSize: 5"
    (error,) = problems_of(text)
    assert error.severity is Severity.ERROR
    assert "put it below the key resilience4j" in str(error)
    (warning,) = load_text(f"{text}\n{BREAKER}").remarks
    assert warning.severity is Severity.WARNING
    assert "put it below the key resilience4j" in str(warning)


@pytest.mark.parametrize(
    ("key", "meant"), [("fusewires", "fusewire"), ("resilence4j", "resilience4j")]
)
def test_a_key_at_the_top_that_is_nearly_ours_is_a_warning_beside_ours(
    load_text: Callable[..., Config], key: str, meant: str
) -> None:
    (warning,) = load_text(f"{BREAKER}\n{key}: {{}}").remarks
    assert warning.severity is Severity.WARNING
    assert str(warning) == (
        "1.yaml:2:1: a key of a file must be fusewire or resilience4j to be read, got the key "
        f"{key}; did you mean {meant}?"
    )


def test_a_file_that_says_nothing_is_told_by_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "application.yml"
    file.write_text("resilience4j: {retry: {}}", "utf-8")
    with caplog.at_level("INFO", "fusewire.config"):
        load(file, env={})
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
    assert NOTHING in caplog.text
