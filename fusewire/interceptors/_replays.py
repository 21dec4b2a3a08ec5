"""Calls of replays say so in their metadata, so that a busy server can shed them first."""

from __future__ import annotations

from typing import Any

from fusewire.operation import REPLAY_METADATA, current_operation


def is_replay() -> bool:
    """Return whether a call that is made here is part of a replay."""
    operation = current_operation()
    return operation is not None and operation.replay


def marked(
    pairs: tuple[tuple[str, str | bytes], ...],
) -> tuple[tuple[str, str | bytes], ...]:
    """Return a call's metadata with the mark, unless its caller has given one."""
    if any(key == REPLAY_METADATA for key, _ in pairs):
        return pairs
    return (*pairs, (REPLAY_METADATA, "1"))


def marked_if_valid(metadata: Any) -> Any:
    """Return what the user gave as metadata with the mark; grpcio refuses what is no metadata."""
    try:
        metadata = tuple(metadata or ())  # an iterator can be read only once
        return marked(metadata)
    except (TypeError, ValueError):
        return metadata
