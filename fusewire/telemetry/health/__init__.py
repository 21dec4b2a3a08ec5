"""Answers to an orchestrator's probes: startup, readiness and liveness."""

from fusewire._public import publish
from fusewire.telemetry.health._health import Health
from fusewire.telemetry.health._verdicts import CircuitHealth, ConsumerHealth, Report, Verdict

__all__ = ["CircuitHealth", "ConsumerHealth", "Health", "Report", "Verdict"]

publish(__name__, __all__)
