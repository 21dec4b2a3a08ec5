"""The manifests of examples/kubernetes are valid, and their programs do what they ask for."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import kubernetes_validate
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fusewire import ParkedCalls, ParkingConsumer
from fusewire.brokers import Message, open_broker
from fusewire.demo.payments.v1.payments_pb2 import STATUS_PENDING, ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from tests.support.asgi_server import ask
from tests.support.payments import CHANNEL_OPTIONS, PaymentsProcess
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
OLDEST, NEWEST = "1.30.0", kubernetes_validate.latest_version()
MARGIN = 10.0
"""Seconds beyond all limits for what a process does at its end besides."""


def read(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


MANIFESTS = {
    f"{path.name}: {each['kind']}": each
    for path in sorted(FOLDER.glob("*.yaml"))
    for each in read(path.name)
}


def deployment(name: str) -> Any:
    return next(each for each in read(f"{name}.yaml") if each["kind"] == "Deployment")


def container(name: str) -> Any:
    (found,) = deployment(name)["spec"]["template"]["spec"]["containers"]
    return found


def default_shutdown(kind: type) -> float:
    seconds: float = inspect.signature(kind).parameters["shutdown_timeout"].default
    return seconds


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_is_valid(manifest: Any, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validation_finds_what_is_wrong() -> None:
    wrong = deployment("consumer")
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 45
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_a_pod_is_killed_only_after_its_consumer_had_its_time() -> None:
    grace = deployment("consumer")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= default_shutdown(ParkingConsumer) + MARGIN


def test_a_pod_is_killed_only_after_its_server_and_its_replays_had_their_time() -> None:
    grace = deployment("checkout")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    sleep = float(container("checkout")["lifecycle"]["preStop"]["exec"]["command"][1])
    served = float(_constant("checkout.py", "SHUTDOWN_TIMEOUT"))
    assert grace >= sleep + served + default_shutdown(ParkedCalls) + MARGIN


def _constant(program: str, name: str) -> Any:
    """Read a constant of a program that would run if it were imported."""
    text = (FOLDER / program).read_text("utf-8").replace("asyncio.run(main())", "")
    scope: dict[str, Any] = {"__name__": program}
    exec(compile(text, program, "exec"), scope)  # noqa: S102 - our own
    return scope[name]


@pytest.mark.parametrize("name", ["consumer", "checkout"])
def test_what_a_manifest_names_is_there(name: str) -> None:
    template = deployment(name)["spec"]["template"]
    labels = template["metadata"]["labels"]
    for manifest in read(f"{name}.yaml"):
        selector = manifest["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels, manifest["kind"]
    config, secret = container(name)["envFrom"]
    (found,) = read("config.yaml")
    assert config["configMapRef"]["name"] == found["metadata"]["name"]
    given = {*found["data"], "AMQP_URL", *(each["name"] for each in container(name)["env"])}
    assert secret["secretRef"]["name"] == "broker"
    program = (FOLDER / container(name)["command"][1]).read_text("utf-8")
    for variable in given:
        assert f'["{variable}"]' in program or f"['{variable}']" in program


def test_the_three_probes_ask_for_three_routes() -> None:
    paths = [container("consumer")[probe]["httpGet"]["path"] for probe in PROBES]
    assert paths == ["/startupz", "/readyz", "/livez"]


PROBES = ["startupProbe", "readinessProbe", "livenessProbe"]


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[PaymentsProcess]:
    server = PaymentsProcess(tmp_path)
    server.start()
    yield server
    server.close()


def program(name: str, payments: PaymentsProcess, folder: Path, **variables: str) -> KeptProcess:
    """Run a program as its manifest says, on the embedded broker."""
    environment = {each["name"]: each["value"] for each in container(name)["env"]}
    return KeptProcess(
        [sys.executable, FOLDER / container(name)["command"][1]],
        env={
            **os.environ,
            **environment,
            "AMQP_URL": f"sqlite:///{folder}/broker.db",
            "PAYMENTS_TARGET": payments.target,
            **variables,
        },
        log=folder / "log",
    )


async def test_the_consumer_answers_its_probes_and_ends_its_work_on_sigterm(
    payments: PaymentsProcess, tmp_path: Path
) -> None:
    port = reserve_port()
    address = f"http://127.0.0.1:{port}"
    payments.kill()
    payments.think_time = 1.0  # so that it is stopped in the middle of a charge
    payments.start()
    run = program("consumer", payments, tmp_path, HTTP_PORT=str(port))
    async with open_broker(f"sqlite:///{tmp_path}/broker.db") as broker:
        await broker.create_queue("orders")

        def answers(path: str) -> bool:
            try:
                return ask(address + path).status == 200
            except OSError:
                return False

        with run as process:
            for probe in PROBES:
                path = container("consumer")[probe]["httpGet"]["path"]
                await until(partial(answers, path))
            metrics = ask(address + annotation("path")).text
            assert 'fusewire_broker_connected{queue="orders"} 1.0' in metrics
            await broker.publish("orders", order("order-1"))
            await until(lambda: "order-1" in payments.references())
            process.send(signal.SIGTERM)
            assert process.wait(30) == 0
        assert await broker.depth("orders") == 0


def annotation(name: str) -> str:
    found: str = deployment("consumer")["spec"]["template"]["metadata"]["annotations"][
        f"prometheus.io/{name}"
    ]
    return found


def test_prometheus_scrapes_the_port_that_the_probes_ask() -> None:
    (port,) = container("consumer")["ports"]
    variables = {each["name"]: each["value"] for each in container("consumer")["env"]}
    assert annotation("port") == str(port["containerPort"]) == variables["HTTP_PORT"]
    assert {container("consumer")[probe]["httpGet"]["port"] for probe in PROBES} == {port["name"]}


def order(reference: str) -> Message:
    request = ChargeRequest(account="bob", amount_cents=1, currency="EUR", reference=reference)
    return Message(body=request.SerializeToString(), message_id=reference, routing_key="orders")


def test_the_checkout_answers_its_probes_and_parks_while_payments_are_down(
    payments: PaymentsProcess, tmp_path: Path
) -> None:
    port = reserve_port()
    run = program("checkout", payments, tmp_path, GRPC_PORT=str(port))
    target = f"127.0.0.1:{port}"
    with run as process, grpc.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        stub, probes = PaymentsStub(channel), health_pb2_grpc.HealthStub(channel)

        def well() -> bool:
            for probe in PROBES:
                service = container("checkout")[probe]["grpc"]["service"]
                request = health_pb2.HealthCheckRequest(service=service)
                found = probes.Check(request, timeout=30, wait_for_ready=True).status
                if found != health_pb2.HealthCheckResponse.SERVING:
                    return False
            return True

        def charge(reference: str) -> Any:
            request = ChargeRequest.FromString(order(reference).body)
            return stub.Charge(request, timeout=20)

        until_sync(well)
        charge("first")
        assert "first" in payments.references()
        payments.kill()
        assert charge("second").status == STATUS_PENDING
        assert well()
        payments.start()
        until_sync(lambda: "second" in payments.references(), limit=60)
        process.send(signal.SIGTERM)
        assert process.wait(60) == 0
