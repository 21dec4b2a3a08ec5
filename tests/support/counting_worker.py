"""A process that makes calls through two circuits, and exports them with others of its kind.

``python -m tests.support.counting_worker THREADS``. It makes calls until its standard input ends or
it is killed. For each line that it reads it writes a line: what it has counted until then, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from random import Random

from fusewire.breaker import BreakerRegistry, BreakerSettings, CircuitOpenError
from fusewire.telemetry.prometheus import export

_NEVER = BreakerSettings(failure_threshold=10**9)
_OFTEN = BreakerSettings(failure_threshold=3, recovery_timeout=0.01)


def count(circuits: BreakerRegistry) -> dict[str, dict[str, int]]:
    """Return what each circuit has counted, by the names of the results."""
    counters = {each.name: each.figures().counters for each in circuits}
    return {
        name: {"success": of.succeeded, "failure": of.failed, "rejected": of.rejected}
        for name, of in counters.items()
    }


def main() -> None:
    """Run the worker."""
    circuits = BreakerRegistry()
    steady, flapping = circuits.get("steady", _NEVER), circuits.get("flapping", _OFTEN)
    over = threading.Event()

    def work(seed: int) -> None:
        chance = Random(seed)
        while not over.is_set():
            for breaker in (steady, flapping):
                try:
                    permit = breaker.acquire()
                except CircuitOpenError:
                    continue
                if chance.random() < 0.3:
                    permit.failure()
                else:
                    permit.success()
            over.wait(0.001)

    with export(circuits, durations=["*"]):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(int(sys.argv[1]))]
        for thread in threads:
            thread.start()
        for _ in sys.stdin:
            sys.stdout.write(json.dumps(count(circuits)) + "\n")
            sys.stdout.flush()
        over.set()
        for thread in threads:
            thread.join()
    sys.stdout.write(json.dumps(count(circuits)) + "\n")


if __name__ == "__main__":
    main()
