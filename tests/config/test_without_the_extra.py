"""Without the extra nothing else misses it, and importing the room says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["pydantic", "yaml"])
def test_without_the_extra_the_error_names_it(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "try:\n    import fusewire.config\n"
        "except ModuleNotFoundError as error:\n    print(error.name, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == (
        f"{missing} fusewire.config needs {missing}, which is not installed: "
        "pip install 'fusewire[config]'"
    )


def test_no_other_room_loads_what_the_extra_needs() -> None:
    rooms = "breaker, interceptors, brokers, parking, forwarding, audit, telemetry.health, testing"
    imports = ", ".join(f"fusewire.{room}" for room in rooms.split(", "))
    program = f"import sys, {imports}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert {"pydantic", "yaml", "fusewire.config"}.isdisjoint(done.stdout.split())
