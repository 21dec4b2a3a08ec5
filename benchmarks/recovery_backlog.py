"""What replicas hold of a large backlog: memory, and messages that they have not acknowledged.

Each replica has a user of its own in RabbitMQ, so that its channels can be told from the others'.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from benchmarks.recovery_stage import LANE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.recovery_record import Line
    from benchmarks.recovery_run import Recorded
    from benchmarks.recovery_stage import Queue, Stage
    from tests.support.rabbitmq_node import PrivateNode

EVERY = 10.0  # seconds between looks, each of which costs RabbitMQ's node a second or two
MEBIBYTE = 2**20
HEAD = (
    "s",
    "waiting",
    "held",
    "most held by one",
    "subscribed",
    "prefetch of all",
    "held without a subscription",
    "resident MiB",
)


@dataclass(frozen=True)
class Look:
    """What RabbitMQ says of the lane at one moment.

    Attributes:
        at: monotonic seconds.
        waiting: messages of the lane that no replica has.
        unacknowledged: messages of the lane that replicas hold.
        held: unacknowledged messages by replica, of all its channels.
        subscribed: consumers of the lane, by replica.
        prefetch: what these consumers may hold at most, by replica.
    """

    at: float
    waiting: int
    unacknowledged: int
    held: dict[str, int]
    subscribed: dict[str, int]
    prefetch: dict[str, int]

    @property
    def hoarded(self) -> int:
        """Messages that replicas hold without a subscription to the lane."""
        return sum(held for name, held in self.held.items() if not self.subscribed.get(name))


class Watch:
    """Looks at a private node again and again, beside a drain."""

    def __init__(self, node: PrivateNode, seconds: float) -> None:
        self._node = node
        self._seconds = seconds
        self.looks: list[Look] = []

    def admit(self, names: Iterable[str]) -> None:
        """Make a user for each replica."""
        for name in names:
            self._node.ctl("add_user", name, name)
            self._node.ctl("set_permissions", name, ".*", ".*", ".*")

    def url(self, name: str) -> str:
        """Return the address for the user of a replica."""
        parts = urlsplit(self._node.url)
        return urlunsplit(parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}"))

    async def watch(self, _stage: Stage, queue: Queue) -> None:
        """Look every few seconds, for as long as was asked for."""
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            self.looks.append(await asyncio.to_thread(self._look, f"{queue.name}.parked.{LANE}"))
            await asyncio.sleep(EVERY)

    def _look(self, lane: str) -> Look:
        at = time.monotonic()
        queues = self._list("list_queues", "name", "messages_ready", "messages_unacknowledged")
        channels = self._list("list_channels", "pid", "user", "messages_unacknowledged")
        consumers = self._list("list_consumers", "queue_name", "channel_pid", "prefetch_count")
        found = next(one for one in queues if one["name"] == lane)
        users = {one["pid"]: one["user"] for one in channels}
        held = dict.fromkeys(users.values(), 0)
        for one in channels:
            held[one["user"]] += one["messages_unacknowledged"]
        subscribed = dict.fromkeys(held, 0)
        prefetch = dict.fromkeys(held, 0)
        for one in consumers:
            user = users.get(one["channel_pid"], "")
            if one["queue_name"] == lane and user in subscribed:
                subscribed[user] += 1
                prefetch[user] += one["prefetch_count"]
        return Look(
            at,
            found["messages_ready"],
            found["messages_unacknowledged"],
            held,
            subscribed,
            prefetch,
        )

    def _list(self, what: str, *columns: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self._node.ctl("--formatter", "json", what, *columns)
        )
        return found


def table(recorded: Recorded, looks: list[Look]) -> str:
    """Return the looks as a Markdown table, with the replicas' memory at the same times."""
    rows = [
        "| " + " | ".join(HEAD) + " |",
        "|---" * len(HEAD) + "|",
    ]
    for look in looks:
        memory = sorted(
            _resident(lines, look.at) / MEBIBYTE for lines in recorded.replicas.values()
        )
        subscribed = sum(map(bool, look.subscribed.values()))
        rows.append(
            f"| {look.at - recorded.began:.0f} | {look.waiting} | {look.unacknowledged} "
            f"| {max(look.held.values(), default=0)} | {subscribed} "
            f"| {sum(look.prefetch.values())} | {look.hoarded} "
            f"| {memory[0]:.1f} to {memory[-1]:.1f} |"
        )
    return "\n".join(rows)


def growth(recorded: Recorded) -> float:
    """Return by how many bytes the replica grew that grew most, from the first probe to the end."""
    return max(
        _resident(lines, recorded.ended) - _resident(lines, recorded.began)
        for lines in recorded.replicas.values()
    )


def _resident(lines: list[Line], at: float) -> int:
    """Return the resident memory that a replica last wrote down by then, in bytes."""
    found = [line["resident"] for line in lines if line["what"] == "usage" and line["at"] <= at]
    return int(found[-1]) if found else 0
