"""Retries and a circuit breaker together, with tenacity.

A retry gets over a hiccup, a breaker over an outage. The retry goes inside and the breaker
outside: then the breaker counts one failure for each call that its caller saw fail, and an open
circuit is not retried at all.

Run it: ``python examples/retry_with_tenacity.py``. It takes no time, because its clock is a fake.
"""

from __future__ import annotations

from tenacity import (
    RetryCallState,
    Retrying,
    retry,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from fusewire.breaker import CircuitBreaker, CircuitOpenError
from fusewire.testing import FakeClock


class Service:
    """A service that is down until a time, and then answers."""

    def __init__(self, clock: FakeClock, back_at: float) -> None:
        self.clock = clock
        self.back_at = back_at
        self.calls = 0

    def get(self, user: str) -> str:
        """Answer, or not."""
        self.calls += 1
        if self.clock() < self.back_at:
            raise ConnectionError("connection refused")
        return f"profile of {user}"


def retry_inside(service: Service, clock: FakeClock) -> None:
    """Three attempts make one call of the breaker's, and one failure."""
    breaker = CircuitBreaker("users", failure_threshold=2, clock=clock)

    @breaker
    @retry(
        stop=stop_after_attempt(3),
        wait=wait_exponential_jitter(max=10),
        sleep=clock.advance,
        reraise=True,
    )
    def get_user(user: str) -> str:
        return service.get(user)

    for _ in range(4):
        try:
            print(get_user("ada"))
        except CircuitOpenError as error:
            print(f"not tried: {error}")
        except ConnectionError as error:
            print(f"tried three times: {error}")
    print(f"the service was called {service.calls} times")


def retry_outside_and_stop_at_once(service: Service, clock: FakeClock) -> None:
    """Where a retry must go outside, it should not retry what the circuit rejects."""
    breaker = CircuitBreaker("users", failure_threshold=2, clock=clock)
    get_user = breaker(service.get)
    attempts = Retrying(
        retry=retry_if_not_exception_type(CircuitOpenError),
        stop=stop_after_attempt(10),
        sleep=clock.advance,
        reraise=True,
    )
    try:
        print(attempts(get_user, "ada"))
    except CircuitOpenError as error:
        print(f"gave up after {service.calls} calls: {error}")


def wait_for_the_circuit(state: RetryCallState) -> float:
    """Wait as long as the circuit says; otherwise for half a second."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error.retry_after if isinstance(error, CircuitOpenError) else 0.5


def retry_outside_and_wait(service: Service, clock: FakeClock) -> None:
    """A job that has time waits until the circuit lets it try again."""
    breaker = CircuitBreaker("users", failure_threshold=2, recovery_timeout=30, clock=clock)
    get_user = breaker(service.get)
    attempts = Retrying(
        stop=stop_after_attempt(20), wait=wait_for_the_circuit, sleep=clock.advance, reraise=True
    )
    began = clock()
    print(f"{attempts(get_user, 'ada')}, after {clock() - began:g} s, {service.calls} calls")


def main() -> None:
    for example in (retry_inside, retry_outside_and_stop_at_once, retry_outside_and_wait):
        print(f"{example.__name__}:")
        clock = FakeClock()
        example(Service(clock, back_at=clock() + 60), clock)


if __name__ == "__main__":
    main()
