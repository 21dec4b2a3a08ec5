"""Something that handlers call through a breaker, and that can be down."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from fusewire.breaker import BreakerRegistry


class Dependency:
    """Notes its calls and their effects."""

    def __init__(self, registry: BreakerRegistry, name: str = "payments") -> None:
        self.breaker = registry.get(name)
        self.down = False
        self.calls = 0
        self.effects: list[str] = []

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        await self.breaker.call_async(self._work, message.body.decode())

    async def _work(self, what: str) -> None:
        self.calls += 1
        if self.down:
            raise ConnectionError("payments is down")
        self.effects.append(what)

    def trip(self) -> None:
        """Go down, with an open circuit until :meth:`recover`."""
        self.down = True
        while self.breaker.can_execute():
            self.breaker.acquire().failure()
        self.breaker.hold_open(300)

    def break_down(self) -> None:
        """Go down, with a circuit that stays open until :meth:`recover` once calls open it."""
        self.down = True
        lasting = dataclasses.replace(self.breaker.settings, recovery_timeout=300)
        self.breaker.replace_settings(lasting)

    def recover(self) -> None:
        """Work again, and end the open time."""
        self.down = False
        self.breaker.half_open()
