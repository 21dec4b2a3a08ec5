"""A process that a test starts ends with the test run, whatever becomes of it."""

from __future__ import annotations

import ast
import builtins
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import processes
from tests.support.processes import (
    KeptProcess,
    is_gone,
    process_state,
    threads_of,
)
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(directory), "fork" if forked else ""],
        stdin=subprocess.PIPE,  # its end is what the child waits for
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as owner:
        assert owner.stdout is not None
        kept = int(owner.stdout.readline())
        assert process_state(kept) in "SRD"
        owner.kill()
        owner.wait(10)
        wait_for_state(kept, "gone", "Z")
        until_sync(lambda: not directory.exists())


_OWNER = """
import os, sys, time
from tests.support.processes import KeptProcess, reaper
reaper().tell("path", sys.argv[1])
kept = KeptProcess(["sleep", "60"])
child = os.fork() if sys.argv[2] else 0
if child or not sys.argv[2]:
    print(kept.pid, flush=True)
sys.stdin.read()
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


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Note what is signalled: the id, and the state of the process that has it."""
    noted: list[tuple[int, str]] = []

    def noting(send: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def note(pid: int, signum: int) -> None:
            noted.append((pid, process_state(pid)))
            send(pid, signum)

        return note

    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    return noted


def test_a_process_whose_status_was_asked_for_gets_no_signal(
    signalled: list[tuple[int, str]],
) -> None:
    process = KeptProcess(["true"])
    assert process.wait(10) == 0
    assert process_state(process.pid) == "gone"  # its id may be somebody else's from now on
    signalled.clear()
    for again in (process.pause, process.resume, process.stop, process.kill):
        again()
    process.send_alone(signal.SIGTERM)
    assert not process.running
    assert signalled == []


def test_what_a_process_leaves_running_is_killed_while_the_id_is_still_its_own(
    signalled: list[tuple[int, str]], tmp_path: Path
) -> None:
    said = tmp_path / "said"
    process = KeptProcess(["/bin/sh", "-c", f"sleep 60 & echo $! > {said}"])
    assert process.wait(10) == 0
    assert signalled == [(process.pid, "Z")]
    wait_for_state(int(said.read_text()), "gone", "Z")


def test_the_reaper_spares_a_process_that_has_the_id_of_one_that_is_gone() -> None:
    estate = processes._Estate()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        with subprocess.Popen(["true"], start_new_session=True) as gone:
            estate.note("group", gone.pid)
        estate._groups[stranger.pid] = estate._groups.pop(gone.pid)  # as if the kernel had
        estate.clean_up()
        assert stranger.poll() is None
        stranger.kill()


def test_the_reaper_kills_what_the_first_process_of_a_group_has_left(tmp_path: Path) -> None:
    estate = processes._Estate()
    said = tmp_path / "said"
    program = f"read -r _; sleep 60 & echo $! > {said}"
    with subprocess.Popen(
        ["/bin/sh", "-c", program], stdin=subprocess.PIPE, start_new_session=True
    ) as first:
        estate.note("group", first.pid)
    estate.clean_up()
    wait_for_state(int(said.read_text()), "gone", "Z")


def test_the_reaper_kills_nothing_that_it_was_told_to_forget() -> None:
    estate = processes._Estate()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        estate.note("group", process.pid)
        estate.note("forget", process.pid)
        estate.clean_up()
        assert process.poll() is None
        process.kill()


# Who may send a signal to another process by its id, and why the id is still that process's.
ALLOWED = {
    "fusewire/brokers/sqlite/_liveness.py": "signal 0, which only asks",
    "tests/faults/fork_client.py": "nobody else asks for its workers' status",
    "tests/faults/plain_worker.py": "nobody asks for its children's status",
    "tests/support/embedded_process.py": "its own id, for a timer",
    "tests/support/processes.py": "the one place",
}


def signals_by_id(source: str) -> Iterator[int]:
    """Find the lines that may signal another process by its id."""
    nodes = list(ast.walk(ast.parse(source)))
    to_itself = {
        node.func
        for node in nodes
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]) == "os.getpid()"
    }
    for node in nodes:
        if isinstance(node, ast.Attribute) and node not in to_itself:
            if ast.unparse(node) in {"os.kill", "os.killpg"}:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for name in node.names if name.name in {"kill", "killpg"})


def test_no_other_file_signals_a_process_by_its_id() -> None:
    root = Path(__file__).parents[2]
    found = {
        path.relative_to(root).as_posix()
        for folder in ("fusewire", "tests", "benchmarks", "examples")
        for path in (root / folder).rglob("*.py")
        if "kill" in (source := path.read_text(encoding="utf-8")) and list(signals_by_id(source))
    }
    assert found == set(ALLOWED), (
        "use a KeptProcess or a Popen object, which signal no id that may be another process's by "
        "now, or say in this test why it cannot be"
    )


def test_the_check_finds_every_way_to_signal_an_id() -> None:
    source = """import os
os.kill(os.getpid(), 9)
os.kill(pid, 9)
os.killpg(pid, 9)
from os import getpid, kill
Timer(1, os.kill, (pid, 9))
process.kill()
"""
    assert sorted(signals_by_id(source)) == [3, 4, 5, 6]
