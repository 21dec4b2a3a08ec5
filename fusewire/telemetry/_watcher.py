"""What exporters have in common: they watch consumers, and end that when they are closed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fusewire._validation import invalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer
    from fusewire.telemetry._source import Source


class Watcher:
    """Watches consumers until it is closed. It is a context manager that closes itself.

    Args:
        source: reads the consumers.
    """

    needs: ClassVar[tuple[str, ...]] = ("status", "add_listener")
    """Methods that what is watched must have."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stack = ExitStack()
        self._watches: set[ExitStack] = set()

    def watch(self, consumer: ParkingConsumer | ParkedCalls) -> Callable[[], None]:
        """Show a consumer or a store of calls too.

        Counts of messages begin here. Several consumers of one queue are shown as one. What is
        shown is what the consumer knows; no broker is waited for.

        Returns:
            A function that ends it. Call it when the consumer is not used any more; its counts
            stay.

        Raises:
            SettingsError: it cannot be watched, or is watched already.
        """
        for name in self.needs:
            if not callable(getattr(consumer, name, None)):
                raise invalid("consumer", "a ParkingConsumer or ParkedCalls", consumer)
        with ExitStack() as stack:
            self._begin(consumer, stack)
            ends = stack.pop_all()
        self._watches.add(ends)

        def end() -> None:
            self._watches.discard(ends)
            ends.close()

        return end

    def close(self) -> None:
        """End all of it."""
        while self._watches:
            self._watches.pop().close()
        self._stack.close()

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _begin(self, consumer: Any, stack: ExitStack) -> None:
        """Begin to watch `consumer`, and give `stack` what ends it."""
        stack.callback(self._source.watch(consumer))
