"""Each example in the breaker's documentation runs, in order, as it is printed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser

from fusewire.breaker import BreakerSettings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "breaker.md"


@pytest.mark.parametrize("page", [PAGE, DOCS / "timeouts.md"], ids=lambda page: page.name)
def test_the_examples_run(page: Path) -> None:
    document = Document.parse(str(page), PythonCodeBlockParser())
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    assert len(examples) == page.read_text(encoding="utf-8").count("```python")


def test_the_table_has_every_setting_with_its_default() -> None:
    table = dict(
        re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    )
    for field in dataclasses.fields(BreakerSettings):
        told = table.pop(field.name).strip(" `")
        default = field.default
        if default is None or default is False:
            assert told in ("none", "false")
        elif isinstance(default, int | float):
            assert float(told) == default
        else:
            assert told == {"expected_exceptions": "(Exception,)"}.get(field.name, "()")
