"""Simulate recoveries at scale: ``make recovery``.

Exits with 1 if a cell comes to more than it may, or too few reach the goal.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from tests.parking.recovery.cells import all_cells
from tests.parking.recovery.report import Report

if TYPE_CHECKING:
    from tests.parking.recovery.simulation import Result


def run(name: str, seed: int) -> Result:
    return all_cells()[name].run(seed)


def main() -> int:
    options = _arguments()
    wanted = {
        name: cell for name, cell in all_cells().items() if options.only in f"{cell.table}: {name}"
    }
    results: dict[str, dict[int, Result]] = {name: {} for name in wanted}
    with ProcessPoolExecutor(options.processes) as pool:
        running = {
            pool.submit(run, name, seed): (name, seed)
            for name, cell in wanted.items()
            for seed in range(1, min(options.seeds, cell.most_seeds) + 1)
        }
        for number, future in enumerate(as_completed(running), 1):
            name, seed = running[future]
            results[name][seed] = future.result()
            sys.stderr.write(f"\r{number:,} of {len(running):,} runs ")
    sys.stderr.write("\n")
    report = Report(
        {name: [runs[seed] for seed in sorted(runs)] for name, runs in results.items()}, wanted
    )
    sys.stdout.write(f"{report}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(f"{report}", encoding="utf-8")
    return 0 if report.is_good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make recovery", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="runs of each cell")
    parser.add_argument("--only", default="", help="a part of `table: case, N=…`")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("build/recovery.md"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
