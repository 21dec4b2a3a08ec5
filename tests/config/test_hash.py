"""The hash by which replicas with other settings are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.config._hash import hash_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config

PLAIN = "fusewire: {breakers: {circuits: {a: {failure_threshold: 3, recovery_timeout: 60s}}}}"


def test_settings_that_are_the_same_have_the_same_hash_wherever_they_are_written(
    load_text: Callable[..., Config],
) -> None:
    spread = (
        "# a comment\nfusewire: {breakers: {bases: {slow: {recovery_timeout: 1m}}}}",
        "fusewire: {breakers: {circuits: {a: {base: slow}}}}",
        "fusewire: {breakers: {circuits: {a: {failure_threshold: 3}}}}",
    )
    assert hash_of(load_text(PLAIN)) == hash_of(load_text(*spread))


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.replace("3", "4"),
        PLAIN.replace("a:", "b:"),
        PLAIN.replace("3,", "3, mode: disabled,"),
        PLAIN.replace("{breakers", "{consumers: {q: {retry: {max_attempts: 2}}}, breakers"),
        PLAIN.replace("{circuits", "{defaults: {window_calls: 90}, circuits"),
        "resilience4j.circuitbreaker.instances.a: {}",
    ],
)
def test_settings_that_differ_have_other_hashes(
    load_text: Callable[..., Config], other: str
) -> None:
    assert hash_of(load_text(PLAIN)) != hash_of(load_text(other))


def test_recorded_exceptions_of_a_spring_file_count(load_text: Callable[..., Config]) -> None:
    def of(name: str) -> str:
        text = f"resilience4j.circuitbreaker.instances.a.recordExceptions: [{name}]"
        return hash_of(load_text(text))

    assert of("java.io.IOException") == of("java.io.IOException")
    assert of("java.io.IOException") != of("java.lang.IllegalStateException")
    assert of("shop.errors.PaymentError") == of("shop.errors.PaymentError")


def test_a_value_that_came_from_a_variable_cannot_be_guessed_from_the_hash(
    load_text: Callable[..., Config],
) -> None:
    text = PLAIN.replace("3", "'${SECRET}'")
    one, other = (hash_of(load_text(text, env={"SECRET": value})) for value in ("3", "4"))
    assert one == other != hash_of(load_text(PLAIN))


def test_a_variable_of_ours_counts(load_text: Callable[..., Config]) -> None:
    env = {"FUSEWIRE_CIRCUITS": "{a: {failure_threshold: 4}}"}
    assert hash_of(load_text(PLAIN, env=env)) == hash_of(load_text(PLAIN.replace("3", "4")))
