"""What docs/encryption.md shows is run, and its headers are those of an encrypted call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from fusewire.forwarding import KeyRing
from fusewire.forwarding._call import StoredCall
from fusewire.forwarding._encrypted_call import encrypt_call
from tests.docs.examples import run_examples

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "encryption.md"


def test_the_example_encrypts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALLS_KEY_2026_11", "11" * 32)
    monkeypatch.setenv("CALLS_KEY_2026_08", "08" * 32)
    names = run_examples(PAGE, {"ADDRESS": f"sqlite:///{tmp_path}/broker.db"})
    assert capsys.readouterr().out == "encrypts\n"
    assert repr(names["keys"]()) == "KeyRing('2026-11', '2026-08', write_with='2026-11')"


def test_the_table_has_the_headers_of_an_encrypted_call_that_others_have_not() -> None:
    listed = re.findall(r"^\| `(fusewire-[\w-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    call = StoredCall(operation_id="id", method="/a.B/C", request=b"", metadata=(("tenant", "t1"),))
    ring = KeyRing({"k": b"\x01" * 32}, write_with="k")
    plain, encrypted = call.message("charges"), encrypt_call(call, ring, "charges", {})
    assert listed == [name for name in encrypted.headers if name not in plain.headers]
    assert {"fusewire-call-method", "fusewire-call-metadata"}.isdisjoint(encrypted.headers)
