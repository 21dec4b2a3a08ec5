"""The compose file is valid, and what it names is there. It is never started: there is no Docker.

The models of compose-spec ignore keys that they do not know. So what they have read is compared
with what the file says.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
import urllib.request
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
import yaml
from compose_spec.models import ComposeSpecification

from fusewire import ParkingConsumer
from fusewire.brokers import open_broker
from fusewire.demo.payments.v1.payments_pb2 import ChargeRequest
from fusewire.demo.payments.v1.payments_pb2_grpc import PaymentsStub
from tests.docs.test_kubernetes import default_shutdown
from tests.support.payments import wait_until_ready
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "compose"
FILES = [FOLDER / "compose.yaml", ROOT / "docker-compose.test.yml"]


def read(path: Path) -> Any:
    content = yaml.safe_load(path.read_text("utf-8"))
    return {key: value for key, value in content.items() if not key.startswith("x-")}


def unknown_keys(given: Any, known: Any, where: str = "") -> list[str]:
    """Return the keys of `given` that are not in `known`."""
    if isinstance(given, dict) and isinstance(known, dict):
        absent = [f"{where}.{key}" for key in given if key not in known]
        deeper = (
            unknown_keys(given[key], known[key], f"{where}.{key}") for key in given.keys() & known
        )
        return absent + [key for keys in deeper for key in keys]
    return []


def unknown_to_the_specification(content: Any) -> list[str]:
    model = ComposeSpecification.model_validate(content)
    return unknown_keys(content, model.model_dump(by_alias=True, exclude_unset=True))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_compose_file_is_valid(path: Path) -> None:
    assert unknown_to_the_specification(read(path)) == []


def test_the_validation_finds_what_is_wrong() -> None:
    content = read(FILES[0])
    content["services"]["consumer"]["stop_grace"] = "45s"
    content["services"]["rabbitmq"]["healthcheck"]["every"] = "5s"
    assert sorted(unknown_to_the_specification(content)) == [
        ".services.consumer.stop_grace",
        ".services.rabbitmq.healthcheck.every",
    ]


SERVICES = read(FILES[0])["services"]


def test_what_the_services_name_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
        for volume in service.get("volumes", ()):
            assert (FOLDER / volume.partition(":")[0]).exists(), volume
        for word in service.get("command", ()):
            if word.endswith(".py"):
                assert (ROOT / word).exists(), word
    dockerfile = (FOLDER / "Dockerfile").read_text("utf-8")
    for names in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for name in names.split():
            assert (ROOT / name).exists(), name


def test_nothing_is_reached_from_outside_the_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_consumer_is_killed_only_after_it_had_its_time() -> None:
    seconds = float(SERVICES["consumer"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= default_shutdown(ParkingConsumer) + 10


def test_prometheus_scrapes_services_on_the_ports_that_they_serve() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    targets = [each["static_configs"][0]["targets"] for each in config["scrape_configs"]]
    assert targets == [["consumer:8080", "payments:8080"], ["rabbitmq:15692"]]
    assert config["rule_files"]
    assert all((ROOT / rules).exists() for rules in config["rule_files"])
    for name in ("consumer", "payments"):
        assert SERVICES[name]["environment"]["HTTP_PORT"] == "8080"


def test_grafana_finds_the_dashboard_and_its_source_of_data() -> None:
    grafana = SERVICES["grafana"]
    mounts = [volume.split(":")[:2] for volume in grafana["volumes"]]
    inside = {target: FOLDER / source for source, target in mounts}
    provisioning = PurePosixPath("/etc/grafana/provisioning")
    (source,) = provisioned(inside[str(provisioning / "datasources")])["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"], "or the dashboard asks for one"
    (provider,) = provisioned(inside[str(provisioning / "dashboards")])["providers"]
    (path,) = [target for target in inside if target.endswith(".json")]
    assert str(PurePosixPath(path).parent) == provider["options"]["path"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == path
    board = json.loads(inside[path].read_text("utf-8"))
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == source["type"]
    asked = {
        (each["datasource"]["type"], each["datasource"]["uid"])
        for each in (*board["panels"], *variables.values())
        if "datasource" in each
    }
    assert asked == {(source["type"], "${datasource}")}


def provisioned(folder: Path) -> Any:
    (file,) = folder.glob("*.yaml")
    return yaml.safe_load(file.read_text("utf-8"))


def test_the_payments_server_charges_once_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    schema = f"payments_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as database:
        database.execute(f"CREATE SCHEMA {schema}".encode())
        address = postgres.url.replace("postgresql://", "postgresql+psycopg://")
        divider = "&" if "?" in address else "?"
        environment = {
            **os.environ,
            "DATABASE_URL": f"{address}{divider}options=-csearch_path%3D{schema}",
            "PORT": str(port := reserve_port()),
            "HTTP_PORT": str(http_port := reserve_port()),
        }
        argv = [sys.executable, str(FOLDER / "payments.py"), "--migrate"]
        replies = []
        for _ in range(2):  # the second time, the tables are there
            with KeptProcess(argv, env=environment, log=tmp_path / "log") as process:
                wait_until_ready(f"127.0.0.1:{port}")
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    request = ChargeRequest(account="bob", amount_cents=5)
                    metadata = (("idempotency-key", "a"),)
                    stub = PaymentsStub(channel)
                    replies += [
                        stub.Charge(request, timeout=30, metadata=metadata) for _ in range(2)
                    ]
                with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics") as answer:
                    metrics = answer.read().decode()
                process.send(signal.SIGTERM)
                assert process.wait(30) == 0
        charge = 'method="/fusewire.demo.payments.v1.Payments/Charge"'
        assert f'fusewire_idempotency_requests_total{{{charge},result="replayed"}} 2.0' in metrics
        sql = f"SELECT count(*) FROM {schema}.entries"  # noqa: S608 - ours
        entries = database.execute(sql.encode()).fetchone()
        database.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    assert len({reply.charge_id for reply in replies}) == 1
    assert entries == (1,)


async def test_orders_are_published(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/broker.db"
    environment = {**os.environ, "AMQP_URL": address, "QUEUE": "orders"}
    argv = [sys.executable, str(FOLDER / "publish.py")]
    async with open_broker(address) as broker:
        await broker.create_queue("orders")

        async def three() -> bool:
            return await broker.depth("orders") >= 3

        with KeptProcess(argv, env=environment, log=tmp_path / "log") as process:
            await until(three)
            process.send(signal.SIGTERM)
            process.wait(30)
