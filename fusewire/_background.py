"""Work in the background that does not stay down: what ends it unasked is logged, and it restarts.

Anybody can cancel a task: a framework that cancels all of them, for one. An event loop holds its
tasks weakly, and says nothing of one that was cancelled. So the rooms start theirs here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine, Mapping


class Background:
    """Runs a coroutine function in a task of its own, until it returns or is ended.

    Starts when made, on the event loop that runs. If an error ends it, or something else cancels
    it, that is logged, and it is started again after growing waits. Ctrl-C and ``sys.exit()`` end
    it, as they end the program.

    Args:
        run: called for each start.
        name: what it is, for the log; also the task's name.
        logger: of the room that it belongs to.
        first_wait: seconds until it is started again.
        longest_wait: seconds that this grows to. After a run that lasted longer, the next wait is
            the first one.
        extra: fields for the log.
    """

    def __init__(
        self,
        run: Callable[[], Coroutine[object, object, None]],
        *,
        name: str,
        logger: logging.Logger,
        first_wait: float = 0.1,
        longest_wait: float = 60.0,
        extra: Mapping[str, float | str] | None = None,
    ) -> None:
        self._run = run
        self._name = name
        self._logger = logger
        self._first_wait = self._wait = first_wait
        self._longest_wait = longest_wait
        self._extra = extra
        self._loop = asyncio.get_running_loop()
        self._to_end = False
        self._ended = asyncio.Event()
        # A timer waits for the next start: a task that waits could be cancelled again.
        self._timer: asyncio.TimerHandle | None = None
        self._task = self._start()

    @property
    def done(self) -> bool:
        """Whether it has returned, or was ended."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Cancel it, and do not start it again."""
        self._start_no_more()
        self._task.cancel()

    async def finish(self) -> None:
        """Do not start it again, and wait until it has ended."""
        self._start_no_more()
        await self._ended.wait()

    def _start_no_more(self) -> None:
        self._to_end = True
        if self._timer is not None:
            self._timer.cancel()
            self._ended.set()

    def _start(self) -> asyncio.Task[None]:
        self._began = self._loop.time()
        task = self._loop.create_task(self._run(), name=self._name)
        task.add_done_callback(self._note_end)
        return task

    def _start_again(self, cancelled: asyncio.CancelledError | None) -> None:
        self._timer = None
        if cancelled is not None:
            # Said only now: an event loop that ends cancels all its tasks, which is no news.
            self._logger.error(
                "%s was cancelled by something else and is started again",
                self._name,
                exc_info=cancelled,
                extra=self._extra,
            )
        self._task = self._start()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        cancelled: asyncio.CancelledError | None = None
        try:
            task.result()
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception as error:
            goes_on = "" if self._to_end else " and is started again"
            self._logger.error(  # noqa: TRY400 - as above
                "%s ended by an error%s", self._name, goes_on, exc_info=error, extra=self._extra
            )
        except BaseException:  # noqa: BLE001 - the event loop has raised it, and the program ends
            self._to_end = True
        else:
            self._to_end = True
        if self._to_end:
            self._ended.set()
            return
        if self._loop.time() - self._began > self._longest_wait:
            self._wait = self._first_wait
        self._timer = self._loop.call_later(self._wait, self._start_again, cancelled)
        self._wait = min(self._wait * 2, self._longest_wait)
