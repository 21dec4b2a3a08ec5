"""The list of decisions has all of them, and says which numbers were never used."""

from __future__ import annotations

import re
from pathlib import Path

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
INDEX = (DECISIONS / "README.md").read_text("utf-8")
FILES = {int(path.name[:4]): path for path in sorted(DECISIONS.glob("[0-9]*.md"))}


def test_each_decision_is_listed_once_by_its_title() -> None:
    listed = re.findall(r"^\| \[(\d+)\]\(([\w-]+\.md)\) \| (.+) \|$", INDEX, re.MULTILINE)
    assert sorted(int(number) for number, _, _ in listed) == sorted(FILES)
    for number, name, title in listed:
        path = FILES[int(number)]
        assert path.name == name
        assert path.read_text("utf-8").partition("\n")[0] == f"# {number}. {title}"


def test_the_gaps_between_numbers_are_listed() -> None:
    line = re.search(r"^Never used: (.+?)\.$", INDEX, re.MULTILINE | re.DOTALL)
    assert line
    unused = set()
    for part in re.findall(r"\d+(?:-\d+)?", line[1]):
        first, _, last = part.partition("-")
        unused |= set(range(int(first), int(last or first) + 1))
    assert unused == set(range(1, max(FILES) + 1)) - set(FILES)
