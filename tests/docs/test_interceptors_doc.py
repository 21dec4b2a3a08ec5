"""What docs/interceptors.md shows is run, against a real server, and its table is counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fusewire.breaker import default_registry
from tests.docs.examples import run_examples
from tests.interceptors import test_matrix_metadata, test_matrix_types
from tests.interceptors.test_matrix import CASES, GUARDS, cells
from tests.interceptors.test_matrix_types import AIO_UNWRITTEN
from tests.support.grpc_server import EchoServer
from tests.support.grpc_ways import AIO_WAYS, SYNC_WAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "interceptors.md"
METHODS = ("/demo.Greeter/Greet", "/demo.Greeter/Watch")


@pytest.fixture(scope="module")
def greeter() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.fixture
def page(greeter: EchoServer, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    names = run_examples(PAGE, {"TARGET": greeter.target})
    return {**names, "printed": capsys.readouterr().out.splitlines()}


async def test_every_example_runs(page: dict[str, Any]) -> None:
    assert page["printed"] == [
        "b'done'",
        "['greeter-eu/demo.Greeter/Greet']",
        "b'done'",
        "StatusCode.UNAVAILABLE -1",
        "b'hello from the fallback'",
        "circuit '/demo.Greeter/Greet' is forced_open (by hand) until set back",
    ]
    assert await page["greet_later"]() == b"done"
    assert {default_registry().get(method).state for method in METHODS} == {"closed"}


def test_the_matrix_in_the_page_is_the_one_that_is_tested() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| ([^|]+) \|.* (\d+) \|$", text, re.MULTILINE)
    counted = {name: int(number) for name, number in rows if name in CASES}
    tested = {
        name: sum(f"-{name}-" in str(cell.id) for cell in [*cells(SYNC_WAYS), *cells(AIO_WAYS)])
        for name in CASES
    }
    assert counted == tested, json.dumps(tested)
    assert f"{sum(tested.values())} cells" in text
    assert len(GUARDS) == 3


def test_the_cells_of_types_and_of_metadata_in_the_page_are_those_that_are_tested() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| (what it is|…|metadata:) [^|]*\|(.*) (\d+) \|$", text, re.MULTILINE)
    counted = dict.fromkeys(("types", "metadata"), 0)
    for name, columns, number in rows:
        assert sum(map(int, re.findall(r"\d+", columns))) == int(number)
        counted["metadata" if name == "metadata:" else "types"] += int(number)
    types = [*test_matrix_types.cells(SYNC_WAYS), *test_matrix_types.cells(AIO_UNWRITTEN)]
    metadata = [*test_matrix_metadata.cells(SYNC_WAYS), *test_matrix_metadata.cells(AIO_WAYS)]
    guards = len(test_matrix_metadata.GUARDS)
    assert counted == {"types": len(types), "metadata": guards * len(metadata)}
    assert f"{counted['types']} and {counted['metadata']}" in text
