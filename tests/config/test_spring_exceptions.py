"""Exceptions of a Spring Boot file: what they become, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from fusewire import BreakerRegistry, BreakerSettings, CircuitOpenError
from fusewire.breaker import Outcome
from fusewire.config import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config, Problem


def file(instance: str) -> str:
    return f"resilience4j: {{circuitbreaker: {{instances: {{a: {{{instance}}}}}}}}}"


def test_what_is_not_recorded_is_a_success(load_text: Callable[..., Config]) -> None:
    config = load_text(
        file("recordExceptions: [java.io.IOException], ignoreExceptions: [TimeoutError]")
    )
    registry = BreakerRegistry()
    config.apply(registry)
    breaker = registry.get("a")
    assert breaker.classify(ConnectionError()) is Outcome.FAILURE
    assert breaker.classify(TimeoutError()) is Outcome.IGNORED, "ignored first, though an OSError"
    assert breaker.classify(KeyError()) is Outcome.SUCCESS
    assert breaker.classify(CircuitOpenError("b", "open", 1.0)) is Outcome.IGNORED
    group = ExceptionGroup("two", [KeyError(), ConnectionError()])
    assert breaker.classify(group) is Outcome.FAILURE
    with_ignored = load_text(file("ignoreExceptions: [TimeoutError]"))
    with_ignored.apply(registry)
    assert breaker.classify(KeyError()) is Outcome.FAILURE


def test_codes_own_function_is_asked_before_the_files_exceptions(
    load_text: Callable[..., Config],
) -> None:
    def judge(error: BaseException) -> Outcome | None:
        return Outcome.IGNORED if isinstance(error, KeyError) else None

    config = load_text(file("recordExceptions: [java.io.IOException]"))
    registry = BreakerRegistry()
    registry.get("a", BreakerSettings(classify_exception=judge))
    config.apply(registry)
    before = registry.get("a").settings
    config.apply(registry)
    assert registry.get("a").settings is before, "equal by value, so nothing is replaced"
    assert registry.get("a").classify(KeyError()) is Outcome.IGNORED
    assert registry.get("a").classify(ValueError()) is Outcome.SUCCESS


def test_further_java_classes_are_named_in_code(
    load_text: Callable[..., Config], tmp_path: Any
) -> None:
    path = tmp_path / "application.yml"
    path.write_text(
        file("recordExceptions: [com.shop.PaymentException, io.grpc.StatusRuntimeException]")
    )
    config = load(path, env={}, java_exceptions={"com.shop.PaymentException": "LookupError"})
    expected = config.circuits["a"].settings.expected_exceptions
    assert expected[0] is LookupError
    assert isinstance(grpc.RpcError(), expected[1])


def test_an_unknown_class_is_one_problem_whoever_inherits_it(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    found = problems_of(
        "resilience4j.circuitbreaker:\n"
        "  configs.default.recordExceptions: [TimeoutError, com.shop.A, com.shop.A, com.shop.B]\n"
        "  instances: {a: {slidingWindowSize: 5}, b: {baseConfig: default}}\n"
    )
    assert [(str(one.place), one.value) for one in found] == [
        ("1.yaml:2:52", "'com.shop.A'"),
        ("1.yaml:2:64", "'com.shop.A'"),
        ("1.yaml:2:76", "'com.shop.B'"),
    ]
