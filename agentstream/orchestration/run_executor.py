"""One run of a work order: from its first status change to its last, each committed together with the events that tell it.

The batches of the run nursery go to the journal as they come. The run's end event is held back until the result is known, so
that the end of the run, the run's row and the work order's next status are one transaction: no subscriber and no restart
can see one without the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import attrs
import trio

from agentstream.errors import AgentstreamError, ExecutionCancelled
from agentstream.journal.base import Journal
from agentstream.model.events import (
    Event,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunStarted,
)
from agentstream.model.orders import Run, RunStatus, WorkOrder, check_run_transition
from agentstream.model.result import ExecutionResult
from agentstream.orchestration.setup import RunSetup
from agentstream.orchestration.status import with_status
from agentstream.runs.executor import StreamingExecutor
from agentstream.runs.inotify import InotifyHub

_END = (RunCompleted, RunFailed, RunCanceled)


class RunExecutor:
    """Carries out one run. `executor` is there as soon as it can be steered."""

    def __init__(self, setup: RunSetup, journal: Journal, hub: InotifyHub | None) -> None:
        self.setup = setup
        self.executor: StreamingExecutor | None = None
        #: Set once the run and everything about it is committed.
        self.done = trio.Event()
        self.result: ExecutionResult | None = None
        self._journal = journal
        self._hub = hub
        self._end: Event | None = None
        self._started = False
        self._cancelled: tuple[str | None] | None = None

    def cancel(self, reason: str | None) -> None:
        """Stop the run; at any time, any number of times."""
        if self.executor is not None:
            self.executor.cancel(reason)
        elif self._cancelled is None:
            self._cancelled = (reason,)

    async def begin(self) -> None:
        """Commit that the run starts."""
        order, event = with_status(self.setup.order, "running", datetime.now(UTC))
        self.setup = attrs.evolve(self.setup, order=order)
        await self._journal.append([event], work_orders=[order], runs=[self.setup.run])

    async def execute(self) -> ExecutionResult | AgentstreamError:
        """Run the agent to its end; what is returned decides what becomes of the work order. Raises nothing of the agent's."""
        setup = self.setup
        try:
            prepared = setup.driver.prepare(
                setup.request,
                on_batch=self._take,
                run_number=setup.run.run_number,
                run_directory=setup.directory,
                watch_exclude=setup.watch_exclude,
                hub=self._hub,
                redact=setup.redact,
                limits=setup.limits,
            )
            self.executor = prepared.executor
            if self._cancelled is not None:
                prepared.executor.cancel(self._cancelled[0])
            self.result = await prepared.execute()
        except ExecutionCancelled as cancelled:
            self.result = cancelled.result
        except AgentstreamError as error:
            return error
        finally:
            # It refers to us. What it collected shouldn't have to wait for the garbage collector.
            self.executor = None
        return self.result

    async def _take(self, batch: Sequence[Event]) -> None:
        if batch and isinstance(batch[-1], _END):
            self._end = batch[-1]
            batch = batch[:-1]
        self._started = self._started or bool(batch)
        if batch:
            # When the oldest line of the batch was read, on the clock that latencies are measured with.
            waited = (datetime.now(UTC) - batch[0].timestamp).total_seconds()
            await self._journal.append(batch, born=trio.current_time() - waited)

    async def finish(
        self, outcome: ExecutionResult | AgentstreamError, order: WorkOrder, events: Sequence[Event]
    ) -> None:
        """Commit the end of the run, the work order as it is now, and the events that follow."""
        run, own = self._ended(outcome)
        await self._journal.append([*own, *events], work_orders=[order], runs=[run])

    def _ended(self, outcome: ExecutionResult | AgentstreamError) -> tuple[Run, list[Event]]:
        run = self.setup.run
        now = datetime.now(UTC)
        if isinstance(outcome, AgentstreamError):
            check_run_transition(run.status, "failed")
            ended = attrs.evolve(
                run, status="failed", ended_at=now, duration_ms=0, error=outcome.message, error_code=outcome.code
            )
            return ended, self._never_started(ended)
        status: RunStatus = "canceled" if outcome.cancelled else "succeeded" if outcome.success else "failed"
        check_run_transition(run.status, status)
        ended = attrs.evolve(
            run,
            status=status,
            ended_at=now,
            duration_ms=outcome.duration_ms,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            error=None if status == "succeeded" else outcome.error,
            error_code=None if status == "succeeded" else outcome.error_code,
            result=outcome.result_text,
            session_id=outcome.session_id,
            usage=outcome.usage,
            total_cost_usd=outcome.total_cost_usd,
            turns=outcome.turns,
            malformed_lines=outcome.malformed_lines,
        )
        return ended, [self._end] if self._end is not None else []

    def _never_started(self, run: Run) -> list[Event]:
        now = datetime.now(UTC)
        told: list[Event] = []
        if not self._started:
            told.append(
                RunStarted(
                    work_order_id=run.work_order_id,
                    run_id=run.id,
                    timestamp=now,
                    run_number=run.run_number,
                    agent_type=run.agent_type,
                )
            )
        failed = RunFailed(
            work_order_id=run.work_order_id,
            run_id=run.id,
            timestamp=now,
            error=run.error or "the run could not be started",
            error_code=run.error_code or "INTERNAL_ERROR",
            duration_ms=0,
        )
        return [*told, failed]
