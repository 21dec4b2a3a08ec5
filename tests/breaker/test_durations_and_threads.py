"""Durations are safe for threads: no call is lost, and none waits for another that counts."""

from __future__ import annotations

import sys
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import Durations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.testing import FakeClock


@pytest.fixture
def often_switching() -> Iterator[None]:
    """Have the interpreter switch between threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_lose_no_call() -> None:
    durations = Durations()

    def work() -> None:
        for _ in range(5000):
            durations.record(0.01, method="a")

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert durations.histogram("a").calls == 20_000


def test_a_call_does_not_wait_while_another_thread_counts(clock: FakeClock) -> None:
    durations = Durations(clock)
    calls = Thread(target=lambda: [durations.record(0.01) for _ in range(300)], daemon=True)

    def count_slowly() -> None:
        calls.start()
        calls.join(5)
        assert not calls.is_alive()

    durations.notes.append(partial(count_slowly))  # runs while this thread counts
    durations.histogram()
    assert durations.histogram().calls == 300


def test_a_reader_waits_for_another_thread_that_counts(clock: FakeClock) -> None:
    durations = Durations(clock)
    read: list[int] = []
    reader = Thread(target=lambda: read.append(durations.histogram().calls))

    def count_slowly() -> None:
        reader.start()
        reader.join(0.1)  # one that does not wait has read too little by then

    durations.notes.append(partial(count_slowly))  # runs while this thread counts
    durations.record(0.01)
    durations.histogram()
    reader.join()
    assert read == [1]


def test_threads_may_read_while_others_record(often_switching: None) -> None:
    durations = Durations()
    over = Event()
    errors: list[Exception] = []

    def read() -> None:
        try:
            while not over.is_set():
                for method in durations.methods()[-2:]:  # which are being recorded
                    durations.histogram(method)
                    durations.baseline(method)
                    durations.slow_share(method)
                durations.slow_share()
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(20_000):  # each method's calls fall into other buckets than those before
        durations.record(1e-4 * 1.15 ** (number % 100), method=f"{number // 100:03}")
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert durations.histogram().calls == 20_000
