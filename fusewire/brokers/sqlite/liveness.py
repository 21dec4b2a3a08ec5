"""Whether the process that holds messages is known to be dead.

A lease alone would make a killed process's messages wait for its end. Where the kernel tells that
the process is gone, they come back at once. Process ids mean something only within one boot and one
pid namespace (two containers may share a volume), so both are part of what is compared; where they
cannot be read, nothing is concluded and the lease decides.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

UNKNOWN = ""
"""The home of a process where ids cannot be compared."""


@functools.cache
def home() -> str:
    """Return the boot and pid namespace of this process, or `UNKNOWN`."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:  # not Linux, or /proc is hidden
        return UNKNOWN
    return f"{boot} {namespace}"


def known_dead(process_home: str, pid: int) -> bool:
    """Say whether the process `pid` of `process_home` certainly runs no more.

    False says nothing: the id may have been given to another process, or may not be comparable.
    """
    if process_home == UNKNOWN or process_home != home():
        return False
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return True
    except OSError:  # it exists and belongs to somebody else
        return False
    return False
