"""Generators and async generators through a circuit: one call from the first item to the end."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from fusewire.breaker.fallback import may_answer
from fusewire.breaker.states import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType

    from fusewire.breaker.core import Circuit
    from fusewire.breaker.permit import Lending


def guard_generator(
    breaker: Circuit,
    func: Callable[..., Generator[Any, Any, Any]],
    fallback: Callable[..., Any] | None,
    clock: Callable[[], float],
) -> Callable[..., Generator[Any, Any, Any]]:
    """Guard the generator function `func`.

    The permit is taken when the first item is asked for, and settled at the end. A generator that
    is closed early says nothing. A fallback gives the items instead, unless some have been given.
    """

    def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        reading: _Reading | None = None
        try:
            reading = _Reading(breaker, clock)
            with reading:
                return (yield from _Steps(reading, func(*args, **kwargs)))
        except BaseException as error:
            if fallback is None or _has_begun(reading) or not may_answer(breaker, error):
                raise
            try:
                return (yield from fallback(*args, **kwargs))
            except Exception as failed:
                raise failed from error

    return guarded_generator


class _Reading:
    """The reading of one stream: a call, settled by how the block ends.

    Attributes:
        begun: whether an item has been given.
        asked: the clock's time when an item was last asked for.
    """

    def __init__(self, breaker: Circuit, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._permit = breaker.acquire(timed=False)
        self._clock = clock
        self.begun = False
        self.asked = clock()

    def asking(self) -> Lending:
        """Lend the permit while the stream works on an item, and not while its reader does."""
        self.asked = self._clock()
        return self.lending()

    def lending(self) -> Lending:
        """Lend the permit while the stream does something else."""
        return self._permit.lending()

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        outcome = Outcome.SUCCESS if error is None else self._breaker.judge(error, self.asked)
        self._permit.conclude(outcome)


def _has_begun(reading: _Reading | None) -> bool:
    return reading is not None and reading.begun


class _Steps:
    """A generator whose steps are those of a reading. ``yield from`` calls what it has."""

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
    breaker: Circuit,
    func: Callable[..., AsyncGenerator[Any, Any]],
    fallback: Callable[..., Any] | None,
    clock: Callable[[], float],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Guard the async generator function `func`, as :func:`guard_generator` does a plain one.

    The fallback may be an async generator function too, or one that gives any iterable.
    """

    async def guarded_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        reading: _Reading | None = None
        try:
            reading = _Reading(breaker, clock)
            with reading:
                source = func(*args, **kwargs)
                step = anext(source)
                try:
                    while True:
                        with reading.asking():
                            item = await step
                        reading.begun = True
                        try:
                            sent = yield item
                        except GeneratorExit:
                            raise
                        except BaseException as thrown:  # noqa: BLE001 - the source's to handle, a cancellation too
                            step = source.athrow(thrown)
                        else:
                            step = source.asend(sent)
                except StopAsyncIteration:
                    return
                finally:
                    with reading.lending():
                        await source.aclose()
        except BaseException as error:
            if fallback is None or _has_begun(reading) or not may_answer(breaker, error):
                raise
            first_error = error
        async for item in _instead(functools.partial(fallback, *args, **kwargs), first_error):
            yield item

    return guarded_async_generator


async def _instead(
    fallback: Callable[[], Any], first_error: BaseException
) -> AsyncGenerator[Any, Any]:
    try:
        async for item in iterate(fallback()):
            yield item
    except Exception as failed:
        raise failed from first_error


async def iterate(items: Any) -> AsyncGenerator[Any, Any]:
    """Give the items of an iterable of either kind."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
