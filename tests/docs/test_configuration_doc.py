"""What docs/configuration.md shows is what comes out."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import textwrap
from pathlib import Path

import pytest

from fusewire import BreakerRegistry, BreakerSettings, ParkingConsumer, ReplayPolicy, RetryPolicy
from fusewire.brokers import open_broker
from fusewire.config import ConfigError, Watch, load
from fusewire.config._showing import show_setting
from fusewire.config._spring_values import JAVA_EXCEPTIONS
from tests.config.malformed import CORPUS
from tests.docs.examples import run_examples
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TEXT = PAGE.read_text("utf-8")
FILE, SPRING, PROFILES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[:3]

FUNCTIONS = ("classify_exception", "classify_result")
WITH_PROBLEMS = """\
fusewire:
  breakers:
    circuits:
      /payments.v1.Payments/*: {base: mony, recovery_timeout: 1:30}
      user-service: {window_calls: 5, failure_rate_treshold: 50%}
"""


def test_the_file_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fusewire.yaml").write_text(FILE, "utf-8")
    registry = BreakerRegistry()
    monkeypatch.setattr("fusewire.default_registry", lambda: registry)
    ran: list[bool] = []
    names = run_examples(PAGE, {"run_the_service": lambda: ran.append(True)})
    names["serve"]()
    assert ran
    assert registry.get("user-service", BreakerSettings()).settings.window_calls == 20
    circuits = names["config"].circuits
    assert circuits["/payments.v1.Payments/Charge"].settings == BreakerSettings(
        failure_threshold=2, recovery_timeout=120.0, half_open_max_calls=5
    )
    assert circuits["user-service"].settings == BreakerSettings(
        failure_threshold=None,
        window_calls=20,
        failure_rate_threshold=0.5,
        expected_exceptions=(ConnectionError, TimeoutError),
    )
    orders = names["orders"]
    assert orders.retry == RetryPolicy(
        max_attempts=8, delays=(1.0, 30.0, 600.0), dead_on=(ValueError,)
    )
    assert orders.replay == ReplayPolicy(concurrency=16, rate=50.0)


async def test_the_consumer_of_the_page_follows_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("fusewire.yaml").write_text(FILE, "utf-8")
    monkeypatch.setattr("fusewire.default_registry", BreakerRegistry)
    added: list[object] = []
    monkeypatch.setattr(Watch, "add", lambda _, consumer: added.append(consumer))
    names = run_examples(PAGE, {"ADDRESS": f"sqlite:///{tmp_path}/orders.db", "handle": print})
    async with open_broker(names["ADDRESS"]) as broker:
        await broker.create_queue("orders")
    running = asyncio.ensure_future(names["consume"]())
    await until(lambda: added)
    (consumer,) = added
    assert isinstance(consumer, ParkingConsumer)
    await until(lambda: consumer.status().running)
    consumer.stop()
    await running


def test_the_profiles_of_the_page(tmp_path: Path) -> None:
    file = tmp_path / "fusewire.yaml"
    file.write_text(PROFILES, "utf-8")
    for profile, seconds in (("", 10.0), ("prod", 30.0)):
        defaults = load(file, env={}, profile=profile).defaults
        assert defaults is not None
        assert defaults.settings == BreakerSettings(recovery_timeout=seconds)


def test_the_problems_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fusewire.yaml").write_text(WITH_PROBLEMS, "utf-8")
    with pytest.raises(ConfigError) as raised:
        load("fusewire.yaml", env={})
    assert f"```\n{shown(raised.value)}\n```" in TEXT


def shown(error: ConfigError) -> str:
    """Return the text of an error, with the lists of keys cut and the lines broken for the page."""
    lines = []
    for line in str(error).splitlines():
        cut = re.sub(r"(one of (?:\w+, ){2})(?:\w+, )+(\w+, got)", r"\1…, \2", line)
        indent = " " * (len(cut) - len(cut.lstrip()))
        words, row = cut.split(), indent
        for word in words:
            if len(row) + len(word) > 99:
                lines.append(row.rstrip())
                row = f"{indent}    "
            row += f"{word} "
        lines.append(row.rstrip())
    return "\n".join(lines)


TWENTY = (
    "a clock time",
    "a spelt unit",
    "a percent as a number",
    "an octal number",
    "YAML 1.1's yes",
    "a misspelt mode",
    "a misspelt exception",
    "a function",
    "a misspelt key",
    "a key twice",
    "a misspelt base",
    "a circle of bases",
    "more calls than the window",
    "a rate without a window",
    "delays that shrink",
    "a tab",
    "a misspelt top",
    "a second document",
    "a misspelt variable",
    "an unset variable in a file",
)


def twenty(folder: Path) -> str:
    """Return what is said of twenty files of the corpus."""
    by_name = {each.name: each for each in CORPUS}
    texts = []
    for name in TWENTY:
        (folder / "fusewire.yaml").write_text(by_name[name].text, "utf-8")
        with pytest.raises(ConfigError) as raised:
            load("fusewire.yaml", env=by_name[name].env)
        texts.append(shown(raised.value).partition("\n")[2])
    return "\n".join(texts)


def test_the_twenty_problems_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"```\n{twenty(tmp_path)}\n```" in TEXT


def spring_table(tmp_path: Path) -> str:
    """Return the table of what becomes of the Spring Boot file, and of both defaults."""
    file = tmp_path / "application.yml"
    file.write_text(f"{SPRING}      nothing: {{}}\n", "utf-8")
    circuits = load(file, env={}).circuits
    columns = [each.settings for each in circuits.values()] + [BreakerSettings()]
    names = [*circuits][:-1]
    rows = [
        f"| setting | {' | '.join(f'`{name}`' for name in names)} | resilience4j | Fusewire |",
        f"|---|{'---|' * len(columns)}",
    ]
    for field in dataclasses.fields(BreakerSettings):
        values = [getattr(each, field.name) for each in columns]
        if field.name not in FUNCTIONS and len({str(value) for value in values}) > 1:
            shown = (show_setting(value) for value in values)
            rows.append(f"| `{field.name}` | {' | '.join(shown)} |")
    return "\n".join(rows)


def java_exceptions() -> str:
    """Return the list of Java's exceptions, broken for the page."""
    named = ", ".join(f"`{java}` (`{ours}`)" for java, ours in JAVA_EXCEPTIONS.items())
    return textwrap.fill(
        f"{named}.", 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


def test_what_becomes_of_the_articles_file(tmp_path: Path) -> None:
    assert f"\n{spring_table(tmp_path)}\n\n" in TEXT
    assert f"\n{java_exceptions()}\n" in TEXT
