"""When and how fast parked messages are given to the handler again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.support.waiting import until

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_replays_keep_to_the_rate_and_new_messages_do_not_wait_for_it(bench: Bench) -> None:
    breaker = bench.registry.get("payments")
    breaker.force_open()
    begun: list[float] = []
    new: list[str] = []

    async def handler(message: AbstractIncomingMessage) -> None:
        if message.body.startswith(b"new"):
            new.append(message.body.decode())
        else:
            begun.append(time.monotonic())
        await breaker.call_async(asyncio.sleep, 0)

    await bench.send(*(f"m{number}" for number in range(8)))
    async with bench.consumer(handler, depends_on="payments", replay_rate=20):
        await until(lambda: len(bench.happened("parked")) == 8)
        breaker.reset()
        await bench.send("new-1", "new-2", "new-3")
        await until(lambda: len(bench.happened("replayed")) == 8)
        assert len(new) == 3
    assert begun[-1] - begun[0] > 0.25  # seven times 50 ms, less what the first was noted late
