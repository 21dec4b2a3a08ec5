"""The table of faults: a row for each, told as the tests run, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from fusewire.testing.faults import Account


def tell(config: pytest.Config, fault: str, accounts: Sequence[Account]) -> None:
    """Write a row: the fault, messages, handled, explained duplicates, and all that must be 0."""

    def count(name: str) -> int:
        return sum(len(getattr(account, name)) for account in accounts)

    elsewhere = sum(count(name) for name in ("parked", "delayed", "dead", "in_source"))
    messages = count("handled") + elsewhere + count("lost")
    figures = (
        messages,
        count("handled"),
        elsewhere,
        count("duplicated_explained"),
        count("lost"),
        count("unexpected"),
        count("duplicated_unexplained"),
        count("repeated_effects"),
    )
    note(config, f"| {fault} | {' | '.join(map(str, figures))} |")


def note(config: pytest.Config, line: str) -> None:
    """Write a line among the tests' results."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.ensure_newline()
        terminal.write_line(line)
