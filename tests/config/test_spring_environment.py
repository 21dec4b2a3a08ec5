"""Spring's own variables replace keys of a Spring Boot file, as Spring binds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.config import ConfigError, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config

FILE = """\
resilience4j.circuitbreaker:
  instances:
    payment-service: {slidingWindowSize: 20, recordExceptions: [java.io.IOException]}
    payment: {}
    userService: {}
    "[/a.B/*]": {}
  configs.default: {failureRateThreshold: 60}
"""
PREFIX = "RESILIENCE4J_CIRCUITBREAKER_"
RECORDED = "INSTANCES_PAYMENTSERVICE_RECORDEXCEPTIONS"
RATE, WAIT, EXPECTED = "failure_rate_threshold", "recovery_timeout", "expected_exceptions"


@pytest.mark.parametrize(
    ("variable", "circuit", "changed"),
    [
        ("INSTANCES_PAYMENTSERVICE_FAILURERATETHRESHOLD=40", "payment-service", {RATE: 0.4}),
        ("INSTANCES_PAYMENT_SERVICE_FAILURE_RATE_THRESHOLD=40", "payment-service", {RATE: 0.4}),
        ("INSTANCES_PAYMENT_FAILURERATETHRESHOLD=40", "payment", {RATE: 0.4}),
        ("BACKENDS_USERSERVICE_WAITDURATIONINOPENSTATE=1500", "userService", {WAIT: 1.5}),
        ("INSTANCES_AB_WAITDURATIONINOPENSTATE=3s", "/a.B/*", {WAIT: 3.0}),
        ("CONFIGS_DEFAULT_FAILURERATETHRESHOLD=10", "payment", {RATE: 0.1}),
        (f"{RECORDED}_0=ValueError", "payment-service", {EXPECTED: (ValueError,)}),
        (f"{RECORDED}=ValueError", "payment-service", {EXPECTED: (ValueError,)}),
    ],
)
def test_a_variable_replaces_a_key(
    load_text: Callable[..., Config], variable: str, circuit: str, changed: dict[str, object]
) -> None:
    name, _, value = f"{PREFIX}{variable}".partition("=")
    config = load_text(FILE, env={name: value})
    found = config.circuits[circuit]
    for setting, meant in changed.items():
        assert getattr(found.settings, setting) == meant
        assert str(found.origins[setting]).startswith(name)
    assert config.remarks == ()


def test_a_list_of_variables_replaces_that_of_the_file(load_text: Callable[..., Config]) -> None:
    key = f"{PREFIX}{RECORDED}"
    env = {f"{key}_0": "ValueError", f"{key}_1": "java.io.IOException"}
    settings = load_text(FILE, env=env).circuits["payment-service"].settings
    assert settings.expected_exceptions == (ValueError, OSError)


def test_a_default_configuration_may_come_from_variables_alone(
    load_text: Callable[..., Config],
) -> None:
    env = {f"{PREFIX}CONFIGS_DEFAULT_SLIDINGWINDOWSIZE": "30"}
    config = load_text("resilience4j.circuitbreaker.instances.a: {}", env=env)
    assert config.circuits["a"].settings.window_calls == 30


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("INSTANCES_SEARCH_SLIDINGWINDOWSIZE", "an instance or a configuration that a file names"),
        ("SLIDINGWINDOWSIZE", "an instance or a configuration that a file names"),
        ("INSTANCES_PAYMENT_SLIDINGWINDOWSISE", "did you mean slidingWindowSize?"),
    ],
)
def test_what_fits_nothing_is_a_warning(
    load_text: Callable[..., Config], variable: str, said: str
) -> None:
    config = load_text(FILE, env={PREFIX + variable: "30"})
    (remark,) = config.remarks
    assert remark.severity is Severity.WARNING
    assert remark.place.source == PREFIX + variable
    assert said in str(remark)


def test_a_wrong_value_is_a_problem_of_the_variable(load_text: Callable[..., Config]) -> None:
    variable = f"{PREFIX}INSTANCES_PAYMENT_FAILURERATETHRESHOLD"
    with pytest.raises(ConfigError) as raised:
        load_text(FILE, env={variable: "400"})
    (problem,) = raised.value.problems
    assert str(problem).startswith(f"{variable}: failureRateThreshold of payment must be a percent")


def test_without_a_spring_boot_file_they_are_nobodys_business(
    load_text: Callable[..., Config],
) -> None:
    env = {f"{PREFIX}INSTANCES_A_SLIDINGWINDOWSIZE": "30"}
    config = load_text("fusewire: {breakers: {circuits: {a: {}}}}", env=env)
    assert config.remarks == ()
    assert config.circuits["a"].settings.window_calls is None


def test_they_belong_to_the_file_so_a_later_one_of_ours_counts_more(
    load_text: Callable[..., Config],
) -> None:
    env = {f"{PREFIX}INSTANCES_PAYMENT_SLIDINGWINDOWSIZE": "30"}
    ours = "fusewire: {breakers: {circuits: {payment: {window_calls: 200}}}}"
    assert load_text(FILE, ours, env=env).circuits["payment"].settings.window_calls == 200
