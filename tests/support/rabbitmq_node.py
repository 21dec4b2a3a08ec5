"""A private RabbitMQ node: a process of the tests' own, with its own ports and directory."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.ports import reserve_port
from tests.support.processes import KeptProcess, reaper
from tests.support.rabbitmq import NoRabbitMQError, wait_for_version

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_LIMIT = 60.0  # seconds
_STOP_LIMIT = 30.0  # seconds
_TRIES = 3  # another process may take a port between our look and the node's start

# Debian's /usr/sbin/rabbitmq-server insists on the user rabbitmq; the one behind it does not.
_DEBIAN = Path("/usr/lib/rabbitmq/bin")


def find_server() -> Path | None:
    """Find the script that starts a RabbitMQ node, if RabbitMQ is installed."""
    found = shutil.which(
        "rabbitmq-server", path=f"{_DEBIAN}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    return Path(found) if found else None


class PrivateNode:
    """A RabbitMQ node of the tests' own: starts when made, and ends with the tests at the latest.

    All that two nodes could share is its own: AMQP port, Erlang distribution port, port mapper
    (epmd), cookie, node name, data, logs. Its sockets are bound to the loopback interface.

    Args:
        plugins: plugins to enable.
        settings: further lines of its configuration file.
        beside: a running node to make a cluster with, whose cookie and port mapper it then shares;
            close this one first.
    """

    how = "private node"

    def __init__(
        self,
        *,
        plugins: Sequence[str] = (),
        settings: Sequence[str] = (),
        beside: PrivateNode | None = None,
    ) -> None:
        found = find_server()
        if found is None:
            raise NoRabbitMQError("rabbitmq-server is not installed")
        self._server = found
        self._plugins = plugins
        self._settings = settings
        self._beside = beside
        self.directory = Path(tempfile.mkdtemp(prefix="fusewire-rabbitmq-"))
        reaper().tell("path", str(self.directory))
        self._node: KeptProcess | None = None
        self._mapper: KeptProcess | None = None
        begin = time.monotonic()
        try:
            self._first_start()
            if beside is not None:
                self._join(beside)
        except BaseException:
            self.close()
            raise
        self.start_time = time.monotonic() - begin

    def _first_start(self) -> None:
        for left in reversed(range(_TRIES)):
            self._configure()
            try:
                self.start()
            except ChildProcessError:
                if not left:
                    raise
                self._end_all()
            else:
                return

    def _join(self, other: PrivateNode) -> None:
        self.ctl("stop_app")
        self.ctl("join_cluster", other.name)
        self.ctl("start_app")

    def _configure(self) -> None:
        """Choose ports and write the node's files."""
        home = self.directory
        beside = self._beside
        self._port, distribution = reserve_port(), reserve_port()
        self._mapper_port: int = reserve_port() if beside is None else beside._mapper_port
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        self.name = f"fusewire-{self._port}@localhost"
        cookie = home / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.write_text(
            secrets.token_hex(20)
            if beside is None
            else (beside.directory / ".erlang.cookie").read_text()
        )
        cookie.chmod(0o400)  # Erlang refuses one that others can read
        (home / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            "raft.wal_max_size_bytes = 67108864\n"  # instead of 512 MiB
            + "".join(f"{line}\n" for line in self._settings)
        )
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")},
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_CONF_ENV_FILE": str(home / "no-rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self._port),
            # The start script then becomes the node, instead of waiting for it as a second process.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    @property
    def running(self) -> bool:
        """Whether it has been started and neither killed nor stopped since."""
        return self._node is not None and self._node.running

    @property
    def pids(self) -> list[int]:
        """The ids of its processes: the node's and the port mapper's."""
        return [kept.pid for kept in (self._node, self._mapper) if kept is not None]

    def start(self) -> None:
        """Start it, with the data that it has. Returns when it answers."""
        if self.running:
            return
        log = self.directory / "output.log"
        if self._beside is None and (self._mapper is None or not self._mapper.running):
            # Started here, it is ended here: one that a node starts by itself outlives the node.
            self._mapper = KeptProcess(["epmd"], env=self._environment, log=log)
        self._node = node = KeptProcess([self._server], env=self._environment, log=log)
        try:
            self.version = wait_for_version(self.url, _START_LIMIT, lambda: node.running)
        except (ChildProcessError, TimeoutError) as error:
            output = log.read_text(errors="replace")[-2000:]
            raise type(error)(f"the private RabbitMQ node: {error}\n{output}") from error

    def kill(self) -> None:
        """End it at once, as a power cut would; its data stay. Returns when it is gone."""
        if self._node is not None:
            self._node.kill()
            self._node = None

    def stop(self) -> None:
        """Shut it down in order; its data stay. Returns when it is gone."""
        if self._node is not None:
            self._node.stop(_STOP_LIMIT)
            self._node = None

    def pause(self) -> None:
        """Hang it: connections stay open and nothing answers."""
        if self._node is not None:
            self._node.pause()

    def resume(self) -> None:
        """Let it go on after a pause."""
        if self._node is not None:
            self._node.resume()

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on it and return what that prints. Takes about a second."""
        done = subprocess.run(
            [self._server.with_name("rabbitmqctl"), "--node", self.name, "--quiet", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)} failed: {done.stdout}")
        return done.stdout

    def close(self) -> None:
        """End it and remove its directory."""
        self._end_all()
        shutil.rmtree(self.directory, ignore_errors=True)
        reaper().tell("forget", str(self.directory))

    def _end_all(self) -> None:
        self.kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper = None
