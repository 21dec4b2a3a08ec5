"""What is remembered over a pause."""

from __future__ import annotations

from fusewire.brokers import Message
from fusewire.parking._history import History
from fusewire.parking._outage_probe import OutageProbe, RetainedHistories


def test_after_patience_the_first_lets_another_probe_once() -> None:
    probing = OutageProbe(patience=2)
    seen = []
    for _ in range(6):
        probing.begin()
        seen.append(probing.yields_turn)
        probing.failed()
    assert seen == [False, False, True, False, False, True]


def test_an_outage_is_over_when_its_circuit_is_closed() -> None:
    probing = OutageProbe(patience=1)
    probing.outage = "payments"
    probing.succeeded(closed=False)
    assert probing.outage == "payments"
    probing.succeeded(closed=True)
    assert probing.outage is None


def test_a_success_gives_the_first_its_patience_back() -> None:
    probing = OutageProbe(patience=1)
    probing.failed()
    probing.succeeded(closed=False)
    probing.begin()
    assert not probing.yields_turn


def test_failures_are_recalled_once_of_the_message_that_had_them() -> None:
    unsettled = RetainedHistories()
    first, second = Message(body=b"a"), Message(body=b"b")
    unsettled.keep(first, History(operation_id="1", attempts=2))
    assert unsettled.recall(second) is None
    recalled = unsettled.recall(Message(body=b"a"))
    assert recalled is not None
    assert recalled.attempts == 2
    assert unsettled.recall(first) is None
