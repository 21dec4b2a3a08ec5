"""What docs/stored-calls.md shows is run, against a real server, and its headers are all there."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire import ParkedCalls, default_registry
from fusewire.forwarding._call import StoredCall
from tests.docs.examples import run_examples
from tests.docs.own_payments import CHARGE
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from tests.support.payments import PaymentsProcess

PAGE = Path(__file__).parents[2] / "docs" / "stored-calls.md"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.fixture
def page(
    payments: PaymentsProcess, address: str, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    default_registry().get(CHARGE).reset()  # the examples use the process's own, as users do
    names = run_examples(PAGE, {"TARGET": payments.target, "AMQP": address})
    return {**names, "printed": capsys.readouterr().out}


def test_a_payment_is_stored_in_an_outage_and_forwarded_after_it(
    page: dict[str, Any], payments: PaymentsProcess, address: str
) -> None:
    assert page["printed"] == "STATUS_CHARGED\n"
    payments.kill()
    stop = threading.Event()
    with ParkedCalls(address, queue="charges", methods=page["METHODS"]) as calls:
        order = page["ChargeRequest"](account="bob", amount_cents=1, currency="EUR", reference="b")
        assert page["pay"](calls, order) == "STATUS_PENDING"
        payments.start()
        default_registry().get(CHARGE).reset()
        forwarder = threading.Thread(target=page["forward"], args=(calls, stop))
        forwarder.start()
        until_sync(lambda: payments.references()["b"] == 1)
        stop.set()
        forwarder.join()


def test_the_table_has_every_header_of_a_stored_call() -> None:
    listed = re.findall(r"^\| `(fusewire-call-[\w-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    call = StoredCall(
        operation_id="id",
        method="/a.B/C",
        request=b"",
        metadata=(("tenant", "t1"),),
        timeout=1.0,
        at_most_once=True,
        window=60.0,
        done_on=frozenset({grpc.StatusCode.ALREADY_EXISTS}),
        outcome=True,
    )
    assert listed == list(call.message("charges").headers)
