"""Calls through one circuit run side by side (pybreaker 55 and 3 held the lock across the call)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker


def test_ten_calls_are_inside_at_the_same_time(breaker: CircuitBreaker) -> None:
    together = threading.Barrier(10)
    threads = [
        threading.Thread(target=breaker.call, args=(together.wait, 10), daemon=True)
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not together.broken
    assert breaker.can_execute()
