"""Every test that the page on RabbitMQ's traps names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rabbitmq-traps.md"


def test_each_trap_has_the_tests_that_it_names() -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    rows = re.findall(r"^\| (?!trap|-)(.+) \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == PAGE.read_text("utf-8").count("\n| ") - 3  # the three heads
    for trap, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, trap
        assert there.issuperset(named), trap
