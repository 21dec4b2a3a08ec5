"""SIGHUP makes a watch look at once, beside whatever else handles the signal."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import BreakerRegistry, SettingsError
from fusewire.config import load
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")

NEVER = 3600.0


def say(file: Path, threshold: object) -> None:
    file.write_text(
        f"fusewire: {{breakers: {{circuits: {{a: {{failure_threshold: {threshold}}}}}}}}}"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fusewire.yaml"
    say(path, 2)
    return path


@pytest.fixture(autouse=True)
def came() -> Iterator[list[int]]:
    """Handle the signal, as a program might, and note that it came."""
    found: list[int] = []
    former = signal.signal(signal.SIGHUP, lambda number, _frame: found.append(number))
    yield found
    signal.signal(signal.SIGHUP, former)


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def has_threshold(registry: BreakerRegistry, value: int) -> bool:
    return registry.get("a").settings.failure_threshold == value


def test_the_signal_is_a_look_and_the_former_handler_is_called_too(
    file: Path, came: list[int]
) -> None:
    registry = BreakerRegistry()
    former = signal.getsignal(signal.SIGHUP)
    with load(file, env={}).watching(registry, every=NEVER, sighup=True):
        say(file, 6)
        hang_up()
        until_sync(lambda: has_threshold(registry, 6))
        assert came == [signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) is former
    hang_up()
    assert came == [signal.SIGHUP] * 2


def test_without_being_asked_for_it_changes_no_handler(file: Path) -> None:
    former = signal.getsignal(signal.SIGHUP)
    with load(file, env={}).watching(BreakerRegistry(), every=NEVER):
        assert signal.getsignal(signal.SIGHUP) is former


def test_it_reads_files_that_look_as_before_and_says_what_came_of_it(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    registry = BreakerRegistry()
    with load(file, env={}).watching(registry, every=NEVER, sighup=True) as watch:
        watch.look()
        assert caplog.messages == []
        hang_up()
        until_sync(lambda: caplog.messages)
        (record,) = caplog.records
        assert vars(record)["fusewire_event"] == "config.unchanged"
        status = file.stat()
        say(file, 3)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert watch.look() is False, "nothing shows that it has changed"
        hang_up()
        until_sync(lambda: has_threshold(registry, 3))
        say(file, "'x'")
        hang_up()
        until_sync(lambda: watch.refusals)
    assert caplog.records[-1].levelno == logging.WARNING


async def test_it_wakes_an_event_loop_that_waits_and_keeps_its_handlers(file: Path) -> None:
    registry = BreakerRegistry()
    loop, of_the_loop, applied = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, of_the_loop.set)

    def hang_up_and_wait() -> None:
        hang_up()
        until_sync(lambda: has_threshold(registry, 6))
        loop.call_soon_threadsafe(applied.set)

    try:
        with load(file, env={}).watching(registry, every=NEVER, sighup=True):
            say(file, 6)
            other = threading.Thread(target=hang_up_and_wait)
            other.start()
            await asyncio.wait_for(asyncio.gather(of_the_loop.wait(), applied.wait()), 30)
            other.join()
        hang_up()
        of_the_loop.clear()
        await asyncio.wait_for(of_the_loop.wait(), 30)
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_watches_hear_it_whichever_ends_first(
    file: Path, came: list[int], order: tuple[int, int]
) -> None:
    former = signal.getsignal(signal.SIGHUP)
    registries = [BreakerRegistry(), BreakerRegistry()]
    watches = [
        load(file, env={}).watching(registry, every=NEVER, sighup=True).__enter__()
        for registry in registries
    ]
    say(file, 5)
    hang_up()
    until_sync(lambda: all(has_threshold(registry, 5) for registry in registries))
    first, last = order
    watches[first].close()
    say(file, 7)
    hang_up()
    until_sync(lambda: has_threshold(registries[last], 7))
    watches[last].close()
    assert has_threshold(registries[first], 5)
    assert len(came) == 2
    hang_up()
    assert len(came) == 3
    if order == (1, 0):
        assert signal.getsignal(signal.SIGHUP) is former


def test_outside_the_main_thread_it_is_refused_and_nothing_is_applied(file: Path) -> None:
    registry = BreakerRegistry()
    raised: list[Exception] = []

    def enter() -> None:
        try:
            with load(file, env={}).watching(registry, sighup=True):
                pass
        except Exception as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    (error,) = raised
    assert isinstance(error, SettingsError)
    assert "sighup=True must be used on the main thread" in str(error)
    assert not has_threshold(registry, 2)


def test_a_watch_that_another_thread_closes_only_passes_the_signal_on(
    file: Path, came: list[int]
) -> None:
    registry = BreakerRegistry()
    watch = load(file, env={}).watching(registry, every=NEVER, sighup=True).__enter__()
    thread = threading.Thread(target=watch.close)
    thread.start()
    thread.join()
    say(file, 6)
    hang_up()
    assert came == [signal.SIGHUP]
    assert has_threshold(registry, 2)


def test_a_handler_that_cannot_be_kept_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _number: None)
    watch = load(file, env={}).watching(BreakerRegistry(), sighup=True)
    with pytest.raises(SettingsError, match="made by a library in C"), watch:
        pass


def test_a_system_without_the_signal_refuses_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signal, "SIGHUP")
    with pytest.raises(SettingsError, match="this system has no SIGHUP"):
        load(file, env={}).watching(BreakerRegistry(), sighup=True)


@pytest.mark.parametrize("sighup", [1, "yes", None])
def test_what_is_no_switch_is_refused(file: Path, sighup: Any) -> None:
    with pytest.raises(SettingsError, match="sighup must be"):
        load(file, env={}).watching(BreakerRegistry(), sighup=sighup)


DEFAULT = """
import signal, sys
from fusewire import BreakerRegistry
from fusewire.config import load

outer, inner = (load(sys.argv[1], env={}).watching(BreakerRegistry(), sighup=True) for _ in "ab")
outer.__enter__(); inner.__enter__()
signal.raise_signal(signal.SIGHUP)
print("alive", flush=True)
outer.close(); inner.close()
signal.raise_signal(signal.SIGHUP)
print("not reached")
"""


def test_afterwards_the_signal_ends_the_process_as_it_did_before(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEFAULT, file],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "alive\n"
    assert done.returncode == -signal.SIGHUP
