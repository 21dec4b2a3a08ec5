"""Guarded generators and async generators: one call from the first item to the end."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from fusewire.breaker._circuit import Circuit
from fusewire.breaker._fallback import Answer, may_answer, note_answered, note_unanswered
from fusewire.breaker._states import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from typing import Self

    from fusewire.breaker._permit import Lending

Find: TypeAlias = Callable[[tuple[Any, ...]], tuple[Circuit, Answer | None]]
"""Returns the circuit of a stream, and what may answer in its place. It is called with the stream's
arguments when the first item is asked for."""


def guard_generator(
    find: Find, func: Callable[..., Generator[Any, Any, Any]]
) -> Callable[..., Generator[Any, Any, Any]]:
    """Guard the generator function `func`.

    The permit is taken when the first item is asked for, and settled at the end. A generator that
    is closed early is ignored. A fallback yields the items instead, unless some were yielded.
    """

    def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        breaker, answer = find(args)
        reading: _Reading | None = None
        try:
            reading = _Reading(breaker)
            with reading:
                return (yield from _Steps(reading, func(*args, **kwargs)))
        except BaseException as error:
            if answer is None or _has_begun(reading) or not may_answer(breaker, error):
                raise
            answered = True
            try:
                items = answer(error, args, kwargs)
                note_answered(error)
                return (yield from items)
            except Exception as failed:
                answered = False
                note_unanswered(error)
                raise failed from error
            finally:
                breaker.note_fallback(answered=answered)

    return guarded_generator


class _Reading:
    """The reading of one stream: a call that is settled when the block ends.

    Attributes:
        begun: whether an item has been yielded.
        asked: the clock's time when an item was last asked for.
    """

    def __init__(self, breaker: Circuit) -> None:
        self._breaker = breaker
        self._permit = breaker.acquire(timed=False)
        self._clock = breaker._clock  # noqa: SLF001 - private to users, and not to the room
        self.begun = False
        self.asked = self._clock()

    def asking(self) -> Lending:
        """Lend the permit while the stream makes an item, but not while its reader uses one."""
        self.asked = self._clock()
        return self.lending()

    def lending(self) -> Lending:
        """Lend the permit while the stream does something else, such as closing."""
        return self._permit.lending()

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Settle the call by the error that ended it, if there was one."""
        outcome = Outcome.SUCCESS if error is None else self._breaker.classify(error, self.asked)
        self._permit.conclude(outcome, error)


def _has_begun(reading: _Reading | None) -> bool:
    return reading is not None and reading.begun


class _Steps:
    """A generator whose steps belong to a reading. ``yield from`` calls these methods."""

    def __init__(self, reading: _Reading, generator: Generator[Any, Any, Any]) -> None:
        self._reading = reading
        self._generator = generator

    def __iter__(self) -> _Steps:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        with self._reading.asking():
            item = self._generator.send(value)
        self._reading.begun = True
        return item

    def throw(self, *error: Any) -> Any:
        with self._reading.asking():
            return self._generator.throw(*error)

    def close(self) -> None:
        with self._reading.lending():
            self._generator.close()


def guard_async_generator(
    find: Find, func: Callable[..., AsyncGenerator[Any, Any]]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Guard the async generator function `func`, as :func:`guard_generator` does a plain one.

    The fallback may be an async generator function too, or a function that returns any iterable.
    """

    async def guarded_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        breaker, answer = find(args)
        with _AsyncSteps(breaker, answer, args, kwargs) as steps:
            step = steps.begin(functools.partial(func, *args, **kwargs))
            try:
                while True:
                    item = await step
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as thrown:  # noqa: BLE001 - the source handles it, a cancellation too
                        step = steps.go_on(steps.source.athrow(thrown))
                    else:
                        step = steps.go_on(steps.source.asend(sent))
            except StopAsyncIteration:
                return
            finally:
                await steps.close()

    return guarded_async_generator


class _AsyncSteps:
    """The steps of an async generator, or of the fallback that answers in its place.

    A fallback answers only before the first item, so the first step decides which of the two it is.

    Attributes:
        source: the generator that yields the items.
    """

    def __init__(
        self,
        breaker: Circuit,
        answer: Answer | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._breaker = breaker
        self._answer = answer
        self._args = args
        self._kwargs = kwargs
        self._reading: _Reading | None = None  # None while the fallback yields the items
        self._first_error: BaseException  # which the fallback answers
        self._answered: bool | None = None  # whether it does; None while it is not asked
        self.source: AsyncGenerator[Any, Any] = iterate(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._end(error)
        if self._answered is not None:
            self._breaker.note_fallback(answered=self._answered)

    def _end(self, error: BaseException | None) -> None:
        if self._reading is not None:
            self._reading.end(error)

    async def begin(self, make: Callable[[], AsyncGenerator[Any, Any]]) -> Any:
        """Return the first item; raise ``StopAsyncIteration`` if there is none."""
        try:
            self._reading = _Reading(self._breaker)
            self.source = make()
            return await self.go_on(anext(self.source))
        except StopAsyncIteration:
            raise
        except BaseException as error:
            answer = self._answer
            if answer is None or not may_answer(self._breaker, error):
                raise
            await self.close()
            self._end(error)
            self._reading, self._first_error, self._answered = None, error, True
        return await self.go_on(self._begin_answer(answer))

    async def _begin_answer(self, answer: Answer) -> Any:
        items = answer(self._first_error, self._args, self._kwargs)
        note_answered(self._first_error)
        self.source = items if isinstance(items, AsyncGenerator) else iterate(items)
        return await anext(self.source)

    async def go_on(self, step: Awaitable[Any]) -> Any:
        """Await `step`, and return the next item."""
        if self._reading is not None:
            with self._reading.asking():
                return await step
        try:
            return await step
        except StopAsyncIteration:
            raise
        except Exception as failed:
            self._answered = False
            note_unanswered(self._first_error)
            raise failed from self._first_error

    async def close(self) -> None:
        """Close the source."""
        with nullcontext() if self._reading is None else self._reading.lending():
            await self.source.aclose()


async def iterate(items: Any) -> AsyncGenerator[Any, Any]:
    """Yield the items of an iterable or an async iterable."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
