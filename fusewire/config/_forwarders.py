"""What files say of the programs that forward stored calls."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - see fusewire/_public.py
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fusewire.config._checking import Fields  # noqa: TC001 - see fusewire/_public.py
from fusewire.config._problems import Place, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusewire.config._checking import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """TLS of a channel; files are in PEM, and empty texts are what is not given.

    Attributes:
        ca: file of the authorities to trust; by default the system's.
        certificate: file of the client's certificate.
        key: file of its private key.
        server_name: whose certificate the server has, if it is not the target's.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """What is known of a method whose calls are forwarded.

    Attributes:
        idempotent: whether the server honors the key.
        at_most_once: or each call is sent once at most.
        window: seconds for which a foreign server knows a key; None without a limit.
    """

    idempotent: bool = False
    at_most_once: bool = False
    window: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderConfig:
    """What `fusewire forward` does with the stored calls of a queue.

    Attributes:
        broker: the address of the broker.
        target: the server.
        tls: TLS of the channel; None for none.
        exchange: the exchange that calls move through on RabbitMQ; empty for the default one.
        lanes: lane name to the breakers whose calls share it; None if all wait in ``other``.
        methods: what is known of methods, by their paths.
        replay_timeout: seconds for one attempt of a call that was made without a deadline.
        shutdown_timeout: seconds that replays may still take at the end.
        origins: each key with its value and where it comes from; ``tls.ca`` for a key in another.
    """

    broker: str
    target: str
    tls: TlsConfig | None = None
    exchange: str = ""
    lanes: Mapping[str, tuple[str, ...]] | None = None
    methods: Mapping[str, MethodConfig] = field(default_factory=lambda: MappingProxyType({}))
    replay_timeout: float = 30.0
    shutdown_timeout: float = 30.0
    origins: Fields = field(default_factory=dict)


class Forwarders:
    """Puts together what all documents say of forwarders.

    Attributes:
        problems: what is wrong.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.problems: list[Problem] = []

    def resolved(self) -> Iterator[tuple[str, ForwarderConfig]]:
        """Yield what is said of each forwarder that has no problems."""
        for queue, origins in self._layer.forwarders.items():
            if ("forwarders", queue) not in self._layer.broken and self._is_whole(queue, origins):
                yield queue, _forwarder(origins)

    def _is_whole(self, queue: str, origins: Fields) -> bool:
        before = len(self.problems)
        place = self._layer.names_at["forwarders", queue]
        missing = [name for name in ("broker", "target") if name not in origins]
        if missing:
            accepted = "a mapping with broker and target"
            got = f"one without {' and '.join(missing)}"
            self._add(place, f"forwarders[{queue!r}]", accepted, got, "add what is missing")
        tls = _part(origins, "tls")
        if ("certificate" in tls) != ("key" in tls):
            got = "only one of certificate and key"
            accepted = "a mapping with certificate and key, or neither"
            tls_at = origins["tls"].place or place
            self._add(tls_at, f"forwarders[{queue!r}].tls", accepted, got, "add the other one")
        for method, given in _methods(origins).items():
            subject = f"forwarders[{queue!r}].methods[{method!r}]"
            at = origins[f"methods.{method}"].place or place
            if bool(given.get("idempotent")) == bool(given.get("at_most_once")):
                accepted = "a mapping with one of idempotent: true and at_most_once: true"
                got = "both" if given.get("idempotent") else "neither"
                self._add(at, subject, accepted, got, "say which the server allows")
            elif given.get("window") is not None and given.get("at_most_once"):
                accepted = "without window where at_most_once is true"
                self._add(at, subject, accepted, "both", "remove window")
        return len(self.problems) == before

    def _add(self, place: Place, subject: str, accepted: str, value: str, remedy: str) -> None:
        self.problems.append(Problem(place, subject, accepted, value, remedy))


def _forwarder(origins: Fields) -> ForwarderConfig:
    given = {
        name: origins[name].value
        for name in ("broker", "target", "exchange", "replay_timeout", "shutdown_timeout")
        if name in origins
    }
    lanes = _part(origins, "lanes")
    return ForwarderConfig(
        **given,
        tls=TlsConfig(**_part(origins, "tls")) if "tls" in origins else None,
        lanes=MappingProxyType(lanes) if lanes else None,
        methods=MappingProxyType(
            {method: MethodConfig(**one) for method, one in _methods(origins).items()}
        ),
        origins=origins,
    )


def _part(origins: Fields, name: str) -> dict[str, Any]:
    """Return the values of the keys in another one."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): origin.value
        for key, origin in origins.items()
        if key.startswith(prefix)
    }


def _methods(origins: Fields) -> dict[str, dict[str, Any]]:
    """Return what is said of each method. Its own name has no dot after its last slash."""
    keys = _part(origins, "methods")
    names = [key for key in keys if "." not in key.rpartition("/")[2]]
    return {name: _part(origins, f"methods.{name}") for name in names}
