"""A Spring Boot file as it stands: what becomes of every key, and how keys inherit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fusewire import BreakerRegistry, BreakerSettings, CircuitState
from fusewire.config import Severity
from fusewire.config._spring_keys import KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config, Problem

RESILIENCE4J = BreakerSettings(
    failure_threshold=None,
    recovery_timeout=60.0,
    half_open_max_calls=10,
    window_calls=100,
    minimum_calls=100,
    failure_rate_threshold=0.5,
    slow_call_rate_threshold=1.0,
    slow_call_duration=60.0,
)


def file(instance: str, name: str = "a", more: str = "") -> str:
    return f"resilience4j: {{circuitbreaker: {{instances: {{{name}: {{{instance}}}}}{more}}}}}"


def changed(settings: BreakerSettings) -> dict[str, Any]:
    names = BreakerSettings.__dataclass_fields__
    return {
        name: getattr(settings, name)
        for name in names
        if name != "classify_exception" and getattr(settings, name) != getattr(RESILIENCE4J, name)
    }


def test_an_instance_without_keys_has_resilience4js_defaults_and_not_ours(
    load_text: Callable[..., Config],
) -> None:
    config = load_text("resilience4j.circuitbreaker.instances:\n  a:\n  b: {}\n")
    assert [each.settings for each in config.circuits.values()] == [RESILIENCE4J] * 2
    assert str(config.circuits["a"].origins["window_calls"]) == "resilience4j's default"


TAKEN = {
    "slidingWindowType: TIME_BASED": {"window_calls": None, "window_seconds": 100.0},
    "slidingWindowType: count-based": {},
    "slidingWindowSize: 200": {"window_calls": 200},
    "slidingWindowSize: 20": {"window_calls": 20, "minimum_calls": 20},
    "slidingWindowSize: '120'": {"window_calls": 120},
    "minimumNumberOfCalls: 7": {"minimum_calls": 7},
    "minimumNumberOfCalls: 700": {},
    "minimumNumberOfCalls: 700, slidingWindowType: TIME_BASED": {
        "minimum_calls": 700,
        "window_calls": None,
        "window_seconds": 100.0,
    },
    "failureRateThreshold: 25": {"failure_rate_threshold": 0.25},
    "failureRateThreshold: 12.5": {"failure_rate_threshold": 0.125},
    "slowCallRateThreshold: 80": {"slow_call_rate_threshold": 0.8},
    "slowCallDurationThreshold: 2500": {"slow_call_duration": 2.5},
    "slowCallDurationThreshold: PT2S": {"slow_call_duration": 2.0},
    "waitDurationInOpenState: 30s": {"recovery_timeout": 30.0},
    "waitDurationInOpenState: 5000ms": {"recovery_timeout": 5.0},
    "waitDurationInOpenState: 1M": {},
    "permittedNumberOfCallsInHalfOpenState: 5": {"half_open_max_calls": 5},
    "enableExponentialBackoff: true": {"recovery_timeout_growth": 1.5},
    "enableExponentialBackoff: 'yes', exponentialBackoffMultiplier: 3": {
        "recovery_timeout_growth": 3.0
    },
    "enableExponentialBackoff: on, exponentialMaxWaitDurationInOpenState: 10m": {
        "recovery_timeout_growth": 1.5,
        "recovery_timeout_max": 600.0,
    },
    "exponentialBackoffMultiplier: 3, randomizedWaitFactor: 0.9": {},
    "enableExponentialBackoff: false": {},
    "enableRandomizedWait: true": {"recovery_timeout_jitter": 0.5},
    "enableRandomizedWait: true, randomizedWaitFactor: 0.2": {"recovery_timeout_jitter": 0.2},
    "recordExceptions: [java.io.IOException]": {"expected_exceptions": (OSError,)},
    "ignoreExceptions: java.lang.IllegalStateException": {"ignored_exceptions": (RuntimeError,)},
    "'ignoreExceptions[0]': java.io.IOException, 'ignoreExceptions[1]': KeyError": {
        "ignored_exceptions": (OSError, KeyError)
    },
    "sliding-window-size: 200, FAILURE_RATE_THRESHOLD: 10": {
        "window_calls": 200,
        "failure_rate_threshold": 0.1,
    },
    "initialState: CLOSED": {},
    "initialState: forced-open": {},
    "ignoreClassBindingExceptions: true": {},
    "allowHealthIndicatorToFail: true": {},
    "maxWaitDurationInHalfOpenState: 10s": {},
    "transitionToStateAfterWaitDuration: OPEN": {},
    "automaticTransitionFromOpenToHalfOpenEnabled: true": {},
    "registerHealthIndicator: true": {},
    "writableStackTraceEnabled: false": {},
    "eventConsumerBufferSize: 10": {},
}


@pytest.mark.parametrize("instance", TAKEN)
def test_what_a_key_becomes(load_text: Callable[..., Config], instance: str) -> None:
    config = load_text(file(instance))
    assert changed(config.circuits["a"].settings) == TAKEN[instance]
    assert [each for each in config.remarks if each.severity is Severity.WARNING] == []


NOTED = {
    "maxWaitDurationInHalfOpenState: 10s": "after probe_lease here, 60 s by default",
    "transitionToStateAfterWaitDuration: OPEN": "after a lost probe the circuit lets another one",
    "automaticTransitionFromOpenToHalfOpenEnabled: true": "half open as soon as somebody looks",
    "permittedNumberOfCallsInHalfOpenState: 5": "one failure reopens the circuit here",
    "enableRandomizedWait: true": "only shortened here",
    "registerHealthIndicator: true": "health shows all circuits",
    "writableStackTraceEnabled: true": "it has no effect",
    "eventConsumerBufferSize: 10": "it has no effect",
}


@pytest.mark.parametrize("instance", NOTED)
def test_what_a_reader_should_know_of_a_key(
    load_text: Callable[..., Config], instance: str
) -> None:
    (note,) = load_text(file(instance)).remarks
    assert note.severity is Severity.NOTE
    key = instance.partition(":")[0]
    assert str(note).startswith(f"1.yaml:1:49: {key} of a: ")
    assert NOTED[instance] in str(note)


WARNED = {
    "waitDurationInOpenState: 60": ("1.yaml:1:74", "60", "write a unit, such as 60s or 60ms"),
    "waitDuration: 60s": ("1.yaml:1:49", "waitDuration", "waitDurationInOpenState?"),
    "recordExceptionPredicate: X": ("1.yaml:1:49", "recordException", "recordFailurePredicate?"),
    "colour: red": ("1.yaml:1:49", "colour", "remove it"),
    "ringBufferSizeInClosedState: 5": ("1.yaml:1:49", "ringBufferSize", "slidingWindowSize?"),
    "slidingWindow: {size: 5}": ("1.yaml:1:65", "slidingWindow.size", "slidingWindowSize?"),
    "recordExceptions: [com.shop.PaymentException], ignoreClassBindingExceptions: true": (
        "1.yaml:1:68",
        "com.shop.PaymentException",
        "say what it is in Python",
    ),
    "enableRandomizedWait: true, enableExponentialBackoff: true": (
        "1.yaml:1:71",
        "true",
        "keep both for Fusewire alone, or remove one",
    ),
}


@pytest.mark.parametrize("instance", WARNED)
def test_what_spring_ignores_or_reads_otherwise_is_a_warning(
    load_text: Callable[..., Config], instance: str
) -> None:
    remarks = load_text(file(instance)).remarks
    (warning,) = [each for each in remarks if each.severity is Severity.WARNING]
    place, value, remedy = WARNED[instance]
    assert str(warning.place) == place
    assert value in warning.value
    assert remedy in warning.remedy


REFUSED = {
    "recordFailurePredicate: com.shop.P": "give classify_exception in code",
    "ignoreExceptionPredicate: com.shop.P": "give classify_exception in code",
    "recordResultPredicate: com.shop.P": "give classify_result in code",
    "initialState: OPEN": "write FORCED_OPEN",
    "initialState: HALF_OPEN": "write FORCED_OPEN",
    "initialState: SHUT": "write one of CLOSED",
    "transitionToStateAfterWaitDuration: CLOSED": "it would close a circuit that no call has",
    "slidingWindowType: COUNT": "did you mean COUNT_BASED?",
    "slidingWindowSize: 0": "write a whole number",
    "slidingWindowSize: 010": "write 10: with the leading zero it is octal",
    "slidingWindowSize: 1e3": "write 1000",
    "minimumNumberOfCalls: many": "write a whole number",
    "failureRateThreshold: 0.5": "50 is that share in percent",
    "failureRateThreshold: 50%": "without a percent sign",
    "slowCallRateThreshold: 101": "write a number from 1 to 100",
    "slowCallDurationThreshold: 5 seconds": "write 5s",
    "waitDurationInOpenState: 1:30": "write 1m30s",
    "waitDurationInOpenState: -5s": "write it as in 30s",
    "waitDurationInOpenState: 1e3": "write 1000ms",
    "waitDurationInOpenState: 1.5s": "write 1500ms",
    "waitDurationInOpenState: 1m30s": "write 90000ms",
    "waitDurationInOpenState: 1.5": "write a whole number with a unit",
    "waitDurationInOpenState: 0": "write a value that is accepted",
    "permittedNumberOfCallsInHalfOpenState: true": "write a whole number",
    "enableExponentialBackoff: maybe": "write true or false",
    "enableExponentialBackoff: true, exponentialBackoffMultiplier: 0.5": "a value that is",
    "enableExponentialBackoff: true, exponentialMaxWaitDurationInOpenState: 5s": "raise it, or",
    "enableRandomizedWait: true, randomizedWaitFactor: 1.5": "write a value that is accepted",
    "randomizedWaitFactor: much": "write a number",
    "baseConfig: shared": "add it to configs",
    "baseConfig: [a]": "write a name",
    "recordExceptions: [com.shop.PaymentException]": "java_exceptions={'com.shop.PaymentException'",
    "recordExceptions: [java.io.IOExceptoin]": "did you mean java.io.IOException?",
    "ignoreExceptions: [TimeoutErr]": "did you mean TimeoutError?",
    "recordExceptions: {a: b}": "write a list of exception classes in its place",
    "allowHealthIndicatorToFail: 5": "write true or false",
    "eventConsumerBufferSize: none": "write a whole number",
}


@pytest.mark.parametrize("instance", REFUSED)
def test_what_cannot_be_meant_is_an_error(
    problems_of: Callable[..., tuple[Problem, ...]], instance: str
) -> None:
    errors = [each for each in problems_of(file(instance)) if each.severity is Severity.ERROR]
    (error,) = errors
    assert error.place.line == 1
    assert error.accepted
    assert error.value
    assert REFUSED[instance] in error.remedy


def test_every_key_of_resilience4j_has_a_test() -> None:
    tested = {
        part.split(":")[0].strip(" '") for each in (*TAKEN, *REFUSED) for part in each.split(", ")
    }
    assert {key.name for key in KEYS.values()} <= tested | {"baseConfig"}


INHERITED = """
resilience4j.circuitbreaker:
  circuitBreakerAspectOrder: 1
  configs:
    default: {slidingWindowSize: 200, waitDurationInOpenState: 5s}
    shared: {baseConfig: root, failureRateThreshold: 30}
    root: {minimumNumberOfCalls: 3, failureRateThreshold: 20}
    c: {failureRateThreshold: 40}
  backends:
    a: {baseConfig: shared, minimumNumberOfCalls: 4}
    b: {failureRateThreshold: 10}
    c: {minimumNumberOfCalls: 5}
"""


def test_keys_inherit_as_in_resilience4j(load_text: Callable[..., Config]) -> None:
    config = load_text(INHERITED)
    of = {name: changed(each.settings) for name, each in config.circuits.items()}
    assert of == {
        "a": {"failure_rate_threshold": 0.3, "minimum_calls": 4},
        "b": {"failure_rate_threshold": 0.1, "window_calls": 200, "recovery_timeout": 5.0},
        "c": {"failure_rate_threshold": 0.4, "minimum_calls": 5},
    }
    rate = config.circuits["a"].origins["failure_rate_threshold"]
    assert str(rate) == "1.yaml:6:54, configs.shared"
    assert config.defaults is not None
    assert changed(config.defaults.settings) == {"window_calls": 200, "recovery_timeout": 5.0}


def test_circles_of_configurations_are_problems(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    found = problems_of(
        file(
            "baseConfig: x",
            more=", configs: {x: {baseConfig: y}, y: {baseConfig: x}, "
            "default: {baseConfig: default}}",
        )
    )
    assert [each.subject for each in found] == ["baseConfig of y", "baseConfig of default"]
    assert {each.remedy for each in found} == {"remove one of the keys called baseConfig"}


def test_names_in_brackets_and_without(load_text: Callable[..., Config]) -> None:
    config = load_text(
        """
resilience4j:
  circuitbreaker:
    instances:
      "[/payments.v1.Payments/*]": {slidingWindowSize: 200}
      /search.v1.Search/Find: {slidingWindowSize: 300}
    instances.[/a.B/C].sliding-window-size: 400
    instances.plain.slidingWindowSize: 500
"""
    )
    sizes = {name: each.settings.window_calls for name, each in config.circuits.items()}
    assert sizes == {
        "/payments.v1.Payments/*": 200,
        "/search.v1.Search/Find": 300,
        "/a.B/C": 400,
        "plain": 500,
    }
    (warning,) = config.remarks
    assert "write '[/search.v1.Search/Find]': Spring drops" in warning.remedy


def test_placeholders_take_variables_and_keys_of_the_file(load_text: Callable[..., Config]) -> None:
    text = file("waitDurationInOpenState: '${my.wait}', slidingWindowSize: '${SIZE:150}'")
    config = load_text(f"my: {{wait: 7s}}\n{text}")
    assert changed(config.circuits["a"].settings) == {"recovery_timeout": 7.0, "window_calls": 150}
    place = config.circuits["a"].origins["recovery_timeout"].place
    assert place is not None
    assert place.placeholder == "${my.wait}"


def test_profiles_and_later_files_change_single_keys(load_text: Callable[..., Config]) -> None:
    first = file("slidingWindowSize: 200, failureRateThreshold: 30")
    prod = "---\nspring.config.activate.on-profile: prod\n" + file("slidingWindowSize: 300")
    config = load_text(f"{first}\n{prod}", file("failure-rate-threshold: 40"), profile="prod")
    assert changed(config.circuits["a"].settings) == {
        "window_calls": 300,
        "failure_rate_threshold": 0.4,
    }


def test_our_own_form_and_variables_come_on_top(load_text: Callable[..., Config]) -> None:
    config = load_text(
        file("slidingWindowSize: 200"),
        "fusewire: {breakers: {circuits: {a: {ramp_duration: 5s}}}}",
        env={"FUSEWIRE_CIRCUITS": "{a: {window_calls: 150}}"},
    )
    assert changed(config.circuits["a"].settings) == {"window_calls": 150, "ramp_duration": 5.0}


def test_health_and_modes(load_text: Callable[..., Config]) -> None:
    config = load_text(
        file(
            "allowHealthIndicatorToFail: true, initialState: METRICS_ONLY}, "
            "b: {initialState: CLOSED"
        )
    )
    assert config.ready_needs == ("a",)
    registry = BreakerRegistry()
    config.apply(registry)
    assert registry.get("a").state is CircuitState.METRICS_ONLY
    assert registry.get("b").state is CircuitState.CLOSED


@pytest.mark.parametrize("instance", ["slidingWindowSize", "waitDurationInOpenState", "baseConfig"])
def test_no_secret_of_a_spring_file_is_shown(
    problems_of: Callable[..., tuple[Problem, ...]], instance: str
) -> None:
    found = problems_of(file(f"{instance}: '${{S}}'"), env={"S": "hunter2"})
    assert "hunter2" not in repr(found)
