"""What a forked child inherits of SQLite.

SQLite notes the locks that its process holds in the process itself. A child inherits the notes
without the locks. If it was forked in the middle of a transaction, the file is locked for it for
good, by nobody; if not, it believes that it has locks that other processes do not see. So a fork
waits until no thread of ours is inside SQLite, and the child closes what it inherited.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fusewire._locks import make_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE = 2.0  # seconds that a fork waits for one thread; a transaction takes milliseconds

_users: set[User] = set()


class User:
    """One thread's use of SQLite.

    Args:
        close_in_child: closes in a forked child what this thread has open.
    """

    def __init__(self, close_in_child: Callable[[], None]) -> None:
        self.close_in_child = close_in_child
        self._gate = make_lock()  # without it, a busy thread would take its lock again at once
        self._lock = make_lock()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside SQLite: no fork happens meanwhile."""
        with self._gate:
            pass
        with self._lock:
            _users.add(self)
            yield

    def end(self) -> None:
        """Note that nothing is open any more."""
        _users.discard(self)

    def keep_out(self) -> bool:
        """Wait until the thread is outside, and keep it there; return whether it is."""
        with self._gate:
            if not self._lock.acquire(timeout=_PATIENCE):
                return False
        return True

    def let_in(self) -> None:
        """Let the thread go on."""
        self._lock.release()


class _Fork(threading.local):
    """The users that the forking thread keeps out."""

    def __init__(self) -> None:
        self.users: list[User] = []


_fork = _Fork()


def _before() -> None:
    for user in tuple(_users):
        if user.keep_out():
            _fork.users.append(user)


def _after_in_parent() -> None:
    while _fork.users:
        _fork.users.pop().let_in()


def _after_in_child() -> None:
    for user in _fork.users:
        user.close_in_child()
    _users.clear()
    _after_in_parent()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
