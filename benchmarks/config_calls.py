"""What a healthy call costs when its settings come from a file, as a ratio to the same from code.

Two registries have the same 1,000 patterns with the same settings, one by a file and one by code,
and a third one repeats the second, to show what the measurement itself makes of equal code. Each
process measures them in turns, in blocks of calls, and gives the median of the ratios of blocks
that follow each other. Processes differ in where objects lie and how texts hash, so there are
many: the answer is the median of theirs, with the sixth and the fifteenth of 20 as its interval,
which holds the true median in 96 of 100 runs. Times are of the processor.

Run it with ``python -m benchmarks.config_calls``. With ``--former FOLDER``, where another release
is checked out, its calls are measured too, in the same processes and turns. It exits with 1 if the
ratio is above 1.02.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Calls = Callable[[], None]

TARGET = 1.02
PROCESSES = 20
_BLOCKS = 60
_CALLS = 5_000  # in a block
_SELECTORS = 1_000
_NAME = "/payments.v5.Payments/Charge"
_SETTINGS = {
    "recovery_timeout": 30.0,
    "failure_rate_threshold": 0.5,
    "window_calls": 20,
}
_LABELS = {
    "file": "settings by a file",
    "code again": "settings by code, again",
    "former": "of the former release",
}


class Ratio(NamedTuple):
    """A ratio, and the interval that holds it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def _pattern(number: int) -> str:
    return f"/payments.v{number}.Payments/*"


def _by_code(package: Any) -> Any:
    return package.BreakerRegistry(
        overrides={
            _pattern(number): package.BreakerSettings(failure_threshold=number + 1, **_SETTINGS)
            for number in range(_SELECTORS)
        }
    )


def _by_file(package: Any) -> Any:
    from fusewire.config import load  # noqa: PLC0415 - only here, so that none else loads pydantic

    circuits = {
        _pattern(number): {"failure_threshold": number + 1, **_SETTINGS}
        for number in range(_SELECTORS)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fusewire.json")
        path.write_text(json.dumps({"fusewire": {"breakers": {"circuits": circuits}}}), "utf-8")
        config = load(path, env={})
    registry = package.BreakerRegistry()
    config.apply(registry)
    return registry


def _former(folder: str) -> Any:
    """Return the package that is checked out in `folder`, beside the one of this release."""
    ours = {name: sys.modules.pop(name) for name in [*sys.modules] if _is_ours(name)}
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("fusewire")
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(ours)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "fusewire"


def _calls(registry: Any) -> Calls:
    get = registry.get

    def calls() -> None:
        for _ in range(_CALLS):
            get(_NAME).acquire().success()

    return calls


def _seconds(calls: Calls) -> float:
    began = time.process_time()
    calls()
    return time.process_time() - began


def _measure(number: int, former: str) -> dict[str, list[float]]:
    """Return the seconds of each block, by what was called."""
    import fusewire  # noqa: PLC0415 - not needed by the process that starts the others

    make = {
        "code": lambda: _by_code(fusewire),
        "file": lambda: _by_file(fusewire),
        "code again": lambda: _by_code(fusewire),
    }
    if former:
        package = _former(former)
        make["former"] = lambda: _by_code(package)
    names = [*make]
    first = number % len(names)
    registries = {name: make[name]() for name in names[first:] + names[:first]}
    if registries["file"].get(_NAME).settings != registries["code"].get(_NAME).settings:
        raise RuntimeError("the circuits must have the same settings, by file and by code")
    subjects = {name: _calls(registry) for name, registry in registries.items()}
    for calls in subjects.values():
        calls()
    gc.collect()
    gc.disable()
    taken: dict[str, list[float]] = {name: [] for name in names}
    for block in range(_BLOCKS):
        for name in names if block % 2 else reversed(names):
            taken[name].append(_seconds(subjects[name]))
    return taken


def compare(former: str = "") -> dict[str, Ratio]:
    """Measure, and return the ratios to calls with settings by code."""
    found = []
    for number in range(PROCESSES):
        command = [sys.executable, "-m", "benchmarks.config_calls", "--process", str(number)]
        answer = subprocess.run(  # noqa: S603 - this file
            [*command, "--former", former],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
        )
        found.append(json.loads(answer.stdout))
    return {name: _ratio(found, name) for name in found[0] if name != "code"}


def _ratio(found: list[dict[str, list[float]]], name: str) -> Ratio:
    """Return the ratio of all processes."""
    ratios = sorted(
        statistics.median(
            one / other for one, other in zip(taken[name], taken["code"], strict=True)
        )
        for taken in found
    )
    return Ratio(statistics.median(ratios), ratios[5], ratios[-6])


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--former", default="", help="a folder with another release")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.process is not None:
        print(json.dumps(_measure(given.process, given.former)))
        return 0
    ratios = compare(given.former)
    for name, ratio in ratios.items():
        print(f"a healthy call, {_LABELS[name]:24} {ratio} times that with settings by code")
    return int(ratios["file"].median > TARGET)


if __name__ == "__main__":
    sys.exit(main())
