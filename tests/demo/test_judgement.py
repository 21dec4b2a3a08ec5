"""What becomes of a client's payments is judged by the server's own records."""

from __future__ import annotations

import pytest

from fusewire.demo._config import Client
from fusewire.demo._judgement import Judgement, Records, judge
from fusewire.demo._tally import Answer, Requests

OUTAGE = (10.0, 20.0)


def judged(
    result: str | None, *operations: str, promised: str = "op-1", begin: float = 0.0
) -> Judgement:
    """Judge one payment: how it was answered, and the operations under which it was charged."""
    requests = Requests({"payment-1"})
    if result is not None:
        code = "UNAVAILABLE: down" if result == "error" else ""
        requests.note("payment-1", Answer(begin, 0.25, result, promised, code))
    return judge(requests, [(operation, "payment-1") for operation in operations], OUTAGE)


@pytest.mark.parametrize(
    ("result", "operations", "end"),
    [
        ("ok", ["op-1"], "made"),
        ("pending", ["op-1"], "made"),
        ("ok", [], "lost"),
        ("pending", [], "lost"),
        ("error", [], "lost"),
        (None, [], "lost"),
        ("ok", ["op-other"], "lost"),
        ("error", ["op-1"], "in_doubt"),
        (None, ["op-1"], "in_doubt"),
        ("ok", ["op-1", "op-2"], "charged_twice"),
        ("ok", ["op-1", "op-1"], "charged_twice"),
        ("error", ["op-1", "op-2"], "charged_twice"),
    ],
)
def test_a_payment_comes_to_one_of_four_ends(
    result: str | None, operations: list[str], end: str
) -> None:
    found = judged(result, *operations)
    ends = ("made", "lost", "in_doubt", "charged_twice")
    assert {name: getattr(found, name) for name in ends} == {name: name == end for name in ends}
    assert found.asked == 1


@pytest.mark.parametrize(("result", "later"), [("ok", 0), ("pending", 1)])
def test_what_was_promised_and_made_counts_as_later(result: str, later: int) -> None:
    assert judged(result, "op-1").later == later


def test_a_promise_that_was_not_kept_was_not_made_later() -> None:
    assert judged("pending").later == 0


@pytest.mark.parametrize(("begin", "p99"), [(9.9, None), (10.0, 250.0), (20.0, None)])
def test_callers_waits_are_of_the_time_without_a_server(begin: float, p99: float | None) -> None:
    assert judged("error", begin=begin).waited_ms.p99 == p99


def test_each_client_has_the_charges_of_its_own_references() -> None:
    records = Records(
        (("a", "payment-1"), ("b", "bare-payment-1"), ("c", "retrying-payment-1"), ("d", "order-1"))
    )
    assert [records.of(client.prefix) for client in Client] == [
        [("a", "payment-1")],
        [("b", "bare-payment-1")],
        [("c", "retrying-payment-1")],
    ]
