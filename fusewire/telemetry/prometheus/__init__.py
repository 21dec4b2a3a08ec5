"""Metrics for Prometheus. Needs the extra ``fusewire[prometheus]``.

::

    from fusewire.telemetry.prometheus import export, make_asgi_app

    exporter = export()                        # all circuits of the default registry
    app.mount("/metrics", make_asgi_app())

    async with ParkingConsumer(...) as consumer:
        exporter.watch(consumer)
"""

try:
    import prometheus_client  # noqa: F401 - whether it is there
except ModuleNotFoundError as error:
    if error.name != "prometheus_client":
        raise
    raise ModuleNotFoundError(
        "fusewire.telemetry.prometheus needs prometheus_client, which is not installed: "
        "pip install 'fusewire[prometheus]'",
        name="prometheus_client",
    ) from error

from fusewire._public import publish
from fusewire.telemetry.prometheus._exporter import Exporter, export
from fusewire.telemetry.prometheus._routes import make_asgi_app, make_wsgi_app

__all__ = ["Exporter", "export", "make_asgi_app", "make_wsgi_app"]

publish(__name__, __all__)
