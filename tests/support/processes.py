"""Processes that a test starts, and that end with the test run whatever becomes of it.

A :class:`KeptProcess` is made known to the reaper, a small process that waits for the end of the
one that runs the tests. When that one ends in any way, SIGKILL included, the reaper kills what is
left, runs the clean-up commands and removes the directories that it was given.

This file is also the reaper's own program; so it imports the standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_POLL = (
    0.5  # seconds between the reaper's looks at its parent; its end of the pipe tells it at once
)
_GRACE = 10.0  # seconds for what was killed to be gone
_PIDFD = hasattr(os, "pidfd_open")  # Linux only
_LOOK = 0.01  # seconds between looks at a process whose end is awaited


def process_state(pid: int, thread: int | None = None) -> str:
    """Return a process's state as the kernel names it (R, S, Z, …); ``gone`` where there is none.

    Args:
        pid: the process.
        thread: one of its threads, whose state is wanted.

    A process may end at any moment of the look: its file is then gone, or opened and not readable
    any more (ESRCH).
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        file = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
        with open(file, encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 - this program imports little
            return stat.read().rpartition(")")[2].split()[0]
    return "gone"


def threads_of(pid: int) -> list[int]:
    """Return the threads of a process; none where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - as above
    return []


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; its parent need not have asked for its status."""
    return process_state(pid) in {"gone", "Z", "X"}


class Reaper:
    """The tests' side of the reaper."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )

    def tell(self, verb: str, what: object) -> None:
        """Say what to clean up: a ``group``, ``path`` or ``command``; ``forget`` takes it back."""
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(json.dumps([verb, what]).encode() + b"\n")
        pipe.flush()

    def close(self) -> None:
        """Have everything that is left cleaned up now."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


_reapers: list[Reaper] = []


def reaper() -> Reaper:
    """Return this process's reaper; the first call starts it."""
    if not _reapers:
        _reapers.append(Reaper())
        atexit.register(close_reaper)
    return _reapers[0]


def close_reaper() -> None:
    """End this process's reaper, if it has one, and with it all that it knows of."""
    while _reapers:
        _reapers.pop().close()


class KeptProcess:
    """A process group that ends with the tests. Starts when made; a context manager that stops it.

    The group ends with its first process: what that leaves running is killed.

    The kernel gives an id to another process once the first one's status has been asked for, and a
    signal to the id then strikes a stranger. So the status is asked for last, and nothing is
    signalled after that.

    Args:
        argv: the program and its arguments.
        env: its whole environment; this process's own where none is given.
        cwd: its working directory.
        log: a file to which its output is appended; without one it goes where the tests' goes.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self._lock = threading.Lock()
        with contextlib.ExitStack() as stack:
            output: IO[bytes] | None = stack.enter_context(log.open("ab")) if log else None
            program = [os.fspath(word) for word in argv]
            # The shell waits for a line before it becomes the program. So the reaper knows of the
            # program before it runs, and a test run killed at any moment leaves nothing behind.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r _ && exec "$@"', "sh", *program],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        reaper().tell("group", self.pid)
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.close()

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        with self._lock:
            if self._process.returncode is None and _has_ended(self.pid):
                os.killpg(self.pid, signal.SIGKILL)  # children that outlived it
                reaper().tell("forget", self.pid)
                self._process.wait()
            return self._process.returncode is None

    def send(self, signum: int) -> None:
        """Send a signal to the whole group; to one that has ended, nothing."""
        with self._lock:
            if self._process.returncode is None:
                os.killpg(self.pid, signum)

    def send_alone(self, signum: int) -> None:
        """Send a signal to the process without its children; to one that has ended, nothing."""
        with self._lock:
            if self._process.returncode is None:
                os.kill(self.pid, signum)

    def pause(self) -> None:
        """Hang the process (SIGSTOP): its sockets stay open and nothing answers."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a hung process go on (SIGCONT)."""
        self.send(signal.SIGCONT)

    def wait(self, timeout: float) -> int:
        """Wait for its end, for at most `timeout` seconds, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self._process.args, timeout)
            time.sleep(_LOOK)
        status = self._process.returncode
        assert status is not None
        return status

    def kill(self) -> int:
        """End it at once (SIGKILL), with all its children."""
        self.send(signal.SIGKILL)
        return self.wait(_GRACE)

    def stop(self, timeout: float = 10.0) -> int:
        """Ask it to end (SIGTERM); kill it when it has not within `timeout` seconds."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended; the id stays its own, as its status is not asked for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class _Estate:
    """What the reaper has to clean up."""

    def __init__(self) -> None:
        self._groups: dict[int, int | None] = {}  # with a pidfd of each group's first process
        self._paths: set[str] = set()
        self._commands: list[list[str]] = []

    def note(self, verb: str, what: int | str | list[str]) -> None:
        match verb, what:
            case "group", int():
                with contextlib.suppress(ProcessLookupError):  # "forget" is on its way
                    self._groups[what] = os.pidfd_open(what) if _PIDFD else None
            case "path", str():
                self._paths.add(what)
            case "command", list():
                self._commands.append(what)
            case "forget", int():
                handle = self._groups.pop(what, None)
                if handle is not None:
                    os.close(handle)
            case "forget", str():
                self._paths.discard(what)
            case "forget", list():
                self._commands.remove(what)

    def clean_up(self) -> None:
        groups = [group for group, handle in self._groups.items() if _is_same(group, handle)]
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        _wait_for_end(groups)
        for command in self._commands:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                quiet = subprocess.DEVNULL
                subprocess.run(
                    command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=30, check=False
                )
        for path in self._paths:
            shutil.rmtree(path, ignore_errors=True)


def _is_same(group: int, handle: int | None) -> bool:
    """Return whether a group's id is still its own; `handle` is a pidfd of its first process."""
    if handle is None:
        return True  # cannot be known
    try:
        signal.pidfd_send_signal(handle, 0)
    except ProcessLookupError:
        # Its first process is gone altogether. While others of the group run, no process gets the
        # id; a process that has it is therefore a stranger.
        return process_state(group) == "gone"
    return True


def _wait_for_end(groups: Iterable[int]) -> None:
    """Wait until the groups are gone, because what still runs may still write to its directory."""
    deadline = time.monotonic() + _GRACE
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(0.02)


def _reap() -> None:
    """Learn what to clean up until the parent ends, then do it."""
    parent = int(sys.argv[1])  # told, because it may have ended before this line runs
    estate = _Estate()
    heard = b""
    while True:
        # The pipe alone would not do: a process that the tests fork keeps its other end open.
        orphan = os.getppid() != parent
        if not select.select([0], [], [], 0 if orphan else _POLL)[0]:
            if orphan:
                break
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            break
        *lines, heard = (heard + chunk).split(b"\n")
        for line in lines:
            estate.note(*json.loads(line))
    estate.clean_up()


if __name__ == "__main__":
    _reap()
