"""What became of a run: its outcome, its last event and its result, from everything that is known at the end. Pure.

Who is right when several things happened: whoever stopped the run first (`Cause`); then a failed start; then the adapter, which
knows its agent; for a command that nothing is known of, its exit status.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

import attrs

from agentstream.agents.base import Exit, Outcome, Summary
from agentstream.agents.endings import exit_outcome, failure
from agentstream.errors import SpawnFailed
from agentstream.model.events import Event, RunCanceled, RunCompleted, RunFailed
from agentstream.model.result import ExecutionResult
from agentstream.runs.spec import RunSpec
from agentstream.runs.stop import Cause

_CANCELLED = (Cause.CANCEL, Cause.SURROUNDING)


@attrs.frozen(kw_only=True, slots=False)
class Ending:
    """The end of one run."""

    spec: RunSpec
    summary: Summary
    #: None when no agent was started.
    exit: Exit | None
    cause: Cause | None
    reason: str | None
    #: What the callback raised.
    failure: Exception | None
    trouble: SpawnFailed | None
    stderr_tail: str
    duration_ms: int

    @cached_property
    def outcome(self) -> Outcome:
        """Success or not, and why."""
        limits = self.spec.limits
        match self.cause:
            case Cause.CANCEL | Cause.SURROUNDING:
                return failure("CANCELLED", self.reason)
            case Cause.CALLBACK:
                return failure("CALLBACK_FAILED", repr(self.failure))
            case Cause.TIMEOUT:
                return failure("TIMEOUT", f"{self.spec.timeout:g} s")
            case Cause.IDLE:
                return failure("IDLE_TIMEOUT", f"{limits.idle_timeout:g} s")
            case Cause.OUTPUT:
                return failure("OUTPUT_LIMIT", f"{limits.max_output_bytes} bytes")
        if self.trouble is not None:
            return Outcome(success=False, error_code=self.trouble.code, error=self.trouble.message)
        end = self.exit or Exit(signal="SIGKILL")
        if self.spec.adapter is not None:
            return self.spec.adapter.outcome(self.summary, end, self.stderr_tail)
        return exit_outcome(self.summary, end, self.stderr_tail)

    def event(self, *, work_order_id: str, run_id: str, timestamp: datetime) -> Event:
        """The last event of the run."""
        session_id = self.summary.session_id
        if self.cause in _CANCELLED:
            return RunCanceled(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=timestamp,
                reason=self.reason,
                duration_ms=self.duration_ms,
                session_id=session_id,
            )
        if self.outcome.success:
            return RunCompleted(
                work_order_id=work_order_id,
                run_id=run_id,
                timestamp=timestamp,
                duration_ms=self.duration_ms,
                result=self.summary.result_text,
                session_id=session_id,
                usage=self.summary.usage,
                total_cost_usd=self.summary.total_cost_usd,
                turns=self.summary.turns,
            )
        return RunFailed(
            work_order_id=work_order_id,
            run_id=run_id,
            timestamp=timestamp,
            error=self.outcome.error or "the run failed",
            error_code=self.outcome.error_code or "INTERNAL_ERROR",
            exit_code=self.exit.code if self.exit else None,
            signal=self.exit.signal if self.exit else None,
            duration_ms=self.duration_ms,
            session_id=session_id,
        )

    def result(self, *, stdout: str, stderr: str, events: tuple[Event, ...], truncated: bool) -> ExecutionResult:
        """The final result, equal with and without a callback."""
        summary = self.summary
        return ExecutionResult(
            success=self.outcome.success,
            exit_code=self.exit.code if self.exit else None,
            signal=self.exit.signal if self.exit else None,
            stdout=stdout,
            stderr=stderr,
            events=events,
            session_id=summary.session_id,
            tokens_used=summary.usage.total_tokens if summary.usage else 0,
            usage=summary.usage,
            total_cost_usd=summary.total_cost_usd,
            turns=summary.turns,
            result_text=summary.result_text,
            duration_ms=self.duration_ms,
            cancelled=self.cause in _CANCELLED,
            timed_out=self.cause in (Cause.TIMEOUT, Cause.IDLE),
            truncated=truncated,
            error_code=self.outcome.error_code,
            error=self.outcome.error,
            retryable=self.outcome.retryable,
            retry_at=self.outcome.retry_at,
            malformed_lines=summary.malformed_lines,
        )
