"""Locks survive forks, signal handlers and finalizers: so all of them come from one place."""

from __future__ import annotations

import ast
import gc
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fusewire
from fusewire import _locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIBRARY = Path(fusewire.__file__).parent
KINDS = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "allocate_lock")

# Modules that may make a lock of their own, and why.
ALLOWED = {
    "_locks.py": "the one place",
    "demo/_ledger.py": "a program of its own, which never forks",
}


def uses_of_locks(source: str) -> Iterator[int]:
    """Find the lines that take a kind of lock from `threading` or `multiprocessing`."""
    modules = ("threading", "_thread", "multiprocessing")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules and node.attr in KINDS:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (node.lineno for name in node.names if name.name in KINDS)


def test_no_other_module_makes_a_lock() -> None:
    found = {
        path.relative_to(LIBRARY).as_posix(): lines
        for path in sorted(LIBRARY.rglob("*.py"))
        if (lines := list(uses_of_locks(path.read_text(encoding="utf-8"))))
    }
    assert set(found) == set(ALLOWED), (
        f"locks are made at {found}: take them from fusewire/_locks.py, "
        "or say in this test why a module may make its own"
    )


def test_the_check_finds_every_way_to_make_one() -> None:
    source = """import threading, asyncio
a = threading.Lock()
from threading import get_ident
from threading import get_ident, RLock
b = asyncio.Lock()
c = threading.Event()
d = field(default_factory=threading.Condition)
def e(lock: threading.Semaphore): ...
"""
    assert sorted(uses_of_locks(source)) == [2, 4, 7, 8]


def held_by_another_thread(lock: Any) -> Callable[[], None]:
    """Have a thread take `lock`; return what lets that thread go on and waits for its end."""
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire()
        taken.set()
        let_go.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(20)

    def end() -> None:
        let_go.set()
        thread.join()

    return end


def test_in_a_child_a_lock_that_another_thread_held_is_free() -> None:
    lock = _locks.make_lock()
    end = held_by_another_thread(lock)
    assert not lock.acquire(blocking=False)
    _locks._after_fork_in_child()
    assert lock.acquire(blocking=False)
    lock.release()
    end()


def test_in_a_child_a_lock_that_the_forking_thread_holds_stays_its() -> None:
    lock = _locks.make_lock()
    seen: list[bool] = []
    with lock:
        _locks._after_fork_in_child()
        with lock:
            other = threading.Thread(target=lambda: seen.append(lock.acquire(blocking=False)))
            other.start()
            other.join()
    assert seen == [False]


def test_in_a_child_nobody_waits_for_a_condition() -> None:
    condition = _locks.make_condition()
    waiting = threading.Event()

    def wait() -> None:
        with condition:
            waiting.set()
            condition.wait(20)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(20)
    with condition:
        condition.notify_all()
    thread.join()
    end = held_by_another_thread(condition)
    _locks._after_fork_in_child()
    with condition:
        condition.notify_all()
    end()


def test_what_is_to_be_renewed_is_renewed_while_it_lives() -> None:
    class Thing:
        pass

    renewed: list[Thing] = []
    inside: list[bool] = []

    def renew(thing: Thing) -> None:
        renewed.append(thing)
        inside.append(_locks.interrupts_itself())

    thing = Thing()
    _locks.renew_in_child(thing, renew)
    _locks._after_fork_in_child()
    assert renewed == [thing]
    assert inside == [True], "a finalizer that runs meanwhile waits for no lock"
    renewed.clear()
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
    _locks._after_fork_in_child()
    assert renewed == []


@pytest.mark.parametrize("forked_inside", [False, True])
def test_a_child_knows_only_its_own_thread(*, forked_inside: bool) -> None:
    thread = threading.get_ident()
    _locks.inside.add(-1)
    if forked_inside:
        _locks.inside.add(thread)
    _locks._after_fork_in_child()
    assert _locks.interrupts_itself() is forked_inside
    assert _locks.inside == ({thread} if forked_inside else set())
    _locks.inside.clear()
