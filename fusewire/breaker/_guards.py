"""Guarded calls: from before the function is called to the settlement.

There are three ways through a circuit. A call that meets a closed circuit and no other call in
flight takes the shortest. A call that may have other calls inside it offers them a loan. A call
that the circuit does not admit freely takes a permit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Coroutine
from inspect import CO_COROUTINE, CO_GENERATOR
from typing import TYPE_CHECKING, Any

from fusewire.breaker._circuit import UNTIMED, Circuit
from fusewire.breaker._classification import classify_result
from fusewire.breaker._fallback import with_fallback, with_fallback_async
from fusewire.breaker._kinds import kind_of
from fusewire.breaker._later import guard_awaitable, settle_when_done
from fusewire.breaker._loans import current_loan, enclosing_loan, find_loan, publish, withdraw
from fusewire.breaker._permit import Permit
from fusewire.breaker._results import PLAIN, comes_later, reports_its_end
from fusewire.breaker._states import Outcome
from fusewire.breaker._streams import guard_async_generator, guard_generator
from fusewire.errors import NO_ERROR
from fusewire.operation import entered_operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusewire.breaker._fallback import Answer
    from fusewire.breaker._loans import Loan


class GuardingCircuit(Circuit):
    """A circuit that calls functions."""

    __slots__ = ()

    def _guard(self, func: Callable[..., Any], answer: Answer | None = None) -> Callable[..., Any]:
        kind = kind_of(func)
        if not kind:
            return self._guard_function(func, answer)
        if kind == CO_COROUTINE:
            return self._guard_coroutine(func, answer)
        guard = guard_generator if kind == CO_GENERATOR else guard_async_generator
        return guard(lambda _: (self, answer), func)

    def _guard_function(
        self, func: Callable[..., Any], answer: Answer | None
    ) -> Callable[..., Any]:
        self.lends = True
        clock = self._clock
        notes = self._healthy

        def guarded(*args: Any, **kwargs: Any) -> Any:
            generation = self._idle
            if not generation:
                return self._run_lending(func, answer, args, kwargs)
            self._idle = 0
            timed = self._timed
            started = clock() if timed else UNTIMED
            try:
                result = func(*args, **kwargs)
            except BaseException as error:
                self._idle = self._idle_again
                self._end_call(generation, started, self.classify(error, started), error)
                raise
            self._idle = again = self._idle_again
            if type(result) not in PLAIN and comes_later(result):
                return self._follow(
                    result,
                    [self, None, generation],
                    started,
                    answer=answer,
                    args=args,
                    kwargs=kwargs,
                )
            now = 0.0
            if timed:
                now = clock()
                if (durations := self.durations) is not None:
                    if now < durations.quick_until and entered_operation() is None:
                        durations.note_quickly(now - started)
                    else:
                        self._measure_call(durations, now, now - started)
            if (
                len(notes) < self._room
                and now < self._room_until
                and now - started <= self._slow_after
                and generation == again
            ):
                notes.append(generation)
            else:
                self._end_call(generation, started, Outcome.SUCCESS)
            return result

        return guarded if answer is None else with_fallback(self, guarded, answer)

    def _guard_coroutine(
        self, func: Callable[..., Any], answer: Answer | None
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        self.lends = True
        clock = self._clock
        notes = self._healthy

        # The same as for a function, with an await. Sharing code would cost each of them one more
        # function call.
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            generation = self._idle
            if not generation:
                return await self._run_lending_async(func, args, kwargs)
            self._idle = 0
            timed = self._timed
            started = clock() if timed else UNTIMED
            try:
                result = await func(*args, **kwargs)
            except BaseException as error:
                self._idle = self._idle_again
                self._end_call(generation, started, self.classify(error, started), error)
                raise
            self._idle = again = self._idle_again
            now = 0.0
            if timed:
                now = clock()
                if (durations := self.durations) is not None:
                    if now < durations.quick_until and entered_operation() is None:
                        durations.note_quickly(now - started)
                    else:
                        self._measure_call(durations, now, now - started)
            if (
                len(notes) < self._room
                and now < self._room_until
                and now - started <= self._slow_after
                and generation == again
            ):
                notes.append(generation)
            else:
                self._end_call(generation, started, Outcome.SUCCESS)
            return result

        return guarded if answer is None else with_fallback_async(self, guarded, answer)

    def _run_lending(
        self,
        func: Callable[..., Any],
        answer: Answer | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call `func`, and offer a loan to the calls inside it."""
        generation, around = self._free, current_loan()
        if around is not None:
            around = enclosing_loan()
        if (
            not generation
            or self._idle != self._idle_again
            or self._settings.classify_result is not None
            or (around is not None and find_loan(self, around) is not None)
        ):
            return self._run_with_permit(func, answer, args, kwargs)
        timed = self._timed
        started = self._clock() if timed else UNTIMED
        loan: Loan = [self, around, generation]
        publish(loan)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._end_lending(withdraw(loan), started, self.classify(error, started), error)
            raise
        publish(around)
        if type(result) not in PLAIN and comes_later(result):
            return self._follow(result, loan, started, answer=answer, args=args, kwargs=kwargs)
        lent = loan.pop()
        now = 0.0
        if timed:
            now = self._clock()
            if (durations := self.durations) is not None and not isinstance(lent, Permit):
                if now < durations.quick_until and entered_operation() is None:
                    durations.note_quickly(now - started)
                else:
                    self._measure_call(durations, now, now - started)
        self._unproven -= 1
        if (
            self._unproven > 0
            and len(self._healthy) < self._room
            and now < self._room_until
            and now - started <= self._slow_after
            and lent == self._free
        ):
            self._healthy.append(generation)
        else:
            self._end_offering(lent, started)
        return result

    async def _run_lending_async(
        self, func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        generation, around = self._free, current_loan()
        if around is not None:
            around = enclosing_loan()
        if (
            not generation
            or self._idle != self._idle_again
            or self._settings.classify_result is not None
            or (around is not None and find_loan(self, around) is not None)
        ):
            return await self._run_async_with_permit(func, args, kwargs)
        timed = self._timed
        started = self._clock() if timed else UNTIMED
        loan: Loan = [self, around, generation]
        publish(loan)
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            self._end_lending(withdraw(loan), started, self.classify(error, started), error)
            raise
        publish(around)
        lent = loan.pop()
        now = 0.0
        if timed:
            now = self._clock()
            if (durations := self.durations) is not None and not isinstance(lent, Permit):
                if now < durations.quick_until and entered_operation() is None:
                    durations.note_quickly(now - started)
                else:
                    self._measure_call(durations, now, now - started)
        self._unproven -= 1
        if (
            self._unproven > 0
            and len(self._healthy) < self._room
            and now < self._room_until
            and now - started <= self._slow_after
            and lent == self._free
        ):
            self._healthy.append(generation)
        else:
            self._end_offering(lent, started)
        return result

    def _end_offering(self, lent: int | Permit, started: float) -> None:
        """Record a success of a call that offered a loan, if it cannot just be noted."""
        if self._unproven <= 0:
            self._stop_offering()
        self._end_lending(lent, started, Outcome.SUCCESS)

    def _end_lending(
        self,
        lent: int | Permit,
        started: float,
        outcome: Outcome,
        error: BaseException | None = None,
    ) -> None:
        """Record a call that offered a loan. If the loan was taken, the call has a permit now."""
        if isinstance(lent, Permit):
            lent.started = started  # an inner call made the permit, with its own start
            lent.conclude(outcome, error)
        else:
            self._end_call(lent, started, outcome, error)

    def _end_call(
        self,
        generation: int,
        started: float,
        outcome: Outcome,
        error: BaseException | None = None,
    ) -> None:
        """Record a call without a permit."""
        now, named = self._clock(), NO_ERROR
        durations = self.durations
        if outcome is Outcome.FAILURE:
            self._note_failure()
            named = self._describe(error)
            if durations is not None and started != UNTIMED:
                self._measure_call(durations, now, now - started, failed=True)
        if durations is not None:
            durations.count_if_due()  # what was noted quickly
        self._change(now, self._settle_call, generation, started, outcome, named)

    def _run_with_permit(
        self,
        func: Callable[..., Any],
        answer: Answer | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        permit = self.acquire()
        around = enclosing_loan()
        loan: Loan = [self, around, permit]
        publish(loan)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            withdraw(loan)
            permit.conclude(self.classify(error, permit.started), error)
            raise
        publish(around)
        if comes_later(result):
            return self._follow(
                result, loan, permit.started, answer=answer, args=args, kwargs=kwargs
            )
        loan.pop()
        permit.conclude(self.classify_result(result))
        return result

    async def _run_async_with_permit(
        self, func: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self.acquire() as permit:
            result = await func(*args, **kwargs)
            permit.conclude(self.classify_result(result))
            return result

    def _follow(
        self,
        result: Any,
        loan: Loan,
        started: float,
        *,
        answer: Answer | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Guard a pending result. `loan` is that of the function that returned it."""
        if reports_its_end(result):
            settle_when_done(self, loan, started, result)
            return result
        # It becomes a call only when it is awaited or iterated over, which may never happen.
        lent = loan.pop()
        if isinstance(lent, Permit):
            self._withdraw(lent)

        def give(*_: object, **__: object) -> Any:
            return result

        if not inspect.isawaitable(result):
            guard = guard_async_generator if isinstance(result, AsyncGenerator) else guard_generator
            return guard(lambda _: (self, answer), give)(*args, **kwargs)
        wait = functools.partial(self._guard_coroutine(give, answer), *args, **kwargs)
        if isinstance(result, Coroutine) and not hasattr(type(result), "__aenter__"):
            return _drive(wait, result)
        return guard_awaitable(self._guard, result, wait)

    def classify_result(self, result: object) -> Outcome:
        """Return what a call that returned `result` says about the dependency."""
        classify = self._settings.classify_result
        return Outcome.SUCCESS if classify is None else classify_result(classify, result)


async def _drive(
    wait: Callable[[], Coroutine[Any, Any, Any]], coroutine: Coroutine[Any, Any, Any]
) -> Any:
    """Await a coroutine that a plain function returned. It has not started yet."""
    try:
        return await wait()
    finally:
        # A rejected one was never awaited and must be closed. For others this does nothing.
        coroutine.close()
