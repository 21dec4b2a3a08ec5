"""What the ASGI applications of this room share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

Message: TypeAlias = "MutableMapping[str, Any]"
Scope: TypeAlias = Message
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Answer a server that says when it starts and ends; there is nothing to do."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
