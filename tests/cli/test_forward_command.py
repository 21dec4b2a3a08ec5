"""``fusewire forward``: programs that make stored calls, over TLS, side by side, until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from typer.testing import CliRunner

from fusewire.breaker import BreakerRegistry, BreakerSettings
from fusewire.cli._app import app
from fusewire.config import ConfigError, load
from fusewire.forwarding import Encryption, ParkedCalls
from fusewire.interceptors import guard
from tests.support.asgi_server import ask
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARGE = "/shop.Payments/Charge"
FILE = """\
fusewire:
  consumers:
    charges: {{retry: {{delays: [50ms, 200ms]}}}}
  forwarders:
    charges:
      broker: ${{BROKER}}
      target: 127.0.0.1:{port}
      tls: {{ca: ca.pem, certificate: client.pem, key: client.key, server_name: payments.test}}
      methods:
        {method}: {{idempotent: true, window: 24h}}
"""
KEYS = """\
from fusewire.forwarding import KeyRing

def keys():
    return KeyRing({"k": b"k" * 32}, write_with="k")
"""


class Payments(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.made: list[bytes] = []

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._charge)

    def _charge(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        self.made.append(request)
        return b"charged"


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(tmp_path)
    port = reserve_port()
    Path("fusewire.yaml").write_text(FILE.format(port=port, method=CHARGE), "utf-8")
    Path("vault.py").write_text(KEYS, "utf-8")
    return port


@pytest.fixture
def payments(port: int) -> Iterator[Payments]:
    """Provide a server that wants a client's certificate."""
    authority = trustme.CA()
    own, client = authority.issue_cert("payments.test"), authority.issue_cert("shop.test")
    authority.cert_pem.write_to_path("ca.pem")
    client.private_key_pem.write_to_path("client.key")
    client.cert_chain_pems[0].write_to_path("client.pem")
    payments = Payments()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[payments])
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())],
        authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    yield payments
    server.stop(None).wait(10)


def encryption() -> Encryption:
    names: dict[str, object] = {}
    exec(KEYS, names)  # noqa: S102 - what the command imports
    return Encryption(names["keys"])  # type: ignore[arg-type] # it is that function


def park(address: str, *what: bytes) -> None:
    registry = BreakerRegistry(BreakerSettings(failure_threshold=1))
    registry.get(CHARGE).force_open()
    calls = ParkedCalls(address, queue="charges", registry=registry, encryption=encryption())
    with calls:
        fallbacks = {CHARGE: calls.park(reply=lambda *_: b"pending", idempotent=True)}
        bare = grpc.insecure_channel("127.0.0.1:1")
        with guard(bare, registry=registry, fallbacks=fallbacks) as channel:
            charge: Any = channel.unary_unary(CHARGE)
            for request in what:
                assert charge(request, timeout=30) == b"pending"


def start(address: str, name: str, *more: str) -> KeptProcess:
    command = [sys.executable, "-c", "from fusewire.cli import main; main()", "forward"]
    options = ["fusewire.yaml", "--queue", "charges", "--keys", "vault:keys"]
    environment = {**os.environ, "BROKER": address}
    return KeptProcess(
        [*command, *options, *more], env=environment, log=Path(f"{name}.log").absolute()
    )


def test_two_programs_start_before_their_broker_make_all_calls_and_end_on_sigterm(
    payments: Payments, tmp_path: Path
) -> None:
    address = f"sqlite:///{tmp_path}/later/broker.db"
    requests = [b"%d" % number for number in range(20)]
    http = f"127.0.0.1:{reserve_port()}"
    with start(address, "one", "--http", http) as one, start(address, "two") as two:
        for name in ("one", "two"):
            log = Path(f"{name}.log")
            until_sync(lambda log=log: "cannot be reached" in log.read_text(), limit=60)
        assert ask(f"http://{http}/livez").status == 200
        (tmp_path / "later").mkdir()
        park(address, *requests)
        until_sync(lambda: sorted(payments.made) == sorted(requests), limit=60)
        until_sync(lambda: ask(f"http://{http}/readyz").status == 200, limit=60)
        assert 'queue="charges"' in ask(f"http://{http}/metrics").text
        assert ask(f"http://{http}/none").status == 404
        for program in (one, two):
            program.send(signal.SIGTERM)
            assert program.wait(60) == 0


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["forward", *arguments], env={"BROKER": "sqlite:///b.db"})
    assert result.exit_code == 2
    return result.output


def test_what_cannot_run_says_so(port: int) -> None:
    file = "fusewire.yaml"
    assert "forwarders['orders']; those that they have: 'charges'" in run(file, "--queue", "orders")
    assert "no file" in run(file, "--queue", "orders")
    assert "must be MODULE:FUNCTION" in run(file, "--queue", "charges", "--keys", "vault")
    assert "has no 'none'" in run(file, "--queue", "charges", "--keys", "vault:none")
    assert "No module named" in run(file, "--queue", "charges", "--keys", "nothing_here:keys")
    assert "ca.pem" in run(file, "--queue", "charges")
    assert "--http must be HOST:PORT" in run(file, "--queue", "charges", "--http", "8081")
    assert port


def test_a_file_says_all_of_a_forwarder(port: int) -> None:
    (queue, forwarder), *_ = load("fusewire.yaml", env={"BROKER": "b"}).forwarders.items()
    assert (queue, forwarder.broker, forwarder.target) == ("charges", "b", f"127.0.0.1:{port}")
    assert forwarder.tls is not None
    assert (forwarder.tls.ca, forwarder.tls.server_name) == ("ca.pem", "payments.test")
    method = forwarder.methods[CHARGE]
    assert (method.idempotent, method.at_most_once, method.window) == (True, False, 86400.0)
    assert forwarder.lanes is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("target: t", "got one without broker"),
        ("broker: b, target: t, tls: {key: k}", "got only one of certificate and key"),
        ("broker: b, target: t, methods: {/a.B/C: {}}", "got neither"),
        ("broker: b, target: t, methods: {/a.B/C: {idempotent: yess}}", "must be true or false"),
        (
            "broker: b, target: t, methods: {/a.B/C: {at_most_once: true, window: 5s}}",
            "remove window",
        ),
        ("broker: b, target: t, lanes: {eu: charge}", "a list"),
        ("brokr: b, target: t", "did you mean broker?"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"fusewire: {{forwarders: {{charges: {{{text}}}}}}}")
    with pytest.raises(ConfigError) as raised:
        load(file, env={})
    assert says in str(raised.value)
    assert "f.yaml:1:" in str(raised.value)


def test_files_are_put_together_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(
        "fusewire: {forwarders: {q: {broker: b, target: t, tls: {ca: a},"
        " lanes: {eu: [x], us: [y]}}}}"
    )
    second.write_text("fusewire: {forwarders: {q: {target: u, tls: {server_name: s}}}}")
    forwarder = load(first, second, env={}).forwarders["q"]
    assert (forwarder.broker, forwarder.target) == ("b", "u")
    assert forwarder.tls is not None
    assert (forwarder.tls.ca, forwarder.tls.server_name) == ("a", "s")
    assert dict(forwarder.lanes or {}) == {"eu": ("x",), "us": ("y",)}
