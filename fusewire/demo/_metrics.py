"""Metrics of the demo's processes, for a Prometheus that watches it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fusewire._validation import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.breaker import BreakerRegistry
    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer

METRICS_VARIABLE: Final = "FUSEWIRE_DEMO_METRICS"
"""Environment variable with the address at which a process serves its metrics, if it does."""

WORKERS: Final = ("client", "orders")
"""The processes that serve them, in the order of their ports."""


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    host, _, port = value.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65535  # noqa: PLR2004 - two ports


ADDRESS: Final = Rule("HOST:PORT, such as 127.0.0.1:9464", _is_address)


def metrics_environment(address: str | None, worker: str) -> dict[str, str]:
    """Return what the process `worker` gets so that it serves its metrics.

    Args:
        address: the address of the first one; the others have the ports after it.
        worker: its name.
    """
    if address is None or worker not in WORKERS:
        return {}
    host, _, port = address.rpartition(":")
    return {METRICS_VARIABLE: f"{host}:{int(port) + WORKERS.index(worker)}"}


@contextmanager
def serving_metrics(
    registry: BreakerRegistry, consumer: ParkingConsumer | ParkedCalls
) -> Iterator[None]:
    """Serve the metrics of this process for the block, if it was given an address for that."""
    address = os.environ.get(METRICS_VARIABLE)
    if address is None:
        yield
        return
    # Imported here: they need an extra, and load slowly.
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - see above

    from fusewire.telemetry.prometheus import export  # noqa: PLC0415 - see above

    host, _, port = address.rpartition(":")
    to = CollectorRegistry()
    with export(registry, to=to, detail=True, durations=["*"]) as exporter:
        exporter.watch(consumer)
        server, thread = start_http_server(int(port), addr=host, registry=to)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
