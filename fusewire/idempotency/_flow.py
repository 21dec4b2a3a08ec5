"""The one sequence: claim the key, run the handler, store the answer, commit.

The sequence is a generator of steps, so that sync and asyncio share it: it yields what is to be
done, and is sent the result. It does no I/O itself. Errors of the database are thrown in where they
occur, and :class:`~fusewire.idempotency._store.Trouble` says what they mean.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from fusewire._error_types import error_type
from fusewire._log_fields import fields
from fusewire._throttle import Throttle
from fusewire.idempotency._claiming import CLAIM_BYTES, Claimed, Failed, Found, take
from fusewire.idempotency._decisions import (
    OK,
    Doubt,
    Effects,
    End,
    Refuse,
    Replay,
    Resume,
    Run,
    on_claim,
    on_end,
    on_record,
)
from fusewire.idempotency._records import NEVER, Answer
from fusewire.idempotency._refusals import Reason, refusal, replayed
from fusewire.idempotency._sql import answer_parameters, identity_parameters
from fusewire.idempotency._steps import (
    Answered,
    Ask,
    Begin,
    Call,
    Commit,
    Ending,
    Execute,
    Given,
    Handle,
    Outcome,
    Raised,
    Rollback,
    Step,
    Steps,
    Terms,
    Undo,
)
from fusewire.idempotency._store import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from fusewire.idempotency._sql import Parameters, Sql

logger = logging.getLogger("fusewire.idempotency")


class _Undone(NamedTuple):
    """The handler's work is to be rolled back, and this is what the caller gets."""

    outcome: Outcome


_Decision = Run | Resume | Replay | Refuse | Doubt | Given

_PROBE = "SELECT 1"
_NOT_CLAIMED = "claiming its key failed, and its handler did not run"


class Flow:
    """The sequence for the methods of one interceptor.

    Args:
        terms: what was agreed.
        sql: the statements.
        trouble: what an error of the database means.
        now: the time, in seconds since 1970.

    Attributes:
        terms, sql, trouble: as given.
    """

    def __init__(
        self,
        terms: Terms,
        sql: Sql,
        trouble: Callable[[BaseException], Trouble],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.terms = terms
        self.sql = sql
        self.trouble = trouble
        self._now = now
        self._throttle = Throttle()

    def steps(self, call: Call) -> Steps:
        """Return the steps of a call. Its value is the :class:`Outcome`."""
        if call.identity is None:
            return self._without_key(call)
        held = _hold(call, identity_parameters(call.identity), secrets.token_bytes(CLAIM_BYTES))
        if self.terms.effects is Effects.TRANSACTION:
            return self._in_transaction(held)
        return self._elsewhere(held)

    def _in_transaction(self, held: _Held) -> Steps:
        decision = yield from self._take(held)
        if not isinstance(decision, Run):
            return (yield from self._decline(decision))
        ending = self._judged((yield Handle()))
        if isinstance(ending, _Undone):
            yield Rollback()
            return ending.outcome
        try:
            if not (yield from self._still_claimed(held.call, ending)):
                # Another call may have claimed the key meanwhile. Nobody was told of this end yet.
                decision = yield from self._take(held)
                if isinstance(decision, Run) and ending.answer.code == OK:
                    # The claim is gone, and the effects with it.
                    decision = Refuse(Reason.CONFLICT)
                if not isinstance(decision, Run | Resume):
                    return (yield from self._decline(decision))
            answered = self._answered(held, ending.answer)
            if not (yield Commit(Execute(self.sql.finish, answered))):
                yield Rollback()
                return self.refused(Reason.CONFLICT)
        except Exception as error:  # noqa: BLE001 - any driver's; it is judged
            yield Rollback()
            return self._failed_commit(held.call, ending, error)
        return ending

    def _still_claimed(self, call: Call, ending: Answered) -> Generator[Step, Any, bool]:
        """Return whether the transaction that holds the claim is still there to be committed."""
        if not ending.is_open:
            logger.error(
                "%s: its handler has ended the transaction itself, so its effects and the key were "
                "not committed together: leave the end to the server, or use savepoints",
                call.method,
                extra=fields("idempotency.not_joined", method=call.method),
            )
            yield Rollback()
            return False
        if ending.answer.code == OK or (yield Undo()):
            return True
        yield Rollback()
        return False

    def _without_key(self, call: Call) -> Steps:
        if self.terms.effects is Effects.ELSEWHERE:
            ended: Ending = yield Handle()
            return ended
        try:
            yield Begin()
        except Exception as error:  # noqa: BLE001 - any driver's; it is judged
            yield Rollback()
            return self.failed_claim(call.method, error)
        ending = self._judged((yield Handle()))
        if isinstance(ending, _Undone):
            yield Rollback()
            return ending.outcome
        try:
            if (yield from self._still_claimed(call, ending)):
                # PostgreSQL commits nothing, and says nothing, if a statement has failed before.
                yield Commit(Execute(_PROBE, {}))
        except Exception as error:  # noqa: BLE001 - any driver's; it is judged
            yield Rollback()
            return self._failed_commit(call, ending, error)
        return ending

    def _judged(self, ending: Ending) -> Answered | _Undone:
        """Return the ending if it is to be committed."""
        if isinstance(ending, Raised):
            conflict = self.trouble(ending.error) is Trouble.CONFLICT
            return _Undone(self.refused(Reason.CONFLICT) if conflict else ending)
        answer, final = ending.answer, self.terms.final
        if on_end(answer.code, effects=Effects.TRANSACTION, final=final) is not End.STORE:
            return _Undone(ending)
        if answer.size > self.terms.most_bytes:
            return _Undone(self.refused(Reason.REPLY_TOO_LARGE))
        return ending

    def _elsewhere(self, held: _Held) -> Steps:
        decision = yield from self._take(held)
        if isinstance(decision, Doubt):
            yield Rollback()
            settled = yield from self._settle_doubt(held, decision)
            if settled is not None:
                return settled
        elif isinstance(decision, Run):
            try:
                yield Commit()
            except Exception as error:  # noqa: BLE001 - any driver's; it is judged
                yield Rollback()
                # It may have been committed. Nothing has run, so it is not to become a doubt.
                yield from self._write(held.call, self.sql.free, held.mine)
                return self.failed_claim(held.call.method, error)
        else:
            return (yield from self._decline(decision))
        return (yield from self._note_end(held, (yield Handle())))

    def _settle_doubt(self, held: _Held, doubt: Doubt) -> Generator[Step, Any, Outcome | None]:
        """Decide about work that was begun elsewhere and whose end is not known.

        Returns:
            What the caller gets; None if the key is now held, and the handler is to run.
        """
        terms, first = self.terms, _hold(held.call, held.mine, doubt.claim)
        if terms.ask is not None:
            found: Ending | None = yield Ask(terms.ask)
            if found is not None:
                end = on_end(_code(found), effects=Effects.TRANSACTION, final=terms.final)
                # A function that failed has said nothing: the doubt stays as it is.
                return (yield from self._note_end(first, found)) if end is End.STORE else found
        elif not terms.rerun:
            return self.refused(Reason.IN_DOUBT)
        lease_until = self.now_ms() + terms.lease_ms
        taking = first.mine | {"new_claim": held.claim, "lease_until": lease_until}
        taken = yield from self._write(held.call, self.sql.take_over, taking)
        if isinstance(taken, Given):
            return taken
        return None if taken else self.refused(Reason.IN_PROGRESS)

    def _note_end(self, held: _Held, ending: Ending) -> Steps:
        """Write how a handler has ended whose effect is elsewhere."""
        end = on_end(_code(ending), effects=Effects.ELSEWHERE, final=self.terms.final)
        if end is End.STORE and isinstance(ending, Answered):
            if ending.answer.size <= self.terms.most_bytes:
                return (yield from self._store_end(held, ending))
            yield from self._write(held.call, self.sql.doubt, held.mine)
            return self.refused(Reason.REPLY_TOO_LARGE)
        sql = self.sql.free if end is End.FREE else self.sql.doubt
        yield from self._write(held.call, sql, held.mine)
        return ending

    def _store_end(self, held: _Held, ending: Answered) -> Steps:
        answered = self._answered(held, ending.answer)
        written = yield from self._write(held.call, self.sql.finish, answered)
        if isinstance(written, Given):
            return written
        if not written:
            # Another call has taken the claim over, and its answer stands.
            return (yield from self._decline((yield from self._take(held))))
        return ending

    def _write(
        self, call: Call, sql: str, parameters: Parameters
    ) -> Generator[Step, Any, bool | Given]:
        """Execute one statement in a transaction of its own; return whether it found its row."""
        try:
            yield Begin(lazily=True)
            done = yield Commit(Execute(sql, parameters))
            if not done:
                yield Rollback()
        except Exception as error:  # noqa: BLE001 - any driver's; it is judged
            yield Rollback()
            self.log_failure(call.method, "writing how it ended failed", error)
            return self.refused(Reason.UNAVAILABLE)
        return bool(done)

    def _take(self, held: _Held) -> Generator[Step, Any, _Decision]:
        """Begin a transaction and claim the key in it, and decide by what was found."""
        elsewhere = self.terms.effects is Effects.ELSEWHERE
        taken = yield from take(
            self.sql,
            self.trouble,
            {**held.mine, "fingerprint": held.call.fingerprint},
            lease_ms=self.terms.lease_ms if elsewhere else None,
            now_ms=self.now_ms,
        )
        match taken:
            case Claimed(now_ms):
                return on_claim(held.call.first_sent_ms, keep_ms=self.terms.keep_ms, now_ms=now_ms)
            case Found(record, now_ms):
                return on_record(record, held.call.fingerprint, held.claim, now_ms=now_ms)
            case Failed(error):
                return self.failed_claim(held.call.method, error)
            case None:
                return Refuse(Reason.CONFLICT)

    def _decline(self, decision: _Decision) -> Steps:
        """Roll back, and give what was decided."""
        yield Rollback()
        match decision:
            case Given():
                return decision
            case Replay(answer):
                return Given(replayed(answer), "replayed")
            case Refuse(reason):
                return self.refused(reason)
            case _:
                return self.refused(Reason.IN_DOUBT)

    def _answered(self, held: _Held, answer: Answer) -> Parameters:
        expires_at = min(self.now_ms() + self.terms.keep_ms, NEVER)
        return {**held.mine, **answer_parameters(answer), "expires_at": expires_at}

    def failed_claim(self, method: str, error: Exception, what: str = _NOT_CLAIMED) -> Given:
        """Return the refusal of a call whose key could not be claimed: nothing has run."""
        reason = _ON_CLAIM.get(self.trouble(error), Reason.UNAVAILABLE)
        if reason is Reason.UNAVAILABLE:
            self.log_failure(method, what, error)
        return self.refused(reason)

    def _failed_commit(self, call: Call, ending: Answered, error: Exception) -> Outcome:
        """Return what a caller gets when the database failed after the handler had ended."""
        trouble = self.trouble(error)
        if trouble is Trouble.OTHER and ending.answer.code == OK:
            return Raised(error)
        # A refusal that could not be stored is not given: asked again, it might be another answer.
        reason = _ON_COMMIT.get(trouble, Reason.UNAVAILABLE)
        if reason is Reason.UNAVAILABLE:
            self.log_failure(
                call.method, "the commit did not come through: the record of its key decides", error
            )
        return self.refused(reason)

    def log_failure(self, method: str, what: str, error: Exception) -> None:
        """Log an error of the database; of many alike, one a minute."""
        if (unsaid := self._throttle.unsaid(error)) is None:
            return
        logger.error(
            "%s: %s%s: %s",
            method,
            what,
            f" ({unsaid} more of this kind since the last)" if unsaid else "",
            error,
            exc_info=error,
            extra=fields(
                "idempotency.failed",
                method=method,
                error_type=error_type(type(error)),
                count=unsaid,
            ),
        )

    def refused(self, reason: Reason) -> Given:
        """Return a refusal. One that passes says when to ask again."""
        passes = reason in (Reason.IN_PROGRESS, Reason.BUSY)
        return Given(refusal(reason, retry_after=self.terms.wait if passes else None), str(reason))

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return int(self._now() * 1000)


class _Held(NamedTuple):
    """A call with a key, and the claim that is its own.

    Attributes:
        call: the call.
        mine: the parameters that name its record while the claim is its own.
        claim: the claim.
    """

    call: Call
    mine: Parameters
    claim: bytes


def _hold(call: Call, named: Parameters, claim: bytes) -> _Held:
    return _Held(call, {**named, "claim": claim}, claim)


_ON_CLAIM = {
    Trouble.KEY_BUSY: Reason.IN_PROGRESS,
    Trouble.BUSY: Reason.BUSY,
    Trouble.CONFLICT: Reason.CONFLICT,
}

_ON_COMMIT = {
    Trouble.KEY_BUSY: Reason.BUSY,
    Trouble.BUSY: Reason.BUSY,
    Trouble.CONFLICT: Reason.CONFLICT,
}


def _code(ending: Ending) -> int | None:
    return ending.answer.code if isinstance(ending, Answered) else None
