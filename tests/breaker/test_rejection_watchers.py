"""A watcher of the process's rejections hears of each where it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire._rejections import rejections
from fusewire.breaker import CircuitOpenError

if TYPE_CHECKING:
    from fusewire.breaker import CircuitBreaker


def test_a_watcher_gets_the_error_that_the_caller_gets(breaker: CircuitBreaker) -> None:
    breaker.force_open()
    heard: list[CircuitOpenError] = []
    watch_no_more = rejections.add(heard.append)
    try:
        with pytest.raises(CircuitOpenError) as rejected:
            breaker.acquire()
        assert heard == [rejected.value]
    finally:
        watch_no_more()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    assert len(heard) == 1
