"""Settings from files and the environment. Needs the extra ``fusewire[config]``.

::

    from fusewire.config import load

    config = load("fusewire.yaml", "fusewire.prod.yaml", profile="prod")
    consumer = ParkingConsumer(..., retry=config.consumer("orders").retry)

Files are YAML or JSON. They name no functions, and reading them imports nothing. All problems of
all files come at once, each with its place and what to do.
"""

try:
    import pydantic  # noqa: F401 - whether it is there
    import yaml  # noqa: F401 - whether it is there
except ModuleNotFoundError as error:
    if error.name not in ("pydantic", "yaml"):
        raise
    raise ModuleNotFoundError(
        f"fusewire.config needs {error.name}, which is not installed: "
        "pip install 'fusewire[config]'",
        name=error.name,
    ) from error

from fusewire._public import publish
from fusewire.config._checking import Origin
from fusewire.config._config import Config
from fusewire.config._forwarders import ForwarderConfig, MethodConfig, TlsConfig
from fusewire.config._load import load
from fusewire.config._problems import ConfigError, Place, Problem, Severity
from fusewire.config._resolving import CircuitConfig, ConsumerConfig
from fusewire.config._watching import ReloadFigures, Watch

__all__ = [
    "CircuitConfig",
    "Config",
    "ConfigError",
    "ConsumerConfig",
    "ForwarderConfig",
    "MethodConfig",
    "Origin",
    "Place",
    "Problem",
    "ReloadFigures",
    "Severity",
    "TlsConfig",
    "Watch",
    "load",
]

publish(__name__, __all__)
