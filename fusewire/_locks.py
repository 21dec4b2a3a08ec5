"""Locks that survive a fork, a signal handler and a finalizer: the one place that makes them.

Three things can happen to a thread in the middle of a critical section:

- Another thread forks. In the child the lock is held by a thread that does not exist there.
- A signal arrives. Its handler runs in the same thread, and needs the lock that the thread holds.
- The garbage collector runs a finalizer in the same thread. The finalizer needs this lock too, or
  another one, whose holder may be inside a finalizer that needs this one.

So a thread notes in :data:`inside` that it is in a critical section, before it waits for the lock.
Code that finds its own thread there has interrupted it. Such code must not wait for a lock: it
leaves its change to the section that it interrupted, and answers from what the last change left.

A section that is short, and consistent at every step, needs only a lock that its own thread may
enter twice: :func:`make_lock`. After a fork, every lock that was made here is free in the child
unless the thread that forked holds it, and the objects of :func:`renew_in_child` are renewed.
"""

from __future__ import annotations

import os
import threading
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

T = TypeVar("T")

inside: set[int] = set()
"""The threads that are in a critical section, or wait for its lock. Each adds and removes only
itself, which is one step and needs no lock."""


_renewed: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
_locks: WeakSet[Any] = WeakSet()


def interrupts_itself() -> bool:
    """Return whether this code runs in a signal handler or finalizer inside a critical section."""
    return get_ident() in inside


def bare_lock() -> threading.Lock:
    """Make a lock for an object that replaces it in a forked child."""
    return threading.Lock()


def make_lock() -> threading.RLock:
    """Make a lock that its thread may enter twice, and that is free in a forked child."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def make_condition() -> threading.Condition:
    """Make a condition on such a lock. In a forked child, nobody waits for it."""
    condition = threading.Condition(threading.RLock())
    _locks.add(condition)
    return condition


def renew_in_child(thing: T, renew: Callable[[T], None]) -> None:
    """Call ``renew(thing)`` in every forked child, as long as `thing` lives."""
    _renewed[thing] = renew


def _after_fork_in_child() -> None:
    thread = get_ident()
    forked_inside = thread in inside
    # The other threads do not exist here, and new ones may get their numbers.
    inside.intersection_update({thread})
    try:
        # A finalizer that runs meanwhile must not wait for a lock that is not renewed yet.
        inside.add(thread)
        for lock in tuple(_locks):
            if lock.acquire(blocking=False):
                lock.release()  # it is free, or the thread that forked holds it and continues
            else:
                lock._at_fork_reinit()  # noqa: SLF001 - what the standard library does with its own locks
        for thing, renew in tuple(_renewed.items()):
            renew(thing)
    finally:
        if not forked_inside:
            inside.discard(thread)


os.register_at_fork(after_in_child=_after_fork_in_child)
