"""An outage, rebuilt from what the log says of it, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.logs import ours

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class Outage:
    """What the log says of one outage of a circuit, and of the lane that its messages waited in.

    Times are seconds since 1970, those of the lines.
    """

    circuit: str
    opened_at: float
    cause: str
    error_status: str
    closed_at: float | None = None
    seconds: float = 0.0
    rejected: int = 0
    parked_at: float | None = None
    parked: int = 0
    replayed: int = 0
    dead: int = 0
    left: int = 0
    drained_at: float | None = None


@dataclass(slots=True)
class Story:
    """All that happened, in order."""

    outages: list[Outage] = field(default_factory=list)
    dead: dict[str, str] = field(default_factory=dict)
    """Operation id to reason."""


def rebuild(records: Iterable[dict[str, Any]]) -> Story:
    """Read the lines from INFO on, as they are on in production."""
    story = Story()
    for record in records:
        if record["levelname"] == "DEBUG" or "fusewire_event" not in record:
            continue
        _read(story, record["fusewire_event"], record["created"], ours(record))
    return story


def _read(story: Story, event: str, at: float, said: dict[str, Any]) -> None:
    match event:
        case "circuit.opened":
            story.outages.append(
                Outage(said["circuit"], at, said["reason"], said.get("error_status", ""))
            )
        case "circuit.closed":
            outage = story.outages[-1]
            assert said["circuit"] == outage.circuit
            outage.closed_at, outage.seconds = at, said["seconds"]
            outage.rejected = said["rejected"]
        case "lane.parking":
            story.outages[-1].parked_at = at
        case "lane.drained":
            outage = story.outages[-1]
            outage.drained_at = at
            outage.parked += said["parked"]
            outage.replayed += said["replayed"]
            outage.dead += said["dead"]
            outage.left += said["left"]
        case "message.dead":
            story.dead[said["operation_id"]] = said["reason"]
