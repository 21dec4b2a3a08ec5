"""Deliveries taken as they arrive, without a task for each.

aiormq (7.2.4) calls a consumer in a task of its own, which it registers with the channel and with
the connection. To take a delivery is one step that waits for nothing, and the task costs more than
all that the step does: some 4 µs of the 130 that a handled message costs.

Upstream: https://github.com/mosquito/aiormq/issues/37 (closed; one task a delivery is left of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import aiormq.abc

    Consumer = Callable[[aiormq.abc.DeliveredMessage], Coroutine[Any, Any, None]]


def taking_at_once(
    channel: aiormq.abc.AbstractChannel, take: Callable[[aiormq.abc.DeliveredMessage], None]
) -> Consumer:
    """Return a consumer for `channel` that calls `take` with each delivery as it arrives.

    Args:
        channel: the channel to consume on, which serves no other consumer.
        take: called with each delivery; it must not raise.
    """

    async def consumer(delivered: aiormq.abc.DeliveredMessage) -> None:
        take(delivered)

    make_task = channel.create_task

    def create_task(work: Coroutine[Any, Any, Any]) -> Any:
        if getattr(work, "cr_code", None) is not consumer.__code__:
            return make_task(work)
        try:  # noqa: SIM105 - for each delivery; a context manager costs three calls
            work.send(None)
        except StopIteration:
            pass
        return _TAKEN

    # If a later aiormq makes its tasks in another way, the consumer is run in one again.
    channel.create_task = create_task  # type: ignore[method-assign,assignment]
    return consumer


class _Taken:
    """What aiormq uses of a consumer's task, when the consumer has ended already."""

    def add_done_callback(self, _: object) -> None:
        """Do nothing: there is no error to log."""


_TAKEN = _Taken()
