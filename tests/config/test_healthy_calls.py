"""A healthy call runs the same bytecode, whether its settings are a file's or code's."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import BreakerRegistry, BreakerSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from fusewire.config import Config

NAME = "/payments.v1.Payments/Charge"
PATTERN = "/payments.v1.Payments/*"
FILE = f"""
fusewire:
  breakers:
    circuits:
      {PATTERN}: {{failure_rate_threshold: 50%, window_calls: 20, slow_call_duration: 5s}}
"""
SETTINGS = BreakerSettings(failure_rate_threshold=0.5, window_calls=20, slow_call_duration=5.0)


def bytecodes_of(call: Callable[[], object]) -> Counter[str]:
    """Return how many bytecodes each function runs when `call` is called."""
    found: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            found[frame.f_code.co_qualname] += 1
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(former)
    return found


def by_permit(registry: BreakerRegistry) -> Callable[[], object]:
    return lambda: registry.get(NAME).acquire().success()


def by_look(registry: BreakerRegistry) -> Callable[[], object]:
    return lambda: registry.get(NAME).can_execute()


def by_guard(registry: BreakerRegistry) -> Callable[[], object]:
    return registry.get(NAME)(int)


@pytest.mark.parametrize("way", [by_permit, by_look, by_guard])
def test_a_healthy_call_runs_nothing_more_with_settings_of_a_file(
    load_text: Callable[..., Config], way: Callable[[BreakerRegistry], Callable[[], object]]
) -> None:
    code, files = BreakerRegistry(overrides={PATTERN: SETTINGS}), BreakerRegistry()
    load_text(FILE).apply(files)
    assert code.get(NAME).settings == files.get(NAME).settings
    one, other = way(code), way(files)
    for _ in range(50):  # more than the window has
        one()
        other()
    assert bytecodes_of(one) == bytecodes_of(other)
    assert bytecodes_of(one).total() > 20
