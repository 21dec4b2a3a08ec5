"""Which broker an address means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusewire.brokers import Capabilities, RabbitMQBroker, SQLiteBroker, open_broker
from fusewire.brokers.address import redacted
from fusewire.errors import SettingsError
from fusewire.parking import ParkingConsumer, ReplayPolicy


def path_of(address: object) -> str:
    broker = open_broker(address)  # type: ignore[arg-type]  # any of the accepted ones
    assert isinstance(broker, SQLiteBroker)
    return broker.path


@pytest.mark.parametrize("address", [None, ""])
def test_an_address_that_was_not_given_is_refused(address: object) -> None:
    with pytest.raises(SettingsError, match="is a variable not set"):
        open_broker(address)  # type: ignore[arg-type] # what an unset variable gives


@pytest.mark.parametrize(
    "address",
    [Path(":memory:"), Path(), "sqlite:///:memory:", "sqlite:////tmp/:memory:", "sqlite:///."],
)
def test_what_would_not_outlive_the_process_is_refused(address: str | Path) -> None:
    with pytest.raises(SettingsError, match="must outlive the process"):
        open_broker(address)


def test_three_slashes_mean_a_relative_file_and_four_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert path_of("sqlite:///data/parked.db") == str(tmp_path / "data" / "parked.db")
    assert path_of("sqlite:////var/lib/parked.db") == "/var/lib/parked.db"
    assert path_of("SQLite:////var/lib/Parked.db") == "/var/lib/Parked.db"


def test_a_path_object_means_that_file(tmp_path: Path) -> None:
    assert path_of(tmp_path / "parked.db") == str(tmp_path / "parked.db")


@pytest.mark.parametrize("address", ["amqp://localhost", "amqps://user:secret@mq:5671/vhost"])
def test_amqp_means_rabbitmq(address: str) -> None:
    assert isinstance(open_broker(address), RabbitMQBroker)


def test_a_broker_is_returned_as_it_is(tmp_path: Path) -> None:
    broker = SQLiteBroker(tmp_path / "parked.db")

    assert open_broker(broker) is broker


@pytest.mark.parametrize(
    "address",
    [
        ":memory:",
        "parked.db",
        "/var/lib/parked.db",
        "localhost:5672",
        "redis://localhost",
        "sqlite://",
        "sqlite:///",
        "sqlite://parked.db",
        "sqlite:///folder/",
        "sqlite:///parked.db?mode=memory",
        "sqlite:parked.db",
        "://",
    ],
)
def test_any_other_address_is_refused_with_what_is_accepted(address: str) -> None:
    with pytest.raises(SettingsError, match=r"sqlite:///relative/file\.db"):
        open_broker(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:secret@host/path",
        "user:secret@host",
        "kafka://user:sec@ret@host",
        "redis://:secret@host",
        "mqtt://host/path?password=secret",
        "http:/user:secret@host",
        "x\n://user:secret@host",
        "sqlite://user:secret@host/parked.db",
    ],
)
def test_an_error_about_an_address_shows_no_credentials(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_broker(address)

    for secret in ("secret", "sec@ret", "user"):
        assert secret not in str(caught.value)


def test_what_is_left_of_an_address_still_says_which_one_it_was() -> None:
    assert redacted("amqp://guest:guest@mq.example:5672/shop") == "amqp://…@mq.example:5672/shop"
    assert redacted("redis://cache:6379/0") == "redis://cache:6379/0"


# -- brokers of other distributions ----------------------------------------------------------------


class Plugged:
    """A broker that another distribution brings."""

    capabilities = Capabilities(single=False)

    def __init__(self, address: str) -> None:
        self.address = address


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that names brokers by two schemes."""
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fusewire.brokers]\n"
        f"MyScheme = {Plugged.__module__}:Plugged\n"
        "broken = a_module_that_is_not_there:Broker\n"
        "amqp = a_module_that_is_not_there:Broker\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, Plugged.__module__, sys.modules[__name__])


@pytest.mark.usefixtures("installed")
def test_a_scheme_that_a_distribution_names_means_its_broker() -> None:
    broker = open_broker("myscheme://user:secret@host/shop")

    assert isinstance(broker, Plugged)
    assert broker.address == "myscheme://user:secret@host/shop"


@pytest.mark.usefixtures("installed")
def test_a_scheme_of_ours_is_ours_whatever_is_installed() -> None:
    assert isinstance(open_broker("amqp://localhost"), RabbitMQBroker)


@pytest.mark.usefixtures("installed")
def test_a_scheme_that_nobody_names_is_refused_with_those_that_are_installed() -> None:
    with pytest.raises(SettingsError) as caught:
        open_broker("mysheme://user:secret@host/shop")

    for said in ("broken://…", "myscheme://…", "amqp://…", "no broker of mysheme:// addresses"):
        assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_a_broker_that_cannot_be_imported_says_which_and_why() -> None:
    with pytest.raises(SettingsError, match=r"broken://.*a_module_that_is_not_there:Broker"):
        open_broker("broken://host")


@pytest.mark.usefixtures("installed")
def test_a_consumer_is_refused_what_its_broker_cannot_do() -> None:
    with pytest.raises(SettingsError, match=r"scope must be 'replica'.*got 'cluster'"):
        ParkingConsumer(
            "myscheme://host", queue="q", handler=print, replay=ReplayPolicy(scope="cluster")
        )
