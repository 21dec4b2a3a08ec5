"""The decorator that looks its breaker up at each call."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest

import fusewire
from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    circuit_breaker,
    default_registry,
)
from tests.support.circuits import half_open_circuit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from fusewire.breaker import Counters
    from fusewire.testing import FakeClock

STRICT = BreakerSettings(failure_threshold=1, recovery_timeout=10, half_open_max_calls=1)


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    return BreakerRegistry(STRICT, clock=clock)


def counted(registry: BreakerRegistry, name: str = "users") -> Counters:
    breaker = registry.find(name)
    assert breaker is not None
    return breaker.snapshot().counters


def test_a_function_is_guarded_by_the_breaker_of_its_name(registry: BreakerRegistry) -> None:
    @circuit_breaker("users", registry=registry)
    def load(user_id: str) -> str:
        """Load a user."""
        if not user_id:
            raise ConnectionError
        return f"user {user_id}"

    assert len(registry) == 0, "nothing is made before the first call"
    assert load("7") == "user 7"
    assert load(user_id="8") == "user 8"
    with pytest.raises(ConnectionError):
        load("")
    with pytest.raises(CircuitOpenError) as caught:
        load("7")
    assert caught.value.name == "users"
    assert (counted(registry).succeeded, counted(registry).failed) == (2, 1)
    assert (load.__name__, load.__doc__) == ("load", "Load a user.")
    assert str(inspect.signature(load)) == "(user_id: 'str') -> 'str'"


def test_by_default_it_is_the_registry_of_the_process() -> None:
    @fusewire.circuit_breaker("test-named-guards")
    def load() -> None: ...

    load()
    try:
        assert counted(default_registry(), "test-named-guards").succeeded == 1
    finally:
        default_registry().remove("test-named-guards")


def test_functions_and_channels_of_one_name_share_a_breaker(registry: BreakerRegistry) -> None:
    @circuit_breaker("users", registry=registry)
    def load() -> None: ...

    @circuit_breaker("users", registry=registry)
    def store() -> None: ...

    load()
    store()
    registry.get("users").call(load)
    assert counted(registry).succeeded == 3


async def test_a_coroutine_function_stays_one(registry: BreakerRegistry) -> None:
    @circuit_breaker("users", registry=registry)
    async def load(user_id: str) -> str:
        if not user_id:
            raise ConnectionError
        return user_id

    assert inspect.iscoroutinefunction(load)
    assert await load("7") == "7"
    made = load("")
    assert counted(registry).failed == 0
    with pytest.raises(ConnectionError):
        await made
    with pytest.raises(CircuitOpenError):
        await load("7")


def test_a_generator_function_stays_one_and_is_one_call(registry: BreakerRegistry) -> None:
    @circuit_breaker("users", registry=registry)
    def pages(count: int) -> Generator[int, int, str]:
        sent = yield count
        yield sent
        return "end"

    assert inspect.isgeneratorfunction(pages)
    reading: Any = pages(7)
    assert len(registry) == 0, "it is looked up when the first item is asked for"
    assert next(reading) == 7
    assert reading.send(8) == 8
    with pytest.raises(StopIteration) as end:
        next(reading)
    assert end.value.value == "end"
    assert (counted(registry).succeeded, counted(registry).failed) == (1, 0)


async def test_an_async_generator_function_stays_one(registry: BreakerRegistry) -> None:
    @circuit_breaker("users", registry=registry)
    async def pages(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise ConnectionError

    assert inspect.isasyncgenfunction(pages)
    reading = pages(2)
    assert len(registry) == 0
    assert [await anext(reading), await anext(reading)] == [0, 1]
    with pytest.raises(ConnectionError):
        await anext(reading)
    with pytest.raises(CircuitOpenError):
        await anext(pages(2))


def test_a_generator_that_is_not_read_to_its_end_says_nothing(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    @circuit_breaker("users", registry=registry)
    def pages() -> Iterator[int]:
        yield 1
        yield 2

    closed: Any = pages()
    assert next(closed) == 1
    closed.close()
    dropped = pages()
    assert next(dropped) == 1
    del dropped
    gc.collect()
    never_begun = pages()
    del never_begun
    counters = counted(registry)
    assert (counters.succeeded, counters.failed, counters.ignored) == (0, 0, 2)
    half_open_circuit(registry.get("users"), clock)
    half_read = pages()
    assert next(half_read) == 1
    with pytest.raises(CircuitOpenError):
        next(pages())
    del half_read
    gc.collect()
    assert list(pages()) == [1, 2], "its place was given back"


async def test_a_cancelled_call_says_nothing(registry: BreakerRegistry) -> None:
    started = asyncio.Event()

    @circuit_breaker("users", registry=registry, fallback="answer_instead")
    async def load() -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(load())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted(registry).ignored == 1


def answer_instead() -> str:
    return "instead"


def test_a_call_that_meets_its_circuit_again_counts_once(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    @circuit_breaker("users", registry=registry)
    def countdown(number: int) -> int:
        return number if number == 0 else countdown(number - 1)

    half_open_circuit(registry.get("users"), clock)
    assert countdown(5) == 0, "a half-open circuit has one place"
    assert counted(registry).succeeded == 1


def test_threads_that_call_first_together_share_a_breaker(registry: BreakerRegistry) -> None:
    all_there = threading.Barrier(8)

    @circuit_breaker("users", registry=registry)
    def load() -> None: ...

    def run() -> None:
        all_there.wait(30)
        for _ in range(50):
            load()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counted(registry).succeeded == 400


def test_a_reload_is_followed(registry: BreakerRegistry) -> None:
    @circuit_breaker("users", registry=registry)
    def load() -> None:
        raise ConnectionError

    registry.configure(BreakerSettings(failure_threshold=2))
    for _ in range(2):
        with pytest.raises(ConnectionError):
            load()
    with pytest.raises(CircuitOpenError):
        load()
    registry.configure(overrides={"us*": BreakerSettings(failure_threshold=3)})
    registry.get("users").reset()
    for _ in range(3):
        with pytest.raises(ConnectionError):
            load()


def run_sync(func: Callable[[], object]) -> None:
    func()


def run_coroutine(func: Callable[[], Any]) -> None:
    asyncio.run(func())


def run_generator(func: Callable[[], Any]) -> None:
    list(func())


def run_async_generator(func: Callable[[], Any]) -> None:
    async def read() -> None:
        async for _ in func():
            pass

    asyncio.run(read())


def plain() -> None: ...


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


KINDS = [
    (plain, run_sync),
    (coroutine, run_coroutine),
    (generator, run_generator),
    (async_generator, run_async_generator),
]


@pytest.mark.parametrize(("func", "run"), KINDS)
def test_the_breaker_that_the_registry_has_now_is_used(
    func: Any, run: Callable[[Any], None], registry: BreakerRegistry
) -> None:
    guarded = circuit_breaker("users", settings=STRICT, registry=registry)(func)
    for _ in range(2):
        run(guarded)
    first = registry.get("users")
    registry.remove("users")
    run(guarded)
    second = registry.get("users")
    assert first is not second
    assert [each.snapshot().counters.succeeded for each in (first, second)] == [2, 1]
    registry.remove("users")
    added = registry.add(CircuitBreaker("users"))
    run(guarded)
    assert added.snapshot().counters.succeeded == 1


@pytest.mark.parametrize(("func", "run"), KINDS)
def test_a_breaker_is_looked_up_again_only_when_one_was_dropped(
    func: Any, run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = BreakerRegistry(limit=2)
    asked: list[str] = []
    get = BreakerRegistry.get

    def counting(self: BreakerRegistry, name: str, settings: Any = None) -> CircuitBreaker:
        asked.append(name)
        return get(self, name, settings)

    monkeypatch.setattr(BreakerRegistry, "get", counting)
    guarded = circuit_breaker("users", registry=registry)(func)
    for _ in range(3):
        run(guarded)
    assert asked == ["users"]
    registry.get("a")
    registry.get("b")
    assert "users" not in registry
    run(guarded)
    assert asked == ["users", "a", "b", "users"]


def test_its_settings_are_those_of_the_first_that_gives_some(registry: BreakerRegistry) -> None:
    lenient = BreakerSettings(failure_threshold=9)

    @circuit_breaker("users", registry=registry)
    def load() -> None: ...

    @circuit_breaker("users", settings=lenient, registry=registry)
    def store() -> None: ...

    load()
    assert registry.get("users").settings is STRICT
    store()
    assert registry.get("users").settings is lenient
    registry.remove("users")
    store()
    assert registry.get("users").settings is lenient, "also after it was dropped"


def fail(user_id: str) -> str:
    raise ConnectionError(user_id)


async def fail_async(user_id: str) -> str:
    raise ConnectionError(user_id)


def test_an_open_circuit_recovers_through_the_guard(
    registry: BreakerRegistry, clock: FakeClock
) -> None:
    load = circuit_breaker("users", registry=registry)(fail)
    store = circuit_breaker("users", registry=registry)(plain)
    with pytest.raises(ConnectionError):
        load("7")
    with pytest.raises(CircuitOpenError):
        store()
    clock.advance(10)
    store()
    assert registry.get("users").state is CircuitState.CLOSED
