"""The page on headers names all that there are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import grpc

from fusewire.brokers.rabbitmq import _codec as codec
from fusewire.forwarding import CallStatus, OutcomeKind
from fusewire.forwarding._call_codec import CallCodec
from fusewire.forwarding._outcome_messages import Ended, outcome_message
from fusewire.parking._history import PREFIX, History

PAGE = Path(__file__).parents[2] / "docs" / "message-headers.md"


def test_the_tables_have_every_header_with_its_type() -> None:
    told = dict(
        re.findall(r"^\| `(fusewire-[\w-]+)` \| (\w+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    )
    expected = {"fusewire-format": "int", "fusewire-transfer": "int"}
    for field in dataclasses.fields(History):
        kind = str(field.type).removesuffix(" | None").replace("str", "text")
        expected[PREFIX + field.name.replace("_", "-")] = kind
    expected |= dict.fromkeys(codec._IDENTITY - {codec.TRANSFER}, "text")
    assert told == expected


def test_the_table_has_every_header_of_an_outcome() -> None:
    listed = re.findall(
        r"^\| `(fusewire-outcome-[\w-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE
    )
    ended = Ended(b"", CallStatus(grpc.StatusCode.OK))
    message = outcome_message(CallCodec(None, "q"), "id", "/a.B/C", OutcomeKind.OK, b"", ended)
    assert listed == list(message.headers)
