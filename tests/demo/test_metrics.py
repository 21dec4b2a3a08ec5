"""The demo serves metrics where it is asked to."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fusewire.breaker import BreakerRegistry
from fusewire.demo._config import Plan
from fusewire.demo._metrics import METRICS_VARIABLE, metrics_environment, serving_metrics
from fusewire.errors import SettingsError
from fusewire.parking import ParkingConsumer
from tests.support.ports import reserve_port


@pytest.mark.parametrize("wrong", ["9464", "localhost:", ":9464", "localhost:0", "a:65535", "a:x"])
def test_an_address_that_cannot_be_used(wrong: str) -> None:
    with pytest.raises(SettingsError, match="metrics must be HOST:PORT"):
        Plan(metrics=wrong)


def test_each_process_has_a_port_of_its_own() -> None:
    address = "127.0.0.1:9464"
    assert metrics_environment(address, "client") == {METRICS_VARIABLE: "127.0.0.1:9464"}
    assert metrics_environment(address, "orders") == {METRICS_VARIABLE: "127.0.0.1:9465"}
    assert metrics_environment(address, "baselines") == {}
    assert metrics_environment(None, "client") == {}


def test_they_are_served_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = BreakerRegistry()
    registry.get("payments")
    consumer = ParkingConsumer("sqlite:///unused.db", queue="orders", handler=print)
    address = f"127.0.0.1:{reserve_port()}"
    monkeypatch.setenv(METRICS_VARIABLE, address)
    url = f"http://{address}/metrics"
    with serving_metrics(registry, consumer), urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"circuit_breaker_state", "fusewire_broker_connected"} <= names
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)
