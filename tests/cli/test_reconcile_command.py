"""``fusewire reconcile``: what it asks a server, what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import trustme
from typer.testing import CliRunner

from fusewire import BreakerRegistry, ParkedCalls, aio_interceptors
from fusewire.brokers import Topology, open_broker
from fusewire.cli._app import app
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from fusewire.forwarding._call import StoredCall
from fusewire.idempotency.v1 import operations_pb2 as v1
from fusewire.idempotency.v1.operations_pb2_grpc import (
    OperationsServicer,
    add_OperationsServicer_to_server,
)
from fusewire.parking._history import History
from tests.support.payments import CHARGE, PaymentsProcess
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from fusewire.brokers import Message
    from fusewire.forwarding import Outcome

NOW = int(time.time() * 1000)
TOPOLOGY = Topology("charges")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/broker.db"


def bury(
    address: str, *operations: str, reason: str = "ambiguous", at_most_once: bool = False
) -> None:
    """Put calls into the dead queue."""

    async def publish() -> None:
        async with open_broker(address) as broker:
            await broker.create_queue("charges")
            await broker.prepare(TOPOLOGY)
            for operation in operations:
                message = dead(operation, reason, at_most_once=at_most_once)
                await broker.publish(TOPOLOGY.dead, message)

    asyncio.run(publish())


def dead(operation: str, reason: str, *, at_most_once: bool) -> Message:
    request = ChargeRequest(account="bob", amount_cents=5, currency="EUR", reference=operation)
    call = StoredCall(
        operation_id=operation,
        method=CHARGE,
        request=request.SerializeToString(),
        at_most_once=at_most_once,
    )
    history = History(
        operation_id=operation,
        queue="charges",
        reason=reason,
        first_parked_at_ms=NOW,
        at_most_once=at_most_once,
    )
    return history.to_headers(call.message("charges"))


def held(address: str) -> tuple[list[str], list[str]]:
    """Return the operation ids that are dead, and those that wait in the lane `other`."""

    async def look() -> tuple[list[str], list[str]]:
        async with open_broker(address) as broker:
            stations = TOPOLOGY.dead, TOPOLOGY.parked("other")
            dead, waits = [await broker.peek(station, limit=10_000) for station in stations]
        return ids(dead), ids(waits)

    return asyncio.run(look())


def ids(messages: list[Message]) -> list[str]:
    return sorted(str(message.message_id) for message in messages)


def run(address: str, target: str, *options: str) -> Result:
    return CliRunner().invoke(
        app,
        ["reconcile", "--queue", "charges", "--target", target, *options],
        env={"FUSEWIRE_ADDRESS": address, "FUSEWIRE_METADATA": None},
    )


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    """Provide a server of ours that has made the charges `made-0` to `made-4`."""
    server = PaymentsProcess(tmp_path)
    server.start()
    with contextlib.closing(server), grpc.insecure_channel(server.target) as channel:
        for number in range(5):
            operation = f"made-{number}"
            request = ChargeRequest(
                account="bob", amount_cents=5, currency="EUR", reference=operation
            )
            metadata = (("idempotency-key", operation),)
            PaymentsStub(channel).Charge(request, timeout=30, metadata=metadata)
        yield server


def test_calls_that_were_made_are_removed_and_others_put_back(
    payments: PaymentsProcess, address: str
) -> None:
    bury(address, "made-0", "never")
    bury(address, "made-1", reason="exhausted")  # nobody's doubt
    dry = run(address, payments.target, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.stdout.endswith(
        "charges: 2 dead calls that may have been made: 1 put back, 1 removed; nothing was changed "
        "(--dry-run)\n"
    )
    assert held(address) == (["made-0", "made-1", "never"], [])
    done = run(address, payments.target)
    assert done.exit_code == 0, done.output
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    assert [row[0].strip() for row in rows][:1] == ["action"]
    assert held(address) == (["made-1"], ["never"])
    again = run(address, payments.target)
    assert again.stdout == "charges: 0 dead calls that may have been made\n"


def test_the_forwarder_makes_once_what_is_put_back(payments: PaymentsProcess, address: str) -> None:
    bury(address, "never")
    bury(address, "never too", at_most_once=True)
    assert run(address, payments.target).exit_code == 0

    async def forward() -> None:
        registry = BreakerRegistry()
        async with ParkedCalls(address, queue="charges", registry=registry) as calls:
            guards = aio_interceptors(registry=registry)
            channel = grpc.aio.insecure_channel(payments.target, interceptors=guards)
            async with channel, calls.forward_to(channel):
                await until(lambda: {"never", "never too"} <= set(payments.references()))

    asyncio.run(forward())
    assert held(address) == ([], [])
    assert set(payments.references().values()) == {1}


def test_the_answer_of_a_call_that_was_made_comes_home_where_somebody_waits_for_it(
    payments: PaymentsProcess, address: str
) -> None:
    bury(address, "made-0")
    outcomes: list[Outcome] = []

    async def home() -> None:
        registry = BreakerRegistry()
        async with ParkedCalls(
            address, queue="charges", registry=registry, on_outcome=outcomes.append
        ) as calls:
            done = await asyncio.to_thread(run, address, payments.target, "--format", "json")
            assert json.loads(done.stdout)["action"] == "put back"
            guards = aio_interceptors(registry=registry)
            channel = grpc.aio.insecure_channel(payments.target, interceptors=guards)
            async with channel, calls.forward_to(channel):
                await until(lambda: outcomes)

    asyncio.run(home())
    assert held(address) == ([], [])
    assert (outcomes[0].operation_id, outcomes[0].kind) == ("made-0", "ok")
    assert outcomes[0].reply.operation_id == "made-0"
    assert payments.references()["made-0"] == 1


class Fake(OperationsServicer):
    """A server that says of each call the state that its key names."""

    def __init__(self) -> None:
        self.asked: list[tuple[v1.QueryRequest, dict[str, Any]]] = []

    def Query(self, request: v1.QueryRequest, context: Any) -> v1.Operation:  # noqa: N802 - the name in the .proto
        self.asked.append((request, dict(context.invocation_metadata())))
        word = request.idempotency_key
        if word.startswith("code "):
            context.abort(grpc.StatusCode[word.removeprefix("code ")], "as its key says")
        if word == "REFUSED":
            return v1.Operation(state=v1.STATE_ANSWERED, code=3)
        if word == "LARGE":  # a reply of as many bytes as gRPC's limit, and what is around it
            return v1.Operation(state=v1.STATE_ANSWERED, reply=bytes(4 * 2**20))
        return v1.Operation(state=v1.State.Value(f"STATE_{word}"))

    def Cancel(self, request: v1.CancelRequest, context: Any) -> v1.Operation:  # noqa: N802 - as above
        raise NotImplementedError


@contextlib.contextmanager
def serving(
    service: Fake | None, credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Serve, and provide the address."""
    server = grpc.server(ThreadPoolExecutor(4))
    if service is not None:
        add_OperationsServicer_to_server(service, server)
    target = f"localhost:{reserve_port()}"
    if credentials is None:
        server.add_insecure_port(target)
    else:
        server.add_secure_port(target, credentials)
    server.start()
    try:
        yield target
    finally:
        server.stop(0).wait()


def test_each_word_of_a_server_is_printed_with_what_follows(address: str) -> None:
    expected = {
        "ANSWERED": ("made", "removed"),
        "LARGE": ("made", "removed"),
        "REFUSED": ("refused", "marked"),
        "CANCELLED": ("cancelled", "removed"),
        "NOT_FOUND": ("not made", "put back"),
        "IN_PROGRESS": ("in progress", "left"),
        "IN_DOUBT": ("in doubt", "left"),
        "STALE": ("stale", "left"),
        "code INVALID_ARGUMENT": ("not recorded", "left"),
        "code PERMISSION_DENIED": ("denied", "left"),
        "code UNAVAILABLE": ("no answer", "left"),
    }
    bury(address, *expected)
    fake = Fake()
    with serving(fake) as target:
        done = run(address, target, "--format", "json", "--metadata", "Who=support")
    assert done.exit_code == 1, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    said = {line["operation_id"]: (line["server"], line["action"]) for line in lines}
    assert said == expected
    assert all(bool(line["why"]) is (line["action"] == "left") for line in lines)
    request, metadata = fake.asked[0]
    assert metadata["who"] == "support"
    assert (request.method, request.first_sent_at.ToMilliseconds()) == (CHARGE, NOW)
    kept = sorted(key for key, (_, action) in expected.items() if action in ("left", "marked"))
    assert held(address) == (kept, ["NOT_FOUND"])


def test_a_server_is_reached_by_tls_with_a_certificate_of_ones_own(
    address: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    names = {"payments.internal": "server", "reconciler": "client"}
    for name, file in names.items():
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{file}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{file}.pem")
    pair = (tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes()
    credentials = grpc.ssl_server_credentials(
        [pair], (tmp_path / "ca.pem").read_bytes(), require_client_auth=True
    )
    bury(address, "ANSWERED")
    tls = [
        *("--tls-ca", f"{tmp_path}/ca.pem", "--tls-server-name", "payments.internal"),
        *("--tls-certificate", f"{tmp_path}/client.pem", "--tls-key", f"{tmp_path}/client.key"),
    ]
    with serving(Fake(), credentials) as target:
        assert run(address, target, "--timeout", "0.5").exit_code == 2
        assert held(address) == (["ANSWERED"], [])
        done = run(address, target, *tls)
    assert done.exit_code == 0, done.output
    assert held(address) == ([], [])


def test_a_server_without_the_service_ends_it_with_2(address: str) -> None:
    bury(address, "a")
    with serving(None) as target:
        done = run(address, target)
    assert done.exit_code == 2
    assert "it has no service fusewire.idempotency.v1.Operations" in done.stderr
    assert held(address) == (["a"], [])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--timeout", "0.3"], "does not answer within 0.3 s"),
        (["--timeout", "0"], "--timeout must be"),
        (["--metadata", "token"], "--metadata must be KEY=VALUE"),
        (["--tls-key", "/none.pem"], "--tls-certificate and --tls-key belong together"),
        (["--tls-ca", "/none.pem"], "No such file"),
    ],
)
def test_what_cannot_be_right_ends_it_with_2(address: str, options: list[str], why: str) -> None:
    bury(address, "a")
    done = run(address, f"127.0.0.1:{reserve_port()}", *options)
    assert done.exit_code == 2
    assert why in done.stderr
    assert held(address) == (["a"], [])


def test_a_queue_that_no_forwarder_ever_had_ends_it_with_2(address: str) -> None:
    with serving(Fake()) as target:
        done = run(address, target)
    assert done.exit_code == 2
    assert "has a forwarder of the queue 'charges' ever run here?" in done.stderr


@pytest.mark.timeout(300)
def test_nothing_is_lost_when_it_is_killed_at_any_moment(
    payments: PaymentsProcess, address: str, tmp_path: Path
) -> None:
    made = [f"made-{number}" for number in range(5)]
    never = [f"never-{number}" for number in range(8)]
    bury(address, *never[:4], *made, *never[4:])
    program = [sys.executable, "-c", "from fusewire.cli import main; main()", "reconcile"]
    options = ["--address", address, "--queue", "charges", "--target", payments.target]
    log = tmp_path / "reconcile.log"
    lines = kills = 0
    while kills < 100:
        with KeptProcess([*program, *options, "--format", "json"], log=log) as process:
            # It is killed when it has printed a few calls more: in the middle of what it does.
            limit = time.monotonic() + 60
            while process.running and time.monotonic() < limit:
                now = len(log.read_text().splitlines())
                if now >= lines + 5:
                    lines = now
                    break
                time.sleep(0.001)
            if not process.running:
                break
            process.kill()
            kills += 1
    assert kills
    dead, waits = held(address)
    assert dead == []
    assert set(waits) == set(never)  # some may be there twice: they have a key
