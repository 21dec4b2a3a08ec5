"""Each process of the tests has ports of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fusewire.demo._subprocesses import free_port
from tests.support.ports import NoPortError, Ports, reserve_port

if TYPE_CHECKING:
    from collections.abc import Iterator

# Several processes choose ports, all seeded as Hypothesis seeds them, until each has been read.
CHOOSER = """
import random, sys
random.seed(0)
from tests.support.ports import NoPortError, Ports
ports = Ports(25_000, 25_040, block=10)
try:
    print(*(ports.reserve() for _ in range(9)), flush=True)
except NoPortError as error:
    print(error, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def choosers(count: int) -> Iterator[list[str]]:
    """Run processes that choose ports; give what each has written."""
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CHOOSER],
                    cwd=Path(__file__).parents[2],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        for each in running:
            stack.callback(each.kill)
        yield [each.stdout.readline().strip() for each in running if each.stdout]


def test_no_two_processes_that_live_have_a_port_in_common() -> None:
    with choosers(4) as chosen:
        ports = [int(port) for line in chosen for port in line.split()]
        assert len(set(ports)) == len(ports) == 36
        with choosers(1) as refused:
            assert refused == ["no free ports between 25000 and 25039 on 127.0.0.1"]


def test_the_end_of_a_process_frees_its_ports() -> None:
    for _ in range(2):
        with choosers(4) as chosen:
            assert all("no free" not in line for line in chosen)


def test_a_forked_child_chooses_other_ports_than_its_parent() -> None:
    mine = {reserve_port() for _ in range(2)}
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, repr({reserve_port() for _ in range(60)}).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:  # noqa: PTH123 - a file descriptor
        theirs = {int(port) for port in pipe.read().strip("{}").split(",")}
    os.waitpid(child, 0)
    mine |= {reserve_port() for _ in range(60)}
    assert not mine & theirs


def test_a_port_at_which_somebody_listens_is_passed_over() -> None:
    ports = Ports(25_040, 25_044, block=4)
    with socket.create_server(("127.0.0.1", 25_042)):
        assert [ports.reserve(), ports.reserve()] == [25_041, 25_043]
        with pytest.raises(NoPortError):
            ports.reserve()
    ports.release()


def test_the_ports_lie_outside_the_range_of_outgoing_connections_and_the_demos() -> None:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    mine = [reserve_port() for _ in range(20)]
    assert max(mine) < min(free_port() for _ in range(200))
    assert max(mine) < int(first)
