"""What tests need is installed where it is missing, and runs only as the tests' own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import debian

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_package_is_installed_without_starting_its_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    asked: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert subprocess.call([policy]) == 101  # what Debian takes for: do not start it
        asked.append(" ".join([*command[:2], command[-1]]))
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(debian, "_POLICY", policy)
    monkeypatch.setattr("tests.support.debian.subprocess.run", run)
    debian.install("a-server", lambda: False)
    assert asked == ["apt-get update -q", "apt-get install a-server"]
    assert not policy.exists()


def test_what_another_test_run_has_installed_meanwhile_is_not_installed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(debian, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr("tests.support.debian.subprocess.run", None)
    debian.install("a-server", lambda: True)


def test_a_package_that_cannot_be_had_is_reported_in_the_words_of_apt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "E: no such package")

    monkeypatch.setattr(debian, "_POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr("tests.support.debian.subprocess.run", run)
    with pytest.raises(debian.NotInstalledError, match="no such package"):
        debian.install("a-server", lambda: False)
