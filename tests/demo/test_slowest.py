"""The report says why the slowest payments of an outage took as long as they did."""

from __future__ import annotations

from fusewire.breaker import CircuitState
from fusewire.demo._slowest import why_slow
from fusewire.demo._tally import Answer

OUTAGE = (8.0, 22.0)
CHANGES = [
    (8.05, CircuitState.OPEN),
    (10.0, CircuitState.HALF_OPEN),
    (11.0, CircuitState.OPEN),
    (13.0, CircuitState.HALF_OPEN),
    (22.0, CircuitState.CLOSED),
]


def payment(begin: float, took: float, result: str = "pending") -> Answer:
    return Answer(begin, took, result, "op", "")


def rejected(count: int = 100) -> list[Answer]:
    return [payment(9.0, 0.004) for _ in range(count)]


def test_the_slowest_that_met_a_half_open_circuit_are_named_as_probes() -> None:
    # The first one makes the circuit half open itself, a moment after it was asked for.
    answers = [*rejected(), payment(9.99, 1.007), payment(10.01, 1.006)]
    figures, why = why_slow(answers, CHANGES, OUTAGE)
    assert "102 payments" in figures
    assert "within 4.0 ms" in figures
    assert "slowest 2 took 1,006 ms or more" in figures
    assert why.startswith("All 2 were asked for while the circuit was half open")
    assert "as long as its deadline allows, 1 s" in why


def test_each_state_in_which_the_slowest_were_asked_for_is_named_the_commonest_first() -> None:
    answers = [
        *rejected(197),
        payment(8.1, 2.0),
        payment(8.2, 2.0),
        payment(10.5, 2.0),
        payment(7.9 + 0.1, 2.0, "error"),  # not answered
    ]
    _, first, second = why_slow(answers, CHANGES, OUTAGE)
    assert first.startswith("2 of these 3 were asked for while the circuit was open")
    assert second.startswith("1 of these 3 were asked for while the circuit was half open")


def test_what_met_a_half_open_circuit_and_waited_for_no_deadline_is_not_called_a_probe() -> None:
    _, why = why_slow([*rejected(98), payment(10.5, 0.2)], CHANGES, OUTAGE)
    assert "did not wait for a deadline" in why


def test_a_payment_from_just_before_the_circuit_opened_was_sent() -> None:
    _, why = why_slow([*rejected(98), payment(8.0, 0.2)], CHANGES, OUTAGE)
    assert "the circuit was closed: they were sent" in why


def test_what_failed_before_the_circuit_opened_is_not_taken_for_a_probe() -> None:
    _, why = why_slow([payment(8.0, 1.0)], [(8.5, CircuitState.OPEN)], OUTAGE)
    assert "the circuit was closed: they were sent, failed" in why


def test_without_payments_in_the_outage_there_is_nothing_to_explain() -> None:
    assert why_slow([payment(7.9, 1.0), payment(22.0, 1.0)], CHANGES, OUTAGE) == []
