"""A fingerprint is the same for the same request in every process, and for no other request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.idempotency._fingerprint import UndigestedError, fingerprint_of, same_request

requests = st.builds(
    ChargeRequest, account=st.text(max_size=5), amount_cents=st.integers(-(2**40), 2**40)
)

_FIELDS = {f"field {number}": number for number in range(40)}

_PRINT = """
import sys
from google.protobuf.struct_pb2 import Struct
from fusewire.idempotency._fingerprint import fingerprint_of
struct = Struct()
struct.update({f"field {number}": number for number in %s})
print(fingerprint_of(struct).hex())
"""


@given(requests, requests)
def test_requests_have_one_fingerprint_if_they_are_equal(
    one: ChargeRequest, other: ChargeRequest
) -> None:
    same = fingerprint_of(one) == fingerprint_of(other)
    assert same == (one == other)


def test_a_map_has_one_fingerprint_in_every_process_whatever_its_order() -> None:
    struct = Struct()
    struct.update(_FIELDS)
    for order in ("range(40)", "reversed(range(40))"):
        done = subprocess.run(
            [sys.executable, "-c", _PRINT % order],
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip() == fingerprint_of(struct).hex()


def test_bytes_are_taken_as_they_are() -> None:
    request = ChargeRequest(account="bob", amount_cents=5)
    assert fingerprint_of(request) == fingerprint_of(request.SerializeToString())


def test_what_is_neither_a_message_nor_bytes_has_no_fingerprint() -> None:
    with pytest.raises(UndigestedError, match="got dict"):
        fingerprint_of({"amount": 5})


def test_a_fingerprint_of_several_digests_is_the_same_where_one_of_them_is() -> None:
    first, second, third = (fingerprint_of(part) for part in (b"1", b"2", b"3"))
    assert same_request(first + second, second)
    assert same_request(second, first + second)
    assert not same_request(first + second, third)
    assert not same_request(b"", first)
    assert not same_request(b"", b"")
