"""Generate the Python code of every .proto below this folder: `make protos` runs it.

It runs in an environment made from constraints-protos.txt. Without an argument the code goes to
where it belongs, and generated.sha256 beside this file records what it was made from. With a folder
as argument it goes there instead, and nothing is recorded.
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
RECORD = PROTOS / "generated.sha256"


def generate(target: Path) -> list[Path]:
    """Generate into `target` and return the files made, relative to it."""
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    bundled = resources.files("grpc_tools") / "_proto"
    # The plugins that write type stubs are found by PATH, beside the interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{bundled}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *sources,
        ]
    )
    if status != 0:
        sys.exit(status)
    stems = [source.removesuffix(".proto") for source in sources]
    endings = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    return [Path(stem + ending) for stem in stems for ending in endings]


def record(made: list[Path]) -> None:
    """Write the checksums of what the code was made from, and of the code, as `sha256sum` does."""
    inputs = [*PROTOS.rglob("*.proto"), Path(__file__).resolve(), ROOT / "constraints-protos.txt"]
    paths = sorted({*(path.relative_to(ROOT) for path in inputs), *made})
    lines = [
        f"{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}  {path.as_posix()}\n"
        for path in paths
    ]
    RECORD.write_text("".join(lines))


def main() -> None:
    """Generate into the folder that was named, or into the project."""
    if len(sys.argv) > 1:
        generate(Path(sys.argv[1]))
    else:
        record(generate(ROOT))


if __name__ == "__main__":
    main()
