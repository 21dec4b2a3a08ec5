"""What docs/kubernetes.md shows is so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusewire import BreakerRegistry, BreakerSettings
from fusewire.telemetry.health import Health
from fusewire.telemetry.health._indicator import indicate
from tests.docs.examples import run_examples
from tests.docs.test_kubernetes import NEWEST, OLDEST
from tests.support.asgi_server import ask, serving
from tests.support.consumer_status import FakeConsumer

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_examples_run_and_say_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_examples(PAGE, {"consumer": FakeConsumer()})
    assert f"# {capsys.readouterr().out.strip()}" in TEXT
    with serving(names["app"]) as address:
        assert ask(address + "/health").text == '{"status": "UP"}\n'
        for path in re.findall(r"`(/\w+z)`", TEXT):
            assert ask(address + path).text == "ok\n"
    with serving(names["details"]) as address:
        assert json.loads(ask(address + "/health").text)["components"]


def test_the_manifests_of_the_page_are_those_of_the_examples() -> None:
    manifest = (ROOT / "examples" / "kubernetes" / "consumer.yaml").read_text("utf-8")
    assert blocks("yaml")
    for block in blocks("yaml"):
        assert block in manifest


def test_the_page_shows_the_keys_of_a_circuit() -> None:
    registry = BreakerRegistry(BreakerSettings())
    registry.get("payment-service")
    report: Any = indicate(Health(registry).report(), details=True)
    circuit = report["components"]["circuitBreakers"]["details"]["payment-service"]
    (block,) = blocks("json")
    shown = json.loads(block)
    assert (list(shown), list(shown["details"])) == (list(circuit), list(circuit["details"]))


def test_the_page_names_the_versions_that_are_checked() -> None:
    versions = [version.rpartition(".")[0] for version in (OLDEST, NEWEST)]
    assert f"Kubernetes {versions[0]} and {versions[1]}" in TEXT
