"""What the payments server promises of its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.demo._ledger import MOST_CENTS, Ledger, RefusedError, Wrong
from fusewire.demo.payments.v1.payments_pb2 import (
    ENTRY_KIND_CHARGE,
    ENTRY_KIND_REFUND,
    STATUS_CHARGED,
    ChargeReply,
    ChargeRequest,
    RefundReply,
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


def charge(ledger: Ledger, request: ChargeRequest, operation_id: str | None) -> ChargeReply:
    with ledger.store.begin():
        return ledger.charge(request, operation_id)


def refund(ledger: Ledger, request: RefundRequest, operation_id: str | None) -> RefundReply:
    with ledger.store.begin():
        return ledger.refund(request, operation_id)


def test_a_charge_takes_its_amount_and_nothing_keeps_it_from_being_taken_twice(
    ledger: Ledger,
) -> None:
    first = charge(ledger, of(100), "op-1")
    assert (first.status, first.operation_id, first.balance_cents) == (STATUS_CHARGED, "op-1", -100)
    charge(ledger, of(100), "op-1")
    assert ledger.balance("alice") == -200
    assert [entry.operation_id for entry in ledger.statement("alice")] == ["op-1", "op-1"]


def test_charges_with_no_operation_id_are_all_made(ledger: Ledger) -> None:
    ids = {charge(ledger, of(100), None).operation_id for _ in range(3)}
    assert len(ids) == 3
    assert ledger.balance("alice") == -300


def test_a_refund_gives_back_a_whole_charge_and_only_once(ledger: Ledger) -> None:
    made = charge(ledger, of(250), "op-1")
    asked = RefundRequest(charge_id=made.charge_id)
    assert refund(ledger, asked, "op-2").refund_id
    with pytest.raises(RefusedError, match="already") as refused:
        refund(ledger, asked, "op-3")
    assert refused.value.wrong is Wrong.PRECONDITION
    assert ledger.balance("alice") == 0
    kinds = [(entry.kind, entry.operation_id) for entry in ledger.statement("alice")]
    assert kinds == [(ENTRY_KIND_CHARGE, "op-1"), (ENTRY_KIND_REFUND, "op-2")]


def test_one_id_may_name_a_charge_and_its_refund(ledger: Ledger) -> None:
    made = charge(ledger, of(100), "op-1")
    assert refund(ledger, RefundRequest(charge_id=made.charge_id), "op-1").refund_id
    assert ledger.balance("alice") == 0


def test_a_statement_has_all_entries_of_its_account_in_order(ledger: Ledger) -> None:
    for number in range(450):  # more than two pages
        charge(ledger, of(1), f"op-{number}")
        if not number % 100:
            charge(ledger, of(1, account="bob"), f"bob-{number}")
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
        charge(ledger, request_, "op-1")
    assert refused.value.wrong is Wrong.ARGUMENT
    assert list(ledger.statement("alice")) == []


def test_an_account_keeps_the_currency_of_its_first_charge(ledger: Ledger) -> None:
    charge(ledger, of(100, currency="EUR"), "op-1")
    with pytest.raises(RefusedError, match="is in EUR, not in USD") as refused:
        charge(ledger, of(100, currency="USD"), "op-2")
    assert refused.value.wrong is Wrong.PRECONDITION
    assert ledger.balance("alice") == -100


def test_a_ledger_opened_again_has_what_it_had(path: Path) -> None:
    first = Ledger(path)
    charge(first, of(100), "op-1")
    first.close()
    again = Ledger(path)
    assert again.balance("alice") == -100
    again.close()
