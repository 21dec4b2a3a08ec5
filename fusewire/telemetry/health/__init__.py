"""Answers to an orchestrator's probes: startup, readiness and liveness, over HTTP and gRPC."""

from fusewire._public import publish
from fusewire.telemetry.health._asgi import make_asgi_app
from fusewire.telemetry.health._grpc import aio_report_status, report_status
from fusewire.telemetry.health._health import Health
from fusewire.telemetry.health._verdicts import CircuitHealth, ConsumerHealth, Report, Verdict

__all__ = [
    "CircuitHealth",
    "ConsumerHealth",
    "Health",
    "Report",
    "Verdict",
    "aio_report_status",
    "make_asgi_app",
    "report_status",
]

publish(__name__, __all__)
