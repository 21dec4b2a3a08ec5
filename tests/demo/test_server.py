"""What the payments server promises to its callers, in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import pytest

from fusewire.demo.payments.v1.payments_pb2 import (
    STATUS_CHARGED,
    STATUS_REFUNDED,
    ChargeRequest,
    GetBalanceRequest,
    RefundRequest,
    StatementRequest,
)
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.demo.server import _wait_for
from fusewire.operation import IDEMPOTENCY_KEY
from tests.support.payments import wait_until_ready
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LIMIT = 20.0  # seconds


class Server:
    """The server, and a client that waits for it."""

    def __init__(self, ledger: Path) -> None:
        self.port = reserve_port()
        self.ledger = ledger
        self._process: KeptProcess | None = None
        self._channel: grpc.Channel | None = None

    def start(self, *options: str) -> None:
        program = [sys.executable, "-m", "fusewire.demo.server", "--port", str(self.port)]
        self._process = KeptProcess([*program, "--ledger", self.ledger, *options], cwd=ROOT)
        self.connect()

    def connect(self) -> None:
        self._close_channel()  # it may not have noticed yet that its server was killed
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.max_reconnect_backoff_ms", 100)]
        )
        wait_until_ready(f"127.0.0.1:{self.port}", LIMIT)

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()

    @property
    def payments(self) -> PaymentsStub:
        assert self._channel is not None
        return PaymentsStub(self._channel)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    def stop(self) -> int:
        assert self._process is not None
        return self._process.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_channel()
        self.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "payments.db") as server:
        yield server


def key(operation_id: str) -> tuple[tuple[str, str], ...]:
    return ((IDEMPOTENCY_KEY, operation_id),)


def of(cents: int, account: str = "alice") -> ChargeRequest:
    return ChargeRequest(account=account, amount_cents=cents, currency="EUR", reference="tea")


def test_a_charge_with_a_key_is_made_once_and_answered_alike(server: Server) -> None:
    first = server.payments.Charge(of(100), metadata=key("op-1"), timeout=LIMIT)
    again = server.payments.Charge(of(100), metadata=key("op-1"), timeout=LIMIT)
    assert first == again
    assert (first.status, first.operation_id) == (STATUS_CHARGED, "op-1")
    held = server.payments.GetBalance(GetBalanceRequest(account="alice"), timeout=LIMIT)
    assert held.balance_cents == -100


def test_a_key_used_for_another_request_is_an_invalid_argument(server: Server) -> None:
    server.payments.Charge(of(100), metadata=key("op-1"), timeout=LIMIT)
    with pytest.raises(grpc.RpcError, match="used for another request") as refused:
        server.payments.Charge(of(200), metadata=key("op-1"), timeout=LIMIT)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_refund_of_no_charge_is_not_found(server: Server) -> None:
    with pytest.raises(grpc.RpcError, match="ch-none") as refused:
        server.payments.Refund(RefundRequest(charge_id="ch-none"), timeout=LIMIT)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_statement_streams_charges_and_refunds(server: Server) -> None:
    charge = server.payments.Charge(of(100), metadata=key("op-1"), timeout=LIMIT)
    server.payments.Charge(of(200), timeout=LIMIT)
    asked = RefundRequest(charge_id=charge.charge_id)
    refund = server.payments.Refund(asked, metadata=key("op-2"), timeout=LIMIT)
    assert refund.status == STATUS_REFUNDED
    with pytest.raises(grpc.RpcError) as refused:
        server.payments.Refund(asked, metadata=key("op-3"), timeout=LIMIT)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    entries = list(server.payments.Statement(StatementRequest(account="alice"), timeout=LIMIT))
    assert [entry.amount_cents for entry in entries] == [100, 200, 100]
    assert [entry.operation_id for entry in entries][::2] == ["op-1", "op-2"]


def test_an_acknowledged_charge_survives_the_servers_sudden_death(server: Server) -> None:
    replies = {}
    for death in range(3):
        for number in range(5):
            name = f"op-{death}-{number}"
            reply = server.payments.Charge(of(1), metadata=key(name), timeout=LIMIT)
            replies[name] = reply
        server.kill()
        server.start()
    for name, reply in replies.items():
        assert server.payments.Charge(of(1), metadata=key(name), timeout=LIMIT) == reply
    held = server.payments.GetBalance(GetBalanceRequest(account="alice"), timeout=LIMIT)
    assert held.balance_cents == -15


def test_a_charge_whose_reply_is_never_heard_is_made_once_when_it_is_asked_again(
    server: Server,
) -> None:
    server.stop()
    server.start("--think-time", "60")  # charged, and not answered
    calls = [
        server.payments.Charge.future(of(1), metadata=key(f"op-{number}"), timeout=LIMIT)
        for number in range(3)
    ]
    entries = []
    while len(entries) < 3:
        entries = list(server.payments.Statement(StatementRequest(account="alice"), timeout=LIMIT))
    server.kill()
    assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    server.start()
    for number in range(3):
        reply = server.payments.Charge(of(1), metadata=key(f"op-{number}"), timeout=LIMIT)
        assert reply.status == STATUS_CHARGED
    held = server.payments.GetBalance(GetBalanceRequest(account="alice"), timeout=LIMIT)
    assert held.balance_cents == -3


def test_the_server_ends_in_order_when_asked(server: Server) -> None:
    server.payments.Charge(of(1), timeout=LIMIT)
    assert server.stop() == 0


def standby(port: int, ledger: Path) -> subprocess.Popen[str]:
    """Start a server that waits for its port; it ends with this object's block."""
    program = [sys.executable, "-m", "fusewire.demo.server", "--port", str(port), "--standby"]
    return subprocess.Popen(
        [*program, "--ledger", ledger],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_standby_takes_the_port_when_a_line_comes(server: Server) -> None:
    first = server.payments.Charge(of(1), metadata=key("op-1"), timeout=LIMIT)
    with standby(server.port, server.ledger) as other:
        assert said(other) == "standby"
        server.kill()
        assert other.stdin is not None
        other.stdin.write("serve\n")
        other.stdin.flush()
        assert said(other) == "ready"
        server.connect()
        assert server.payments.Charge(of(1), metadata=key("op-1"), timeout=LIMIT) == first
        other.terminate()
        assert other.wait(LIMIT) == 0


@pytest.mark.parametrize("by_signal", [True, False])
def test_a_standby_ends_by_a_signal_and_with_its_parent(tmp_path: Path, by_signal: bool) -> None:  # noqa: FBT001 - a parameter of the test
    with standby(reserve_port(), tmp_path / "ledger.db") as other:
        assert said(other) == "standby"
        assert other.stdin is not None
        other.terminate() if by_signal else other.stdin.close()
        assert other.wait(LIMIT) == (0 if by_signal else 1)


def test_a_signal_that_does_not_interrupt_the_wait_ends_it() -> None:
    over, late = threading.Event(), threading.Event()

    def strike_this_thread() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    def give_up() -> None:
        late.set()
        over.set()

    former = signal.signal(signal.SIGUSR1, lambda *_: over.set())
    timers = [threading.Timer(0.1, strike_this_thread), threading.Timer(20, give_up)]
    try:
        for timer in timers:
            timer.start()
        _wait_for(over)
    finally:
        signal.signal(signal.SIGUSR1, former)
        for timer in timers:
            timer.cancel()
            timer.join()
    assert not late.is_set()


def test_it_listens_on_the_loopback_interface_unless_another_address_is_named(
    server: Server,
) -> None:
    elsewhere = ("127.0.0.2", server.port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(elsewhere, LIMIT)
    server.kill()
    server.start("--host", "0.0.0.0")  # noqa: S104 - what is tested
    socket.create_connection(elsewhere, LIMIT).close()
