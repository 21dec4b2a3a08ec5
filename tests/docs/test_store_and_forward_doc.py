"""What docs/store-and-forward.md shows is run through an outage, and its rows are tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fusewire import default_registry
from fusewire.forwarding import OutcomeKind
from tests.docs.examples import run_examples
from tests.docs.own_payments import offer_own_stubs
from tests.forwarding.conftest import PaymentsServer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "store-and-forward.md"
TEXT = PAGE.read_text("utf-8")


@pytest.fixture
def server() -> Iterator[PaymentsServer]:
    server = PaymentsServer()
    yield server
    server.stop()


async def test_an_order_that_is_declined_later_says_so_in_the_shops_table(
    server: PaymentsServer, tmp_path: Path
) -> None:
    offer_own_stubs()
    page: dict[str, Any] = run_examples(PAGE, {"TARGET": server.target})
    breaker = default_registry().get(page["CHARGE"])
    breaker.reset()
    breaker.force_open()
    orders = page["orders"]
    request = page["ChargeRequest"](account="alice", amount_cents=995, currency="EUR")
    server.answer = lambda key: grpc.StatusCode.FAILED_PRECONDITION
    async with page["make_calls"](f"sqlite:///{tmp_path}/broker.db") as calls:
        await page["sell"](calls, "order-1", request)
        assert orders == {"order-1": "STATUS_PENDING"}
        breaker.reset()
        async with (
            grpc.aio.insecure_channel(
                server.target, interceptors=page["aio_interceptors"]()
            ) as channel,
            calls.forward_to(channel),
        ):
            await until(lambda: orders == {"order-1": "DECLINED"})


def test_every_kind_of_outcome_has_a_row() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (yes|no) \|", TEXT, re.MULTILINE)
    assert rows == [(kind.value, "yes" if kind.final else "no") for kind in OutcomeKind]


def test_every_row_of_what_fails_has_a_test_that_is_there() -> None:
    tests = {
        name
        for path in (ROOT / "tests" / "forwarding").glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    named = re.findall(r"`(test_\w+)` \|$", TEXT, re.MULTILINE)
    assert len(named) > 25
    assert sorted(set(named) - tests) == []
