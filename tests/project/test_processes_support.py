"""A process that a test starts ends with the test run, whatever becomes of it."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import (
    KeptProcess,
    free_port,
    is_gone,
    process_state,
    threads_of,
)
from tests.support.waiting import until_sync


def wait_for_state(pid: int, *states: str) -> None:
    until_sync(lambda: process_state(pid) in states, f"{pid} in state {states}", limit=20)


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
    assert process_state(kept) in "SRD"
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


def test_a_look_at_a_process_tolerates_its_end() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert process_state(process.pid) in "SRD"
    assert threads_of(process.pid) == [process.pid]
    process.kill()
    wait_for_state(process.pid, "Z")  # ended, and its parent has not asked for its status yet
    assert is_gone(process.pid)
    process.wait(10)
    assert process_state(process.pid) == process_state(process.pid, process.pid) == "gone"
    assert is_gone(process.pid)
    assert threads_of(process.pid) == []


def test_a_process_that_ends_between_the_opening_and_the_reading_of_its_file_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Ending(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(builtins, "open", lambda *_, **__: Ending())
    assert process_state(1) == "gone"
    assert is_gone(1)


def test_a_free_port_lies_outside_the_range_of_outgoing_connections() -> None:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert all(free_port() < int(first) for _ in range(20))
