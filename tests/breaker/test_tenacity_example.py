"""The example of retries with tenacity does what its text says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "retry_with_tenacity.py"


def test_the_example_prints_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    opened = "circuit 'users' is open (2 failures in a row, threshold 2); retry in 30 s"
    assert lines == [
        "retry_inside:",
        "tried three times: connection refused",
        "tried three times: connection refused",
        f"not tried: {opened}",
        f"not tried: {opened}",
        "the service was called 6 times",
        "retry_outside_and_stop_at_once:",
        f"gave up after 2 calls: {opened}",
        "retry_outside_and_wait:",
        "profile of ada, after 60.5 s, 4 calls",
    ]
