"""Tests that run side by side report like tests that run one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.rabbitmq import URL_VARIABLE

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

HANGS = """
    import asyncio
    import logging
    import threading

    async def wait_for_nothing():
        await asyncio.Event().wait()

    async def test_waits():
        logging.getLogger("a").warning("waits for nothing")
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_nothing(), name="hopeless")

    def test_blocks():
        threading.Event().wait()
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


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            "test_waits",
            [
                "*::test_waits took more than 2 s.*",
                "*waits for nothing",
                "Task hopeless, which awaits:",
                "*in wait_for_nothing",
                "*in Event.wait",
            ],
        ),
        ("test_blocks", ["*::test_blocks took more than 2 s.*", "*, line * in test_blocks"]),
    ],
)
def test_what_takes_too_long_is_named_and_the_run_ends(
    test: str, said: list[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "amqp://127.0.0.1:1/")
    tests = Path(__file__).parents[1]
    pytester.makeconftest((tests / "conftest.py").read_text())
    pytester.makepyfile(HANGS)
    pytester.makeini("[pytest]\nanyio_mode = auto\ntimeout = 2")
    options = ("-n", "1", "--max-worker-restart", "0", "-k", test)
    result = pytester.runpytest_subprocess("-p", "anyio", *options)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"worker 'gw0' crashed while running '*::{test}'"])
    result.stderr.fnmatch_lines(said)
