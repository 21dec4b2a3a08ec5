"""Files to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fusewire.config import Config, ConfigError, Problem, load
from fusewire.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Return a function that loads texts as files, in order, with no environment by default."""
    monkeypatch.chdir(tmp_path)

    def load_all(
        *texts: str,
        env: Mapping[str, str] | None = None,
        profile: str = "",
        suffix: str = ".yaml",
    ) -> Config:
        names = [f"{index}{suffix}" for index in range(1, len(texts) + 1)]
        for name, text in zip(names, texts, strict=True):
            (tmp_path / name).write_text(text, "utf-8")
        return load(*names, env=env or {}, profile=profile)

    return load_all


@pytest.fixture
def problems_of(load_text: Callable[..., Config]) -> Callable[..., tuple[Problem, ...]]:
    """Return a function that returns the problems of texts."""

    def problems(*texts: str, **options: object) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as raised:
            load_text(*texts, **options)
        return raised.value.problems

    return problems
