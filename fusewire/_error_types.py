"""What an error's class is called: the same in events, figures, logs, spans and stored headers."""

from __future__ import annotations


def error_type(kind: type) -> str:
    """Return the name of a class with its module: ``grpc.RpcError``, ``ConnectionError``.

    A private class goes by its first public base of the same package, which is what users catch.
    What gRPC's stubs raise is a ``grpc._channel._InactiveRpcError``, and so a ``grpc.RpcError``. A
    private class without such a base keeps its name. Python's own classes go without a module.
    """
    package = kind.__module__.partition(".")[0]
    for each in kind.__mro__:
        if each.__module__.partition(".")[0] == package and not _is_private(each):
            return _full_name(each)
    return _full_name(kind)


def _is_private(kind: type) -> bool:
    return kind.__qualname__[0] == "_" or kind.__module__[0] == "_" or "._" in kind.__module__


def _full_name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
