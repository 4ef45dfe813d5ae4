"""After a restart: tell the truth about what a former life of the daemon left unfinished.

The supervisors have killed the agents when the daemon died (`runs/supervisor.py`); `sweep` looks once more. Tool calls that
never got a result get a failed one, runs that never ended are ``interrupted``, and the policy says what becomes of their work
orders: ``fail`` them, ``retry`` the task from its start, or ``resume`` the agent's session (from its start where there is none).
What was queued stays queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import attrs
import orjson

from agentstream.journal.base import Journal, Record
from agentstream.model.events import AgentToolResult, Event, RunFailed, WorkOrderUpdated
from agentstream.model.orders import Run, WorkOrder

RestartPolicy = Literal["fail", "retry", "resume"]

_PAGE = 5000
_TEXT = "the daemon stopped before this was finished"
#: What a resumed agent is asked.
_CONTINUE = "You were interrupted. Continue the task where you left off."
_CALL, _RESULT, _SESSION = "agent_tool_call", "agent_tool_result", "agent_session"


@attrs.define
class _Traces:
    """What a run's events tell that its row does not."""

    open_calls: dict[str, str | None] = attrs.field(factory=dict)
    session_id: str | None = None

    def read(self, records: Sequence[Record], run_id: str) -> None:
        for record in records:
            if record.type not in (_CALL, _RESULT, _SESSION):
                continue
            event = orjson.loads(record.body)
            if event.get("runId") != run_id:
                continue
            if record.type == _CALL:
                self.open_calls[event["toolUseId"]] = event.get("parentToolUseId")
            elif record.type == _RESULT:
                self.open_calls.pop(event["toolUseId"], None)
            else:
                self.session_id = event["sessionId"]


async def recover(journal: Journal, policy: RestartPolicy) -> list[WorkOrder]:
    """Close what was left open; returns the work orders that are queued now, oldest first."""
    orders, runs = await journal.unfinished()
    by_order: dict[str, list[Run]] = {}
    for run in runs:
        by_order.setdefault(run.work_order_id, []).append(run)
    queued: list[WorkOrder] = []
    for order in orders:
        left = by_order.pop(order.id, [])
        recovered = await _recover_order(journal, order, left, policy)
        if recovered.status == "queued":
            queued.append(recovered)
    return queued


async def _recover_order(journal: Journal, order: WorkOrder, runs: Sequence[Run], policy: RestartPolicy) -> WorkOrder:
    now = datetime.now(UTC)
    events: list[Event] = []
    ended: list[Run] = []
    session_id = order.session_id
    for run in runs:
        traces = _Traces()
        after = 0
        while page := await journal.read(after, work_order_ids=[order.id], limit=_PAGE):
            traces.read(page, run.id)
            after = page[-1].seq or after
        session_id = traces.session_id or session_id
        duration_ms = max(0, round((now - run.started_at).total_seconds() * 1000))
        for tool_use_id, parent in traces.open_calls.items():
            events.append(
                AgentToolResult(
                    work_order_id=order.id,
                    run_id=run.id,
                    timestamp=now,
                    tool_use_id=tool_use_id,
                    success=False,
                    content_preview=_TEXT,
                    content_length=len(_TEXT),
                    duration_ms=0,
                    parent_tool_use_id=parent,
                )
            )
        events.append(
            RunFailed(
                work_order_id=order.id,
                run_id=run.id,
                timestamp=now,
                error=f"{_TEXT}; it is continued by a further run, or submit it again",
                error_code="INTERRUPTED",
                duration_ms=duration_ms,
                session_id=traces.session_id,
            )
        )
        ended.append(
            attrs.evolve(
                run,
                status="interrupted",
                ended_at=now,
                duration_ms=duration_ms,
                error=_TEXT,
                error_code="INTERRUPTED",
                session_id=traces.session_id,
            )
        )
    if order.status != "running":
        if events:
            await journal.append(events, runs=ended)
        return order
    if policy == "fail":
        after_restart = attrs.evolve(order, status="failed", updated_at=now, error=_TEXT, error_code="INTERRUPTED")
    else:
        resumable = session_id if policy == "resume" else None
        after_restart = attrs.evolve(
            order,
            status="queued",
            updated_at=now,
            next_session_id=resumable,
            next_prompt=_CONTINUE if resumable else order.next_prompt,
        )
    after_restart = attrs.evolve(after_restart, session_id=session_id)
    events.append(
        WorkOrderUpdated(
            work_order_id=order.id, timestamp=now, status=after_restart.status, previous_status=order.status
        )
    )
    await journal.append(events, work_orders=[after_restart], runs=ended)
    return after_restart
