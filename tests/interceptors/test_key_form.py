"""The form of idempotency keys: what they are made of, and that they stay what they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from fusewire.errors import SettingsError
from fusewire.interceptors._keys import MethodKeys
from fusewire.operation import KeyEnd, Operation
from tests.support.grpc_keys import key_of

METHOD = "/payments.v1.Payments/Charge"


def method_keys(method: str = METHOD, dependency: str = "") -> MethodKeys:
    return MethodKeys(dependency, method, idempotent=True, parks=False, serialize=None, sync=True)


def key(operation_id: str, request: Any, method: str = METHOD, dependency: str = "") -> str:
    claim = method_keys(method, dependency).claim(Operation(operation_id), request, None)
    assert claim is not None
    return claim.key


@pytest.mark.parametrize(
    ("made", "golden"),
    [
        (("o1", b""), "o1/payments.v1.Payments/Charge/a427297a7c841f9927ffccb3c099cdd8"),
        (("o1", b"pay 10"), "o1/payments.v1.Payments/Charge/a67e0aa9c84bfdc90a04fb80162a4016"),
        (
            ("o1", b"pay 10", METHOD, "eu"),
            "o1/payments.v1.Payments/Charge/3753b8aa9ee9d499b0b2c0ff7f9d30ff",
        ),
        (
            ("o1", wrappers_pb2.StringValue(value="pay 10")),
            "o1/payments.v1.Payments/Charge/bf8d93d675f66be0ba86637a10311bc7",
        ),
        (
            ("größe 1/2", b""),
            "gr%C3%B6%C3%9Fe%201%2F2/payments.v1.Payments/Charge/a427297a7c841f9927ffccb3c099cdd8",
        ),
        (
            ("x" * 129, b""),
            "*0ec9eb33e74510bcdd1f2ea55206e82f21649c5c2becbf2b433eb475b34c01bd/payments.v1.Payments/Charge/a427297a7c841f9927ffccb3c099cdd8",
        ),
    ],
)
def test_golden_values(made: tuple[Any, ...], golden: str) -> None:
    """These never change: a key that was sent once is sent again by later releases."""
    assert key(*made) == golden


def test_equal_requests_of_one_operation_are_numbered() -> None:
    work, keys = Operation("o1"), method_keys()
    claims = [keys.claim(work, b"pay 10", None) for _ in range(3)]
    first = key("o1", b"pay 10")
    assert [claim and claim.key for claim in claims] == [first, f"{first}/2", f"{first}/3"]


IDS = st.text(min_size=1, max_size=300)
REQUESTS = st.binary(max_size=40)
METHODS = st.from_regex(r"/[a-z.]{1,400}/[A-Za-z]{1,200}", fullmatch=True)


@given(IDS, REQUESTS, METHODS)
def test_a_key_is_short_printable_ascii_without_spaces(
    operation_id: str, request: bytes, method: str
) -> None:
    made = key(operation_id, request, method)
    assert len(made) + len("/1000000000") <= 512
    assert made.isascii()
    assert made.isprintable()
    assert " " not in made


@given(st.sets(st.tuples(IDS, REQUESTS, st.sampled_from([METHOD, "/a.B/C"])), min_size=2))
def test_different_calls_never_share_a_key(calls: set[tuple[str, bytes, str]]) -> None:
    assert len({key(*call) for call in calls}) == len(calls)


@given(st.text("ab/.é*%", min_size=1, max_size=4), st.text("ab/.é*%", min_size=1, max_size=4))
def test_ids_that_differ_make_keys_that_differ(one: str, other: str) -> None:
    assert (key(one, b"") == key(other, b"")) == (one == other)


def test_where_one_part_ends_and_the_next_begins_counts() -> None:
    assert key("o", b"b", "/p.S/M", "a") != key("o", b"b", "/p.S/M", "")
    assert key("o", b"/p.S/M", "/p.S/M") != key("o", b"", "/p.S/M/p.S/M")


def test_an_id_that_utf_8_has_no_bytes_for_makes_a_key_too() -> None:
    assert key("\ud800", b"").startswith("%ED%A0%80/")


def test_a_long_id_is_not_taken_for_another() -> None:
    long = key("x" * 20_000, b"")
    assert long.startswith("*")
    assert key(long.partition("/")[0], b"").startswith("%2A")
    assert key("x" * 20_001, b"") != long
    assert key("x" * 128, b"").startswith("x" * 128)


@given(
    st.lists(st.binary(max_size=3), max_size=12).flatmap(
        lambda requests: st.tuples(st.just(requests), st.permutations(requests))
    )
)
def test_the_order_of_calls_changes_no_key(orders: tuple[list[bytes], list[bytes]]) -> None:
    def keys_of(requests: list[bytes]) -> dict[str, bytes]:
        work, keys = Operation("o1"), method_keys()
        made = {}
        for request in requests:
            claim = keys.claim(work, request, None)
            assert claim is not None
            assert claim.key not in made
            made[claim.key] = request
        return made

    assert keys_of(orders[0]) == keys_of(orders[1])


@given(st.lists(st.tuples(st.sampled_from(["begin", *KeyEnd]), st.integers(0, 5)), max_size=40))
def test_a_call_takes_the_lowest_number_that_no_other_holds(steps: list[tuple[Any, int]]) -> None:
    work, keys = Operation("o1"), method_keys()
    running: list[Any] = []
    held: set[int] = set()
    for step, which in steps:
        if step == "begin":
            lowest = min(set(range(1, len(held) + 2)) - held)
            claim = keys.claim(work, b"x", None)
            assert claim is not None
            assert claim.key == key_of(b"x", operation_id="o1", method=METHOD, number=lowest)
            held.add(lowest)
            running.append((claim, lowest))
        elif running:
            claim, number = running.pop(which % len(running))
            claim.end(step)
            claim.end(KeyEnd.NO_EFFECT)  # only the first word counts
            if step is not KeyEnd.ANSWERED:
                held.discard(number)


def test_a_map_in_a_request_makes_one_key_in_all_processes() -> None:
    program = (
        "from tests.interceptors.test_key_form import key_of_a_map; import json;"
        "print(json.dumps(key_of_a_map()))"
    )
    root = Path(__file__).parents[2]
    made = {key_of_a_map()}
    for seed in "1", "2":
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            check=True,
            timeout=60,
        )
        made.add(json.loads(done.stdout))
    assert len(made) == 1


def key_of_a_map() -> str:
    request = struct_pb2.Struct()
    for name in {f"field {number}" for number in range(20)}:  # in an order of the process's own
        request.fields[name].string_value = name
    return key("o1", request)


@pytest.mark.parametrize("operation_id", ["", None, 17])
def test_an_operation_has_an_id(operation_id: Any) -> None:
    with pytest.raises(SettingsError, match="operation_id must be a non-empty string"):
        Operation(operation_id)


def test_the_former_scheme_counts_calls() -> None:
    work = Operation("o1", keys_by_ordinal=True)
    assert [work.next_key("/p.S/M"), work.next_key("/p.S/M"), work.next_key("/p.S/N")] == [
        "o1/p.S/M/1",
        "o1/p.S/M/2",
        "o1/p.S/N/1",
    ]
