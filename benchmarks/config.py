"""Measures settings from files: reading 1,000 selectors, and what they cost a call.

Run it with ``python -m benchmarks.config``. Times are of the processor, the best of several.
"""

from __future__ import annotations

import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fusewire import BreakerRegistry
from fusewire.config import load

if TYPE_CHECKING:
    from collections.abc import Callable

_SELECTORS = 1_000
_CALLS = 20_000
_NEW_NAMES = 2_000


def _file(selectors: int) -> str:
    rows = (
        f"      /payments.v{n}.Payments/*:\n"
        f"        failure_threshold: {n + 1}\n"
        "        recovery_timeout: 30s\n"
        "        failure_rate_threshold: 50%\n"
        "        window_calls: 20\n"
        for n in range(selectors)
    )
    return "fusewire:\n  breakers:\n    circuits:\n" + "".join(rows)


def _best(function: Callable[[], object], times: int = 15) -> float:
    """Return the seconds of the processor that a call takes at best."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return min(taken)


def _healthy_call(registry: BreakerRegistry) -> float:
    breaker = registry.get("/payments.v5.Payments/Charge")

    def calls() -> None:
        for _ in range(_CALLS):
            breaker.acquire().success()

    return _best(calls) / _CALLS


def _first_call(registry: BreakerRegistry, names: Callable[[int], str]) -> float:
    numbers = count()

    def calls() -> None:
        for _ in range(_NEW_NAMES):
            registry.get(names(next(numbers)))

    return _best(calls, times=5) / _NEW_NAMES


def main() -> None:
    """Print the figures."""
    text = _file(_SELECTORS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fusewire.yaml")
        path.write_text(text, "utf-8")
        alone = _best(lambda: yaml.load(text, yaml.CSafeLoader))
        whole = _best(lambda: load(path, env={}))
        config = load(path, env={})
    print(f"the C loader alone      {alone * 1e3:7.1f} ms for {_SELECTORS} selectors")
    print(f"fusewire.config.load    {whole * 1e3:7.1f} ms, {whole / alone:.2f} times")
    plain, with_files = BreakerRegistry(), BreakerRegistry()
    config.apply(with_files)
    before, after = _healthy_call(plain), _healthy_call(with_files)
    print(
        f"a healthy call          {before * 1e9:7.0f} ns without, {after * 1e9:.0f} ns with files"
    )
    before = _first_call(plain, lambda n: f"/a.v{n}.B/C")
    after = _first_call(with_files, lambda n: f"/payments.v{n % _SELECTORS}.Payments/M{n}")
    print(
        f"a new name              {before * 1e6:7.1f} µs without, {after * 1e6:.1f} µs with files"
    )
    began = time.process_time()
    config.apply(with_files)
    print(f"applying to {len(with_files)} circuits {(time.process_time() - began) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
