"""A server that turns calls away, as handlers see it through a guarded channel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fusewire.operation import CallNote, current_operation

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

PAYMENTS = "payments"


class StatusError(Exception):
    """What a gRPC call raises, as far as anybody asks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._name = name

    def code(self) -> Any:
        class Code:
            name = self._name

        return Code


class Server:
    """What handlers call, and how it ends their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.effects: list[str] = []
        self.condition: str | None = None
        self.status = "UNAUTHENTICATED"
        self.turned_away: set[str] = set()

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        body = message.body.decode()
        self.calls.append(body)
        await asyncio.sleep(0)
        operation = current_operation()
        assert operation is not None
        if self.condition is not None and (not self.turned_away or body in self.turned_away):
            operation.note(CallNote(PAYMENTS, "success", self.status, None, self.condition))
            raise StatusError(self.status)
        self.effects.append(body)
        operation.note_success(PAYMENTS)
