"""The names of RabbitMQ's queues, and which of them serves a delay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewire.brokers import DEFAULT_DELAYS, Topology
from fusewire.brokers._names import mark_name
from fusewire.brokers.rabbitmq import Layout
from fusewire.brokers.rabbitmq._delays import tier_for
from fusewire.errors import SettingsError

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400)


def test_the_names_say_what_each_queue_is_for() -> None:
    layout = Layout(Topology("orders", lanes=("payments", "other"), delays=(0.5, 30.0)))

    assert layout.queues == (
        "orders",
        "orders.parked.payments",
        "orders.parked.other",
        "orders.delay.500",
        "orders.delay.30000",
        "orders.dead",
    )


def test_a_lane_named_like_a_method_is_one_word_of_the_name() -> None:
    name = Layout(Topology("orders")).parked("/payments.v1.Payments/Charge *")

    assert name == "orders.parked./payments.v1.Payments/Charge#20#2A"


def test_marks_are_named_as_every_release_names_them_and_within_amqps_limit() -> None:
    assert mark_name("orders", "0123456789abcdef.2") == "orders.lone.0123456789abcdef.2"
    assert len(mark_name("q" * 300, "0123456789abcdef.2").encode()) <= 255


@given(source=names, lanes=st.lists(names, unique=True, max_size=4))
def test_no_name_is_too_long_for_amqp_and_no_two_are_the_same(
    source: str, lanes: list[str]
) -> None:
    derived = Layout(Topology(source, lanes=tuple(lanes))).derived

    assert len(set(derived)) == len(derived)
    assert all(len(name.encode()) <= 255 for name in derived)


def test_a_name_that_was_too_long_is_the_same_every_time() -> None:
    first, again = (Layout(Topology("q" * 300)).dead for _ in range(2))

    assert first == again
    assert first == "q" * 238 + "." + "187ce518da41b9d9"
    assert first != Layout(Topology("q" * 301)).dead


@pytest.mark.parametrize("tier", DEFAULT_DELAYS)
def test_each_default_tier_has_a_queue_and_is_kept(tier: float) -> None:
    layout = Layout(Topology("orders"))

    assert layout.delay(tier) in layout.derived
    assert tier_for(tier, DEFAULT_DELAYS) == tier


@pytest.mark.parametrize("seconds", [0.4, 3.5, 7, 28.2, 59.9, 420, 3601.5, 86_400])
def test_any_other_delay_is_served_by_few_hops_never_early_and_at_most_the_shortest_tier_late(
    seconds: float,
) -> None:
    left, hops = seconds, 0
    while left > 0:
        left -= tier_for(left, DEFAULT_DELAYS)
        hops += 1
    assert -1 <= left <= 0
    assert hops <= seconds // 600 + 15


def test_an_exchange_with_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(SettingsError, match="at most 255 bytes"):
        Layout(Topology("orders", options={"exchange": "x" * 256}))
