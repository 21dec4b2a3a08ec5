"""The demo as a whole, with its real processes, on each broker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.demo._config import LANE
from tests.support.processes import KeptProcess, is_gone
from tests.support.waiting import until_sync

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from fusewire.cli import main; main()", "demo"]
CHILDREN = {
    "fusewire.demo.server",  # and the same again, as its standby
    "fusewire.demo.client",
    "fusewire.demo.orders",
    "fusewire.demo.baselines",
}


@pytest.fixture(params=["sqlite", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> list[str]:
    """Provide the options that say which broker."""
    if request.param == "sqlite":
        return []
    return ["--broker", request.getfixturevalue("amqp_url")]


def command_line(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def children(pid: int) -> dict[int, str]:
    """Return the demo's processes, with the module of each."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            modules = CHILDREN.intersection(command_line(int(entry.name)))
            if parent == pid and modules:
                found[int(entry.name)] = modules.pop()
    return found


def unexpected_tracebacks(log: str) -> list[str]:
    """Return the records of `log` with a traceback, but for those of first failed attempts."""
    records = re.split(r"(?m)^(?=\d{4}-\d\d-\d\d )", log)
    expected = "the first attempt of operation"
    return [record for record in records if "Traceback" in record and expected not in record]


def queues_left(url: str, source: str) -> list[str]:
    """Return which queues of a source queue exist."""

    async def look() -> list[str]:
        left = []
        async with await aio_pika.connect(url) as connection:
            for name in (source, *Layout(Topology(source, (LANE,))).derived):
                channel = await connection.channel()
                with suppress(ChannelNotFoundEntity):
                    await channel.declare_queue(name, passive=True)
                    left.append(name)
        return left

    return asyncio.run(look())


def test_nothing_is_lost_and_nothing_is_charged_twice(broker: list[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    page = tmp_path / "outage.html"
    options = ["--json", "--healthy", "2", "--outage", "3", "--keep", str(kept)]
    done = subprocess.run(
        [*COMMAND, *broker, *options, "--report", page],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    ledger = json.loads(line)
    assert ledger["broker"] == ("rabbitmq" if broker else "sqlite")
    assert ledger["lost"] == ledger["charged_twice"] == ledger["failed"] == 0
    assert ledger["charged"] == ledger["asked"] > 200
    assert ledger["replayed"] == ledger["parked"] > 50
    assert ledger["orders_lost"] == ledger["orders_charged_twice"] == 0
    assert ledger["orders_handled"] == ledger["orders_asked"] > 50
    assert ledger["orders_parked"] > 10
    for phase in ("before", "during", "after"):
        latency = ledger["latency_ms"][phase]
        assert 0 < latency["p50"] <= latency["p99"]
    without = ledger["clients"]["bare"], ledger["clients"]["retrying"]
    for client in (ledger["clients"]["fusewire"], *without):
        ends = [client[end] for end in ("made", "lost", "in_doubt", "charged_twice")]
        # Processes of their own, which begin and end some milliseconds apart.
        assert sum(ends) == client["asked"] == pytest.approx(ledger["asked"], rel=0.1)
    assert ledger["clients"]["fusewire"]["made"] == ledger["asked"]
    assert ledger["clients"]["fusewire"]["later"] == ledger["parked"]
    assert all(client["lost"] > 50 for client in without)
    assert ledger["why_p99"]
    assert f"The report: {page}\n" in done.stderr
    assert "NOTHING LOST, NOTHING CHARGED TWICE" in page.read_text("utf-8")
    assert "amqp:" not in page.read_text("utf-8")  # the address may have a password
    assert "the server is killed (SIGKILL)" in done.stderr
    assert "payments: the circuit is closed again" in done.stderr
    for log in ("client", "orders", "baselines", "server", "standby"):
        assert not unexpected_tracebacks((kept / f"{log}.log").read_text())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 130)],
)
def test_all_that_the_demo_started_ends_with_it(
    broker: list[str], signum: int, status: int, tmp_path: Path
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # what a kill leaves behind lies there
    with KeptProcess([*COMMAND, *broker], env=environment, cwd=ROOT, log=tmp_path / "log") as demo:
        all_of_them = until_sync(
            lambda: set((found := children(demo.pid)).values()) == CHILDREN and found, "they run"
        )
        (orders,) = (pid for pid, module in all_of_them.items() if module == "fusewire.demo.orders")
        queue = command_line(orders)[-3]
        until_sync(lambda: "server up" in (tmp_path / "log").read_text(), "the load has begun")
        demo.send_alone(signum)
        # Before the whole group is killed by the helper: none of them is in the group.
        until_sync(lambda: all(map(is_gone, all_of_them.values())), "they have ended")
        assert demo.wait(30) == status
    if broker:
        until_sync(lambda: not queues_left(broker[1], queue), "the queues are gone")


def test_a_broker_that_cannot_be_reached_is_named_and_nothing_is_left_running(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [*COMMAND, "--broker", "amqp://guest:secret@127.0.0.1:9/", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rate", "0"], "rate must be a number from 1 to 500, got 0.0"),
        (["--rate", "nan"], "got nan"),
        (["--healthy", "-1"], "got -1.0"),
        (["--outage", "inf"], "got inf"),
        (["--broker", "http://127.0.0.1"], "amqp://"),
        (["--report", "absent/outage.html"], "report must be a file in a folder that exists"),
        (["--keep", "."], "keep must be a new or empty folder, got '.'"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(options: list[str], named: str) -> None:
    done = subprocess.run(
        [*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
