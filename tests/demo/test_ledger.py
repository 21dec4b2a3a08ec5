"""What the payments server promises of its ledger."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.demo._ledger import MOST_CENTS, Ledger, RefusedError, Wrong
from fusewire.demo.payments.v1.payments_pb2 import (
    ENTRY_KIND_CHARGE,
    ENTRY_KIND_REFUND,
    STATUS_CHARGED,
    ChargeReply,
    ChargeRequest,
    RefundRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    yield ledger
    ledger.close()


def of(cents: int = 100, account: str = "alice", currency: str = "EUR") -> ChargeRequest:
    return ChargeRequest(account=account, amount_cents=cents, currency=currency, reference="tea")


def attempts(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT operation_id, came_to FROM attempts ORDER BY seq").fetchall()
    db.close()
    return found


def test_a_charge_takes_its_amount_once_however_often_it_is_asked(ledger: Ledger) -> None:
    first = ledger.charge(of(100), "op-1")
    assert (first.status, first.operation_id, first.balance_cents) == (STATUS_CHARGED, "op-1", -100)
    assert ledger.charge(of(100), "op-1") == first
    assert ledger.balance("alice") == -100
    assert len(list(ledger.statement("alice"))) == 1


def test_every_attempt_is_recorded_with_what_it_came_to(ledger: Ledger, path: Path) -> None:
    ledger.charge(of(100), "op-1")
    ledger.charge(of(100), "op-1")
    with pytest.raises(RefusedError):
        ledger.charge(of(200), "op-1")
    assert attempts(path) == [("op-1", "made"), ("op-1", "repeated"), ("op-1", "refused")]


def test_an_operation_id_used_for_another_request_is_refused(ledger: Ledger) -> None:
    ledger.charge(of(100), "op-1")
    with pytest.raises(RefusedError, match="op-1") as refused:
        ledger.charge(of(101), "op-1")
    assert refused.value.wrong is Wrong.ARGUMENT
    assert ledger.balance("alice") == -100


def test_a_refused_operation_may_be_asked_again_when_its_reason_is_gone(ledger: Ledger) -> None:
    charge = ChargeReply()
    with pytest.raises(RefusedError) as refused:
        ledger.refund(RefundRequest(charge_id="ch-none"), "op-2")
    assert refused.value.wrong is Wrong.NOT_FOUND
    charge = ledger.charge(of(100), "op-1")
    assert ledger.refund(RefundRequest(charge_id=charge.charge_id), "op-3").refund_id


def test_charges_with_no_operation_id_are_all_made(ledger: Ledger) -> None:
    ids = {ledger.charge(of(100), None).operation_id for _ in range(3)}
    assert len(ids) == 3
    assert ledger.balance("alice") == -300


def test_calls_with_one_operation_id_at_the_same_time_have_one_effect(path: Path) -> None:
    # Two ledgers on one file: the transaction is what holds, not the lock of one object.
    ledgers = [Ledger(path), Ledger(path)]
    start = threading.Barrier(8)
    replies: list[ChargeReply] = []

    def ask(ledger: Ledger) -> None:
        start.wait(10)
        for number in range(20):
            reply = ledger.charge(of(100), f"op-{number}")
            replies.append(reply)

    threads = [threading.Thread(target=ask, args=(ledgers[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 160
    assert len({reply.SerializeToString() for reply in replies}) == 20
    assert ledgers[0].balance("alice") == -2000
    assert len(list(ledgers[1].statement("alice"))) == 20
    for ledger in ledgers:
        ledger.close()


def test_a_refund_gives_back_a_whole_charge_and_only_once(ledger: Ledger) -> None:
    charge = ledger.charge(of(250), "op-1")
    asked = RefundRequest(charge_id=charge.charge_id)
    first = ledger.refund(asked, "op-2")
    assert ledger.refund(asked, "op-2") == first
    with pytest.raises(RefusedError, match="already") as refused:
        ledger.refund(asked, "op-3")
    assert refused.value.wrong is Wrong.PRECONDITION
    assert ledger.balance("alice") == 0
    kinds = [(entry.kind, entry.operation_id) for entry in ledger.statement("alice")]
    assert kinds == [(ENTRY_KIND_CHARGE, "op-1"), (ENTRY_KIND_REFUND, "op-2")]


def test_one_id_may_name_a_charge_and_its_refund(ledger: Ledger) -> None:
    charge = ledger.charge(of(100), "op-1")
    assert ledger.refund(RefundRequest(charge_id=charge.charge_id), "op-1").refund_id
    assert ledger.balance("alice") == 0


def test_a_statement_has_all_entries_of_its_account_in_order(ledger: Ledger) -> None:
    for number in range(450):  # more than two pages
        ledger.charge(of(1), f"op-{number}")
        if not number % 100:
            ledger.charge(of(1, account="bob"), f"bob-{number}")
    entries = list(ledger.statement("alice"))
    assert [entry.operation_id for entry in entries] == [f"op-{n}" for n in range(450)]
    times = [entry.at.ToNanoseconds() for entry in entries]
    assert times == sorted(times)
    assert list(ledger.statement("nobody")) == []
    assert ledger.balance("nobody") == 0


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (of(0), "amount_cents is 0"),
        (of(-1), "amount_cents is -1"),
        (of(MOST_CENTS + 1), "amount_cents is"),
        (of(account=""), "account is empty"),
        (of(currency="euro"), "currency is 'euro'"),
        (of(currency=""), "currency is ''"),
    ],
)
def test_a_request_that_cannot_be_right_is_refused_by_name(
    ledger: Ledger, request_: ChargeRequest, named: str
) -> None:
    with pytest.raises(RefusedError, match=named) as refused:
        ledger.charge(request_, "op-1")
    assert refused.value.wrong is Wrong.ARGUMENT
    assert list(ledger.statement("alice")) == []


def test_an_account_keeps_the_currency_of_its_first_charge(ledger: Ledger) -> None:
    ledger.charge(of(100, currency="EUR"), "op-1")
    with pytest.raises(RefusedError, match="is in EUR, not in USD") as refused:
        ledger.charge(of(100, currency="USD"), "op-2")
    assert refused.value.wrong is Wrong.PRECONDITION
    assert ledger.balance("alice") == -100


def test_a_ledger_opened_again_has_what_it_had(path: Path) -> None:
    first = Ledger(path)
    reply = first.charge(of(100), "op-1")
    first.close()
    again = Ledger(path)
    assert again.charge(of(100), "op-1") == reply
    assert again.balance("alice") == -100
    again.close()
