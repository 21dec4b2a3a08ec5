"""Prometheus' own tool finds nothing wrong with the rules, and the alerts fire when they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.prometheus import promtool

MONITORING = Path(__file__).parents[2] / "monitoring"

pytestmark = pytest.mark.prometheus


@pytest.mark.parametrize("file", ["rules.yml", "alerts.yml"])
def test_the_rules_are_valid(file: str) -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", MONITORING / file)


def test_the_rules_and_alerts_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", MONITORING / "rules_test.yml")


def test_every_rule_and_alert_is_tested() -> None:
    tests = (MONITORING / "rules_test.yml").read_text("utf-8")
    rules = (MONITORING / "rules.yml").read_text("utf-8")
    alerts = (MONITORING / "alerts.yml").read_text("utf-8")
    names = [
        line.partition(": ")[2].strip()
        for line in (rules + alerts).splitlines()
        if line.strip().startswith(("- record:", "- alert:"))
    ]
    assert len(names) >= 15
    assert [name for name in names if name not in tests] == []
