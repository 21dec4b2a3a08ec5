"""A receiver that is cancelled, wherever it is, loses nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import sys

MISSED = {
    "Receiver.run",  # where it has a defect
    "Receiver._replace",  # where the former subscription is lost in the same moment
}
"""Functions of which an await is not reached."""


async def test_a_receiver_that_is_cancelled_at_any_await_loses_and_doubles_nothing() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.cancelled_receiver", stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(printed)
    assert found["points"] > 40
    assert found["wrong"] == []
    assert set(found["missed"]) <= MISSED
