"""What users need to test their own code that goes through circuits and queues."""

from typing import TYPE_CHECKING

from fusewire._public import publish
from fusewire.testing._circuits import Circuits
from fusewire.testing._clock import FakeClock

if TYPE_CHECKING:
    from fusewire.testing._memory import InMemoryBroker

__all__ = ["Circuits", "FakeClock", "InMemoryBroker"]

if not TYPE_CHECKING:  # else every name would be one, for type checkers

    def __getattr__(name: str) -> type:
        if name != "InMemoryBroker":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Only now: the kit of faults has to begin before the brokers are imported.
        from fusewire.testing._memory import InMemoryBroker  # noqa: PLC0415

        globals()[name] = InMemoryBroker
        publish(__name__, [name])
        return InMemoryBroker


publish(__name__, [name for name in __all__ if name in globals()])
