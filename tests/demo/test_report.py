"""How the final ledger is reckoned, and when the demo has failed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from fusewire.demo._config import Client, Plan
from fusewire.demo._judgement import Records, read_records
from fusewire.demo._ledger import Ledger
from fusewire.demo._report import Report, make_report
from fusewire.demo._scenario import Demo
from fusewire.demo._subprocesses import DemoError
from fusewire.demo._tally import Tally
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest, RefundRequest
from fusewire.demo.run import run_demo
from fusewire.demo.server import CHARGE, REFUND

if TYPE_CHECKING:
    from pathlib import Path

KILLED = 10.0
BACK = 18.0
RECOVERED = 20.0


class Story:
    """What the processes of a demo told, and what the server wrote down."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.charges: list[tuple[str, str]] = []
        self.send("client", "circuit", KILLED + 0.1, state="open", why="failures")
        self.send("client", "circuit", RECOVERED, state="closed", why="probes")

    def send(self, process: str, what: str, at: float = 0.0, **details: Any) -> None:
        self.tally.note(process, {"what": what, "at": at, **details})

    def message(self, process: str, outcome: str, operation: str, reason: str = "") -> None:
        self.send(process, "message", outcome=outcome, operation=operation, reason=reason)

    def payment(
        self,
        number: int,
        result: str = "ok",
        *,
        begin: float = 0.0,
        took: float = 0.1,
        client: Client = Client.FUSEWIRE,
    ) -> None:
        reference = f"{client.prefix}{number}"
        self.send("client", "asked", client=client, reference=reference)
        self.send(
            "client", "answered", client=client, reference=reference, begin=begin, took=took,
            result=result, operation="" if result == "error" else f"op-{number}",
            code="UNAVAILABLE: down" if result == "error" else "",
        )  # fmt: skip

    def charge(self, number: int) -> None:
        self.charges.append((f"op-{number}", f"payment-{number}"))

    def order(self, number: int) -> None:
        self.send("orders", "published", operation=f"order-{number}")

    def charge_order(self, number: int) -> None:
        self.charges.append((f"order-{number}/Charge/1", f"order-{number}"))

    def end(self) -> Report:
        return make_report(
            self.tally,
            Records(tuple(self.charges), repeated=0),
            broker="sqlite",
            outage=(KILLED, BACK),
        )


@pytest.fixture
def story() -> Story:
    """Provide a day on which all went well: a payment made, one parked and made, and an order."""
    story = Story()
    story.payment(1)
    story.charge(1)
    story.payment(2, "pending")
    story.message("client", "parked", "op-2")
    story.message("client", "replayed", "op-2")
    story.charge(2)
    story.order(1)
    story.message("orders", "parked", "order-1")
    story.message("orders", "replayed", "order-1")
    story.charge_order(1)
    return story


def test_a_day_on_which_all_went_well_has_no_fault(story: Story) -> None:
    end = story.end()
    assert end.faults == []
    assert (end.asked, end.charged, end.parked, end.replayed) == (2, 2, 1, 1)
    assert (end.lost, end.charged_twice, end.failed) == (0, 0, 0)
    assert (end.orders_asked, end.orders_handled, end.orders_parked) == (1, 1, 1)
    assert (end.orders_lost, end.orders_charged_twice) == (0, 0)


@pytest.mark.parametrize("result", ["ok", "pending"])
def test_a_payment_that_was_promised_and_is_not_in_the_servers_ledger_is_lost(
    story: Story, result: str
) -> None:
    story.payment(3, result)
    end = story.end()
    assert end.lost == 1
    assert end.faults == ["lost: 1"]


def test_a_payment_made_under_another_operation_id_than_promised_is_lost(story: Story) -> None:
    story.payment(3)
    story.charges.append(("op-other", "payment-3"))
    assert story.end().lost == 1


def test_a_payment_that_got_an_error_is_failed_and_not_lost(story: Story) -> None:
    story.payment(3, "error")
    end = story.end()
    assert (end.failed, end.lost, end.faults) == (1, 0, [])
    assert end.remarks == ("payments that failed with UNAVAILABLE: down: 1",)


def test_a_payment_that_was_never_answered_is_failed(story: Story) -> None:
    story.send("client", "asked", client=Client.FUSEWIRE, reference="payment-3")
    end = story.end()
    assert end.failed == 1
    assert end.remarks == ("payments without an answer: 1",)


def test_one_operation_charged_twice_is_found(story: Story) -> None:
    story.charge(1)
    end = story.end()
    assert (end.charged, end.charged_twice) == (2, 1)
    assert end.faults == ["charged twice: 1"]


def test_one_payment_charged_under_two_operation_ids_is_found(story: Story) -> None:
    story.charges.append(("op-other", "payment-1"))
    assert story.end().charged_twice == 1


def test_an_order_charged_for_twice_is_found(story: Story) -> None:
    story.charge_order(1)
    end = story.end()
    assert (end.orders_charged_twice, end.charged_twice) == (1, 0)
    assert end.faults == ["orders charged twice: 1"]


def test_an_order_that_the_server_knows_nothing_of_is_lost(story: Story) -> None:
    story.order(2)
    story.message("orders", "handled", "order-2")
    end = story.end()
    assert (end.orders_asked, end.orders_handled, end.orders_lost) == (2, 2, 1)
    assert end.faults == ["orders lost: 1"]


def test_a_parked_payment_that_was_not_replayed_is_a_fault(story: Story) -> None:
    story.payment(3, "pending")
    story.message("client", "parked", "op-3")
    story.charge(3)
    end = story.end()
    assert end.faults == ["parked 2, but replayed 1"]
    assert end.remarks == ("payments still parked: 1",)


def test_a_payment_parked_and_replayed_several_times_counts_once(story: Story) -> None:
    for outcome in ("parked", "parked", "replayed", "replayed"):
        story.message("client", outcome, "op-2")
    end = story.end()
    assert (end.parked, end.replayed) == (1, 1)


def test_a_parked_payment_that_comes_back_by_way_of_a_delay_counts_as_replayed(
    story: Story,
) -> None:
    story.payment(3, "pending")
    story.charge(3)
    for outcome in ("parked", "delayed", "handled"):
        story.message("client", outcome, "op-3")
    assert story.end().faults == []


def test_what_is_dead_is_reported_with_its_reason(story: Story) -> None:
    story.message("orders", "dead", "order-9", "exhausted")
    assert story.end().remarks == ("orders in the dead queue as exhausted: 1",)


def test_latencies_are_grouped_by_when_the_payment_was_requested() -> None:
    story = Story()
    for number in range(100):
        story.payment(number, begin=KILLED - 1, took=(number + 1) / 1000)
    story.payment(100, begin=KILLED, took=0.5)
    story.payment(101, begin=RECOVERED - 0.1, took=0.7)
    story.payment(102, "error", begin=RECOVERED, took=9.0)  # not answered
    latencies = story.end().as_json()["latency_ms"]
    assert latencies == {
        "before": {"p50": 50.0, "p99": 99.0},
        "during": {"p50": 500.0, "p99": 700.0},
        "after": {"p50": None, "p99": None},
    }


def test_the_servers_records_are_read_from_its_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "payments.db")
    request = ChargeRequest(account="alice", amount_cents=1, currency="EUR", reference="payment-1")
    with ledger.store.begin():
        charge = ledger.charge(request, "op-1")
        ledger.refund(RefundRequest(charge_id=charge.charge_id), "op-2")
    ledger.note_repeated(CHARGE, "op-1")
    ledger.note_repeated(REFUND, "op-2")
    # Open still, as after a kill: what the write-ahead log holds counts.
    records = read_records(tmp_path / "payments.db")
    ledger.close()
    assert records == Records((("op-1", "payment-1"),), repeated=1)


def test_a_circuit_that_opens_once_more_after_the_outage_makes_the_outage_no_longer() -> None:
    story = Story()
    story.payment(1, begin=RECOVERED + 1, took=0.05)
    story.send("client", "circuit", RECOVERED + 2, state="open", why="failures")
    story.send("client", "circuit", RECOVERED + 4, state="closed", why="probes")
    assert story.end().latency_ms["after"].p50 == 50.0


@pytest.mark.parametrize("lost", [0, 1])
def test_the_exit_status_says_whether_anything_was_lost(
    story: Story, lost: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if lost:
        story.payment(3)

    async def run(_: Demo) -> Report:
        return story.end()

    monkeypatch.setattr(Demo, "run", run)
    assert run_demo(Plan(), as_json=True) == lost
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["lost"] == lost
    assert ("FAILED: lost: 1" in err) == bool(lost)


def test_a_report_that_cannot_be_written_is_an_error_after_it_was_shown(
    story: Story,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def run(_: Demo) -> Report:
        return story.end()

    def write(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Demo, "run", run)
    monkeypatch.setattr("fusewire.demo.run.write_page", write)
    with pytest.raises(DemoError, match="No space left on device"):
        run_demo(Plan(), page=tmp_path / "outage.html")
    assert "Verdict" in capsys.readouterr().out
