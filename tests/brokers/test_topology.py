"""The names of the queues that belong to one source queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire.brokers import DELAY_TIERS, OTHER_LANE, Topology
from fusewire.errors import SettingsError

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400)


def test_the_names_say_what_each_queue_is_for() -> None:
    topology = Topology("orders", lanes=("payments", "other"), delay_tiers=(0.5, 30.0))

    assert topology.derived == (
        "orders.parked.payments",
        "orders.parked.other",
        "orders.delay.500",
        "orders.delay.30000",
        "orders.dead",
    )


def test_there_is_always_a_lane_for_what_belongs_to_no_other() -> None:
    assert Topology("orders").lanes == (OTHER_LANE,)
    assert Topology("orders", lanes=("payments",)).lanes == ("payments", OTHER_LANE)
    assert Topology("orders", lanes=(OTHER_LANE, "payments")).lanes == (OTHER_LANE, "payments")


def test_a_lane_named_like_a_method_is_one_word_of_the_name() -> None:
    name = Topology("orders").parked("/payments.v1.Payments/Charge *")

    assert name == "orders.parked./payments.v1.Payments/Charge#20#2A"


def test_marks_are_named_by_operation_and_number_and_within_amqps_limit() -> None:
    topology = Topology("orders")

    names = {topology.lone(operation, number) for operation in ("a", "b") for number in (1, 2)}

    assert len(names) == 4
    assert all(name.startswith("orders.lone.") for name in names)
    assert topology.lone("a", 1) == Topology("orders").lone("a", 1)
    assert len(Topology("q" * 300).lone("a" * 300, 1).encode()) <= 255


@given(source=names, lanes=st.lists(names, unique=True, max_size=4))
def test_no_name_is_too_long_for_amqp_and_no_two_are_the_same(
    source: str, lanes: list[str]
) -> None:
    derived = Topology(source, lanes=tuple(lanes)).derived

    assert len(set(derived)) == len(derived)
    assert all(len(name.encode()) <= 255 for name in derived)


def test_a_name_that_was_too_long_is_the_same_every_time() -> None:
    first, again = Topology("q" * 300).dead, Topology("q" * 300).dead

    assert first == again
    assert first.startswith("q" * 200)
    assert first != Topology("q" * 301).dead


@pytest.mark.parametrize("tier", DELAY_TIERS)
def test_each_default_tier_has_a_queue(tier: float) -> None:
    topology = Topology("orders")

    assert topology.delay(tier) in topology.derived


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"source": ""}, "queue"),
        ({"lanes": ("payments", "")}, "each name in lanes must be"),
        ({"delay_tiers": ()}, "delay_tiers"),
        ({"delay_tiers": (0.0,)}, "delay_tiers"),
        ({"delay_tiers": (-1.0,)}, "delay_tiers"),
        ({"delay_tiers": (float("nan"),)}, "delay_tiers"),
        ({"delay_tiers": (float("inf"),)}, "delay_tiers"),
        ({"delay_tiers": (5.0, 1.0)}, "growing"),
        ({"delay_tiers": (1.0, 1.0)}, "growing"),
    ],
)
def test_a_topology_that_cannot_be_right_is_refused(
    settings: dict[str, object], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        Topology(**{"source": "orders", **settings})  # type: ignore[arg-type]  # any setting
