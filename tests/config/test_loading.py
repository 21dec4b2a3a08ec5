"""What files and variables of our own form mean, and what comes before what."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import BreakerSettings, ReplayPolicy, RetryPolicy, SettingsError
from fusewire.breaker import CRITICAL
from fusewire.config import Config, Place, Problem, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = """
fusewire:
  breakers:
    defaults: {failure_threshold: 7, recovery_timeout: 10s}
    bases:
      money: {preset: critical, recovery_timeout: 2m}
      quick: {base: money, recovery_timeout: 500ms}
    circuits:
      /payments.v1.Payments/*: {base: money}
      /payments.v1.Payments/Charge: {failure_threshold: 2, mode: forced_open}
      user-service: {base: quick, window_calls: 20, failure_rate_threshold: 50%}
  consumers:
    orders:
      retry: {max_attempts: 3, delays: [1s, 1m], max_age: P1D, dead_on: [ValueError]}
      replay: {concurrency: 8, rate: 2.5, yields: 1, scope: cluster}
"""


def settings(config: Config, name: str) -> BreakerSettings:
    return config.circuits[name].settings


def default(config: Config) -> BreakerSettings:
    assert config.defaults is not None
    return config.defaults.settings


def test_a_circuit_has_its_own_values_then_its_bases_then_the_files_then_the_librarys(
    load_text: Callable[..., Config],
) -> None:
    config = load_text(FILE)
    assert settings(config, "/payments.v1.Payments/*") == BreakerSettings(
        failure_threshold=3, recovery_timeout=120.0, half_open_max_calls=5
    )
    assert settings(config, "/payments.v1.Payments/Charge") == BreakerSettings(
        failure_threshold=2, recovery_timeout=10.0
    )
    assert settings(config, "user-service") == BreakerSettings(
        failure_threshold=3,
        recovery_timeout=0.5,
        half_open_max_calls=5,
        window_calls=20,
        failure_rate_threshold=0.5,
    )
    assert default(config) == BreakerSettings(failure_threshold=7, recovery_timeout=10.0)


def test_a_mode_is_that_of_the_circuit_or_of_its_base(load_text: Callable[..., Config]) -> None:
    config = load_text(FILE)
    forced = config.circuits["/payments.v1.Payments/Charge"].mode
    assert forced is not None
    assert forced.value == "forced_open"
    assert config.circuits["user-service"].mode is None


def test_policies_of_a_consumer(load_text: Callable[..., Config]) -> None:
    orders = load_text(FILE).consumer("orders")
    assert orders.retry == RetryPolicy(
        max_attempts=3, delays=(1.0, 60.0), max_age=86400.0, dead_on=(ValueError,)
    )
    assert orders.replay == ReplayPolicy(concurrency=8, rate=2.5, yields=1.0, scope="cluster")


def test_a_consumer_that_no_file_names_has_the_librarys_policies(
    load_text: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = load_text(FILE)
    policies = config.consumer("invoices")
    assert (policies.retry, policies.replay) == (RetryPolicy(), ReplayPolicy())
    assert caplog.messages == []
    config.consumer("order")
    assert caplog.messages == [
        (
            "no file has policies for the queue 'order', so it has the library's; did you mean "
            "'orders'?"
        )
    ]


def test_each_value_knows_where_it_is_written(load_text: Callable[..., Config]) -> None:
    origins = load_text(FILE).circuits["user-service"].origins
    assert str(origins["recovery_timeout"]) == "1.yaml:7:46"
    assert str(origins["failure_threshold"]) == "1.yaml:6:23, preset critical"
    assert str(origins["window_calls"]) == "1.yaml:11:49"
    assert str(origins["probe_lease"]) == "the library"


def test_a_later_file_counts_more_key_by_key(load_text: Callable[..., Config]) -> None:
    config = load_text(
        "fusewire: {breakers: {circuits: {a: {failure_threshold: 1, recovery_timeout: 1s}}}}",
        "fusewire: {breakers: {circuits: {a: {recovery_timeout: 2s}}}}",
    )
    assert settings(config, "a") == BreakerSettings(failure_threshold=1, recovery_timeout=2.0)
    assert config.circuits["a"].origins["recovery_timeout"].place == Place("2.yaml", 1, 56)


def test_variables_count_more_than_files(load_text: Callable[..., Config]) -> None:
    config = load_text(
        FILE,
        env={
            "FUSEWIRE_BREAKERS__DEFAULTS__RECOVERY_TIMEOUT": "15s",
            "FUSEWIRE_BREAKERS__BASES__MONEY__HALF_OPEN_MAX_CALLS": "1",
            "FUSEWIRE_CIRCUITS": '{"/payments.v1.Payments/Charge":\t{"failure_threshold": 9}}',
            "FUSEWIRE_CONSUMERS__ORDERS__RETRY__MAX_ATTEMPTS": "8",
            "FUSEWIRE_ADDRESS": "amqp://not.ours",
            "FUSEWIRE_PORT_80_TCP": "set by Kubernetes",
        },
    )
    charge = config.circuits["/payments.v1.Payments/Charge"]
    assert (charge.settings.failure_threshold, charge.settings.recovery_timeout) == (9, 15.0)
    assert str(charge.origins["failure_threshold"]) == "FUSEWIRE_CIRCUITS:1:56"
    timeout = "FUSEWIRE_BREAKERS__DEFAULTS__RECOVERY_TIMEOUT"
    assert str(charge.origins["recovery_timeout"]) == timeout
    assert settings(config, "user-service").half_open_max_calls == 1
    assert config.consumer("orders").retry.max_attempts == 8


NAMES = """
fusewire:
  breakers:
    bases: {Big-Money: {failure_threshold: 2}}
    circuits: {user-service: {base: Big-Money}, a.b: {}, a-b: {}, a_b: {}, c.d: {}, c-d: {}}
  consumers: {orders-EU: {retry: {max_attempts: 2}}}
  forwarders: {calls.eu: {broker: "amqp://h", target: "h:1"}}
resilience4j.circuitbreaker.instances: {payment-service: {slidingWindowSize: 5}}
"""


def test_the_names_of_variables_are_those_of_the_files(load_text: Callable[..., Config]) -> None:
    config = load_text(
        NAMES,
        env={
            "FUSEWIRE_BREAKERS__BASES__BIG_MONEY__FAILURE_THRESHOLD": "3",
            "FUSEWIRE_BREAKERS__CIRCUITS__USER_SERVICE__HALF_OPEN_MAX_CALLS": "4",
            "FUSEWIRE_BREAKERS__CIRCUITS__PAYMENT_SERVICE__HALF_OPEN_MAX_CALLS": "5",
            "FUSEWIRE_BREAKERS__CIRCUITS__A_B__HALF_OPEN_MAX_CALLS": "6",
            "FUSEWIRE_BREAKERS__CIRCUITS__NEW_ONE__HALF_OPEN_MAX_CALLS": "7",
            "FUSEWIRE_CONSUMERS__ORDERS_EU__RETRY__MAX_ATTEMPTS": "8",
            "FUSEWIRE_FORWARDERS__CALLS_EU__TARGET": "h:2",
        },
    )
    probes = {name: each.settings.half_open_max_calls for name, each in config.circuits.items()}
    assert settings(config, "user-service").failure_threshold == 3
    assert probes == {
        "user-service": 4,
        "a.b": 3,
        "a-b": 3,
        "a_b": 6,
        "c.d": 3,
        "c-d": 3,
        "payment-service": 5,
        "new_one": 7,
    }
    assert {queue: each.retry.max_attempts for queue, each in config.consumers.items()} == {
        "orders-EU": 8
    }
    assert {queue: each.target for queue, each in config.forwarders.items()} == {"calls.eu": "h:2"}


def test_the_name_of_a_variable_that_fits_several_of_files_is_a_problem(
    problems_of: Callable[..., tuple[Problem, ...]],
) -> None:
    variable = "FUSEWIRE_BREAKERS__CIRCUITS__C_D__FAILURE_THRESHOLD"
    (problem,) = problems_of(NAMES, env={variable: "1"})
    assert str(problem) == (
        f"{variable}: the name in a variable must be that of one circuit, base or queue, got one "
        "that fits c-d and c.d; use FUSEWIRE_CIRCUITS, which holds any name"
    )


def test_the_processs_own_environment_counts_unless_another_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEWIRE_CIRCUITS", "{a: {failure_threshold: 4}}")
    assert settings(load(), "a").failure_threshold == 4
    assert dict(load(env={}).circuits) == {}


def test_null_takes_back_what_a_base_says(load_text: Callable[..., Config]) -> None:
    config = load_text(
        "fusewire: {breakers: {defaults: {window_calls: 50},"
        " circuits: {a: {window_calls: null, window_seconds: 60}}}}"
    )
    assert settings(config, "a") == BreakerSettings(window_seconds=60.0)


def test_json_is_read_with_tabs_and_pairs_of_surrogates(load_text: Callable[..., Config]) -> None:
    whole = {"fusewire": {"breakers": {"circuits": {"a\t😀/b": {"recovery_timeout": 1.5}}}}}
    text = json.dumps(whole, indent="\t")
    assert "\\ud83d" in text
    config = load_text(text, suffix=".json")
    assert settings(config, "a\t😀/b").recovery_timeout == 1.5


PROFILES = """
fusewire: {breakers: {defaults: {failure_threshold: 1}}}
---
spring.config.activate.on-profile: "prod & !eu"
fusewire: {breakers: {defaults: {failure_threshold: 2}}}
---
spring: {config: {activate: {on-profile: [test, eu]}}}
fusewire: {breakers: {defaults: {failure_threshold: 3}}}
"""


@pytest.mark.parametrize(
    ("profile", "threshold"),
    [("", 1), ("prod", 2), ("eu", 3), ("prod,eu", 3), ("dev", 1), ("test", 3)],
)
def test_documents_of_a_profile_count_more(
    load_text: Callable[..., Config], profile: str, threshold: int
) -> None:
    config = load_text(PROFILES, profile=profile)
    assert default(config) == BreakerSettings(failure_threshold=threshold)


def test_a_profile_is_a_name_or_several() -> None:
    wrong: Any = 5
    with pytest.raises(SettingsError, match="profile must be a name, or a list of names, got 5"):
        load(profile=wrong)


def test_names_and_merge_keys_of_yaml(load_text: Callable[..., Config]) -> None:
    config = load_text("""
x-common: &common {failure_threshold: 2, recovery_timeout: 5s}
x-window: &window {window_calls: 30, recovery_timeout: 7s}
fusewire:
  breakers:
    circuits:
      no: {<<: *common}
      on: {<<: [*common, *window], failure_threshold: 4}
""")
    assert set(config.circuits) == {"no", "on"}
    assert settings(config, "no") == BreakerSettings(failure_threshold=2, recovery_timeout=5.0)
    assert settings(config, "on") == BreakerSettings(
        failure_threshold=4, recovery_timeout=5.0, window_calls=30
    )
    assert str(config.circuits["on"].origins["window_calls"]) == "1.yaml:3:34"


def test_a_time_that_looks_like_milliseconds_is_warned_of(
    load_text: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = load_text("fusewire: {breakers: {circuits: {a: {recovery_timeout: 30001}}}}")
    assert [str(one) for one in config.remarks] == [
        (
            "1.yaml:1:56: breakers.circuits['a'].recovery_timeout must be a duration, and rarely "
            "more than an hour, got 30001; write ms behind the number if milliseconds were meant"
        )
    ]
    assert caplog.messages == [str(one) for one in config.remarks], "once, with its place"


def test_presets_may_be_changed_by_defaults_and_null(load_text: Callable[..., Config]) -> None:
    config = load_text("fusewire: {breakers: {defaults: {preset: critical}, circuits: {a: {}}}}")
    assert default(config) == CRITICAL
    assert settings(config, "a") == CRITICAL


def test_loading_imports_nothing_that_a_file_names(load_text: Callable[..., Config]) -> None:
    load_text("fusewire: {breakers: {circuits: {a: {expected_exceptions: [this.Error]}}}}")
    assert "this" not in sys.modules
