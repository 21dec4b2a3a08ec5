"""Tests that run side by side report like tests that run one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.rabbitmq import URL_VARIABLE

if TYPE_CHECKING:
    import pytest

LOGS_ANYTHING = """
    import logging

    import pytest

    def test_logs_half_a_character():
        logging.getLogger("a").warning("half: \\ud800")

    def test_fails_with_half_a_character():
        assert "\\ud800" == ""

    def test_is_skipped():
        pytest.skip("half: \\ud800")
"""


def test_a_worker_reports_what_is_not_encodable(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "amqp://127.0.0.1:1/")  # none is needed, so none is started
    tests = Path(__file__).parents[1]
    pytester.makeconftest((tests / "conftest.py").read_text())
    pytester.makepyfile(LOGS_ANYTHING)
    result = pytester.runpytest_subprocess("-p", "anyio", "-n", "1", "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
