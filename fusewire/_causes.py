"""What an error comes from: itself, its causes and contexts, and the members of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusewire.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Iterator


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Return `error` and all that it comes from, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def rejection_in(error: BaseException | None) -> CircuitOpenError | None:
    """Return the rejection by a circuit that `error` comes from, if any."""
    return next((each for each in causes_of(error) if isinstance(each, CircuitOpenError)), None)


def status_in(error: BaseException | None) -> str | None:
    """Return the name of the gRPC status that `error` comes from, if any."""
    for each in causes_of(error):
        code = getattr(each, "code", None)
        if callable(code) and not isinstance(each, (CircuitOpenError, type)):
            try:
                name = getattr(code(), "name", None)
            except Exception:  # noqa: BLE001, S112 - somebody else's `code`, which is no status
                continue
            if isinstance(name, str):
                return name
    return None
