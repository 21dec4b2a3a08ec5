"""The code generated from protos/ is the code of today's sources, and loads."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import grpc
import pytest

from fusewire.demo.payments.v1 import payments_pb2, payments_pb2_grpc

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
PYTHON = ROOT / ".venv-protos" / "bin" / "python"


def recorded() -> dict[str, str]:
    lines = (PROTOS / "generated.sha256").read_text().splitlines()
    return {path: checksum for checksum, _, path in (line.partition("  ") for line in lines)}


def test_the_committed_code_was_made_from_the_committed_sources() -> None:
    stale = [
        path
        for path, checksum in recorded().items()
        if hashlib.sha256((ROOT / path).read_bytes()).hexdigest() != checksum
    ]
    assert not stale, "changed since the code was generated: run `make protos`"


def test_every_source_and_every_generated_file_is_on_record() -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in PROTOS.rglob("*.proto")}
    generated = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*_pb2.py*", "*_pb2_grpc.py*")
        for path in (ROOT / "fusewire").rglob(pattern)
        if path.suffix in (".py", ".pyi")
    }
    assert sources | generated <= recorded().keys(), "run `make protos`"
    assert len(generated) == 4 * len(sources)


def test_generating_again_gives_the_committed_code(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("no .venv-protos with the pinned generator: `make test` makes it")
    subprocess.run([PYTHON, PROTOS / "generate.py", tmp_path], check=True, timeout=60)
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert made
    for path in made:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), path


def test_the_generated_messages_and_stubs_load() -> None:
    request = payments_pb2.ChargeRequest(account="a", amount_cents=250, currency="EUR")
    assert payments_pb2.ChargeRequest.FromString(request.SerializeToString()) == request
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        assert payments_pb2_grpc.PaymentsStub(channel).Charge
