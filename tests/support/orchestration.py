"""A small honest orchestration: it keeps its work orders in a real journal and runs no agents; a test plays the agent."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from agentstream.agents.base import Capabilities
from agentstream.errors import Conflict, Forbidden, InvalidMessage, NotFound
from agentstream.journal.base import Journal
from agentstream.model.events import AgentOutput, ApprovalRequested, Decision, WorkOrderCreated, WorkOrderUpdated
from agentstream.model.orders import FINAL_STATUSES, Run, WorkOrder, WorkOrderRequest
from agentstream.orchestration.base import AgentInfo, OrchestratorStatistics

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@attrs.define
class Orchestration:
    """What `agentstream.orchestration.base.Orchestration` promises, in memory but for the journal."""

    journal: Journal
    directory: Path
    accepting: bool = True
    #: What was asked of runs: (what, run, ...).
    asked: list[tuple[Any, ...]] = attrs.field(factory=list)
    pending: dict[str, ApprovalRequested] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    def statistics(self) -> OrchestratorStatistics:
        return OrchestratorStatistics(
            queued=2,
            running=1,
            max_concurrent_runs=8,
            open_approvals=len(self.pending),
            accepting=self.accepting,
            outcomes={"succeeded": 3},
            malformed_lines=4,
        )

    async def submit(self, request: WorkOrderRequest) -> tuple[WorkOrder, bool]:
        if request.agent_type == "unheard-of":
            raise InvalidMessage("agentType: expected one of demo, got unheard-of")
        if request.workspace_source.path == "/etc":
            raise Forbidden("the workspace /etc is not below a workspace root")
        work_order_id = request.id or f"wo-{next(self._numbers)}"
        known = await self.journal.work_order(work_order_id)
        if known is not None:
            if known.request != request:
                raise Conflict(f"there is a work order {work_order_id} with another body")
            return known, False
        made = WorkOrder(
            id=work_order_id, request=request, workspace="/work", status="queued", created_at=NOON, updated_at=NOON
        )
        event = WorkOrderCreated(
            work_order_id=made.id, timestamp=NOON, task_prompt=request.task_prompt, status="queued"
        )
        await self.journal.append([event], work_orders=[made])
        return made, True

    async def further_run(self, work_order_id: str, *, task_prompt: str | None, resume: bool) -> WorkOrder:
        found = await self._work_order(work_order_id)
        if found.status not in FINAL_STATUSES:
            raise Conflict(f"the work order {work_order_id} has not ended")
        self.asked.append(("further_run", work_order_id, task_prompt, resume))
        return await self._become(found, "queued")

    async def cancel(
        self, *, work_order_id: str | None = None, run_id: str | None = None, reason: str | None = None
    ) -> WorkOrder:
        if run_id is not None:
            work_order_id = (await self._run(run_id)).work_order_id
        found = await self._work_order(work_order_id or "")
        self.asked.append(("cancel", found.id, reason))
        return found if found.status in FINAL_STATUSES else await self._become(found, "canceled")

    async def send_message(self, run_id: str, text: str) -> None:
        if (await self._run(run_id)).status != "running":
            raise Conflict(f"the run {run_id} has ended")
        self.asked.append(("send_message", run_id, text))

    async def interrupt(self, run_id: str) -> None:
        await self._run(run_id)
        self.asked.append(("interrupt", run_id))

    async def close_input(self, run_id: str) -> None:
        await self._run(run_id)
        self.asked.append(("close_input", run_id))

    async def resolve_approval(
        self,
        request_id: str,
        decision: Decision,
        *,
        message: str | None = None,
        updated_input: dict[str, Any] | None = None,
    ) -> None:
        if self.pending.pop(request_id, None) is None:
            raise NotFound(f"no approval request {request_id}")
        self.asked.append(("resolve_approval", request_id, decision, message, updated_input))

    def approvals(self) -> list[ApprovalRequested]:
        return list(self.pending.values())

    async def tool_call(self, run_id: str, tool_use_id: str) -> dict[str, Any]:
        if tool_use_id != "toolu_1":
            raise NotFound(f"this run has no tool call {tool_use_id}")
        return {
            "toolUseId": tool_use_id,
            "tool": "Bash",
            "toolName": "Bash",
            "input": {"command": "env"},
            "result": {"success": True, "content": (self.directory / "stdout").read_text(), "contentLength": 5},
        }

    def raw_log(self, run: Run, stream: str) -> str:
        return str(self.directory / stream)

    async def agents(self) -> list[AgentInfo]:
        return [
            AgentInfo(
                agent_type="demo",
                label="Demo",
                installed=True,
                program="python",
                capabilities=Capabilities(resume=True),
            )
        ]

    def deltas_wanted(self, work_order_id: str, wanted: bool) -> None:
        self.asked.append(("deltas_wanted", work_order_id, wanted))

    # --- the test as the agent ---------------------------------------------------------------------------------------

    async def start(self, work_order_id: str, run_id: str = "run-1") -> Run:
        """A run of the work order begins."""
        run = Run(
            id=run_id,
            work_order_id=work_order_id,
            run_number=1,
            agent_type="demo",
            status="running",
            started_at=NOON,
            prompt="do it",
        )
        await self.journal.append([], runs=[run])
        return run

    async def say(self, work_order_id: str, *texts: str) -> None:
        """The agent says something."""
        await self.journal.append(
            [AgentOutput(work_order_id=work_order_id, run_id="run-1", timestamp=NOON, content=text) for text in texts]
        )

    def ask_permission(self, request_id: str, work_order_id: str) -> None:
        """The agent asks whether it may."""
        self.pending[request_id] = ApprovalRequested(
            work_order_id=work_order_id,
            run_id="run-1",
            timestamp=NOON,
            request_id=request_id,
            tool_name="Bash",
            input={"command": "rm -r build"},
            expires_at=NOON + timedelta(minutes=5),
        )

    async def _work_order(self, work_order_id: str) -> WorkOrder:
        found = await self.journal.work_order(work_order_id)
        if found is None:
            raise NotFound(f"no work order {work_order_id}")
        return found

    async def _run(self, run_id: str) -> Run:
        found = await self.journal.run(run_id)
        if found is None:
            raise NotFound(f"no run {run_id}")
        return found

    async def _become(self, work_order: WorkOrder, status: Any) -> WorkOrder:
        changed = attrs.evolve(work_order, status=status)
        event = WorkOrderUpdated(
            work_order_id=changed.id, timestamp=NOON, status=status, previous_status=work_order.status
        )
        await self.journal.append([event], work_orders=[changed])
        return changed
