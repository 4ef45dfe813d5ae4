"""What the door (HTTP, WebSocket) may ask of the orchestrator. The orchestrator itself is `orchestration.orchestrator`."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from agentstream.agents.base import Capabilities
from agentstream.model.events import ApprovalRequested, Decision
from agentstream.model.orders import Run, WorkOrder, WorkOrderRequest


@attrs.frozen(kw_only=True)
class AgentInfo:
    """One agent type, for ``GET /agents`` and ``agentstream agents``. Never holds a secret."""

    agent_type: str
    label: str
    installed: bool
    program: str
    version: str | None = None
    #: Which login would be used, in words; None when there is none.
    login: str | None = None
    #: Why it can't be used, and what to do about it; None when it can.
    problem: str | None = None
    capabilities: Capabilities


@attrs.frozen(kw_only=True)
class OrchestratorStatistics:
    """A frozen look, for health and metrics."""

    queued: int
    running: int
    max_concurrent_runs: int
    open_approvals: int
    accepting: bool
    #: Ended runs since the start, by outcome (``succeeded``, ``failed``, ``canceled``).
    outcomes: dict[str, int]
    malformed_lines: int = 0


class Orchestration(Protocol):
    """Work orders in, runs out. Every method raises an `AgentstreamError` that says what to do."""

    def statistics(self) -> OrchestratorStatistics:
        """A frozen look, without I/O."""

    async def submit(self, request: WorkOrderRequest) -> tuple[WorkOrder, bool]:
        """Queue a work order. True: it is new; False: the same id and body were submitted before.

        Raises `Conflict` for the same id with another body, `Forbidden` for a workspace outside the roots, `InvalidMessage` for
        an unknown agent type or a workspace that does not exist.
        """

    async def further_run(self, work_order_id: str, *, task_prompt: str | None, resume: bool) -> WorkOrder:
        """Queue one more run of an ended work order; ``resume`` continues the agent's last session."""

    async def cancel(
        self, *, work_order_id: str | None = None, run_id: str | None = None, reason: str | None = None
    ) -> WorkOrder:
        """Cancel a queued or running work order; returns it once that is done. Ended ones are returned as they are."""

    async def send_message(self, run_id: str, text: str) -> None:
        """A follow-up to a run that takes input. Raises `Conflict` when it takes none (any more)."""

    async def interrupt(self, run_id: str) -> None:
        """Stop the current turn, keep the run."""

    async def close_input(self, run_id: str) -> None:
        """No more messages: the run ends after its turn."""

    async def resolve_approval(
        self,
        request_id: str,
        decision: Decision,
        *,
        message: str | None = None,
        updated_input: dict[str, Any] | None = None,
    ) -> None:
        """Answer a permission request. Raises `NotFound` when there is none (any more)."""

    def approvals(self) -> list[ApprovalRequested]:
        """Permission requests that wait for an answer, oldest first."""

    async def tool_call(self, run_id: str, tool_use_id: str) -> dict[str, Any]:
        """One tool call and its result whole, read again from the run's raw stdout. Raises `NotFound`."""

    def raw_log(self, run: Run, stream: str) -> str:
        """Absolute path of a run's raw ``stdout`` or ``stderr``. Raises `NotFound` when retention has removed it."""

    async def agents(self) -> list[AgentInfo]:
        """All agent types, as they are on this machine now."""

    def deltas_wanted(self, work_order_id: str, wanted: bool) -> None:
        """A subscriber with ``includeDeltas`` came (True) or went (False); ``"*"`` counts for every work order."""
