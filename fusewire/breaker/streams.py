"""Generators and async generators through a circuit: one call from the first item to the end."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from fusewire.breaker.fallback import may_answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from fusewire.breaker.core import Circuit


def guard_generator(
    breaker: Circuit,
    func: Callable[..., Generator[Any, Any, Any]],
    fallback: Callable[..., Any] | None,
) -> Callable[..., Generator[Any, Any, Any]]:
    """Guard the generator function `func`.

    The permit is taken when the first item is asked for, and settled at the end. A generator that
    is closed early says nothing. A fallback gives the items instead, unless some have been given.
    """

    def guarded_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        source: _Noting | None = None
        try:
            with breaker.acquire(timed=False):
                source = _Noting(func(*args, **kwargs))
                return (yield from source)
        except BaseException as error:
            begun = source is not None and source.begun
            if begun or fallback is None or not may_answer(breaker, error):
                raise
            try:
                return (yield from fallback(*args, **kwargs))
            except Exception as failed:
                raise failed from error

    return guarded_generator


class _Noting:
    """A generator that knows whether it has given an item."""

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self._generator = generator
        self.begun = False
        # ``yield from`` looks for these.
        self.send = generator.send
        self.throw = generator.throw
        self.close = generator.close

    def __iter__(self) -> _Noting:
        return self

    def __next__(self) -> Any:
        item = next(self._generator)
        self.begun = True
        return item


def guard_async_generator(
    breaker: Circuit,
    func: Callable[..., AsyncGenerator[Any, Any]],
    fallback: Callable[..., Any] | None,
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Guard the async generator function `func`, as :func:`guard_generator` does a plain one.

    The fallback may be an async generator function too, or one that gives any iterable.
    """

    async def guarded_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        begun = False
        try:
            async with breaker.acquire(timed=False):
                source = func(*args, **kwargs)
                try:
                    item = await anext(source)
                    while True:
                        begun = True
                        try:
                            sent = yield item
                        except Exception as thrown:  # noqa: BLE001 - it is the source's to handle
                            item = await source.athrow(thrown)
                        else:
                            item = await source.asend(sent)
                except StopAsyncIteration:
                    return
                finally:
                    await source.aclose()
        except BaseException as error:
            if begun or fallback is None or not may_answer(breaker, error):
                raise
            first_error = error
        try:
            async for item in _iterate(fallback(*args, **kwargs)):
                yield item
        except Exception as failed:
            raise failed from first_error

    return guarded_async_generator


async def _iterate(items: Any) -> AsyncGenerator[Any, Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
