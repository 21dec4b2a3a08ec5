"""What a policy of what may be queued accepts, and what type checkers find in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from fusewire.demo.payments.v1.payments_pb2 import ChargeReply, ChargeRequest
from fusewire.errors import SettingsError
from fusewire.forwarding import ParkedCalls, ParkPolicy
from fusewire.forwarding._call import StoredCall, UnreadableCallError, read_call, request_bytes

ROOT = Path(__file__).parents[2]
CHARGE = "/fusewire.demo.payments.v1.Payments/Charge"


def reply(request: Any, receipt: Any) -> ChargeReply:
    return ChargeReply(operation_id=receipt.operation_id)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "must be given one of idempotent=True.*got neither"),
        ({"idempotent": True, "at_most_once": True}, "got both"),
        ({"at_most_once": True, "window": 60}, "done_on and probe_timeout are for idempotent"),
        (
            {"at_most_once": True, "probe_timeout": 1},
            "done_on and probe_timeout are for idempotent",
        ),
        ({"idempotent": True, "probe_timeout": 0}, "probe_timeout must be"),
        (
            {"at_most_once": True, "done_on": {grpc.StatusCode.ALREADY_EXISTS}},
            "done_on and probe_timeout are for idempotent",
        ),
        ({"idempotent": True, "window": 0}, "window must be"),
        ({"idempotent": True, "window": "7d"}, "window must be"),
        ({"idempotent": True, "expires_after": -1}, "expires_after must be"),
        ({"idempotent": True, "done_on": {"ALREADY_EXISTS"}}, "done_on must be"),
        ({"idempotent": True, "done_on": {grpc.StatusCode.UNAVAILABLE}}, "done_on must be"),
        ({"idempotent": True, "done_on": grpc.StatusCode.NOT_FOUND}, "done_on must be"),
        ({"idempotent": True, "response": ChargeReply()}, "response must be a class"),
        ({"idempotent": True, "reply": lambda request: None}, "reply must be"),
        ({"idempotent": True, "when": lambda: True}, "when must be"),
        ({"idempotent": True, "metadata": "tenant"}, "metadata must be a list of keys"),
        ({"idempotent": True, "metadata": ["Authorization"]}, "one that may be stored"),
        ({"idempotent": True, "breaker": ""}, "breaker must be"),
    ],
)
def test_what_cannot_be_right_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        ParkPolicy(**arguments)


def test_a_coroutine_function_is_no_when() -> None:
    async def when(request: Any) -> bool:
        return True

    with pytest.raises(SettingsError, match="when must be a plain function"):
        ParkPolicy(idempotent=True, when=when)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("methods", "text"),
    [
        ({"Charge": ParkPolicy(idempotent=True)}, "each name in methods must be /package.Service"),
        ({"*": ParkPolicy(idempotent=True)}, "each name in methods must be /package.Service"),
        ({CHARGE: None}, "must be a ParkPolicy"),
        ({CHARGE + "s": ParkPolicy(idempotent=True)}, f"did you mean {CHARGE}"),
        (
            {CHARGE.replace("Charge", "Statement"): ParkPolicy(idempotent=True)},
            "which has a stream",
        ),
    ],
)
def test_methods_that_cannot_be_meant_are_refused(methods: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(text)):
        ParkedCalls(f"sqlite:///{tmp_path}/broker.db", queue="q", methods=methods)


def test_two_equal_policies_are_equal_and_cannot_be_changed() -> None:
    policy = ParkPolicy(idempotent=True, window=60, metadata=["Tenant", "idempotency-key"])
    assert policy == ParkPolicy(idempotent=True, window=60, metadata=("tenant",))
    with pytest.raises(AttributeError):
        policy.window = 5


def test_equal_messages_are_stored_as_equal_bytes() -> None:
    policy = ParkPolicy(idempotent=True)
    request = ChargeRequest(account="alice", amount_cents=995)
    assert ChargeRequest.FromString(request_bytes(policy, request)) == request


def test_what_a_policy_says_is_stored_with_the_call() -> None:
    call = StoredCall(
        operation_id="op-a",
        method=CHARGE,
        request=b"a",
        window=90.0,
        done_on=frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS}),
    )
    headers = call.message("charges").headers
    assert headers["fusewire-call-format"] == 1
    assert headers["fusewire-call-window-ms"] == 90_000
    assert headers["fusewire-call-done-on"] == "ALREADY_EXISTS NOT_FOUND"
    assert read_call("op-a", b"a", headers) == call


def test_a_call_of_an_earlier_release_has_no_window_and_means_no_status() -> None:
    headers = StoredCall(operation_id="op-a", method=CHARGE, request=b"a").message("q").headers
    assert not {"fusewire-call-window-ms", "fusewire-call-done-on"} & set(headers)
    call = read_call("op-a", b"a", headers)
    assert (call.window, call.done_on) == (None, frozenset())


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("fusewire-call-window-ms", "1h"),
        ("fusewire-call-done-on", "MADE"),
        ("fusewire-call-done-on", 6),
    ],
)
def test_what_cannot_be_read_is_said(header: str, value: Any) -> None:
    headers = StoredCall(operation_id="op-a", method=CHARGE, request=b"a").message("q").headers
    with pytest.raises(UnreadableCallError, match=header):
        read_call("op-a", b"a", {**headers, header: value})


PROGRAM = """
from __future__ import annotations

import grpc

from fusewire import ParkedCalls, ParkPolicy, Receipt

CHARGE = "/payments.v1.Payments/Charge"
EXISTS = {grpc.StatusCode.ALREADY_EXISTS}


class Request:
    amount = 0


class Reply:
    pass


class Other:
    pass


def reply(request: Request, receipt: Receipt) -> Reply:
    return Reply()


async def reply_later(request: Request, receipt: Receipt) -> Reply:
    return Reply()


def other(request: Request, receipt: Receipt) -> Other:
    return Other()


def too_few(request: Request) -> Reply:
    return Reply()


def may(request: Request) -> bool:
    return request.amount < 100


right = [
    ParkPolicy(idempotent=True),
    ParkPolicy(at_most_once=True),
    ParkPolicy(response=Reply, reply=reply, idempotent=True, window=60.0, done_on=EXISTS),
    ParkPolicy(response=Reply, reply=reply_later, at_most_once=True, when=may),
    ParkPolicy(reply=reply, idempotent=True, metadata=["tenant"], expires_after=60),
]
alone = ParkPolicy(idempotent=True)
calls = ParkedCalls("broker.db", queue="charges", methods={CHARGE: right[0]}, max_waiting=7)
name: str = next(iter(calls.fallbacks(CHARGE)))
calls.park(reply=reply, idempotent=True)
receipt: Receipt = calls.submit_sync(CHARGE, Request(), operation_id="id")


async def use() -> Receipt:
    return await calls.submit(CHARGE, Request(), metadata=[("tenant", "t")], timeout=2)


ParkPolicy()  # wrong
ParkPolicy(response=Reply, reply=reply)  # wrong
ParkPolicy(idempotent=True, at_most_once=True)  # wrong
ParkPolicy(idempotent=False)  # wrong
ParkPolicy(at_most_once=True, window=60.0)  # wrong
ParkPolicy(at_most_once=True, done_on=EXISTS)  # wrong
ParkPolicy(idempotent=True, done_on={"ALREADY_EXISTS"})  # wrong
ParkPolicy(response=Reply, reply=other, idempotent=True)  # wrong
ParkPolicy(response=Reply(), idempotent=True)  # wrong
ParkPolicy(reply=too_few, idempotent=True)  # wrong
ParkPolicy(idempotent=True, window="7d")  # wrong
ParkedCalls("broker.db", queue="charges", methods={CHARGE: reply})  # wrong
ParkedCalls("broker.db", queue="charges", max_waiting="7")  # wrong
calls.park(reply=reply)  # wrong
calls.submit_sync(CHARGE)  # wrong
alone.window = 7  # wrong
"""


def test_a_checker_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    lines = PROGRAM.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    said = subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", program),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=110,
        check=False,
    ).stdout
    found = {int(number) for number in re.findall(r"program\.py:(\d+): error", said)}
    assert found == wrong, said
