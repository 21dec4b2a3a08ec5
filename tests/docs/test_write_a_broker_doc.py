"""The page for authors of brokers runs, and names what is there."""

from __future__ import annotations

import re
from pathlib import Path

from fusewire import errors
from fusewire.brokers import Broker, Capabilities
from fusewire.testing.conformance import BrokerConformance
from tests.docs.examples import run_examples

PAGE = Path(__file__).parents[2] / "docs" / "write-a-broker.md"


def test_its_examples_run() -> None:
    names = run_examples(PAGE, {"__name__": "page"})

    assert issubclass(names["TestMyBroker"], BrokerConformance)


def test_it_names_every_method_and_capability() -> None:
    page = PAGE.read_text(encoding="utf-8")
    methods = {name for name in vars(Broker) if not name.startswith("_")}
    capabilities = set(Capabilities.__slots__)

    for name in methods | capabilities:
        assert re.search(rf"`(\w+\.)?{name}\b", page), name
    for name in re.findall(r"`(\w+Error)`", page):
        assert hasattr(errors, name) or name in {"ValueError", "TypeError"}, name
