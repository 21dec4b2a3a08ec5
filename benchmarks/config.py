"""Measures settings from files: reading 1,000 selectors, and what they cost a call.

Run it with ``python -m benchmarks.config``. Times are of the processor, the best of several that
are taken in turns; what calls wait for during reloads is of the clock, and a ratio to the same
while another registry is reloaded: then a thread is as busy, and only locks and settings of this
registry are left alone. Healthy calls are those of ``benchmarks.config_calls``. It exits with 1 if
a target is missed.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from itertools import count, cycle
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks import config_calls
from fusewire import BreakerRegistry
from fusewire.config import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.config import Config

_SELECTORS = 1_000
_CIRCUITS = 1_000
_NEW_NAMES = 2_000
_ROUNDS = 10


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


def _best(*functions: Callable[[], object], times: int = 15) -> list[float]:
    """Return the seconds of the processor that each function takes at best, in turns."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(times):
        for function, seconds in zip(functions, taken, strict=True):
            began = time.process_time()
            function()
            seconds.append(time.process_time() - began)
    return [min(seconds) for seconds in taken]


def _new_names(registry: BreakerRegistry, names: Callable[[int], str]) -> Callable[[], None]:
    numbers = count()

    def calls() -> None:
        for _ in range(_NEW_NAMES):
            registry.get(names(next(numbers)))

    return calls


def _first_calls(registry: BreakerRegistry) -> list[float]:
    """Return the seconds that first calls of new names take."""
    taken = []
    for n in range(_NEW_NAMES // _ROUNDS):
        name = f"/payments.v{n % _SELECTORS}.Payments/M{n}"
        began = time.perf_counter()
        registry.get(name)
        taken.append(time.perf_counter() - began)
        registry.remove(name)
        time.sleep(0.0005)  # so that calls come at any moment of a reload
    return taken


def _with_circuits(config: Config) -> BreakerRegistry:
    registry = BreakerRegistry()
    config.apply(registry)
    for n in range(_CIRCUITS):
        registry.get(f"/payments.v{n}.Payments/Charge")
    return registry


def _during_reloads(configs: tuple[Config, Config]) -> None:
    """Print what first calls take while their registry is reloaded, and while another one is."""
    registry, another = map(_with_circuits, configs)
    taken: dict[bool, list[float]] = {True: [], False: []}
    for reloaded in (another, registry) * _ROUNDS:  # in turn, as the machine is not always alike
        stop = threading.Event()

        def reload(reloaded: BreakerRegistry = reloaded, stop: threading.Event = stop) -> None:
            turns = cycle(configs)
            while not stop.is_set():
                next(turns).apply(reloaded)

        thread = threading.Thread(target=reload)
        thread.start()
        taken[reloaded is registry] += _first_calls(registry)
        stop.set()
        thread.join()
    for name, share in (("median", 0.5), ("p99", 0.99), ("worst", 1.0)):
        here, elsewhere = (
            sorted(taken[which])[round(share * (_NEW_NAMES - 1))] for which in (True, False)
        )
        print(
            f"a new name, {name:6}    {here * 1e6:9.1f} µs during reloads, "
            f"{here / elsewhere:.2f} times what it is while another registry is reloaded"
        )


def main() -> int:
    """Print the figures. Return 1 if a target is missed."""
    text = _file(_SELECTORS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fusewire.yaml")
        path.write_text(text, "utf-8")
        alone, whole = _best(lambda: yaml.load(text, yaml.CSafeLoader), lambda: load(path, env={}))
        config = load(path, env={})
        path.write_text(text.replace("30s", "60s"), "utf-8")
        other = load(path, env={})
    print(f"the C loader alone      {alone * 1e3:7.1f} ms for {_SELECTORS} selectors")
    print(f"fusewire.config.load    {whole * 1e3:7.1f} ms")
    # The same settings without files, so that breakers are made with the same windows.
    plain = BreakerRegistry(config.circuits["/payments.v5.Payments/*"].settings)
    with_files = BreakerRegistry()
    config.apply(with_files)
    without, with_them = _best(
        _new_names(plain, lambda n: f"/a.v{n}.B/C"),
        _new_names(with_files, lambda n: f"/payments.v{n % _SELECTORS}.Payments/M{n}"),
        times=5,
    )
    print(
        f"a new name              {without / _NEW_NAMES * 1e6:7.1f} µs without, "
        f"{with_them / _NEW_NAMES * 1e6:.1f} µs with files"
    )
    _during_reloads((config, other))
    began = time.process_time()
    config.apply(with_files)
    print(f"applying to {len(with_files)} circuits {(time.process_time() - began) * 1e3:.0f} ms")
    healthy = config_calls.compare()["file"]
    print(f"a healthy call with files {healthy} times what it is without")
    targets = [
        ("reading", whole / alone, 2.0),
        ("a new name", with_them / without, 2.0),
        ("a healthy call", healthy.median, config_calls.TARGET),
    ]
    for what, ratio, most in targets:
        print(f"{what}: {ratio:.3f} times (at most {most:g})")
    return int(any(ratio > most for _, ratio, most in targets))


if __name__ == "__main__":
    sys.exit(main())
