"""What CONTRIBUTING names is there, and all pages can be read: their links, their width."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_each_thing_to_change_is_where_the_table_says() -> None:
    rows = re.findall(r"^\| .+ \| `(fusewire/\S+\.py)` \| `(.+)` \|$", CONTRIBUTING, re.MULTILINE)
    assert len(rows) >= 5
    for file, name in rows:
        assert name in (ROOT / file).read_text("utf-8"), file


def test_the_commands_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)\b", CONTRIBUTING))
    assert named
    assert named <= targets


def test_the_picture_of_the_rooms_shows_every_import_between_them() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    shown = set(re.findall(r"^    (\w+) --> (\w+)$", page, re.MULTILINE))
    rooms = {room for arrow in shown for room in arrow}
    imported = {
        (room, other)
        for room in rooms
        for path in (ROOT / "fusewire" / room).rglob("*.py")
        for other in re.findall(
            r"^ *(?:from|import) fusewire\.(\w+)", path.read_text("utf-8"), re.MULTILINE
        )
        if other in rooms - {room}
    }
    assert shown == imported


def test_the_files_that_the_journeys_name_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    files = {path.name: path for path in (ROOT / "fusewire").rglob("*.py")}
    named = re.findall(r"`([\w/]+\.py)`", page)
    assert len(named) > 20
    for name in named:
        assert (ROOT / "fusewire" / name).exists() or Path(name).name in files, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_as_wide_as_the_code(page: Path) -> None:
    lines = enumerate(page.read_text("utf-8").splitlines(), 1)
    assert not [number for number, line in lines if len(line) > 100 and not line.startswith("|")]
