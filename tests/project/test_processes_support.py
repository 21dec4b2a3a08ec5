"""A process that a test starts ends with the test run, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import KeptProcess, free_port
from tests.support.waiting import until_sync


def state(pid: int) -> str:
    """Return the process's state as the kernel names it; ``gone`` when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def wait_for_state(pid: int, *states: str) -> None:
    until_sync(lambda: state(pid) in states, f"{pid} in state {states}", limit=20)


def test_a_process_runs_with_its_arguments_and_environment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = KeptProcess(["/bin/sh", "-c", 'echo "$1 $X"', "sh", "a b"], env={"X": "y"}, log=log)
    assert process.wait(10) == 0
    assert log.read_text() == "a b y\n"
    assert not process.running


def test_a_process_is_paused_resumed_and_killed() -> None:
    process = KeptProcess(["sleep", "60"])
    process.pause()
    wait_for_state(process.pid, "T")
    process.resume()
    wait_for_state(process.pid, "S")
    assert process.kill() == -signal.SIGKILL


def test_a_process_that_ignores_the_request_to_stop_is_killed() -> None:
    process = KeptProcess(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    wait_for_state(process.pid, "S")
    assert process.stop(timeout=0.2) == -signal.SIGKILL


@pytest.mark.parametrize("forked", [False, True], ids=["plain", "with a forked child"])
def test_a_killed_owner_takes_its_processes_and_directories_along(
    tmp_path: Path, *, forked: bool
) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "file").touch()
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(directory), "fork" if forked else ""],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    with owner.stdout:
        kept, child = map(int, owner.stdout.readline().split())
    assert state(kept) in "SRD"
    owner.kill()
    owner.wait(10)
    wait_for_state(kept, "gone", "Z")
    until_sync(lambda: not directory.exists())
    if child:
        os.kill(child, signal.SIGKILL)


_OWNER = """
import os, sys, time
from tests.support.processes import KeptProcess, reaper
reaper().tell("path", sys.argv[1])
kept = KeptProcess(["sleep", "60"])
child = os.fork() if sys.argv[2] else 0
if child or not sys.argv[2]:
    print(kept.pid, child, flush=True)
time.sleep(60)
"""


def test_a_free_port_lies_outside_the_range_of_outgoing_connections() -> None:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert all(free_port() < int(first) for _ in range(20))
