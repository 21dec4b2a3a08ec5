"""The message as a handler sees it: an aio-pika message whose settlements are written down.

A handler's own `ack`, `reject`, `nack` or `process()` settles nothing here. What it meant is
recorded, and the consumer settles once, after the handler has returned. With aio-pika's own
`process()` any exception rejects the message, and it is gone before anybody can park it.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractProcessContext

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType

    import aiormq.abc
    from aio_pika.abc import HeadersType, MessageInfo

    from fusewire.brokers import Message


class MessageView(AbstractIncomingMessage):
    """What a handler gets, on a first delivery and on a replay alike.

    Exchange, routing key, message id and headers are those of the original publish, wherever the
    message has been since. Two things of an aio-pika message it does not have, since they would
    settle other messages or bypass the consumer: ``channel``, and ``multiple=True``; using them
    raises RuntimeError.
    """

    delivery_mode = aio_pika.DeliveryMode.PERSISTENT
    expiration = None
    cluster_id = None
    consumer_tag = None
    delivery_tag = None
    message_count = None

    # What the handler meant; the consumer reads it, and says by `over` that it has.
    settled = False
    explicit = False
    rejected = False
    requeued = False
    failure: BaseException | None = None
    rejected_because: BaseException | None = None
    over = False
    answer: object = None
    """What a forwarder's server has answered, for those who wait for it."""

    def __init__(self, message: Message, *, redelivered: bool, headers: HeadersType) -> None:
        self._message = message
        self.body = message.body
        self.body_size = len(message.body)
        self.headers = _copied(headers)  # what a handler changes in them stays its own
        self.content_type = message.content_type
        self.content_encoding = message.content_encoding
        self.priority = message.priority or 0  # as aio-pika shows an absent one
        self.correlation_id = message.correlation_id
        self.reply_to = message.reply_to
        self.message_id = message.message_id
        self.timestamp = message.timestamp
        self.type = message.type
        self.user_id = message.user_id
        self.app_id = message.app_id
        self.redelivered = redelivered
        self.exchange = message.exchange
        self.routing_key = message.routing_key

    @property
    def channel(self) -> NoReturn:
        """Not there: only the consumer settles a message in flight."""
        raise RuntimeError(
            "the message of a parking consumer has no channel: publish on a channel of your own"
        )

    @property
    def processed(self) -> bool:
        """Whether the handler has settled it, in its own eyes."""
        return self.settled

    @property
    def unwanted(self) -> bool:
        """Whether the handler has rejected it, or failed within :meth:`process`."""
        return self.rejected or self.failure is not None

    def take_back_ack(self) -> None:
        """Undo the handler's own :meth:`ack`, because what it has done is rolled back.

        The error that it ends with is judged then, as of a handler that has said nothing.
        """
        if not self.rejected:
            self.settled = self.explicit = False

    def process(
        self,
        requeue: bool = False,  # noqa: ARG002, FBT001, FBT002 - aio-pika's signature
        reject_on_redelivered: bool = False,  # noqa: ARG002, FBT001, FBT002
        ignore_processed: bool = False,  # noqa: FBT001, FBT002
    ) -> AbstractProcessContext:
        """Return a context manager that lets errors through and settles nothing."""
        # What the message is worth after an error is the consumer's to judge, so the first two
        # are moot.
        return _Process(self, ignore_processed=ignore_processed)

    # A plain function cannot await, and a coroutine function forgets to: what they say counts when
    # it is called, and there is nothing left to wait for.

    def ack(self, multiple: bool = False) -> Coroutine[Any, Any, None]:  # noqa: FBT001, FBT002
        """Record that the handler is done with it; awaited or not."""
        self._settle(multiple=multiple)
        return _Recorded()

    def reject(self, requeue: bool = False) -> Coroutine[Any, Any, None]:  # noqa: FBT001, FBT002
        """Record that the handler does not want it: dead, or with `requeue` tried again later.

        Awaited or not.
        """
        self._unwanted(multiple=False, requeue=requeue)
        return _Recorded()

    def nack(
        self,
        multiple: bool = False,  # noqa: FBT001, FBT002 - aio-pika's signature
        requeue: bool = True,  # noqa: FBT001, FBT002
    ) -> Coroutine[Any, Any, None]:
        """Record the same as :meth:`reject`."""
        self._unwanted(multiple=multiple, requeue=requeue)
        return _Recorded()

    def info(self) -> MessageInfo:
        """Return the message's properties."""
        return self._original().info()

    @property
    def locked(self) -> bool:
        """Whether the handler has settled it, in its own eyes: frameworks ask before they do."""
        return self.settled

    @property
    def properties(self) -> aiormq.spec.Basic.Properties:
        """The AMQP properties of the original."""
        return self._original().properties

    def __iter__(self) -> Iterator[int]:
        return iter(self.body)

    def lock(self) -> None:
        """Do nothing: settling it is what locks it."""

    def _original(self) -> aio_pika.Message:
        message = self._message
        return aio_pika.Message(
            body=message.body,
            headers=self.headers,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=message.priority,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            message_id=message.message_id,
            timestamp=message.timestamp,
            type=message.type,
            user_id=message.user_id,
            app_id=message.app_id,
        )

    def _settle(self, *, multiple: bool) -> None:
        if self.over:
            raise RuntimeError(
                "the handler of this message has returned, and it was settled then: await all work "
                "on a message within its handler"
            )
        if multiple:
            raise RuntimeError("multiple=True would settle messages that other handlers hold")
        if self.settled:
            raise aio_pika.exceptions.MessageProcessError("Message already processed", self)
        self.settled = self.explicit = True

    def _unwanted(self, *, multiple: bool, requeue: bool) -> None:
        self._settle(multiple=multiple)
        self.rejected, self.requeued = True, requeue
        # Most who reject a message do so in an `except` block: what it caught is why.
        self.rejected_because = sys.exception()


class _Recorded(Coroutine[Any, Any, None]):
    """What `ack`, `reject` and `nack` return: over when it begins, and no matter if it never does.

    A coroutine to all who ask for one (``create_task``, ``run_coroutine_threadsafe``), without
    Python's warning that it was never awaited.
    """

    __slots__ = ()

    def send(self, value: object, /) -> NoReturn:  # noqa: ARG002 - a coroutine's signature
        raise StopIteration

    def throw(self, *error: Any) -> NoReturn:
        raise error[0] if len(error) == 1 else error[1] or error[0]

    def close(self) -> None:
        pass

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


def _copied(value: Any) -> Any:
    """Copy a header's containers, however deep; what they hold cannot be changed."""
    if isinstance(value, dict):
        return {
            key: _copied(held) if isinstance(held, (dict, list)) else held
            for key, held in value.items()
        }
    if isinstance(value, list):
        return [_copied(held) for held in value]
    return value


class _Process(AbstractProcessContext):
    """`process()`: on success done; on an error the error goes on, and the consumer judges it."""

    def __init__(self, view: MessageView, *, ignore_processed: bool) -> None:
        self._view = view
        self._ignore_processed = ignore_processed

    async def __aenter__(self) -> MessageView:
        return self._view

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        view = self._view
        if view.settled and self._ignore_processed:
            return
        if exc_val is None:
            await view.ack()
        elif not view.settled:
            # The handler may swallow the error further out; that it happened here is what counts.
            view.settled = True
            view.failure = exc_val
