"""etcd for tests: a gRPC server that is not ours and not in Python, spoken to in bytes.

Found by the environment variable ``FUSEWIRE_TEST_ETCD`` or on the PATH; as root on Debian it is
installed from the package etcd-server where it is missing, unless ``FUSEWIRE_TEST_INSTALL=0``.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import grpc

from tests.support.debian import can_install, install
from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess

if TYPE_CHECKING:
    from pathlib import Path

RANGE = "/etcdserverpb.KV/Range"
PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"


def find_etcd() -> str | None:
    """Return the path of an etcd server; None if there is none."""
    return os.environ.get("FUSEWIRE_TEST_ETCD") or shutil.which("etcd")


def have_etcd() -> None:
    """Install etcd where it is missing and that is allowed."""
    if find_etcd() is None and can_install():
        install("etcd-server", find_etcd)


def _field(number: int, value: bytes) -> bytes:
    """Encode a field of a protobuf message that is bytes or a message; short ones only."""
    return bytes([number << 3 | 2, len(value)]) + value


def put_request(key: bytes, value: bytes) -> bytes:
    return _field(1, key) + _field(2, value)


def range_request(key: bytes) -> bytes:
    return _field(1, key)


def watch_request(key: bytes) -> bytes:
    """Encode a WatchRequest with a WatchCreateRequest for `key`."""
    return _field(1, _field(1, key))


class Etcd:
    """One etcd server with a directory of its own, on ports of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._client, self._peer = reserve_port(), reserve_port()
        self.target = f"127.0.0.1:{self._client}"
        self._process: KeptProcess | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        program = find_etcd()
        assert program is not None
        client, peer = f"http://{self.target}", f"http://127.0.0.1:{self._peer}"
        self._process = KeptProcess(
            [
                program,
                *("--data-dir", str(self._directory / "data")),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}", "--log-level", "error"),
            ],
            cwd=self._directory,
        )
        end = time.monotonic() + 30
        options = [("grpc.max_reconnect_backoff_ms", 100)]
        with grpc.insecure_channel(self.target, options=options) as channel:
            get = channel.unary_unary(RANGE)
            while True:
                try:
                    get(range_request(b"any"), timeout=5, wait_for_ready=True)
                except grpc.RpcError:
                    if time.monotonic() > end:
                        raise
                else:
                    return

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process = None
