"""``fusewire forward``: a program that makes the stored calls of a queue."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusewire.cli._exit import fail
from fusewire.cli._serving import serving
from fusewire.errors import FusewireError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from fusewire.config import Config, ForwarderConfig, MethodConfig, TlsConfig
    from fusewire.forwarding import KeyRing, ParkPolicy

_NEEDED = {"pydantic", "yaml"}


def forward(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Files; later ones count more.")
    ],
    *,
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="The queue of the calls.")],
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="NAME", help="A profile; may be repeated."),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="For encrypted calls: a function of yours that returns their KeyRing.",
            show_default=False,
        ),
    ] = None,
    accept_plain: Annotated[
        bool, typer.Option(help="With --keys: make calls that are not encrypted, too.")
    ] = False,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Answer /readyz, /livez, /startupz and /health here, and /metrics for Prometheus.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make the stored calls of a queue when their server can take them, until SIGTERM or SIGINT.

    What it does is in files of settings: `forwarders.NAME` says the broker, the server and TLS,
    `consumers.NAME` retries and replays, and `breakers` the circuits. Settings of circuits are
    applied again when the files change. Several may run side by side. The broker and the server
    need not be there yet. The exit status is 0 after a signal, and 2 if it could not run.
    """
    found, forwarder = _read(files, profile, queue)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        asyncio.run(_forward(found, queue, forwarder, keys, accept_plain=accept_plain, http=http))
    except (FusewireError, OSError, ImportError) as error:
        fail("forward", str(error))


async def _forward(
    found: Config,
    queue: str,
    forwarder: ForwarderConfig,
    keys: str | None,
    *,
    accept_plain: bool,
    http: str | None,
) -> None:
    # Imported here: gRPC loads slowly, and other commands do without.
    from fusewire.breaker import default_registry  # noqa: PLC0415 - see above
    from fusewire.forwarding import Encryption, ParkedCalls  # noqa: PLC0415 - see above

    policies = found.consumer(queue)
    calls = ParkedCalls(
        forwarder.broker,
        queue=queue,
        methods={name: _policy(method) for name, method in forwarder.methods.items()},
        lanes=forwarder.lanes,
        retry=policies.retry,
        replay=policies.replay,
        exchange=forwarder.exchange,
        replay_timeout=forwarder.replay_timeout,
        shutdown_timeout=forwarder.shutdown_timeout,
        encryption=None if keys is None else Encryption(_function(keys), accept_plain=accept_plain),
    )
    with found.watching(default_registry()) as watch:
        watch.add(calls)
        with nullcontext() if http is None else serving(http, calls):
            async with _channel(forwarder) as channel, calls:
                await calls.run(channel)


def _policy(method: MethodConfig) -> ParkPolicy:
    from fusewire.forwarding import ParkPolicy  # noqa: PLC0415 - see above

    if method.at_most_once:
        return ParkPolicy(at_most_once=True)
    return ParkPolicy(idempotent=True, window=method.window)


def _channel(forwarder: ForwarderConfig) -> grpc.aio.Channel:
    import grpc.aio  # noqa: PLC0415 - see above

    from fusewire.interceptors import aio_interceptors  # noqa: PLC0415 - see above

    # A server that is back is called within a second, whatever the back-off was.
    options: list[tuple[str, Any]] = [("grpc.max_reconnect_backoff_ms", 1000)]
    interceptors = aio_interceptors()
    tls = forwarder.tls
    if tls is None:
        return grpc.aio.insecure_channel(
            forwarder.target, interceptors=interceptors, options=options
        )
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(
        forwarder.target, _credentials(tls), interceptors=interceptors, options=options
    )


def _credentials(tls: TlsConfig) -> grpc.ChannelCredentials:
    import grpc  # noqa: PLC0415 - see above

    ca, key, certificate = (
        Path(file).read_bytes() if file else None for file in (tls.ca, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _read(
    files: list[Path], profile: list[str] | None, queue: str
) -> tuple[Config, ForwarderConfig]:
    try:
        from fusewire.config import load  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        fail("forward", str(error))
    try:
        found = load(*files, profile=profile or ())
    except SettingsError as error:
        fail("forward", str(error))
    forwarder = found.forwarders.get(queue)
    if forwarder is None:
        known = ", ".join(map(repr, found.forwarders)) or "none"
        fail("forward", f"no file has forwarders[{queue!r}]; those that they have: {known}")
    return found, forwarder


def _function(named: str) -> Callable[[], KeyRing]:
    """Import a function of the user's.

    Raises:
        SettingsError: there is none of the name.
        ImportError: its module cannot be imported.
    """
    module, colon, name = named.partition(":")
    if not (module and colon and name):
        raise SettingsError(f"--keys must be MODULE:FUNCTION, got {named!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` finds modules
    function: Callable[[], KeyRing] | None = getattr(import_module(module), name, None)
    if function is None:
        raise SettingsError(f"--keys must be MODULE:FUNCTION, and {module} has no {name!r}")
    return function
