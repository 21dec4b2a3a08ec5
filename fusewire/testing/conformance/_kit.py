"""All tests of a broker, and the fixtures that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.brokers import Topology
from fusewire.testing.conformance._consuming import Consuming
from fusewire.testing.conformance._delaying import Delaying
from fusewire.testing.conformance._receiving import Receiving
from fusewire.testing.conformance._searching import Searching
from fusewire.testing.conformance._settling import GivingBack, Moving
from fusewire.testing.conformance._sharing import Sharing, Workload
from fusewire.testing.conformance._single import SingleReceiver
from fusewire.testing.conformance._storing import Identity, Marks, Storing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fusewire.brokers import Broker
    from fusewire.testing.conformance._place import Place

_DELAYS = (0.2, 60.0)  # seconds: one to wait for, and one to stay in


@pytest.mark.anyio
class BrokerConformance(
    Storing,
    Identity,
    Marks,
    Moving,
    Delaying,
    GivingBack,
    Sharing,
    Receiving,
    SingleReceiver,
    Searching,
    Workload,
    Consuming,
):
    """The tests that every broker passes. Subclass it, and override `place`.

    What a broker's :class:`~fusewire.brokers.Capabilities` deny is skipped.
    """

    @pytest.fixture
    def place(self) -> Place:
        """Where messages lie; a new one for each test."""
        raise NotImplementedError("override the fixture `place`: return a Place of your broker")

    @pytest.fixture
    def topology(self, place: Place) -> Topology:
        """The stations of the place's queue."""
        return Topology(place.queue, delays=_DELAYS)

    @pytest.fixture
    async def broker(self, place: Place, topology: Topology) -> AsyncIterator[Broker]:
        """A broker that is entered and prepared."""
        async with place.open() as opened:
            await opened.create_queue(topology.source)
            await opened.prepare(topology)
            yield opened
