"""Every test that a page on traps names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "fusewire" / "testing" / "conformance"
PAGES = {page.name: page for page in sorted((ROOT / "docs").glob("*-traps.md"))}
HEAD = "| trap | test |\n|---|---|\n"


def test_there_is_a_page_for_either_side() -> None:
    assert list(PAGES) == ["grpc-traps.md", "rabbitmq-traps.md"]


@pytest.mark.parametrize("name", PAGES)
def test_each_trap_has_the_tests_that_it_names(name: str) -> None:
    there = {
        name
        for path in [*(ROOT / "tests").rglob("test_*.py"), *CONFORMANCE.glob("*.py")]
        for name in re.findall(
            r"^ *(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE
        )
    }
    page = PAGES[name].read_text("utf-8")
    rows = re.findall(r"^\| (?!trap|-)(.+) \| (.+) \|$", page, re.MULTILINE)
    assert rows
    assert len(rows) == page.count("\n| ") - page.count(HEAD)
    for trap, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, trap
        assert there.issuperset(named), trap
