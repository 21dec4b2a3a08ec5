"""Consumers end on signals, beside whatever else ends on them."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.parking._signals import until_signal
from tests.support.processes import KeptProcess
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Program:
    """A program of tests.support.signalled, and the lines that it has printed."""

    def __init__(self, name: str, folder: Path) -> None:
        self._log = folder / "log"
        self._log.touch()
        self.process = KeptProcess(
            [sys.executable, "-m", "tests.support.signalled", name, str(folder / "db")],
            log=self._log,
        )

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    @property
    def milestones(self) -> list[str]:
        """What was said once, without what the consumer says each time that it is told."""
        return [line for line in self.lines if line != "consumer told"]

    def wait_for(self, line: str) -> None:
        until_sync(lambda: line in self.lines, f"{line!r} in {self.lines}")

    def send(self, number: int) -> None:
        self.process.send(number)

    def ends(self) -> list[str]:
        self.process.wait(30)
        return self.milestones


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def start(name: str) -> Program:
        started.append(Program(name, tmp_path))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_was_there_before_ends_too(
    start: Callable[[str], Program], number: int
) -> None:
    program = start("in_a_lifespan")
    program.wait_for("ready")
    program.send(number)
    lines = program.ends()
    assert lines[:4] == ["ready", "server told", "consumer ended", "server ended"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_starts_later_passes_the_signal_on_to_the_consumer(
    start: Callable[[str], Program], number: int
) -> None:
    program = start("in_front_of_a_server")
    program.wait_for("ready")
    program.send(number)
    assert program.ends() == ["ready", "server told", "server ended", "consumer ended"]


def test_a_handler_of_the_event_loop_runs_too(start: Callable[[str], Program]) -> None:
    program = start("in_a_server_of_the_loop")
    program.wait_for("ready")
    program.send(signal.SIGTERM)
    assert program.ends() == ["ready", "server told", "consumer ended"]


def test_a_second_ctrl_c_ends_a_program_at_once(start: Callable[[str], Program]) -> None:
    program = start("in_a_program")
    program.wait_for("handling")
    program.send(signal.SIGINT)
    program.wait_for("consumer told")
    assert "handler cancelled" not in program.lines
    program.send(signal.SIGINT)
    lines = program.ends()
    assert "handler cancelled" in lines
    assert lines[-1] == "interrupted"


def test_a_second_ctrl_c_ends_the_consumer_beside_a_server_that_waits_for_it(
    start: Callable[[str], Program],
) -> None:
    program = start("in_a_background")
    program.wait_for("handling")
    program.send(signal.SIGINT)
    program.wait_for("server told")
    program.send(signal.SIGINT)
    lines = program.ends()
    assert lines[:3] == ["handling", "server told", "server told"]
    assert lines[-2:] == ["handler cancelled", "consumer ended"]


def test_ctrl_c_in_a_function_beside_the_handler_ends_a_program(
    start: Callable[[str], Program],
) -> None:
    assert start("in_depends_on").ends() == ["asked", "interrupted"]


def test_after_the_consumer_a_signal_is_what_it_was_before(
    start: Callable[[str], Program],
) -> None:
    program = start("in_turn")
    program.wait_for("ready")
    program.send(signal.SIGTERM)
    assert program.process.wait(30) == -signal.SIGTERM


@pytest.fixture
def former() -> Iterator[list[int]]:
    """Note the signals that a handler gets which was there before."""
    got: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: got.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_the_former_handler_is_called_and_comes_back(former: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped: list[str] = []
    with until_signal(lambda: stopped.append("a")), until_signal(lambda: stopped.append("b")):
        signal.raise_signal(signal.SIGTERM)
        assert stopped == ["a", "b"]
        assert former == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("first_to_end", [0, 1])
async def test_blocks_may_end_in_any_order(former: list[int], first_to_end: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped: list[int] = []
    blocks = [until_signal(lambda number=number: stopped.append(number)) for number in (0, 1)]
    for block in blocks:
        block.__enter__()
    blocks[first_to_end].__exit__(None, None, None)
    signal.raise_signal(signal.SIGTERM)
    assert stopped == [1 - first_to_end]
    blocks[1 - first_to_end].__exit__(None, None, None)
    assert signal.getsignal(signal.SIGTERM) is before
    assert former == [signal.SIGTERM]


async def test_one_that_starts_over_a_servers_handler_calls_that(former: list[int]) -> None:
    told: list[int] = []
    stopped: list[str] = []
    with until_signal(lambda: stopped.append("early")):
        ours = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        with until_signal(lambda: stopped.append("late")):
            signal.raise_signal(signal.SIGTERM)
            assert told == [signal.SIGTERM]
            assert stopped == ["early", "late"]
        signal.raise_signal(signal.SIGTERM)
        assert told == [signal.SIGTERM] * 2
        signal.signal(signal.SIGTERM, ours)  # as a server does when it ends
    assert former == []


async def test_a_handler_put_back_after_the_last_block_passes_the_signal_on(
    former: list[int],
) -> None:
    with until_signal(lambda: None):
        ours: Any = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGTERM, ours)
    signal.raise_signal(signal.SIGTERM)
    assert former == [signal.SIGTERM]


async def test_what_wakes_the_event_loop_stays_as_it_is(former: list[int]) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    try:
        with until_signal(lambda: None):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(told.wait(), 10)
        told.clear()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(told.wait(), 10)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert former == []


def strike_another_thread(number: int) -> None:
    """Have a signal arrive soon in a thread that is not the main one, whose wait goes on."""

    def strike() -> None:
        signal.pthread_kill(threading.get_ident(), number)

    threading.Timer(0.2, strike).start()  # the event loop waits by then


async def test_a_signal_that_does_not_interrupt_the_wait_of_the_event_loop_wakes_it(
    former: list[int],
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.call_soon_threadsafe(told.set)

    async def work() -> None:
        with until_signal(stop), until_signal(lambda: None):
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    strike_another_thread(signal.SIGINT)
    async with asyncio.timeout(20):
        await told.wait()
    strike_another_thread(signal.SIGINT)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(working, 20)
    assert former == [signal.SIGINT] * 2
    assert signal.set_wakeup_fd(-1) == -1


async def test_a_file_descriptor_that_somebody_sets_later_stays(former: list[int]) -> None:
    theirs, end = socket.socketpair()
    theirs.settimeout(0)
    with theirs, end:
        with until_signal(lambda: None):
            assert signal.set_wakeup_fd(theirs.fileno()) != -1
        assert signal.set_wakeup_fd(-1) == theirs.fileno()


async def test_the_event_loop_is_woken_until_the_last_block_ends(former: list[int]) -> None:
    told = asyncio.Event()
    first, last = until_signal(lambda: None), until_signal(told.set)
    first.__enter__()
    with last:
        first.__exit__(None, None, None)
        strike_another_thread(signal.SIGTERM)
        async with asyncio.timeout(20):
            await told.wait()


def test_beside_the_main_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        async def main() -> None:
            with until_signal(lambda: None):
                seen.append(signal.getsignal(signal.SIGTERM))

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert seen == [before]
