"""What one process writes for a scrape that it shares with others: forks, gauges, wrong folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.scraping import Scrape

ROOT = Path(__file__).parents[2]

BEGINNING = """
import os, sys
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.telemetry.prometheus import export, make_wsgi_app
from fusewire.telemetry.prometheus import _processes

_processes._INTERVAL = 1000.0  # these write when they are told to
SETTINGS = BreakerSettings(failure_threshold=2, recovery_timeout=60)
circuits = BreakerRegistry(SETTINGS)

def succeed(times, name="payments"):
    for _ in range(times):
        circuits.get(name).acquire().success()

def show():
    answers = []
    environ = {"REQUEST_METHOD": "GET"}
    (body,) = make_wsgi_app()(environ, lambda status, headers: answers.append(status))
    assert answers == ["200 OK"]
    sys.stdout.write(body.decode())

def in_child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return pid
"""


def run(program: str, folder: Path | None) -> str:
    """Run a program that exports, and return what it writes."""
    given = {"PROMETHEUS_MULTIPROC_DIR": str(folder)} if folder else {}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGINNING + program],
        cwd=ROOT,
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def successes(shown: Scrape, name: str = "payments") -> float | None:
    return shown("circuit_breaker_calls_total", circuit_name=name, result="success")


def test_all_is_written_when_the_export_begins(tmp_path: Path) -> None:
    shown = Scrape(run("succeed(3)\nexport(circuits)\nshow()", tmp_path))
    assert successes(shown) == 3
    assert shown("circuit_breaker_state", circuit_name="payments") == 0
    assert shown("circuit_breaker_processes", circuit_name="payments", state="closed") == 1
    transitions = "circuit_breaker_state_transitions_total"
    assert shown(transitions, circuit_name="payments", from_state="closed", to_state="open") == 0
    assert "circuit_breaker_window_failure_ratio" not in shown.names()


def test_a_forked_child_counts_what_it_does_itself(tmp_path: Path) -> None:
    program = """
exporter = export(circuits, durations=["*"])
succeed(3)

def work():
    succeed(20)
    exporter.close()

in_child(work)
succeed(100)
exporter.close()
show()
"""
    shown = Scrape(run(program, tmp_path))
    assert successes(shown) == 123
    count = "circuit_breaker_call_duration_seconds_count"
    assert shown(count, circuit_name="payments", result="success") == 123


def test_a_child_of_a_process_that_has_many_threads_is_not_blocked(tmp_path: Path) -> None:
    program = """
_processes._INTERVAL = 0.0
exporter = export(circuits)
succeed(3)
for number in range(10):
    in_child(lambda: (succeed(1), exporter.close()))
exporter.close()
show()
"""
    assert successes(Scrape(run(program, tmp_path))) == 13


def test_the_states_of_all_processes(tmp_path: Path) -> None:
    program = """
exporter = export(circuits)
circuits.get("payments")

def work():
    for _ in range(2):
        circuits.get("payments").acquire().failure()
    _write()
    os.write(ready, b"x")
    os.read(over, 1)

def _write():
    for writer in tuple(_processes._writers):
        writer.write()

seen, ready = os.pipe()
over, end = os.pipe()
pid = os.fork()
if not pid:
    try:
        work()
    finally:
        os._exit(0)
os.read(seen, 1)
_write()
show()
print("# ----")
os.write(end, b"x")
os.waitpid(pid, 0)
multiprocess.mark_process_dead(pid)
show()
"""
    with_child, without = run(program, tmp_path).split("# ----")
    shown = Scrape(with_child)
    assert shown("circuit_breaker_state", circuit_name="payments") == 1
    states = shown.named("circuit_breaker_processes", "circuit_name")
    assert states == {("closed",): 1, ("open",): 1}
    shown = Scrape(without)
    assert shown("circuit_breaker_state", circuit_name="payments") == 0
    assert shown.named("circuit_breaker_processes", "circuit_name") == {("closed",): 1}
    failed = shown("circuit_breaker_calls_total", circuit_name="payments", result="failure")
    assert failed == 2  # what the dead one counted stays


def test_gauges_of_what_is_gone_are_absent(tmp_path: Path) -> None:
    program = """
exporter = export(circuits)
succeed(2, "gone")
succeed(2)
for writer in tuple(_processes._writers):
    writer.write()
circuits.remove("gone")
for writer in tuple(_processes._writers):
    writer.write()
show()
"""
    shown = Scrape(run(program, tmp_path))
    assert shown("circuit_breaker_state", circuit_name="payments") == 0
    assert shown("circuit_breaker_state", circuit_name="gone") is None
    assert successes(shown, "gone") == 2


def test_a_circuit_that_is_made_again_is_counted_on(tmp_path: Path) -> None:
    program = """
exporter = export(circuits)
def write():
    for writer in tuple(_processes._writers):
        writer.write()
succeed(5)
write()
circuits.remove("payments")
write()
succeed(2)
write()
show()
"""
    assert successes(Scrape(run(program, tmp_path))) == 7


def test_a_folder_that_is_absent_is_refused(tmp_path: Path) -> None:
    program = """
try: export(circuits)
except ValueError as error: print(error)
"""
    said = run(program, tmp_path / "absent")
    assert said.startswith("PROMETHEUS_MULTIPROC_DIR must name a folder that exists")


def test_a_variable_that_is_set_too_late_is_refused(tmp_path: Path) -> None:
    program = f"""
os.environ["PROMETHEUS_MULTIPROC_DIR"] = {str(tmp_path)!r}
try: export(circuits)
except ValueError as error: print(error)
"""
    assert "after prometheus_client had been imported" in run(program, None)
