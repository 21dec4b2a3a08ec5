"""What is known of methods: their shapes and responses, and which names in settings are wrong.

Generated code registers its services in protobuf's descriptor pool when it is imported. Names in
settings are compared with the methods of a service in the pool, and on a sync channel with the
methods that its stubs have made.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from fusewire._validation import nearest
from fusewire.errors import SettingsError
from fusewire.interceptors._selectors import place

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

logger = logging.getLogger("fusewire.interceptors")

Shape: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
"""Whether a method has one request or a stream of them, and one response or a stream."""

_NEAR = 0.8
"""From this likeness on (as ``difflib`` measures it), a name may be another one mistyped."""

_known: dict[str, dict[str, KnownMethod]] = {}  # the pool never drops a service

_NO_MESSAGES = (str, int, float, dict, list, tuple, set, frozenset)


@dataclass(frozen=True, slots=True)
class KnownMethod:
    """A method that the descriptor pool knows.

    Attributes:
        shape: its shape.
        response: the full name of its response type.
    """

    shape: Shape
    response: str


def known_methods(service: str) -> dict[str, KnownMethod] | None:
    """Return the methods of `service` by path, None if the descriptor pool does not know it.

    Args:
        service: its name, ``pkg.Service``.
    """
    if service in _known:
        return _known[service]
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None  # for now: its module may yet be imported
    _known[service] = {
        f"/{service}/{method.name}": KnownMethod(
            _shape(method.client_streaming, method.server_streaming), method.output_type.full_name
        )
        for method in found.methods
    }
    return _known[service]


def known_method(path: str) -> KnownMethod | None:
    """Return what the descriptor pool knows of a method; None if it does not know it."""
    return (known_methods(service_of(path)) or {}).get(path)


def service_of(path: str) -> str:
    """Return the name of the service in a method's path, or in a selector."""
    return path.rpartition("/")[0].lstrip("/")


def name_of(path: str) -> str:
    """Return the name of the method in its path."""
    return path.rpartition("/")[2]


def checked_message(path: str, message: Any) -> Any:
    """Return `message` unless it is known not to be a response of the method.

    Raises:
        TypeError: `message` is no response of the method; the text says why.
    """
    _check(path, message, known_method(path))
    return message


def _check(path: str, message: Any, known: KnownMethod | None) -> None:
    if message is None:
        raise TypeError(
            f"the response of {path} must be a message, got None; to leave the caller the error, "
            "raise FallbackDeclined"
        )
    if known is None:
        return
    given = message.DESCRIPTOR.full_name if isinstance(message, Message) else None
    if given is None and isinstance(message, _NO_MESSAGES):
        given = type(message).__name__
    if given is not None and given != known.response:
        raise TypeError(f"the response of {path} must be a {known.response}, got a {given}")


def check_reply(path: str, reply: Any) -> None:
    """Check a fallback's reply: a response message, or for a stream an iterable of them.

    The type of a message is checked if its service's generated code has been imported.

    Args:
        path: the method's path, ``/pkg.Service/Method``.
        reply: what the fallback returned.

    Raises:
        TypeError: `reply` cannot answer the call; the text says why.
    """
    known = known_method(path)
    if reply is None or known is None or known.shape.endswith("unary"):
        _check(path, reply, known)


_warned: set[str] = set()
_MAX_WARNED = 1000


def warn_once(text: str) -> None:
    """Log a warning about settings, once in a process: it may make many channels alike."""
    if text not in _warned and len(_warned) < _MAX_WARNED:
        _warned.add(text)
        logger.warning("%s", text)


class Names:
    """The names of methods and services in one channel's settings.

    Args:
        named: the selectors of each setting.

    Raises:
        SettingsError: a setting names a method that its service does not have.
    """

    def __init__(self, named: Mapping[str, Iterable[str]]) -> None:
        self._named: dict[str, str] = {}  # by selector, the first setting that has it
        for setting, selectors in named.items():
            for selector in selectors:
                if "/" in selector:
                    self._named.setdefault(selector, setting)
        self._services = frozenset(map(service_of, self._named))
        self._made: dict[str, set[str]] = {}
        self._used: set[str] = set()
        wrong = [
            self._complaint(selector, known)
            for selector in self._named
            if (known := known_methods(service_of(selector))) is not None
            and not _is_among(selector, known)
        ]
        if wrong:
            raise SettingsError("; ".join(wrong))

    def note_method(self, path: str) -> None:
        """Take note of a method that a stub has made on a sync channel."""
        self._made.setdefault(service_of(path), set()).add(path)

    def warn_at_first_call(self, path: str) -> None:
        """Warn of names that seem to be wrong, at the first call of the method's service."""
        service = service_of(path)
        if service in self._used:
            return
        self._used.add(service)
        known = known_methods(service)
        methods: Collection[str] = self._made.get(service, set()) if known is None else known
        for selector in self._named:
            if service_of(selector) == service and not _is_among(selector, methods):
                near = self._nearest(selector, methods)
                # A method that only stubs know may still be made, unless it looks like another.
                if near or known is not None:
                    warn_once(self._complaint(selector, methods))
        if service not in self._services:
            for other in difflib.get_close_matches(service, self._services, cutoff=_NEAR):
                if other not in self._made and known_methods(other) is None:
                    warn_once(
                        f"settings name the service {other!r}, which is unknown, and the service "
                        f"{service!r} is called, which they do not name: did you mean that one?"
                    )

    def _complaint(self, selector: str, methods: Collection[str]) -> str:
        near = self._nearest(selector, methods)
        rest = ", ".join(repr(method) for method in sorted(methods))
        hint = f"did you mean {near!r}?" if near else f"its methods are {rest or 'none'}"
        service = service_of(selector)
        name = place(self._named[selector], selector)
        return f"{name} must name a method of {service!r}; {hint}"

    def _nearest(self, selector: str, methods: Collection[str]) -> str | None:
        """Return the method that `selector` may mean and no other selector names."""
        free = {name_of(method): method for method in methods if method not in self._named}
        near = nearest(name_of(selector), free, cutoff=_NEAR)
        return free[near] if near else None


def _is_among(selector: str, methods: Collection[str]) -> bool:
    return selector.endswith("*") or selector in methods


def _shape(request_streams: bool, response_streams: bool) -> Shape:  # noqa: FBT001 - as descriptors name them
    if request_streams:
        return "stream_stream" if response_streams else "stream_unary"
    return "unary_stream" if response_streams else "unary_unary"
