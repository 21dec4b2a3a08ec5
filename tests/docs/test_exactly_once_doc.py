"""What docs/exactly-once.md shows is run, and each row of its tables has its test."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from fusewire.brokers import Message
from fusewire.idempotency import Reason
from fusewire.idempotency.v1.operations_pb2 import STATE_NOT_FOUND
from fusewire.testing import InMemoryBroker
from tests.docs.examples import run_examples
from tests.docs.own_payments import CHARGE, offer_own_stubs
from tests.support import truth_table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "exactly-once.md"
TEXT = PAGE.read_text("utf-8")
BROKER = "memory://exactly-once"


class Base(DeclarativeBase):
    """The base of the provider's rows."""


class Taken(Base):
    __tablename__ = "taken"
    id: Mapped[str] = mapped_column(primary_key=True)
    amount_cents: Mapped[int]


class Provider:
    """A payment provider that honors keys, and whose first answer is lost."""

    def __init__(self) -> None:
        self.charges: dict[str, int] = {}
        self.asked = 0

    def charge(self, account: str, amount_cents: int, *, idempotency_key: str) -> Any:
        self.asked += 1
        self.charges.setdefault(idempotency_key, amount_cents)
        if self.asked == 1:
            raise ConnectionError("the answer is lost")
        return SimpleNamespace(id=f"charge of {idempotency_key}")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[dict[str, Any]]:
    offer_own_stubs()
    given = {
        "DATABASE": f"sqlite:///{tmp_path}/payments.db",
        "BROKER": BROKER,
        "Taken": Taken,
        "Provider": Provider,
    }
    names = run_examples(PAGE, given)
    names["Base"].metadata.create_all(names["engine"])
    Base.metadata.create_all(names["engine"])
    yield names
    names["engine"].dispose()


def ask(channel: grpc.Channel, page: dict[str, Any], amount_cents: int) -> Any:
    request = page["ChargeRequest"](account="bob", amount_cents=amount_cents)
    from payments_pb2_grpc import (  # type: ignore[import-not-found] # noqa: PLC0415 - made by the fixture
        PaymentsStub,
    )

    metadata = [("idempotency-key", f"k{amount_cents}")]
    return PaymentsStub(channel).Charge(request, timeout=20, metadata=metadata)


def test_the_server_of_the_page_takes_a_payment_once(page: dict[str, Any]) -> None:
    server, port = page["serve"]("127.0.0.1:0")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert ask(channel, page, 5) == ask(channel, page, 5)
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="amount_cents must be above 0"):
                ask(channel, page, 0)
    server.stop(5).wait()
    with page["engine"].connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM entries")).scalar() == 1


def test_what_became_of_a_call_is_told_to_those_who_may_know(page: dict[str, Any]) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    page["idempotent"](page["store"], [page["CHARGE"]])
    page["answer_questions"](server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        operation = page["ask"](channel, "k1", "a token of the shop")
        assert operation.state == STATE_NOT_FOUND
        with pytest.raises(grpc.RpcError, match="this caller may not query"):
            page["ask"](channel, "k1", "a guess")
    server.stop(5).wait()


def test_the_handler_that_calls_a_provider_charges_once(page: dict[str, Any]) -> None:
    provider = Provider()
    servicer = page["ProviderPayments"](sessionmaker(page["engine"]), provider)
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[page["make_interceptor"]()])
    page["add_PaymentsServicer_to_server"](servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.RpcError, match="the answer is lost"):
            ask(channel, page, 5)
        assert ask(channel, page, 5).charge_id == "charge of k5"
        assert ask(channel, page, 5).charge_id == "charge of k5"
    server.stop(5).wait()
    assert provider.charges == {"k5": 5}
    assert provider.asked == 2
    with page["engine"].connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM taken")).scalar() == 1


async def test_the_consumer_of_the_page_enters_an_order_once(page: dict[str, Any]) -> None:
    async with InMemoryBroker(BROKER) as broker:
        await broker.create_queue("orders")
        body = b'{"account": "bob", "amount_cents": 5}'
        for _ in range(2):
            await broker.publish("orders", Message(body=body, message_id="a"))
        running = asyncio.create_task(page["consume"]())
        await broker.until_holds("orders", 0)
        running.cancel()
        await asyncio.wait({running})
    with page["engine"].connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM entries")).scalar() == 1


def test_every_row_has_a_test_that_is_there() -> None:
    tests = {
        name
        for room in ("idempotency", "inbox")
        for path in (ROOT / "tests" / room).glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    tables = re.findall(r"^\| what happens .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    assert len(tables) == 4
    rows = [row for table in tables for row in table.splitlines()[2:] if row]
    assert len(rows) > 70
    for row in rows:
        (named,) = re.findall(r"`(test_\w+)` \|$", row)
        assert named in tests


def test_the_reasons_that_the_page_names_are_reasons() -> None:
    named = set(
        re.findall(r"(?:ABORTED|ARGUMENT|PRECONDITION|EXHAUSTED|AVAILABLE) `([\w-]+)`", TEXT)
    )
    assert named
    assert named <= {str(reason) for reason in Reason}


def test_the_stores_of_the_page_are_made_for_its_method() -> None:
    assert f'CHARGE = "{CHARGE}"' in TEXT


def test_the_cells_of_the_truth_tables_are_counted() -> None:
    rows = truth_table.rows_of(TEXT)
    assert list(rows) == list(truth_table.TABLES)
    assert all(rows.values())
    two = {"What callers get": ["test_a", "test_b"], "Effects elsewhere": ["test_a"]}
    passed = {
        ("idempotency", "test_a", "psycopg"): True,
        ("idempotency", "test_b", "psycopg"): False,
        ("idempotency", "test_a", "aio psycopg"): True,
    }
    text = truth_table.as_markdown(two, passed)
    assert text.startswith("4 of 5 cells pass.\n")
    assert "| psycopg, sync | 1 of 2 | 1 of 1 |" in text
    assert "| psycopg, asyncio | 1 of 1 | 1 of 1 |" in text
