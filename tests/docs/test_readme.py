"""What README shows is run, against a real server and a real broker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fusewire import default_registry
from fusewire.demo.payments.v1.payments_pb2 import (
    STATUS_CHARGED,
    STATUS_PENDING,
    ChargeReply,
    ChargeRequest,
)
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from tests.docs.examples import consume_through_an_outage, run_examples
from tests.docs.own_payments import CHARGE
from tests.support.waiting import until

if TYPE_CHECKING:
    import grpc.aio

    from tests.support.payments import PaymentsProcess

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


@pytest.fixture
def readme(payments: PaymentsProcess, address: str) -> dict[str, Any]:
    # The examples use the process's own registry, as users do.
    default_registry().get(CHARGE).reset()
    return run_examples(README, {"TARGET": payments.target, "AMQP": address})


def test_attach_to_a_channel_charges(readme: dict[str, Any], payments: PaymentsProcess) -> None:
    assert readme["reply"].status == STATUS_CHARGED
    assert payments.effects().total() == 1


async def test_wrap_a_consumer_parks_an_order_and_makes_it_after_the_outage(
    readme: dict[str, Any], payments: PaymentsProcess, address: str
) -> None:
    await consume_through_an_outage(readme["consume"], address, payments)


async def test_queue_payments_answers_pending_during_an_outage_and_charges_after_it(
    readme: dict[str, Any], payments: PaymentsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await readme["pay"]()).status == STATUS_CHARGED
    payments.kill()
    reply = await readme["pay"]()
    assert reply.status == STATUS_PENDING
    payments.start()
    default_registry().get(CHARGE).reset()

    class PatientStub:
        """Keeps the forwarder of `pay` running until that has made what was left."""

        def __init__(self, channel: grpc.aio.Channel) -> None:
            self._stub: Any = PaymentsStub(channel)

        async def Charge(self, request: ChargeRequest, **options: Any) -> ChargeReply:  # noqa: N802 - the name in the .proto
            await until(lambda: reply.operation_id in payments.effects())
            return await self._stub.Charge(request, **options)

    monkeypatch.setitem(readme["pay"].__globals__, "PaymentsStub", PatientStub)
    assert (await readme["pay"]()).status == STATUS_CHARGED
    assert set(payments.effects().values()) == {1}


def test_a_rejection_is_caught_as_the_readme_shows(payments: PaymentsProcess) -> None:
    breaker = default_registry().get(CHARGE)
    while breaker.can_execute():
        breaker.acquire().failure()
    try:
        with pytest.raises(KeyError):  # no reply is made, and the error is printed
            run_examples(README, {"TARGET": payments.target, "AMQP": None})["reply"]
    finally:
        breaker.reset()


def test_the_pictures_are_there_and_small() -> None:
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', README.read_text("utf-8"))
    assert len(pictures) == 2  # light and dark
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
        assert (ROOT / picture).stat().st_size < 200_000
