"""Files that change are applied again: in place, all or nothing, however they are replaced."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import BreakerRegistry, BreakerSettings, SettingsError
from fusewire.config import Config, load
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def text(threshold: object, more: str = "") -> str:
    circuits = f"a: {{failure_threshold: {threshold}, half_open_max_calls: {threshold}}}"
    return f"fusewire: {{breakers: {{circuits: {{{circuits}}}}}{more}}}"


def write(path: Path, content: str) -> None:
    """Replace a file as editors do: by a rename."""
    new = path.with_suffix(".new")
    new.write_text(content, "utf-8")
    new.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fusewire.yaml"
    write(path, text(2))
    return path


def test_a_file_that_changes_is_applied_in_place(file: Path) -> None:
    registry = BreakerRegistry()
    watch = load(file, env={}).watching(registry)
    watch.config.apply(registry)
    breaker = registry.get("a")
    breaker.acquire().failure()
    assert watch.look() is False, "it says what is applied"
    write(file, text(5))
    assert watch.look() is True
    assert breaker is registry.get("a")
    assert breaker.settings.failure_threshold == 5
    assert breaker.snapshot().consecutive_failures == 1
    assert (watch.reloads, watch.refusals, watch.last_successful) == (1, 0, True)
    assert watch.look() is False


def test_a_config_map_is_swapped_by_a_symlink(tmp_path: Path) -> None:
    for name, threshold in (("..1", 1), ("..2", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fusewire.yaml").write_text(text(threshold))
    data = tmp_path / "..data"
    data.symlink_to("..1")
    file = tmp_path / "fusewire.yaml"
    file.symlink_to("..data/fusewire.yaml")
    registry = BreakerRegistry()
    watch = load(file, env={}).watching(registry)
    watch.look()
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").replace(data)
    assert watch.look() is True
    assert registry.get("a").settings.failure_threshold == 2


@pytest.mark.parametrize("wrong", ["", "fusewire: {", text("'x'"), text(0), "fusewires: {}"])
def test_a_bad_file_is_refused_whole_and_said_once(
    file: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = BreakerRegistry()
    other = file.with_name("other.yaml")
    write(other, "fusewire: {breakers: {circuits: {b: {failure_threshold: 3}}}}")
    watch = load(file, other, env={}).watching(registry)
    watch.config.apply(registry)
    before = [registry.get(name).settings for name in "ab"]
    write(other, "fusewire: {breakers: {circuits: {b: {failure_threshold: 9}}}}")
    write(file, wrong)
    for _ in range(3):
        assert watch.look() is False
    assert [registry.get(name).settings for name in "ab"] == before
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["fusewire_event"] == "config.refused"
    assert str(file) in record.getMessage()
    assert (watch.refusals, watch.last_successful) == (1, False)
    write(file, text(7))
    assert watch.look() is True
    assert watch.last_successful is True
    assert [registry.get(name).settings.failure_threshold for name in "ab"] == [7, 9]


def test_a_file_that_is_away_changes_nothing(file: Path) -> None:
    registry = BreakerRegistry()
    watch = load(file, env={}).watching(registry)
    watch.config.apply(registry)
    file.unlink()
    assert watch.look() is False
    assert watch.refusals == 1
    assert registry.get("a").settings.failure_threshold == 2
    write(file, text(2))
    assert watch.look() is False
    assert watch.last_successful is True


def test_files_that_change_while_they_are_read_are_read_again(file: Path) -> None:
    registry = BreakerRegistry()
    watch = load(file, env={}).watching(registry)
    again = watch._read
    changes = iter((3, 4))

    def read() -> Config:
        found = again()
        if (threshold := next(changes, None)) is not None:
            write(file, text(threshold))
        return found

    watch._read = read
    assert watch.look() is True
    assert registry.get("a").settings.failure_threshold == 4
    assert watch.reloads == 1


def test_policies_of_consumers_need_a_restart_until_they_are_what_they_were(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def consumers(attempts: int) -> str:
        policy = f"orders: {{retry: {{max_attempts: {attempts}}}}}, same: {{}}"
        return text(2, f", consumers: {{{policy}}}")

    write(file, consumers(3))
    watch = load(file, env={}).watching(BreakerRegistry())
    watch.config.consumer("orders")
    write(file, consumers(4))
    watch.look()
    assert watch.restart_required is True
    (message,) = caplog.messages
    assert message.startswith(
        "restart the process: consumers['orders'].retry.max_attempts has changed: 3 → 4 ("
    )
    write(file, consumers(3))
    watch.look()
    assert watch.restart_required is False
    assert len(caplog.messages) == 1


def test_a_remark_is_logged_once_wherever_it_moves(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def spring(size: int, more: str = "") -> str:
        return (
            f"{more}resilience4j.circuitbreaker.instances.a:\n"
            f"  slidingWindowSize: {size}\n  eventConsumerBufferSize: 5\n  colour: red\n"
        )

    def logged() -> list[str]:
        said = [each for each in caplog.messages if "of a" in each]
        caplog.clear()
        return said

    write(file, spring(5))
    with caplog.at_level("INFO", "fusewire.config"):
        watch = load(file, env={}).watching(BreakerRegistry())
        assert len(logged()) == 2
        write(file, spring(6, "# moved\n"))
        assert watch.look() is True
        assert logged() == []
        write(file, spring(7, "# moved\n").replace("red", "red\n  shape: round"))
        assert watch.look() is True
        (warning,) = logged()
        assert "shape" in warning


def test_a_thread_looks_until_the_end(file: Path) -> None:
    registry = BreakerRegistry()
    with load(file, env={}).watching(registry, every=0.01) as watch:
        assert registry.get("a").settings.failure_threshold == 2, "applied at once"
        write(file, text(6))
        until_sync(lambda: registry.get("a").settings.failure_threshold == 6)
    write(file, text(8))
    assert watch._thread is not None
    assert not watch._thread.is_alive()
    assert registry.get("a").settings.failure_threshold == 6


def test_a_look_that_fails_is_logged_and_does_not_end_the_watch(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = BreakerRegistry()
    with load(file, env={}).watching(registry, every=0.01) as watch:
        again, fails = watch._read, iter((True,))

        def read() -> Config:
            if next(fails, False):
                raise OSError("of the operating system")
            return again()

        watch._read = read
        write(file, text(6))
        until_sync(lambda: registry.get("a").settings.failure_threshold == 6)
    assert "files of settings could not be looked at; the next try follows" in caplog.messages


FORK = """
import os, pathlib, sys
from fusewire import BreakerRegistry
from fusewire.config import load
from tests.support.waiting import until_sync

file = pathlib.Path(sys.argv[1])
registry = BreakerRegistry()
with load(file, env={}).watching(registry, every=0.01):
    breaker = registry.get("a")
    child = os.fork()
    if child == 0:
        file.write_text(file.read_text().replace("2", "16"))
        until_sync(lambda: breaker.settings.failure_threshold == 16)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_watches_too(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, file],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "0\n"


def replace_by(swap: str, file: Path, contents: list[str]) -> Callable[[int], None]:
    """Return a function that replaces a file by one of `contents`, in this way."""
    if swap == "rename":
        return lambda index: write(file, contents[index])
    for number, content in enumerate(contents):
        file.with_name(f"{number}.yaml").write_text(content)

    def swap_symlink(index: int) -> None:
        file.with_name("next").symlink_to(f"{index}.yaml")
        file.with_name("next").replace(file)

    return swap_symlink


class Callers:
    """Threads that call, and note what is wrong and how often they called."""

    def __init__(self, registry: BreakerRegistry, count: int) -> None:
        self.registry = registry
        self.wrong: list[object] = []
        self.calls: list[int] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(count)]

    def run(self) -> None:
        made = 0
        while not self.stop.is_set():
            breaker = self.registry.get("a", BreakerSettings(failure_threshold=99))
            settings = breaker.settings
            if settings.failure_threshold != settings.half_open_max_calls:
                self.wrong.append(settings)
            try:
                with breaker.acquire():
                    made += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, a reload caused it
                self.wrong.append(error)
        self.calls.append(made)


@pytest.mark.parametrize("swap", ["rename", "symlink"])
@pytest.mark.parametrize(
    ("threads", "files"), [(4, 100), pytest.param(16, 1000, marks=pytest.mark.long)]
)
def test_calls_under_many_reloads_of_good_and_bad_files(
    file: Path, swap: str, threads: int, files: int
) -> None:
    contents = [text(n) for n in range(1, 6)] + ["fusewire: {", text("no")]
    replace = replace_by(swap, file, contents)
    replace(0)
    registry = BreakerRegistry()
    watch = load(file, env={}).watching(registry)
    watch.config.apply(registry)
    callers = Callers(registry, threads)
    for thread in callers.threads:
        thread.start()
    for number in range(files):
        replace(number % len(contents))
        watch.look()
    callers.stop.set()
    for thread in callers.threads:
        thread.join()
    assert callers.wrong == []
    assert registry.get("a").snapshot().counters.succeeded == sum(callers.calls), "none is lost"
    assert watch.reloads >= files // 2
    assert watch.refusals >= files // 10


@pytest.mark.parametrize("every", [0, -1, "5"])
def test_what_cannot_be_right_is_refused(file: Path, every: Any) -> None:
    with pytest.raises(SettingsError, match="every must be"):
        load(file, env={}).watching(BreakerRegistry(), every=every)
    with pytest.raises(SettingsError, match=r"only a Config that load\(\) returned"):
        Config().watching(BreakerRegistry())
