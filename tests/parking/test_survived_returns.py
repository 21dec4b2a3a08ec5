"""Returns that a process survives make no message a suspect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusewire.brokers import Message
from fusewire.parking._survived_returns import SurvivedReturns

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Came:
    """A delivery, as far as its returns go."""

    returned: int = 0
    message: Message = field(default_factory=lambda: Message(body=b"order", message_id="1"))


def test_returns_that_nobody_here_has_seen_are_unexplained() -> None:
    assert SurvivedReturns().unexplained(Came(3)) == 3


def test_a_return_that_this_process_survives_is_explained_however_often_it_happens() -> None:
    survived = SurvivedReturns()
    for returned in range(20):
        assert survived.unexplained(Came(returned)) == 0
        survived.note(Came(returned))


def test_returns_elsewhere_stay_unexplained() -> None:
    survived = SurvivedReturns()
    survived.note(Came(1))  # which nobody here has seen
    survived.note(Came(5))  # one of four was here
    assert survived.unexplained(Came(6)) == 4


def test_a_broker_that_does_not_count_says_that_it_came_back_once() -> None:
    survived = SurvivedReturns()
    assert survived.unexplained(Came(1)) == 1
    survived.note(Came(0))
    assert survived.unexplained(Came(1)) == 0
    survived.note(Came(1))
    assert survived.unexplained(Came(1)) == 0


def test_a_broker_that_counts_crashes_only_is_not_credited_with_what_was_given_back() -> None:
    survived = SurvivedReturns()
    for _ in range(5):
        survived.note(Came(0))
    assert survived.unexplained(Came(0)) == 0
    assert survived.unexplained(Came(3)) == 2  # the first of them may have been here


def test_what_an_outage_explains_counts_nothing_and_what_follows_counts() -> None:
    survived = SurvivedReturns()
    assert not survived.knows(Came(15))
    survived.excuse(Came(15))
    assert survived.knows(Came(15))
    assert survived.unexplained(Came(15)) == 0
    survived.note(Came(15))
    assert survived.unexplained(Came(16)) == 0
    assert survived.unexplained(Came(31)) == 15


def test_other_messages_are_others() -> None:
    survived = SurvivedReturns()
    survived.note(Came(0))
    assert survived.unexplained(Came(1, Message(body=b"order", message_id="2"))) == 1
    assert survived.unexplained(Came(1, Message(body=b"another", message_id="1"))) == 1


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusewire.parking._survived_returns._MOST_REMEMBERED", 2)
    survived = SurvivedReturns()
    for number in "123":
        survived.note(Came(0, Message(body=b"", message_id=number)))
    seen = [survived.unexplained(Came(1, Message(body=b"", message_id=n))) for n in "123"]
    assert seen == [1, 0, 0]
