"""Traces and metrics by OpenTelemetry. Needs the extra ``fusewire[opentelemetry]``.

It uses OpenTelemetry's API only: which SDK there is, and where it exports to, is the program's.

::

    from fusewire.telemetry.opentelemetry import instrument

    telemetry = instrument()                   # all circuits of the default registry

    async with ParkingConsumer(...) as consumer:
        telemetry.watch(consumer)
"""

try:
    import opentelemetry.trace  # noqa: F401 - whether it is there
except ModuleNotFoundError as error:
    if error.name not in ("opentelemetry", "opentelemetry.trace"):
        raise
    raise ModuleNotFoundError(
        "fusewire.telemetry.opentelemetry needs opentelemetry-api, which is not installed: "
        "pip install 'fusewire[opentelemetry]'",
        name=error.name,
    ) from error

from fusewire._public import publish
from fusewire.telemetry.opentelemetry._instrument import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]

publish(__name__, __all__)
