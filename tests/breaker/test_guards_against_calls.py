"""A guard by name does what ``registry.get(name).call`` does, whatever happens to the registry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fusewire.breaker import (
    BreakerRegistry,
    BreakerSettings,
    CircuitBreaker,
    CircuitOpenError,
    circuit_breaker,
)
from fusewire.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LENIENT = BreakerSettings(failure_threshold=3, recovery_timeout=10, half_open_max_calls=1)
STRICT = BreakerSettings(failure_threshold=1, recovery_timeout=20, half_open_max_calls=2)
KINDS = st.sampled_from(["plain", "coroutine", "generator", "async generator"])


def plain(error: Exception | None) -> str:
    if error is not None:
        raise error
    return "done"


async def coroutine(error: Exception | None) -> str:
    return plain(error)


def generator(error: Exception | None) -> Iterator[str]:
    yield plain(error)


async def async_generator(error: Exception | None) -> AsyncIterator[str]:
    yield plain(error)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "coroutine": coroutine,
    "generator": generator,
    "async generator": async_generator,
}


def complete(kind: str, called: Callable[[], Any]) -> str:
    """Call a function of a kind, and return what it returned, or what it raised."""

    async def read() -> str:
        return "".join([each async for each in called()])

    try:
        match kind:
            case "plain":
                return str(called())
            case "coroutine":
                return str(asyncio.run(called()))
            case "generator":
                return "".join(called())
            case _:
                return asyncio.run(read())
    except (CircuitOpenError, ConnectionError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


class GuardsAgainstCalls(RuleBasedStateMachine):
    """Two registries to which the same happens: one behind guards, one called directly."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.guarded, self.called = (
            BreakerRegistry(
                BreakerSettings(failure_threshold=2, recovery_timeout=10), clock=self.clock
            )
            for _ in range(2)
        )
        self.guards = {
            (kind, given): circuit_breaker("users", settings=given, registry=self.guarded)(func)
            for kind, func in FUNCTIONS.items()
            for given in (None, LENIENT)
        }

    @rule(
        kind=KINDS,
        given=st.sampled_from([None, LENIENT]),
        error=st.sampled_from([None, None, ConnectionError("down"), KeyError("no user")]),
    )
    def call(self, kind: str, given: BreakerSettings | None, error: Exception | None) -> None:
        def call_directly() -> Any:
            return self.called.get("users", given).call(FUNCTIONS[kind], error)

        by_guard = complete(kind, lambda: self.guards[kind, given](error))
        assert by_guard == complete(kind, call_directly)

    @rule(seconds=st.sampled_from([1.0, 10.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(chosen=st.sampled_from([LENIENT, STRICT]), exactly=st.booleans())
    def configure(self, chosen: BreakerSettings, exactly: bool) -> None:  # noqa: FBT001 - drawn
        for registry in (self.guarded, self.called):
            registry.configure(None if exactly else chosen, {"users": chosen} if exactly else {})

    @rule()
    def remove(self) -> None:
        for registry in (self.guarded, self.called):
            registry.remove("users")

    @rule()
    def replace_by_another(self) -> None:
        for registry in (self.guarded, self.called):
            registry.remove("users")
            registry.add(CircuitBreaker("users", settings=STRICT, clock=self.clock))

    @rule(name=st.sampled_from(["force_open", "disable", "metrics_only", "automatic", "reset"]))
    def set_by_hand(self, name: str) -> None:
        for registry in (self.guarded, self.called):
            getattr(registry.get("users"), name)()

    @invariant()
    def they_stand_alike(self) -> None:
        guarded, called = self.guarded.find("users"), self.called.find("users")
        if guarded is None or called is None:
            assert guarded is called
        else:
            assert guarded.settings == called.settings
            assert guarded.snapshot().counters == called.snapshot().counters
            assert guarded.state == called.state


def test_a_guard_does_what_calls_do() -> None:
    profile = settings(
        max_examples=60,
        stateful_step_count=25,
        deadline=None,  # a busy machine is slow
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(GuardsAgainstCalls, settings=profile)
