"""What a user installs is whole, and holds nothing of the machine that it was made on."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.checkout import ROOT, committed

_OPTIONS = ["--quiet", "--no-deps", "--no-build-isolation"]  # what is installed is enough
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|farm|root|Users|home/[a-z]\w*)/")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the wheel, and return the names of the files in it."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *_OPTIONS, "--wheel-dir", target, ROOT],
        check=True,
        timeout=110,
    )
    (built,) = target.glob("fusewire-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_sdist_has_all_that_make_needs(tmp_path: Path) -> None:
    only_for_git = (".github/", ".gitignore", ".pre-commit-config.yaml")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=110)
    (built,) = tmp_path.glob("fusewire-*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {path.relative_to(ROOT).as_posix() for path in committed() if path.exists()}
    assert {name for name in needed - names if not name.startswith(only_for_git)} == set()


def test_the_wheel_has_every_module_of_the_package(wheel: set[str]) -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in committed()
        if path.is_relative_to(ROOT / "fusewire") and path.exists()
    }
    assert modules
    assert modules <= wheel


def test_the_wheel_is_typed_and_licensed_and_has_the_generated_code(wheel: set[str]) -> None:
    assert "fusewire/py.typed" in wheel
    assert "fusewire/demo/payments/v1/payments_pb2.py" in wheel
    assert "fusewire/demo/payments/v1/payments_pb2.pyi" in wheel
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)


def test_the_wheel_takes_no_name_but_its_own(wheel: set[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fusewire"}


def test_no_committed_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in committed()
        if path.is_file() and path.name != Path(__file__).name
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_pinned_versions_come_without_addresses() -> None:
    pins = re.compile(r"^[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+$")
    files = sorted(ROOT.glob("constraints*.txt"))
    assert files
    for file in files:
        wrong = [line for line in file.read_text().splitlines() if not pins.match(line)]
        assert not wrong, file.name
