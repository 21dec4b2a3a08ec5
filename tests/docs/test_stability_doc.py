"""The page on stability has the numbers and names that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from fusewire.breaker import _snapshot as snapshot
from fusewire.brokers.rabbitmq import _codec as codec
from fusewire.brokers.sqlite import _database as database
from fusewire.forwarding import OPERATION_ID_METADATA, PARKED_METADATA, _call, _outcome_messages
from fusewire.idempotency import IDEMPOTENCY_TRAILER
from fusewire.idempotency import _records as records
from fusewire.idempotency._sql import TABLE
from fusewire.interceptors import FALLBACK_METADATA
from fusewire.operation import FIRST_SENT_METADATA, IDEMPOTENCY_KEY, REPLAY_METADATA
from fusewire.parking import _history as record
from tests.project.public_names import PUBLIC

TEXT = (Path(__file__).parents[2] / "docs" / "stability.md").read_text("utf-8")


def test_the_numbers_of_stored_forms_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| [^|]+ \| (\d+) \| (?:header )?`([^`]+)`", TEXT, re.MULTILINE)
    assert {where: int(number) for number, where in rows} == {
        record.PREFIX + "format": record.FORMAT,
        codec.TRANSFER: codec._FORMAT,
        _call.FORMAT_HEADER: _call.FORMAT,
        _outcome_messages.FORMAT_HEADER: _outcome_messages.FORMAT,
        record.PREFIX + "key-scheme": record.KEYS_BY_REQUEST,
        "PRAGMA user_version": database.FORMAT,
        f"{TABLE}.format": records.FORMAT,
        "format": snapshot.FORMAT,
    }


def test_the_packages_to_import_from_are_those_that_export_names() -> None:
    table = TEXT.partition("| import from |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(fusewire[\w.]*)`", table)) == set(PUBLIC)


def test_the_metadata_of_calls_is_named() -> None:
    for key in (
        IDEMPOTENCY_KEY,
        REPLAY_METADATA,
        OPERATION_ID_METADATA,
        PARKED_METADATA,
        FALLBACK_METADATA,
        FIRST_SENT_METADATA,
        IDEMPOTENCY_TRAILER,
    ):
        assert f"`{key}`" in TEXT
