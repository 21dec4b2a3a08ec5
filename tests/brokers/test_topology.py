"""The stations that belong to one source queue."""

from __future__ import annotations

import copy
import pickle
from typing import get_type_hints

import pytest

from fusewire.brokers import OTHER_LANE, Station, Topology
from fusewire.errors import SettingsError


def test_the_stations_are_the_source_the_lanes_and_the_dead() -> None:
    topology = Topology("orders", lanes=("payments", "other"))

    assert topology.stations == (
        Station("orders"),
        topology.parked("payments"),
        topology.parked("other"),
        topology.dead,
    )
    assert list(map(str, topology.stations)) == [
        "orders",
        "orders.parked.payments",
        "orders.parked.other",
        "orders.dead",
    ]
    assert str(topology.delayed) == "orders.delayed"


def test_a_name_means_the_source_queue_of_that_name() -> None:
    assert Station.of("orders") == Station("orders", "source")
    dead = Topology("orders").dead
    assert Station.of(dead) is dead


def test_there_is_always_a_lane_for_what_belongs_to_no_other() -> None:
    assert Topology("orders").lanes == (OTHER_LANE,)
    assert Topology("orders", lanes=("payments",)).lanes == ("payments", OTHER_LANE)
    assert Topology("orders", lanes=(OTHER_LANE, "payments")).lanes == (OTHER_LANE, "payments")


@pytest.mark.parametrize("name", ["delay", "derived", "delay_tiers", "exchange", "lone"])
def test_what_only_rabbitmq_has_says_where_it_is_now(name: str) -> None:
    with pytest.raises(AttributeError, match=r"fusewire\.brokers\.rabbitmq\.Layout\(topology\)"):
        getattr(Topology("orders"), name)


def test_a_topology_can_be_copied_sent_and_inspected() -> None:
    topology = Topology("orders", ("payments",), options={"exchange": "parking"})

    assert copy.deepcopy(topology) == topology == pickle.loads(pickle.dumps(topology))  # noqa: S301 - its own
    assert get_type_hints(Topology)["source"] is str
    with pytest.raises(AttributeError, match="'Topology' object has no attribute 'nonsense'"):
        getattr(topology, "nonsense")  # noqa: B009 - mypy knows that it is not there


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"source": ""}, "queue"),
        ({"lanes": ("payments", "")}, "each name in lanes must be"),
        ({"delays": ()}, "delays must be"),
        ({"delays": (0.0,)}, "delays must be"),
        ({"delays": (-1.0,)}, "delays must be"),
        ({"delays": (float("nan"),)}, "delays must be"),
        ({"delays": (float("inf"),)}, "delays must be"),
        ({"delays": (5.0, 1.0)}, "growing"),
        ({"delays": (1.0, 1.0)}, "growing"),
        ({"options": {"exchange": "half a character: \ud800"}}, "exchange"),
    ],
)
def test_a_topology_that_cannot_be_right_is_refused(
    settings: dict[str, object], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        Topology(**{"source": "orders", **settings})  # type: ignore[arg-type]  # any setting
