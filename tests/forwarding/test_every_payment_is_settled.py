"""Payments while everything around them fails, and what shop, server and queues say of them.

The shop, two forwarders and the server are processes, which are killed at random, and die by chance
at points that no other process could hit. The broker is killed before payments are queued, while
they are queued, and while they are replayed. Clocks jump, keys are rotated.

`FUSEWIRE_TEST_PAYMENTS` names the number of payments of the long form, and
`FUSEWIRE_TEST_SEED` the seed of all chances.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import reserve_port
from tests.support.settling import Run
from tests.support.settling_run import SettlingRun, run_to_the_end

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.rabbitmq import OwnRabbitMQ

PAYMENTS = int(os.environ.get("FUSEWIRE_TEST_PAYMENTS", "20000"))
SEED = int(os.environ.get("FUSEWIRE_TEST_SEED", "1"))


def _run(folder: Path, address: str, *, payments: int, seed: int, open_time: float) -> Run:
    return Run(
        folder=str(folder),
        address=address,
        queue="charges",
        target=f"127.0.0.1:{reserve_port()}",
        payments=payments,
        rate=50,
        open_time=open_time,
        seed=seed,
    )


async def _briefly(made: SettlingRun) -> None:
    await made.until_asked(20)
    await made.make("server_away")
    await made.make("keys_rotated")
    await made.make("shop_killed")
    await made.make("clock_jumps")


@pytest.mark.timeout(480)  # on a loaded machine
async def test_every_payment_is_settled_once_after_a_few_faults(tmp_path: Path) -> None:
    run = _run(tmp_path, f"sqlite:///{tmp_path}/broker.db", payments=60, seed=1, open_time=3)

    verdict = await run_to_the_end(run, None, _briefly)

    assert not verdict.faults, str(verdict)


async def _by_chance(made: SettlingRun) -> None:
    await made.until_asked(20)
    await made.break_until_all_are_asked(pause=4)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["sqlite", "rabbitmq"])
async def test_every_payment_is_settled_once_whatever_fails(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rabbitmq: OwnRabbitMQ | None = None
    address = f"sqlite:///{tmp_path}/broker.db"
    if kind == "rabbitmq":
        rabbitmq = request.getfixturevalue("private_rabbitmq")
        address = rabbitmq.url
    run = _run(tmp_path, address, payments=PAYMENTS, seed=SEED, open_time=1)

    verdict = await run_to_the_end(run, rabbitmq, _by_chance)

    with capsys.disabled():
        print(f"\n{verdict}")  # noqa: T201 - the figures of the run
    assert not verdict.faults
