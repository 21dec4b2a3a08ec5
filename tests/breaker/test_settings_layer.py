"""A layer of settings comes before what code says: for breakers there are, and that will be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitMode,
    CircuitState,
)
from fusewire.breaker.internal import SetMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from fusewire.breaker.internal import SettingsLayer

CODE = BreakerSettings(failure_threshold=9)
STRICT = BreakerSettings(failure_threshold=1)
LIBRARY = BreakerSettings()


class Layer:
    """A layer that has settings for circuits whose names begin with ``file``, and one mode."""

    def __init__(self, settings: BreakerSettings = STRICT, mode: CircuitMode | None = None) -> None:
        self.settings = settings
        self.mode = mode
        self.asked: list[tuple[str, BreakerSettings | None]] = []
        self.reported: list[tuple[str, BreakerSettings, BreakerSettings]] = []
        self.formers: list[SettingsLayer | None] = []

    def settings_for(self, name: str, code: BreakerSettings | None) -> BreakerSettings | None:
        self.asked.append((name, code))
        return self.settings if name.startswith("file") else code

    def mode_for(self, name: str) -> SetMode | None:
        is_meant = self.mode is not None and name.startswith("file")
        return SetMode(self.mode, "a file") if is_meant and self.mode else None

    def report(
        self,
        name: str,
        old: BreakerSettings,
        new: BreakerSettings,
        former: SettingsLayer | None,
    ) -> None:
        self.formers.append(former)
        if old != new:
            self.reported.append((name, old, new))


@pytest.mark.parametrize("first", ["breaker", "layer"])
def test_a_layer_comes_before_code(first: str) -> None:
    registry, layer = BreakerRegistry(), Layer()
    if first == "breaker":
        registry.get("file", CODE)
    registry.overlay(layer)
    assert registry.get("file", CODE).settings is STRICT
    assert registry.get("other", CODE).settings is CODE
    assert layer.reported == [("file", CODE, STRICT)]


def test_a_layer_is_told_of_the_one_before_it() -> None:
    registry = BreakerRegistry()
    registry.get("file")
    first, second = Layer(), Layer(LIBRARY)
    registry.overlay(first)
    registry.overlay(second)
    assert first.formers == [None]
    assert second.formers == [first]


def test_a_layer_is_asked_with_what_code_says() -> None:
    registry = BreakerRegistry(overrides={"b*": CODE})
    layer = Layer()
    registry.overlay(layer)
    for name in ("a", "b1"):
        registry.get(name)
    assert ("a", None) in layer.asked
    assert ("b1", CODE) in layer.asked


def test_without_a_layer_code_counts_again() -> None:
    registry = BreakerRegistry(CODE)
    breaker = registry.get("file")
    registry.overlay(Layer())
    assert breaker.settings is STRICT
    registry.overlay(None)
    assert breaker.settings is CODE
    assert registry.get("file 2").settings is CODE


def test_an_added_breaker_is_settled_by_the_layer() -> None:
    registry = BreakerRegistry()
    registry.overlay(Layer(mode=CircuitMode.DISABLED))
    breaker = registry.add(CircuitBreaker("file", settings=CODE))
    assert breaker.settings is STRICT
    assert breaker.state is CircuitState.DISABLED


MODES = {
    CircuitMode.FORCED_OPEN: CircuitState.FORCED_OPEN,
    CircuitMode.DISABLED: CircuitState.DISABLED,
    CircuitMode.METRICS_ONLY: CircuitState.METRICS_ONLY,
    CircuitMode.AUTOMATIC: CircuitState.CLOSED,
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_set_for_breakers_that_are_and_will_be(mode: CircuitMode) -> None:
    registry = BreakerRegistry()
    early, other = registry.get("file"), registry.get("other")
    early.force_open(by="a person")
    registry.overlay(Layer(mode=mode))
    assert early.state is registry.get("file, late").state is MODES[mode]
    assert other.state is CircuitState.CLOSED


def test_a_mode_is_set_again_only_if_it_is_another() -> None:
    registry = BreakerRegistry()
    breaker = registry.get("file")
    registry.overlay(Layer(mode=CircuitMode.FORCED_OPEN))
    breaker.automatic(by="a person")
    registry.overlay(Layer(CODE, mode=CircuitMode.FORCED_OPEN))
    assert breaker.state is CircuitState.CLOSED
    registry.overlay(Layer(CODE, mode=CircuitMode.DISABLED))
    assert breaker.figures().by == "a file"
    registry.overlay(Layer(CODE))
    assert breaker.state is CircuitState.CLOSED, "a mode that is taken back ends"


def test_settings_that_change_while_a_breaker_takes_some_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if another thread set a layer in the middle of it."""
    registry, last = BreakerRegistry(), Layer(CODE)
    breaker = registry.get("file")
    replace = CircuitBreaker.replace_settings

    def interrupted(self: CircuitBreaker, settings: BreakerSettings) -> None:
        if settings is STRICT:
            registry.overlay(last)
        replace(self, settings)

    monkeypatch.setattr(CircuitBreaker, "replace_settings", interrupted)
    registry.overlay(Layer(STRICT))
    assert breaker.settings is CODE


class SlowLayer(Layer):
    """A layer whose first look for one name takes until it is let."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self.slow = slow
        self.looks = threading.Event()
        self.may_go_on = threading.Event()

    def settings_for(self, name: str, code: BreakerSettings | None) -> BreakerSettings | None:
        if name == self.slow and not self.looks.is_set():
            self.looks.set()
            assert self.may_go_on.wait(30)
        return super().settings_for(name, code)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda registry: registry.get("new").settings == LIBRARY,
        lambda registry: registry.get("new", CODE).settings is CODE,
        lambda registry: registry.get("known", CODE).settings is CODE,
        lambda registry: registry.configure(CODE) or registry.get("new").settings is CODE,
        lambda registry: registry.add(CircuitBreaker("added", settings=CODE)),
        lambda registry: registry.remove("known") or "known" not in registry,
    ],
    ids=["get", "get with settings", "first settings", "configure", "add", "remove"],
)
@pytest.mark.parametrize("slow", ["a first call", "a reload"])
def test_nothing_waits_while_names_are_matched(
    slow: str, meanwhile: Callable[[BreakerRegistry], object]
) -> None:
    registry, layer = BreakerRegistry(), SlowLayer("slow")
    registry.get("known")
    if slow == "a first call":
        registry.overlay(layer)
        matching = threading.Thread(target=registry.get, args=["slow"])
    else:
        registry.get("slow")
        matching = threading.Thread(target=registry.overlay, args=[layer])
    matching.start()
    assert layer.looks.wait(30)
    done: list[object] = []
    other = threading.Thread(target=lambda: done.append(meanwhile(registry)))
    other.start()
    other.join(30)
    assert done, "it waits for what is matched"
    assert done[0]
    layer.may_go_on.set()
    matching.join(30)
    other.join(30)


def test_a_name_that_was_matched_while_settings_changed_has_the_new_ones() -> None:
    registry, layer = BreakerRegistry(), SlowLayer("slow")
    registry.overlay(layer)
    matching = threading.Thread(target=registry.get, args=["slow"])
    matching.start()
    assert layer.looks.wait(30)
    registry.overlay(None)
    registry.configure(CODE)
    assert "slow" not in registry
    layer.may_go_on.set()
    matching.join(30)
    assert registry.get("slow").settings is CODE


def test_two_threads_that_match_one_name_get_one_breaker() -> None:
    registry, layer = BreakerRegistry(), SlowLayer("slow")
    registry.overlay(layer)
    found: list[CircuitBreaker] = []
    threads = [
        threading.Thread(target=lambda: found.append(registry.get("slow", CODE))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    assert layer.looks.wait(30)
    layer.may_go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(found) == 2
    assert found[0] is found[1] is registry.find("slow")
