"""Messages that are looked for by their id, and removed while nobody has them.

No index helps: one would be written with each message, and calls are rarely looked for. Reading
the properties of all messages takes a moment, and no body is read but those that are returned.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from fusewire.brokers._names import queue_name
from fusewire.brokers.protocol import FoundMessage
from fusewire.brokers.sqlite import _codec as codec
from fusewire.errors import QueueNotFoundError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from fusewire.brokers.message import Message
    from fusewire.brokers.sqlite._store import Store
    from fusewire.brokers.topology import Station, Topology


class _Place(NamedTuple):
    """Where a message was found. A row's id is never used again in its file.

    Attributes:
        search: of which open file.
        id: the row.
        redelivered: whether somebody had had it by then.
    """

    search: Search
    id: int
    redelivered: bool


class Search:
    """Searches one database. Used by one thread, inside a transaction.

    Args:
        connection: the open database.
        path: its file, for errors.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._db = connection
        self._path = path

    def find(self, topology: Topology, message_id: str) -> list[FoundMessage]:
        """Return the messages of an id in the stations of `topology`, oldest first."""
        stations = self._stations(topology)
        marks = ", ".join("?" * len(stations))
        # As `codec.encode` writes it. A header may look alike, so Python looks again.
        text = f'"message_id":{json.dumps(message_id)}'
        rows = self._db.execute(
            "SELECT id, queue, receiver IS NOT NULL, handed_before, properties, body"  # noqa: S608 (question marks)
            " FROM messages"
            f" WHERE queue IN ({marks}) AND instr(properties, ?) ORDER BY id",
            (*stations, text),
        )
        found = []
        for id_, queue, in_flight, handed_before, properties, body in rows:
            message = codec.decode(properties, body)
            if message.message_id == message_id:
                found.append(
                    FoundMessage(
                        station=stations[queue],
                        message=message,
                        in_flight=bool(in_flight),
                        redelivered=bool(handed_before),
                        place=_Place(self, id_, bool(handed_before)),
                    )
                )
        return found

    def remove(self, found: Sequence[FoundMessage]) -> bool:
        """Remove messages that nobody has, if all of them are as they were found."""
        places = [each.place for each in found]
        if not all(self._is_there(place) for place in places):
            return False
        self._db.executemany(
            "DELETE FROM messages WHERE id = ?",
            [(place.id,) for place in places if isinstance(place, _Place)],
        )
        return True

    def _is_there(self, place: object) -> bool:
        if not isinstance(place, _Place) or place.search is not self:
            return False  # of a file that was replaced, or opened again
        row = self._db.execute(
            "SELECT 1 FROM messages WHERE id = ? AND receiver IS NULL AND handed_before = ?",
            (place.id, place.redelivered),
        )
        return row.fetchone() is not None

    def _stations(self, topology: Topology) -> dict[int, Station]:
        """Return the stations by the ids of their queues: delayed messages may have several."""
        stations: dict[int, Station] = {}
        for station in topology.stations:
            row = self._db.execute(
                "SELECT id FROM queues WHERE name = ?", (queue_name(station),)
            ).fetchone()
            if row is None and station.kind == "source":
                raise QueueNotFoundError(
                    f"{self._path} has no queue {station.queue!r}: make it with "
                    f"create_queue({station.queue!r})"
                )
            if row is not None:
                stations[row[0]] = station
        delayed = self._db.execute(
            "SELECT id FROM queues WHERE returns_to = (SELECT id FROM queues WHERE name = ?)",
            (topology.source,),
        )
        return stations | {id_: topology.delayed for (id_,) in delayed}


def withdraw(
    store: Store, found: Sequence[FoundMessage], instead: tuple[Station | str, Message] | None
) -> bool:
    """Remove what was found, and store another message, in one transaction."""
    if not store.search.remove(found):
        return False
    if instead is not None:
        store.publish(*instead, delay=0.0)
    return True
