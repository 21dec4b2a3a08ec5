"""Ports for what tests start, which no other process of the tests gets meanwhile.

A server that a test kills comes back to its port. While it is away, or has not begun to listen, its
port looks free. If another process's server took it, that server would answer in its place.

So a process takes ports a block at a time. It binds the block's first port, on which it does not
listen; nobody else can bind it until the process has ended. It gives out each other port once.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from dataclasses import dataclass, field

_FIRST, _END = 20_000, 28_000
"""Outside the range of outgoing connections, and outside the demo's.

A client that dials a dead server's port again and again, from a port of the same range, in the end
connects to itself; and a server that comes back wants its port free.
"""
_BLOCK = 50
_HOST = "127.0.0.1"
_chance = random.SystemRandom()  # Hypothesis seeds the global one, alike in every process


class NoPortError(RuntimeError):
    """There is no free port."""


@dataclass
class Ports:
    """The ports of one process.

    Args:
        first: the first port of the range that all processes share.
        end: the port after its last one.
        block: how many ports a process takes at a time.
    """

    first: int = _FIRST
    end: int = _END
    block: int = _BLOCK
    _left: list[int] = field(default_factory=list, init=False)
    _locks: list[int] = field(default_factory=list, init=False)

    def reserve(self) -> int:
        """Return a port that is free now, and that no other process's `Ports` gives out.

        Raises:
            NoPortError: other processes have all blocks.
        """
        while True:
            if not self._left:
                self._take_block()
            port = self._left.pop(0)
            with socket.socket() as probe, contextlib.suppress(OSError):
                # A server may take a port that connections of an earlier one have not left yet.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((_HOST, port))
                return port

    def release(self) -> None:
        """Leave all to other processes."""
        while self._locks:
            os.close(self._locks.pop())
        self._left.clear()

    def _take_block(self) -> None:
        blocks = range(self.first, self.end, self.block)
        for first in _chance.sample(blocks, len(blocks)):
            with socket.socket() as lock, contextlib.suppress(OSError):
                lock.bind((_HOST, first))
                self._locks.append(lock.detach())  # the process's end closes it
                self._left.extend(range(first + 1, first + self.block))
                return
        raise NoPortError(f"no free ports between {self.first} and {self.end - 1} on {_HOST}")


_ports = Ports()


def reserve_port() -> int:
    """Return a port that is free now, and that no other process of the tests is given.

    That holds until this process has ended.
    """
    return _ports.reserve()


os.register_at_fork(after_in_child=_ports.release)  # they are the parent's
