"""The JSON schema is the checked-in one; it takes what `load` takes, and marks what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from fusewire.config._schema import json_schema
from fusewire.config._yaml import read_documents
from tests.config.malformed import CONSUMERS, KEYS, VALUES, Malformed
from tests.config.test_loading import FILE

SCHEMA = Path(__file__).parents[2] / "docs" / "fusewire.schema.json"
BEYOND_A_SCHEMA = {
    "a key twice",  # no value of JSON has that
    "a list as a key",
    "a tag",
    "a misspelt exception",  # a name is a name
    "more than all",  # 120% is a text
    "a time of 0",  # so is 0s
    "a jitter of 1",
    "a fraction of a count",  # 2.0 is a whole number to JSON
    "a period of nothing",
    "a clock time",
    "a quoted number",
    "delays that shrink",
    "too many digits",
}


def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


def test_the_schema_is_that_of_the_models() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == json_schema(), "make schema"
    Draft202012Validator.check_schema(json_schema())


def test_every_key_says_what_it_is_for() -> None:
    for name, model in json_schema()["$defs"].items():
        assert model["description"], name
        for key, schema in model["properties"].items():
            assert "$ref" in schema or schema["description"], (name, key)


def test_what_load_takes_is_valid() -> None:
    (document,), problems = read_documents(FILE, "file", json=False)
    assert problems == []
    assert best_match(validator().iter_errors(document.root)) is None


PLACEHOLDERS = "fusewire: {breakers: {circuits: {a: {recovery_timeout: '${A}', mode: '${B:x}'}}}}"


def test_placeholders_are_valid_everywhere() -> None:
    (document,), _ = read_documents(PLACEHOLDERS, "file", json=False)
    assert best_match(validator().iter_errors(document.root)) is None


MARKED = [each for each in (*VALUES, *KEYS, *CONSUMERS) if each.name not in BEYOND_A_SCHEMA]


@pytest.mark.parametrize("malformed", MARKED, ids=lambda malformed: malformed.name)
def test_an_editor_marks_what_is_wrong(malformed: Malformed) -> None:
    (document,), _ = read_documents(malformed.text, "file", json=False)
    assert best_match(validator().iter_errors(document.root)) is not None
