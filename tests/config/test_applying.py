"""What files do to a registry: which of their settings come before code's, and what is logged."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import BreakerRegistry, BreakerSettings, CircuitBreaker, CircuitState, SettingsError
from fusewire.breaker import Outcome
from tests.support.circuits import open_circuit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config
    from fusewire.testing import FakeClock

CODE = BreakerSettings(failure_threshold=9, recovery_timeout=99.0)


def judge(_: BaseException) -> Outcome | None:
    return None


def circuits(text: str, defaults: str = "") -> str:
    return f"fusewire: {{breakers: {{defaults: {{{defaults}}}, circuits: {{{text}}}}}}}"


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(clock=clock)


@pytest.mark.parametrize("first", ["code", "file"])
@pytest.mark.parametrize("selector", ["/a.B/C", "/a.B/*", "'*'", "'/a.?/C'"])
def test_a_circuit_or_pattern_of_a_file_comes_before_code(
    load_text: Callable[..., Config], registry: BreakerRegistry, selector: str, first: str
) -> None:
    config = load_text(circuits(f"{selector}: {{failure_threshold: 2}}", "recovery_timeout: 7"))
    if first == "code":
        registry.get("/a.B/C", CODE)
    config.apply(registry)
    breaker = registry.get("/a.B/C", CODE)
    assert breaker.settings == BreakerSettings(failure_threshold=2, recovery_timeout=7.0)


@pytest.mark.parametrize("first", ["code", "file"])
def test_defaults_alone_never_come_before_code(
    load_text: Callable[..., Config], first: str, clock: FakeClock
) -> None:
    config = load_text(circuits("", "failure_threshold: 2"))
    registry = BreakerRegistry(overrides={"b*": CODE}, clock=clock)
    if first == "code":
        registry.get("a", CODE)
    config.apply(registry)
    assert registry.get("a", CODE).settings is CODE
    assert registry.get("b1").settings is CODE
    assert registry.get("c").settings == BreakerSettings(failure_threshold=2)
    with_own = BreakerRegistry(CODE)
    config.apply(with_own)
    assert with_own.get("c").settings is CODE


def test_a_breaker_that_a_look_made_gets_codes_settings_before_the_defaults(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    load_text(circuits("", "failure_threshold: 2")).apply(registry)
    assert registry.get("a").settings.failure_threshold == 2
    assert registry.get("a", CODE).settings is CODE


def test_the_exact_name_counts_and_then_the_longest_pattern(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    config = load_text(
        circuits(
            "'*': {failure_threshold: 1}, /a.B/*: {failure_threshold: 2},"
            " '/a.?/*': {failure_threshold: 3}, /a.B/C: {failure_threshold: 4},"
            " '/a.[B]/Z': {failure_threshold: 5}"
        )
    )
    config.apply(registry)
    names = ("x", "/a.B/D", "/a.X/D", "/a.B/C", "/a.B/Z", "/a.b")
    thresholds = [registry.get(name).settings.failure_threshold for name in names]
    assert thresholds == [1, 2, 3, 4, 5, 1]


def test_what_is_no_registry_is_refused(load_text: Callable[..., Config]) -> None:
    wrong: Any = {}
    with pytest.raises(SettingsError, match="registry must be a BreakerRegistry"):
        load_text(circuits("")).apply(wrong)


def test_functions_stay_codes_and_exceptions_that_the_file_does_not_name(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    code = BreakerSettings(
        classify_exception=judge,
        classify_result=lambda _: Outcome.SUCCESS,
        expected_exceptions=(OSError,),
        ignored_exceptions=(KeyError,),
    )
    load_text(
        circuits("'*': {failure_threshold: 2}, named: {expected_exceptions: [ValueError]}")
    ).apply(registry)
    kept, named = registry.get("a", code).settings, registry.get("named", code).settings
    for settings in (kept, named):
        assert settings.classify_exception is judge
        assert settings.classify_result is code.classify_result
        assert settings.ignored_exceptions == (KeyError,)
    assert kept.failure_threshold == 2
    assert kept.expected_exceptions == (OSError,)
    assert named.expected_exceptions == (ValueError,)


def test_state_window_and_totals_are_kept(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    breaker = registry.get("a", BreakerSettings(window_calls=10))
    open_circuit(breaker)
    failures = breaker.snapshot().failed
    load_text(circuits("a: {failure_threshold: 50, window_calls: 20}")).apply(registry)
    assert breaker is registry.get("a")
    assert breaker.state is CircuitState.OPEN
    assert breaker.snapshot().failed == failures > 0


def test_applying_again_replaces_what_was_applied_before(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    breaker = registry.get("a", CODE)
    load_text(circuits("a: {failure_threshold: 1}")).apply(registry)
    load_text(circuits("b: {failure_threshold: 1}")).apply(registry)
    assert breaker.settings is CODE
    assert registry.get("b", CODE).settings.failure_threshold == 1


def test_an_added_breaker_and_later_configuration_of_code_stay_below_the_file(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    load_text(circuits("a: {failure_threshold: 1}")).apply(registry)
    registry.add(CircuitBreaker("a", settings=CODE))
    registry.configure(CODE, overrides={"a": CODE})
    assert registry.get("a").settings == BreakerSettings(failure_threshold=1)
    assert registry.get("b").settings is CODE


def test_a_mode_is_set_when_a_circuit_is_made_and_when_it_changes(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    early = registry.get("early")
    load_text(circuits("'*': {mode: forced_open}, off: {mode: disabled}")).apply(registry)
    late = registry.get("late")
    assert (early.state, late.state) == (CircuitState.FORCED_OPEN, CircuitState.FORCED_OPEN)
    assert registry.get("off").state is CircuitState.DISABLED
    assert early.figures().by == "1.yaml:1:60"
    early.automatic(by="a person")
    load_text(circuits("'*': {mode: forced_open, failure_threshold: 1}")).apply(registry)
    assert early.state is CircuitState.CLOSED, "what a person did since stays"
    load_text(circuits("'*': {mode: metrics_only}")).apply(registry)
    assert early.state is CircuitState.METRICS_ONLY
    load_text(circuits("")).apply(registry)
    assert (early.state, late.state) == (CircuitState.CLOSED, CircuitState.CLOSED)


def test_a_file_without_modes_leaves_what_a_person_set(
    load_text: Callable[..., Config], registry: BreakerRegistry
) -> None:
    breaker = registry.get("a")
    breaker.force_open()
    load_text(circuits("a: {failure_threshold: 1}")).apply(registry)
    assert breaker.state is CircuitState.FORCED_OPEN


def test_the_log_says_once_for_each_circuit_what_changes(
    load_text: Callable[..., Config], registry: BreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry.get("early", CODE)
    config = load_text(
        circuits("'*': {preset: critical, max_wait: '${WAIT}'}", "log_messages: true"),
        env={"WAIT": "12345s"},
    )
    caplog.clear()
    config.apply(registry)
    config.apply(registry)
    for _ in range(2):
        registry.get("late", CODE)
    tail = (
        "half_open_max_calls: 3 → 5 (1.yaml:1:80, preset critical); max_wait: null → the value of "
        "${WAIT}, which is not shown (1.yaml:1:100); log_messages: false → true (1.yaml:1:48)"
    )
    head = (
        "failure_threshold: 9 → 3 (1.yaml:1:80, preset critical); "
        "recovery_timeout: 99 → 120 (1.yaml:1:80, preset critical); "
    )
    assert caplog.messages == [
        f"circuit 'early' is configured: {head}{tail}",
        f"circuit 'late' is configured: {head}{tail}",
    ]
    record: Any = caplog.records[0]
    assert (record.name, record.fusewire_event) == ("fusewire.config", "circuit.configured")
    assert (record.fusewire_circuit, record.fusewire_count) == ("early", 5)


def test_the_log_shows_no_secret_of_defaults_or_of_the_settings_before(
    load_text: Callable[..., Config], registry: BreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    registry.get("a")
    env = {"WAIT": "12345s"}
    load_text(circuits("", "max_wait: '${WAIT}'"), env=env).apply(registry)
    load_text(circuits("a: {max_wait: '${WAIT}'}"), env=env).apply(registry)
    load_text(circuits("a: {max_wait: 5}")).apply(registry)
    assert len([line for line in caplog.messages if "configured" in line]) == 2
    assert "12345" not in caplog.text


def test_codes_and_files_settings_from_many_threads_end_as_the_last_file_says(
    load_text: Callable[..., Config],
) -> None:
    registry = BreakerRegistry()
    configs = [
        load_text(circuits(f"'*': {{failure_threshold: {n}, half_open_max_calls: {n}}}"))
        for n in range(1, 6)
    ]
    stop = threading.Event()
    halves: list[BreakerSettings] = []

    def call() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            settings = registry.get(f"circuit-{number % 50}", CODE).settings
            if settings.failure_threshold != settings.half_open_max_calls and settings != CODE:
                halves.append(settings)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        configs[number % 5].apply(registry)
    configs[2].apply(registry)
    stop.set()
    for thread in threads:
        thread.join()
    assert halves == []
    assert {breaker.settings.failure_threshold for breaker in registry} == {3}


@pytest.mark.parametrize("name", ["payment-service", "payment_service", "PaymentService"])
def test_a_name_that_files_write_otherwise_is_a_warning(
    load_text: Callable[..., Config],
    registry: BreakerRegistry,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    file = circuits("paymentService: {failure_threshold: %d}")
    load_text(file % 3).apply(registry)
    registry.get(name)
    registry.get("paymentService")
    registry.get("another")
    load_text(file % 4).apply(registry)
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert warning.getMessage() == (
        f"circuit '{name}' has no settings from files: they write its name 'paymentService' "
        "(1.yaml:1:48)"
    )


def test_a_name_that_files_have_in_two_ways_or_by_a_pattern_is_none(
    load_text: Callable[..., Config], registry: BreakerRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    load_text(
        circuits("user_service: {}, user-service: {}, mail: {}, 'm*l': {}, 'MAI?': {}")
    ).apply(registry)
    for name in ("user_service", "user-service", "MAIL"):
        registry.get(name)
    assert [each for each in caplog.records if each.levelname == "WARNING"] == []
