"""Kill points: every await is found, and the strike falls on the one side of the one hit."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fusewire.testing.faults import Await, awaits_of, find_awaits

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

VICTIM = """\
import asyncio
async def step(what):
    print(what, flush=True)
class Job:
    async def work(self):
        await step("one"); await step("two")
        try:
            await asyncio.wait_for(step(await self.name()), 5)
        finally:
            print("end", flush=True)
    async def name(self):
        return "three"
async def main():
    for _ in range(2):
        await Job().work()
"""


def test_every_await_is_found_with_its_function_and_column() -> None:
    assert find_awaits("victim", VICTIM) == [
        Await("victim", 6, 8, "Job.work"),
        Await("victim", 6, 27, "Job.work"),
        Await("victim", 8, 12, "Job.work"),
        Await("victim", 8, 40, "Job.work"),
        Await("victim", 15, 8, "main"),
    ]


def test_the_awaits_of_our_own_modules_are_found_without_importing_them() -> None:
    found = awaits_of(["fusewire.parking._settler"])
    source = (ROOT / "fusewire/parking/_settler.py").read_text()
    assert len(found) == sum(isinstance(node, ast.Await) for node in ast.walk(ast.parse(source)))
    assert "Settler._move" in {one.function for one in found}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    (tmp_path / "victim.py").write_text(VICTIM)

    def run(plan: str) -> subprocess.CompletedProcess[str]:
        program = f"""
            import asyncio, sys
            sys.path.insert(0, {str(tmp_path)!r})
            from fusewire.testing.faults import Side, arm, disarm, watch
            watch(["victim"])
            import victim
            {plan}
            asyncio.run(victim.main())
        """
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("plan", "output"),
    [
        ("arm('victim:6:8', Side.BEFORE)", []),
        ("arm('victim:6:8', Side.AFTER)", ["one"]),
        ("arm('victim:6:27', Side.BEFORE)", ["one"]),
        ("arm('victim:6:27', Side.AFTER)", ["one", "two"]),
        ("arm('victim:8:12', Side.BEFORE)", ["one", "two"]),
        ("arm('victim:8:40', Side.AFTER)", ["one", "two"]),
        ("arm('victim:8:12', Side.AFTER)", ["one", "two", "three"]),
        ("arm('victim:6:8', Side.AFTER, hit=2)", ["one", "two", "three", "end", "one"]),
    ],
)
def test_a_process_dies_on_the_side_of_the_await_that_was_named(
    run: Callable[[str], subprocess.CompletedProcess[str]], plan: str, output: list[str]
) -> None:
    done = run(plan)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, output)


@pytest.mark.parametrize(
    "plan", ["pass", "arm('victim:6:8', Side.AFTER); disarm()", "arm('victim:6:9', Side.AFTER)"]
)
def test_a_watched_module_runs_as_it_did_while_nothing_strikes(
    run: Callable[[str], subprocess.CompletedProcess[str]], plan: str, tmp_path: Path
) -> None:
    done = run(plan)
    assert (done.returncode, done.stdout.split()) == (0, ["one", "two", "three", "end"] * 2)
    assert not list(tmp_path.rglob("*.pyc"))  # what is rewritten is not kept for others


def test_a_module_that_is_imported_already_cannot_be_watched(
    run: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = run("watch(['victim'])")
    assert "RuntimeError: victim is imported already" in done.stderr


def test_the_kit_leaves_the_rooms_to_be_watched_unimported() -> None:
    program = """
import sys
from fusewire.testing.faults import watch
rooms = ("fusewire.brokers", "fusewire.parking")
assert not [name for name in sys.modules if name.startswith(rooms)]
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
