"""A private Prometheus: Debian's package, unpacked and not installed, on the loopback interface.

To unpack it needs apt-get and dpkg, and no rights. What is unpacked stays in a cache folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.debian import INSTALL_VARIABLE, NotInstalledError, run
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess, reaper
from tests.support.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER_VARIABLE = "FUSEWIRE_TEST_PROMETHEUS"

_START_LIMIT = 30.0  # seconds


class NoPrometheusError(RuntimeError):
    """There is no Prometheus, and none can be had. The message says what to do."""


def programs() -> Path:
    """Return the folder with the programs `prometheus` and `promtool`.

    Raises:
        NoPrometheusError: there is none.
    """
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    if (found := shutil.which("prometheus")) and shutil.which("promtool"):
        return Path(found).parent
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusewire-tests"
    folder = cache / "prometheus"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _unpack(folder)
    return folder / "usr" / "bin"


def _unpack(folder: Path) -> None:
    remedy = (
        f"install Debian's package prometheus, or name the folder of the programs prometheus and "
        f"promtool by {FOLDER_VARIABLE}"
    )
    if not shutil.which("apt-get") or os.environ.get(INSTALL_VARIABLE) == "0":
        raise NoPrometheusError(f"there is no Prometheus, and it may not be downloaded: {remedy}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        # The user of apt-get, if it has one, has to reach it.
        Path(name).chmod(0o755)
        commands = [["apt-get", "download", "-q", "prometheus"]]
        if os.geteuid() == 0:
            commands.insert(0, ["apt-get", "update", "-q"])
        try:
            for command in commands:
                run(command, folder=Path(name))
            (package,) = Path(name).glob("prometheus_*.deb")
            run(["dpkg", "-x", str(package), "unpacked"], folder=Path(name))
        except NotInstalledError as error:
            raise NoPrometheusError(f"{error}\nThere is no Prometheus: {remedy}") from error
        (Path(name) / "unpacked").rename(folder)


def promtool(*arguments: str | Path) -> str:
    """Run promtool, and return what it prints; a failure is an AssertionError with that."""
    done = subprocess.run(
        [programs() / "promtool", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Prometheus:
    """A Prometheus that scrapes and evaluates rules each second. A context manager that ends it.

    Args:
        targets: what is scraped: by job, addresses such as ``127.0.0.1:9464``.
        rules: files of rules.
    """

    def __init__(self, targets: Mapping[str, Sequence[str]], *, rules: Sequence[Path] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fusewire-prometheus-"))
        reaper().tell("path", str(self._folder))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file.resolve()) for file in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
        }
        # YAML takes JSON.
        (self._folder / "prometheus.yml").write_text(json.dumps(config))
        port = reserve_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = self._folder / "log"
        self._process = KeptProcess(
            [
                programs() / "prometheus",
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=self._folder,
            log=self.log,
        )
        until_sync(self._is_ready, "Prometheus is ready", limit=_START_LIMIT)
        # It takes its targets up only every five seconds.
        wanted = sum(len(addresses) for addresses in targets.values())
        until_sync(
            lambda: self._scraped_targets() == wanted,
            "Prometheus has asked every target",
            limit=_START_LIMIT,
        )

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values that `expression` has, now or at a time since 1970.

        Raises:
            AssertionError: Prometheus refused it.
        """
        arguments = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        data = self._get("/api/v1/query", arguments)["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    def label_values(self, label: str, selector: str) -> list[str]:
        """Return the values of a label in all series that `selector` matches."""
        found = self._get(f"/api/v1/label/{label}/values", {"match[]": selector})
        return [str(each) for each in found["data"]]

    def _scraped_targets(self) -> int:
        targets = self._get("/api/v1/targets", {})["data"]["activeTargets"]
        return sum(each["health"] != "unknown" for each in targets)

    def broken_rules(self) -> dict[str, str]:
        """Return why rules could not be evaluated the last time, by their names."""
        groups = self._get("/api/v1/rules", {})["data"]["groups"]
        return {
            rule["name"]: rule["lastError"]
            for group in groups
            for rule in group["rules"]
            if rule.get("lastError")
        }

    def names(self) -> set[str]:
        """Return the names of all series that it has."""
        return {str(each) for each in self._get("/api/v1/label/__name__/values", {})["data"]}

    def close(self) -> None:
        """End it."""
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        reaper().tell("forget", str(self._folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_ready(self) -> bool:
        assert self._process.running, self.log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310 - http
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def _get(self, path: str, arguments: Mapping[str, str]) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - http
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from error
