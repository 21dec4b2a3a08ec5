"""Whatever a file holds, loading returns settings or one error whose problems are complete."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusewire.config import Config, ConfigError, load
from fusewire.config._model import CircuitSettings, Replay, Retry
from fusewire.config._spring_keys import KEYS as KEYS_OF_SPRING
from tests.config.malformed import CORPUS
from tests.config.test_malformed import assert_complete

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [*CircuitSettings.model_fields, *Retry.model_fields, *Replay.model_fields, "colour", "<<"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["30s", "PT5M", "50%", "yes", "1:30", "010", "critical", "${A:1}", "${B", "a"]
    )
    | st.text(max_size=20)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.just("a"), SCALARS)
SETTINGS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)
BY_NAME = st.dictionaries(st.sampled_from(["a", "b", "/s/*", ""]), SETTINGS, max_size=3) | VALUES
POLICIES = st.dictionaries(st.sampled_from(["retry", "replay"]), SETTINGS, max_size=2)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "breakers": st.dictionaries(
            st.sampled_from(["defaults", "bases", "circuits"]), BY_NAME | SETTINGS, max_size=3
        ),
        "consumers": st.dictionaries(st.sampled_from(["q", "r"]), POLICIES | VALUES, max_size=2),
        "more": VALUES,
    },
)
SPRING = st.dictionaries(
    st.sampled_from([key.name for key in KEYS_OF_SPRING.values()]) | st.text(max_size=5),
    VALUES | st.sampled_from(["COUNT_BASED", "OPEN", "60", "java.io.IOException", ["x.Y"], "c"]),
    max_size=6,
)
SPRINGS = st.dictionaries(
    st.sampled_from(["instances", "configs", "backends", "tags"]) | st.text(max_size=5),
    st.dictionaries(st.sampled_from(["a", "[/b.C/d]", "default", "c"]), SPRING | VALUES) | VALUES,
    max_size=3,
)
TEXTS = st.sampled_from([each.text for each in CORPUS])


def try_to_load(folder: Path, text: str, suffix: str, env: dict[str, str]) -> Config | None:
    file = folder / f"file{suffix}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        return load(file, env=env, profile="prod")
    except ConfigError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert_complete(problem)
    return None


@settings(max_examples=60)
@given(whole=FILES, as_json=st.booleans())
def test_any_structure(tmp_path_factory: Any, whole: object, *, as_json: bool) -> None:
    folder = tmp_path_factory.getbasetemp()
    document = {"fusewire": whole}
    if as_json:
        try_to_load(folder, json.dumps(document), ".json", {})
    else:
        text = yaml.dump(document, Dumper=yaml.SafeDumper, allow_unicode=True)
        try_to_load(folder, text, ".yaml", {})


@settings(max_examples=100)
@given(section=SPRINGS | VALUES, dotted=st.booleans())
@example(section={"instances": False, "\n": None}, dotted=False)
@example(section={"instances": {"a/\x85": {"b\r": 1}}}, dotted=True)
def test_any_spring_boot_file(tmp_path_factory: Any, section: object, *, dotted: bool) -> None:
    document = (
        {"resilience4j.circuitbreaker": section}
        if dotted
        else {"resilience4j": {"circuitbreaker": section}}
    )
    text = yaml.dump(document, Dumper=yaml.SafeDumper, allow_unicode=True)
    try_to_load(tmp_path_factory.getbasetemp(), text, ".yml", {})


@settings(max_examples=60)
@given(
    text=TEXTS,
    edits=st.lists(
        st.tuples(
            st.integers(0, 400),
            st.integers(0, 5),
            st.text("{}[]:,&*!<-#|>'\"%@`$ \t\nab1", max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
)
@example(text="fusewire: {", edits=[(10, 1, "&a {b: *a}")])
def test_any_edit_of_a_file(
    tmp_path_factory: Any, text: str, edits: list[tuple[int, int, str]]
) -> None:
    for at, removed, inserted in edits:
        start = at % (len(text) + 1)
        text = text[:start] + inserted + text[start + removed :]
    try_to_load(tmp_path_factory.getbasetemp(), text, ".yaml", {})


@settings(max_examples=60)
@given(text=st.text(max_size=60), suffix=st.sampled_from([".yaml", ".json"]))
def test_any_text(tmp_path_factory: Any, text: str, suffix: str) -> None:
    try_to_load(tmp_path_factory.getbasetemp(), text, suffix, {})


@settings(max_examples=60)
@given(
    path=st.lists(
        st.sampled_from(["BREAKERS", "CIRCUITS", "DEFAULTS", "A", "", "MODE"]), max_size=5
    ),
    value=st.text(max_size=20),
)
def test_any_variable(tmp_path_factory: Any, path: list[str], value: str) -> None:
    env = {f"FUSEWIRE_{'__'.join(path)}": value}
    try_to_load(tmp_path_factory.getbasetemp(), "fusewire: {}", ".yaml", env)


def test_names_that_multiply_are_read_once(tmp_path: Path) -> None:
    rows = ["x0: &x0 [a]"]
    rows += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 20)}]" for n in range(1, 15)]
    text = "\n".join([*rows, "fusewire: {breakers: {circuits: {a: *x14}}}"])
    assert try_to_load(tmp_path, text, ".yaml", {}) is None


def test_placeholders_that_multiply_end(tmp_path: Path) -> None:
    inner = "1"
    for _ in range(200):
        inner = f"${{A:{inner}}}"
    text = f"fusewire: {{breakers: {{defaults: {{recovery_timeout: '{inner}'}}}}}}"
    assert try_to_load(tmp_path, text, ".yaml", {}) is None


def test_brackets_that_open_without_end(tmp_path: Path) -> None:
    """The versions of libyaml differ in how many they take."""
    for opened in ("[", "{a: ", "- "):
        assert try_to_load(tmp_path, f"fusewire: {opened * 20_000}", ".yaml", {}) is None
