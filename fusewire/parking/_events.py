"""What happened to a message, for listeners that make logs, metrics or displays of it."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fusewire.parking._asking import ask
from fusewire.parking._breaker_names import check_function

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("fusewire.parking")


class MessageOutcome(StrEnum):
    """What happened to a message, after it was settled with the broker."""

    HANDLED = "handled"
    PARKED = "parked"
    REPLAYED = "replayed"
    """Handled, after it had been parked."""
    DELAYED = "delayed"
    DEAD = "dead"
    IN_DOUBT = "in_doubt"
    """Handled, but a call that may have had an effect in an earlier attempt was not made again.

    Its request has another idempotency key each time, and so perhaps another effect. Told after
    HANDLED or REPLAYED."""


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """One message was settled.

    Attributes:
        outcome: what happened.
        operation_id: which unit of work.
        queue: its source queue.
        dependency: what it waits for or failed on; empty where nothing is to blame.
        reason: why, in a word: ``circuit_open``, ``failed``, ``exhausted``, ``rejected``,
            ``key_not_sent_again``, …
    """

    outcome: MessageOutcome
    operation_id: str
    queue: str
    dependency: str = ""
    reason: str = ""

    @property
    def happening(self) -> MessageOutcome:
        """The former name of `outcome`."""
        warnings.warn(
            "MessageEvent.happening is now MessageEvent.outcome", DeprecationWarning, stacklevel=2
        )
        return self.outcome


class Listeners:
    """Called in order; one that raises is logged and changes nothing."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[MessageEvent], None]] = []

    def add(self, listener: Callable[[MessageEvent], None]) -> Callable[[], None]:
        """Add a listener and return the function that removes it.

        Raises:
            SettingsError: it is no plain function of an event.
        """
        check_function("listener", listener, "an event")
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def tell(self, event: MessageEvent) -> None:
        """Call every listener."""
        for listener in tuple(self._listeners):
            try:
                ask("a listener", listener, event)
            except Exception:
                logger.exception("a listener of messages raised; nothing else is changed by it")
