"""Whether the process that holds messages is dead, and a clock that nobody sets.

A lease alone would make a killed process's messages wait for its end. Where the kernel says that
the process is gone, they come back at once. Process ids mean something only within one boot and one
pid namespace (two containers may share a volume), so both are part of what is compared; where they
cannot be read, nothing is concluded and the lease decides.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

UNKNOWN = ""
"""The home of a process, or its clock, where nothing can be compared."""

_START_TIME = 22 - 3  # of /proc/<pid>/stat, counted from the field behind the program's name


@functools.cache
def home() -> str:
    """Return the boot and pid namespace of this process, or `UNKNOWN`."""
    try:
        return f"{_boot()} {_namespace('pid')}"
    except OSError:  # not Linux, or /proc is hidden
        return UNKNOWN


@functools.cache
def clock() -> str:
    """Return which processes' `steady()` can be compared with this one's, or `UNKNOWN`."""
    try:
        return f"{_boot()} {_namespace('time')}"
    except FileNotFoundError:  # a kernel before 5.6, which has one clock for all, or not Linux
        return UNKNOWN if home() == UNKNOWN else _boot()
    except OSError:
        return UNKNOWN


def steady() -> float:
    """Return seconds on a clock that nobody sets, and that stands still while the host sleeps."""
    return time.monotonic()


def started(pid: int) -> int | None:
    """Return when a process began, in ticks since the boot; None where that is not known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it is gone, belongs to somebody else, or this is not Linux
        return None
    # The program's name stands in parentheses and may hold any of what follows it.
    return int(stat.rpartition(b")")[2].split()[_START_TIME])


def known_dead(process_home: str, pid: int, start_time: int | None = None) -> bool:
    """Return whether the process `pid` of `process_home` has certainly ended.

    False says nothing: it may not be comparable, or the id may be another process's by now, where
    the kernel does not say when that one began or `start_time` is None.
    """
    if process_home == UNKNOWN or process_home != home():
        return False
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return True
    except OSError:  # it exists and belongs to somebody else
        pass
    if start_time is None:
        return False
    now_there = started(pid)
    return now_there is not None and now_there != start_time


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _namespace(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())
