"""What a test leaves to the garbage collector is the error of that test, and of no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

LEAVING = """
    import asyncio
    import logging

    logging.getLogger("a.library")

    async def work():
        pass

    class Knot:
        pass

    class Broken(Knot):
        def __del__(self):
            raise ValueError("not closed")

    def tie(knot):
        knot.itself = knot  # only the garbage collector finds it
        return knot

    def test_leaves_a_coroutine():
        tie(Knot()).work = work()

    def test_leaves_nothing():
        pass

    def test_leaves_what_cannot_be_finalized():
        tie(Broken())

    def test_leaves_nothing_either():
        asyncio.run(work())

    def test_leaves_a_silent_logger():
        logging.getLogger("a.library").setLevel(logging.CRITICAL)

    def test_leaves_loggers_as_they_are(caplog):
        with caplog.at_level(logging.DEBUG, "a.library"):
            pass
"""


def test_what_a_test_leaves_behind_is_its_own_error(pytester: pytest.Pytester) -> None:
    tests = Path(__file__).parents[1]
    pytester.makeconftest((tests / "conftest.py").read_text())
    pytester.makepyfile(LEAVING)
    result = pytester.runpytest_subprocess("-p", "anyio", "-W", "error")
    result.assert_outcomes(passed=6, errors=3)
    result.stdout.fnmatch_lines(
        ["*test_leaves_a_coroutine has left this behind:*coroutine 'work' was never awaited*"]
    )
    result.stdout.fnmatch_lines(
        ["*test_leaves_what_cannot_be_finalized has left this behind:*not closed*"]
    )
    result.stdout.fnmatch_lines(
        ["*test_leaves_a_silent_logger has left loggers with other settings:*a.library*"]
    )
    result.stdout.no_fnmatch_line("*test_leaves_nothing*has left*")
    result.stdout.no_fnmatch_line("*as_they_are*has left*")
