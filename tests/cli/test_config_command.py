"""``fusewire config``: exit codes for a pipeline, where values come from, and no secrets."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from fusewire.breaker import BreakerRegistry
from fusewire.cli._app import app
from fusewire.config import load

if TYPE_CHECKING:
    from typer.testing import Result

    from fusewire.breaker import BreakerSettings

OURS = """\
fusewire:
  breakers:
    defaults: {recovery_timeout: 10s}
    bases: {money: {preset: critical}}
    circuits:
      /payments.v1.Payments/*: {base: money, mode: forced_open, max_wait: '${WAIT:1234s}'}
  consumers:
    orders: {retry: {max_age: 1h, dead_on: [ValueError]}}
"""
WRONG = "fusewire: {breakers: {circuits: {a: {recovery_timeout: 1:30}}}}\n"
SPRING = """\
resilience4j.circuitbreaker:
  configs:
    default: {slidingWindowType: TIME_BASED, slidingWindowSize: 30}
  instances:
    payment-service:
      failureRateThreshold: 40
      waitDurationInOpenState: 1500
      allowHealthIndicatorToFail: true
      initialState: DISABLED
      recordExceptions: [java.io.IOException]
    "[/search.v1.Search/*]": {baseConfig: fast, writableStackTraceEnabled: false}
  configs.fast: {slidingWindowSize: 200, enableExponentialBackoff: true}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"ours.yaml": OURS, "wrong.yaml": WRONG, "application.yml": SPRING}.items():
        Path(name).write_text(text, "utf-8")


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments], env={"COLUMNS": "80", **env})


def test_check_ends_with_0_where_files_can_be_applied() -> None:
    done = run("check", "ours.yaml", "application.yml")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        (
            "note: application.yml:11:49: writableStackTraceEnabled of [/search.v1.Search/*]: "
            "it has no effect: a rejection is cheap with its traceback"
        ),
        "0 errors, 0 warnings, 1 note",
    ]


def test_check_ends_with_1_and_lists_the_problems() -> None:
    done = run("check", "ours.yaml", "wrong.yaml", FUSEWIRE_BREAKER__X="1")
    assert done.exit_code == 1
    first, second, last = done.stdout.splitlines()
    assert first.startswith("error: wrong.yaml:1:56: breakers.circuits['a'].recovery_timeout must")
    assert second.startswith("error: FUSEWIRE_BREAKER__X: a variable's name must be ")
    assert last == "2 errors, 0 warnings, 0 notes"


def test_check_prints_json_for_programs() -> None:
    done = run("check", "wrong.yaml", "--format", "json")
    assert done.exit_code == 1
    (problem,) = json.loads(done.stdout)
    assert problem["place"] == {"source": "wrong.yaml", "line": 1, "column": 56}
    assert problem["severity"] == "error"
    assert problem["remedy"].startswith("write 1m30s")


def test_a_file_that_is_not_there_is_a_problem() -> None:
    done = run("check", "missing.yaml")
    assert done.exit_code == 1
    assert "missing.yaml: the file must be one that can be read, got No such file" in done.stdout


@pytest.mark.parametrize("command", ["check", "show", "import"])
def test_without_a_file_there_is_nothing_to_do(command: str) -> None:
    assert run(command).exit_code == 2


@pytest.mark.parametrize("command", ["show", "import"])
def test_problems_are_printed_in_place_of_what_was_asked_for(command: str) -> None:
    done = run(command, "wrong.yaml")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "wrong.yaml:1:56" in done.stderr


def test_show_says_of_each_value_where_it_comes_from() -> None:
    done = run("show", "ours.yaml", FUSEWIRE_CIRCUITS="{a: {failure_threshold: 1}}")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    of = lines.index("/payments.v1.Payments/*")
    assert lines.index("breakers.defaults") < of < lines.index("a") < lines.index("consumer orders")
    for line in (
        "recovery_timeout 120s ours.yaml:4:29, preset critical",
        "max_wait ${WAIT} ours.yaml:6:75",
        "mode forced_open ours.yaml:6:52",
        "probe_lease 60s the library",
    ):
        assert line in lines[of:]
    assert "failure_threshold 1 FUSEWIRE_CIRCUITS:1:25" in lines
    assert "recovery_timeout 10s ours.yaml:3:34" in lines
    assert "retry.max_age 3600s ours.yaml:8:31" in lines
    rows = json.loads(run("show", "ours.yaml", "--format", "json").stdout)
    assert {
        "of": "/payments.v1.Payments/*",
        "setting": "half_open_max_calls",
        "value": "5",
        "from": "ours.yaml:4:29, preset critical",
    } in rows


def test_show_ends_with_the_hash_that_a_watch_of_the_same_files_has() -> None:
    rows = json.loads(run("show", "ours.yaml", "--format", "json").stdout)
    expected = load("ours.yaml").watching(BreakerRegistry()).reload_figures().hash
    assert rows[-1] == {"of": "files", "setting": "hash", "value": expected, "from": ""}
    *_, title, line = run("show", "ours.yaml").stdout.splitlines()
    assert (title, line.split()) == ("files", ["hash", expected])


JAVA = "com.shop.PaymentException"


@pytest.mark.parametrize("command", ["check", "show", "import"])
def test_what_a_class_of_java_is_may_be_said_for_each_command(command: str) -> None:
    Path("java.yml").write_text(
        f"resilience4j.circuitbreaker.instances.a: {{ignoreExceptions: [{JAVA}]}}"
    )
    without = run(command, "java.yml")
    assert without.exit_code == 1
    assert f"--java-exception {JAVA}=…" in " ".join(without.output.split())
    done = run(command, "java.yml", "--java-exception", f"{JAVA}=shop.errors.PaymentError")
    assert done.exit_code == 0
    if command != "check":
        assert "[shop.errors.PaymentError]" in done.stdout


@pytest.mark.parametrize("given", [JAVA, f"{JAVA}=", "=LookupError"])
def test_half_of_what_a_class_of_java_is_is_refused(given: str) -> None:
    done = run("check", "ours.yaml", "--java-exception", given)
    assert done.exit_code == 2
    assert "--java-exception must be JAVA=PYTHON" in done.stderr


def test_show_says_what_a_profile_means() -> None:
    Path("p.yaml").write_text(
        f"{OURS}---\nspring.config.activate.on-profile: prod\n"
        "fusewire: {breakers: {defaults: {recovery_timeout: 77s}}}\n"
    )
    assert "77s" not in run("show", "p.yaml").stdout
    assert "77s" in run("show", "p.yaml", "--profile", "prod").stdout


def without_functions(settings: BreakerSettings) -> dict[str, Any]:
    """Return settings without what our own form cannot say."""
    found = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    del found["classify_exception"]
    return found


def test_what_is_imported_means_the_same() -> None:
    done = run("import", "application.yml")
    assert done.exit_code == 3, done.output
    Path("imported.yaml").write_text(done.stdout, "utf-8")
    theirs, ours = load("application.yml", env={}), load("imported.yaml", env={})
    assert list(ours.circuits) == ["payment-service", "/search.v1.Search/*"]
    for name, circuit in ours.circuits.items():
        other = theirs.circuits[name]
        assert without_functions(circuit.settings) == without_functions(other.settings)
        assert (circuit.mode and circuit.mode.value) == (other.mode and other.mode.value)
    assert ours.defaults is not None
    assert theirs.defaults is not None
    assert ours.defaults.settings == theirs.defaults.settings
    assert "it has no effect" in done.stderr


def test_import_says_that_what_is_not_recorded_was_a_success() -> None:
    done = run("import", "application.yml")
    line, _ = [each for each in done.stderr.splitlines() if "left out" in each]
    assert line == (
        "fusewire config import: left out: payment-service: exceptions that are neither recorded "
        "nor ignored are successes in Spring, and are ignored here: give classify_exception in "
        "code if that is meant (application.yml:10:25)"
    )
    assert done.stdout.count("# left out: exceptions that are neither recorded nor ignored") == 1


@pytest.mark.parametrize(
    ("exceptions", "status"),
    [
        ("{recordExceptions: [java.lang.Throwable]}", 0),
        ("{recordExceptions: [java.lang.Exception]}", 0),
        ("{ignoreExceptions: [java.io.IOException]}", 0),
        ("{recordExceptions: []}", 3),
        ("{recordExceptions: [shop.errors.PaymentError]}", 3),
    ],
)
def test_import_leaves_nothing_out_where_all_is_recorded(exceptions: str, status: int) -> None:
    text = f"resilience4j.circuitbreaker: {{configs: {{default: {exceptions}}}}}"
    Path("some.yml").write_text(text)
    done = run("import", "some.yml")
    assert done.exit_code == status, done.output
    assert done.stdout.count("# left out") == (status == 3)


OF_BOTH_FORMS = """\
fusewire:
  breakers: {circuits: {own: {max_wait: 2s}}}
  consumers: {orders: {retry: {max_attempts: 3}}}
  forwarders: {calls: {broker: 'amqp://host/', target: 'host:50051'}}
resilience4j.circuitbreaker.instances:
  theirs: {slidingWindowSize: 20, allow-health-indicator-to-fail: true}
"""


def test_import_gives_a_circuit_of_our_own_form_no_defaults_of_spring() -> None:
    Path("both.yml").write_text(OF_BOTH_FORMS)
    Path("imported.yaml").write_text(run("import", "both.yml").stdout, "utf-8")
    theirs, ours = load("both.yml", env={}), load("imported.yaml", env={})
    assert {name: one.settings for name, one in ours.circuits.items()} == {
        name: one.settings for name, one in theirs.circuits.items()
    }


def test_import_says_what_else_it_leaves_out() -> None:
    Path("both.yml").write_text(OF_BOTH_FORMS)
    done = run("import", "both.yml")
    assert done.exit_code == 3
    assert done.stderr.splitlines() == [
        (
            "fusewire config import: left out: theirs: allowHealthIndicatorToFail: give "
            "Health(ready_needs=['theirs', …]) in code"
        ),
        (
            "fusewire config import: left out: consumers: copy what the files say of the queue "
            "'orders'"
        ),
        (
            "fusewire config import: left out: forwarders: copy what the files say of the queue "
            "'calls'"
        ),
    ]


SECRETS = """\
resilience4j.circuitbreaker.instances:
  a: {waitDurationInOpenState: '${S}', slidingWindowSize: '${NONE:4321}'}
"""


def test_no_command_shows_what_came_from_a_variable() -> None:
    Path("secrets.yml").write_text(SECRETS)
    done = run("import", "secrets.yml", S="98765")
    assert done.exit_code == 3
    assert "# recovery_timeout: left out, because it is the value of ${S}" in done.stdout
    assert "left out: a: recovery_timeout (secrets.yml:2:32)" in done.stderr
    shown = done.output
    for arguments in (("show",), ("show", "--format", "json"), ("check",)):
        shown += run(*arguments, "secrets.yml", S="98765").output
    for written in ("98765", "98.765", "4321"):
        assert written not in shown


def test_without_the_extra_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules['yaml'] = None; from fusewire.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "config", "check", "ours.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "pip install 'fusewire[config]'" in done.stderr
    assert "Traceback" not in done.stderr
