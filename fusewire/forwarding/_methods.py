"""Methods by name: whether they can be queued, and the classes of their messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool, message_factory

from fusewire._validation import instance_of, invalid, nearest
from fusewire.errors import SettingsError
from fusewire.forwarding._policy import ParkPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

_METHOD = re.compile(r"/([A-Za-z_][\w.]*)/([A-Za-z_]\w*)")
_POLICY = instance_of(ParkPolicy)


def check_methods(methods: Mapping[str, ParkPolicy]) -> None:
    """Refuse what is no method, or none that can be queued.

    A service is known once its generated code was imported; another one may have any method.

    Raises:
        SettingsError: a name or a policy cannot be meant.
    """
    for method, policy in methods.items():
        if (named := _METHOD.fullmatch(str(method))) is None:
            raise invalid("each name in methods", "/package.Service/Method", method)
        if not _POLICY.fits(policy):
            raise invalid(f"methods[{method!r}]", "a ParkPolicy", policy)
        _check_method(*named.groups())


def request_class(method: str) -> type[Message] | None:
    """Return the class of a method's requests; None if its generated code was not imported."""
    found = _find(method)
    return None if found is None else message_factory.GetMessageClass(found.input_type)


def response_class(method: str) -> type[Message] | None:
    """Return the class of a method's responses; None if its generated code was not imported."""
    found = _find(method)
    return None if found is None else message_factory.GetMessageClass(found.output_type)


def _find(method: str) -> MethodDescriptor | None:
    try:
        return descriptor_pool.Default().FindMethodByName(method.lstrip("/").replace("/", "."))
    except KeyError:
        return None


def _check_method(service: str, name: str) -> None:
    try:
        known = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return
    if name not in known.methods_by_name:
        near = nearest(name, known.methods_by_name)
        raise SettingsError(
            f"methods names /{service}/{name}, and {service} has no such method"
            + (f"; did you mean /{service}/{near}?" if near else "")
        )
    method = known.methods_by_name[name]
    if method.client_streaming or method.server_streaming:
        raise SettingsError(
            f"methods names /{service}/{name}, which has a stream, and only calls with one request "
            "and one response can be queued"
        )
