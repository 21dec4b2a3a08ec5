"""What users need to test their own code that goes through circuits."""

from fusewire._public import publish
from fusewire.testing._circuits import Circuits
from fusewire.testing._clock import FakeClock

__all__ = ["Circuits", "FakeClock"]

publish(__name__, __all__)
