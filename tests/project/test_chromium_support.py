"""Chromium is found, or installed, or its absence is an error that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.support import chromium, debian

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(chromium.CHROMIUM_VARIABLE, raising=False)
    monkeypatch.setattr("tests.support.chromium.shutil.which", lambda _: None)
    monkeypatch.setattr(debian, "can_install", lambda: True)


def test_the_one_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chromium.CHROMIUM_VARIABLE, "/opt/a-chromium")
    assert chromium.chromium() == "/opt/a-chromium"


def test_an_installed_one_is_taken(monkeypatch: pytest.MonkeyPatch, absent: None) -> None:
    monkeypatch.setattr(
        "tests.support.chromium.shutil.which", {"google-chrome": "/usr/bin/google-chrome"}.get
    )
    assert chromium.chromium() == "/usr/bin/google-chrome"


def test_an_absent_one_is_installed(monkeypatch: pytest.MonkeyPatch, absent: None) -> None:
    def install(package: str, is_there: Callable[[], object]) -> None:
        assert not is_there()
        monkeypatch.setattr("tests.support.chromium.shutil.which", {package: "/usr/bin/it"}.get)

    monkeypatch.setattr(debian, "install", install)
    assert chromium.chromium() == "/usr/bin/it"


def test_where_it_cannot_be_installed_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, absent: None
) -> None:
    monkeypatch.setattr(debian, "can_install", lambda: False)
    with pytest.raises(chromium.NoChromiumError, match="install Debian's package chromium"):
        chromium.chromium()


def test_what_apt_said_is_in_the_error(monkeypatch: pytest.MonkeyPatch, absent: None) -> None:
    def install(*_: object) -> NoReturn:
        raise debian.NotInstalledError("apt-get update failed:\nno route to the mirror")

    monkeypatch.setattr(debian, "install", install)
    with pytest.raises(chromium.NoChromiumError, match="no route to the mirror") as raised:
        chromium.chromium()
    assert chromium.CHROMIUM_VARIABLE in str(raised.value)
