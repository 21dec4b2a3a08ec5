"""What docs/parking.md shows is run, on a real RabbitMQ and against a real server."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from fusewire import Retry, default_registry
from fusewire.brokers import Topology
from fusewire.brokers.rabbitmq import Layout
from fusewire.cli._app import app
from tests.docs.examples import consume_through_an_outage, run_examples
from tests.docs.own_payments import CHARGE

if TYPE_CHECKING:
    from tests.support.payments import PaymentsProcess
    from tests.support.rabbitmq_managed import VirtualHost

PAGE = Path(__file__).parents[2] / "docs" / "parking.md"


@pytest.fixture
def page(
    payments: PaymentsProcess, virtual_host: VirtualHost, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    default_registry().get(CHARGE).reset()  # the examples use the process's own, as users do
    names = run_examples(PAGE, {"TARGET": payments.target, "AMQP": virtual_host.url})
    return {**names, "printed": capsys.readouterr().out.splitlines()}


async def test_the_examples_run_and_say_what_the_page_says(page: dict[str, Any]) -> None:
    queues, broker, *lanes, account = page["printed"]
    assert f"# {queues}" in PAGE.read_text("utf-8")
    assert broker.startswith("no broker for ")  # the consumer of the page does not run
    assert [lane.split(" ready: unknown")[0] for lane in lanes] == ["bank", "other"]
    assert account.startswith("handled 100, ")
    with pytest.raises(Retry, match="the bank is closed"):
        await page["on_booking"](SimpleNamespace(body=b"not now"))
    await page["on_booking"](SimpleNamespace(body=b"now"))


async def test_the_consumer_parks_an_order_and_makes_it_after_the_outage(
    page: dict[str, Any], payments: PaymentsProcess, virtual_host: VirtualHost
) -> None:
    await consume_through_an_outage(page["consume"], virtual_host.url, payments)


def test_the_commands_are_as_shown(virtual_host: VirtualHost) -> None:
    topology, audit = (
        shlex.split(line.replace("\\\n", ""))[1:]
        for line in re.findall(r"^fusewire (?:.*\\\n)*.*$", PAGE.read_text("utf-8"), re.MULTILINE)
    )
    printed = CliRunner().invoke(app, topology)
    assert printed.exit_code == 0, printed.output
    for queue in Layout(Topology("orders", ("money", "stock"))).derived:
        assert queue in printed.stdout

    places = {
        "amqp://localhost/shop": virtual_host.url,
        "http://localhost:15672": virtual_host.managed.management,
    }
    assert set(places) < set(audit)
    audited = CliRunner().invoke(app, [places.get(word, word) for word in audit])
    assert audited.exit_code == 0, audited.output  # that queues are missing loses nothing
    assert "orders.parked.money" in audited.stdout
