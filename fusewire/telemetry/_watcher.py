"""What exporters have in common: what they watch, and that they end it when they are closed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fusewire._validation import invalid
from fusewire.telemetry._files import WatchedFiles
from fusewire.telemetry._requests import WatchedKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fusewire.forwarding import ParkedCalls
    from fusewire.parking import ParkingConsumer
    from fusewire.telemetry._source import Source


class Watcher:
    """Watches what it is given until it is closed. It is a context manager that closes itself.

    Args:
        source: reads them.
    """

    needs: ClassVar[tuple[str, ...]] = ("status", "add_listener")
    """Methods that a consumer must have to be watched."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stack = ExitStack()
        self._watches: set[ExitStack] = set()

    def watch(
        self, watched: ParkingConsumer | ParkedCalls | WatchedFiles | WatchedKeys
    ) -> Callable[[], None]:
        """Show a consumer, a store of calls or of idempotency keys, or files of settings too.

        Counts of messages begin here. Several consumers of one queue are shown as one. What is
        shown is what the consumer knows; no broker is waited for. Of files, what is shown is
        whether they are applied: give what :meth:`fusewire.config.Config.watching` returns. Of a
        store of keys, what is shown is what became of the requests of its methods and consumers.

        Returns:
            A function that ends it. Call it when what is watched is not used any more; its counts
            stay.

        Raises:
            SettingsError: it cannot be watched, or is watched already.
        """
        with ExitStack() as stack:
            if isinstance(watched, WatchedFiles):
                stack.callback(self._source.watch_files(watched))
            elif isinstance(watched, WatchedKeys):
                stack.callback(self._source.watch_keys(watched))
            else:
                self._check(watched)
                self._begin(watched, stack)
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

    def _check(self, consumer: object) -> None:
        if not all(callable(getattr(consumer, name, None)) for name in self.needs):
            accepted = (
                "a ParkingConsumer, a ParkedCalls, a store of idempotency keys, or what "
                "Config.watching() returns"
            )
            raise invalid("watched", accepted, consumer)

    def _begin(self, consumer: Any, stack: ExitStack) -> None:
        """Begin to watch `consumer`, and give `stack` what ends it."""
        stack.callback(self._source.watch(consumer))
