"""A handler written for aio-pika runs unchanged, whatever it does to its message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.dependency import Dependency
from tests.support.waiting import until

if TYPE_CHECKING:
    import aio_pika
    from aio_pika.abc import AbstractIncomingMessage

    from tests.parking.conftest import Bench


async def test_a_handler_full_of_process_blocks_runs_unchanged(bench: Bench) -> None:
    dependency = Dependency(bench.registry)
    dependency.trip()

    async def handler(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            await dependency(message)

    await bench.send("a", "b")
    async with bench.consumer(handler):
        await until(lambda: len(bench.happened("parked")) == 2)
        dependency.down = False
        await until(lambda: len(bench.happened("replayed")) == 2)
    assert sorted(dependency.effects) == ["a", "b"]


async def test_an_error_swallowed_outside_of_process_still_counts(bench: Bench) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        try:
            async with message.process():
                raise ValueError("broken")  # noqa: TRY301 - the case in question
        except ValueError:
            pass

    await bench.send("a")
    async with bench.consumer(handler, max_attempts=1):
        await until(lambda: bench.happened("dead") == ["a"])


@pytest.mark.parametrize(
    ("settle", "becomes"),
    [
        (lambda message: message.ack(), "handled"),
        (lambda message: message.reject(), "dead"),
        (lambda message: message.nack(requeue=False), "dead"),
        (lambda message: message.reject(requeue=True), "delayed"),
        (lambda message: message.nack(), "delayed"),
    ],
    ids=["ack", "reject", "nack without requeue", "reject with requeue", "nack"],
)
async def test_what_a_handler_does_to_its_message_means_what_it_meant(
    bench: Bench, settle: object, becomes: str
) -> None:
    async def handler(message: AbstractIncomingMessage) -> None:
        await settle(message)  # type: ignore[operator]

    await bench.send("a")
    async with bench.consumer(handler):
        await until(lambda: "a" in bench.happened(becomes))
