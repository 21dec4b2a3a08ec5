"""The consumer's half of exactly once: each message's work is done once.

`once` wraps a handler of a :class:`~fusewire.parking.ParkingConsumer`. It claims the message's
operation id in the transaction that the handler works in, and commits both together before the
message is acknowledged.
"""

from fusewire._public import publish
from fusewire.inbox._once import aio_once, once

__all__ = ["aio_once", "once"]

publish(__name__, __all__)
