"""How a work order's status follows from what became of its run. Pure: the time and the dice are arguments."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs

from agentstream.errors import AgentstreamError
from agentstream.model.events import Event, RunRetryScheduled, WorkOrderStatus, WorkOrderUpdated
from agentstream.model.orders import WorkOrder, check_work_order_transition
from agentstream.model.result import ExecutionResult
from agentstream.orchestration.retry import delay_before


def with_status(
    order: WorkOrder, status: WorkOrderStatus, now: datetime, **changes: Any
) -> tuple[WorkOrder, WorkOrderUpdated]:
    """A work order after a legal transition, and the event that tells it. Raises `IllegalTransition`."""
    check_work_order_transition(order.status, status)
    event = WorkOrderUpdated(work_order_id=order.id, timestamp=now, status=status, previous_status=order.status)
    return attrs.evolve(order, status=status, updated_at=now, **changes), event


@attrs.frozen(kw_only=True)
class Settled:
    """A work order after a run: ended, or queued again and not to be started for ``delay`` seconds."""

    order: WorkOrder
    events: list[Event]
    delay: float = 0.0


def settle(
    order: WorkOrder,
    run_id: str,
    outcome: ExecutionResult | AgentstreamError,
    *,
    now: datetime,
    may_retry: bool,
    random: float,
) -> Settled:
    """What becomes of a work order. An error instead of a result means that the run could not be carried out at all."""
    if isinstance(outcome, AgentstreamError):
        failed, event = with_status(order, "failed", now, error=outcome.message, error_code=outcome.code)
        return Settled(order=failed, events=[event])
    order = attrs.evolve(order, session_id=outcome.session_id or order.session_id)
    told = {"error": outcome.error, "error_code": outcome.error_code}
    if outcome.cancelled:
        canceled, event = with_status(order, "canceled", now, **told)
        return Settled(order=canceled, events=[event])
    if outcome.success:
        succeeded, event = with_status(order, "succeeded", now)
        return Settled(order=succeeded, events=[event])
    if may_retry and outcome.retryable and order.attempt < order.request.max_attempts:
        attempt = order.attempt + 1
        delay = delay_before(attempt, now=now, retry_at=outcome.retry_at, random=random)
        if delay is not None:
            scheduled = RunRetryScheduled(
                work_order_id=order.id,
                run_id=run_id,
                timestamp=now,
                attempt=attempt,
                max_attempts=order.request.max_attempts,
                error_code=outcome.error_code or "INTERNAL_ERROR",
                delay_seconds=round(delay, 3),
                retry_at=now + timedelta(seconds=delay),
            )
            queued, event = with_status(order, "queued", now, **told)
            return Settled(order=queued, events=[scheduled, event], delay=delay)
    failed, event = with_status(order, "failed", now, **told)
    return Settled(order=failed, events=[event])
