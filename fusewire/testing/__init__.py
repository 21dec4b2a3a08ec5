"""What users need to test their own code that goes through circuits and queues."""

from fusewire._public import publish
from fusewire.testing._circuits import Circuits
from fusewire.testing._clock import FakeClock
from fusewire.testing._memory import InMemoryBroker

__all__ = ["Circuits", "FakeClock", "InMemoryBroker"]

publish(__name__, __all__)
