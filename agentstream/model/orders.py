"""Work orders and runs: what somebody asked for, and each attempt to carry it out.

Statuses change only along `WORK_ORDER_TRANSITIONS` and `RUN_TRANSITIONS`; everything else raises `IllegalTransition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

import attrs

from agentstream.errors import IllegalTransition
from agentstream.model.events import Usage, WorkOrderStatus

RunStatus = Literal["running", "succeeded", "failed", "canceled", "interrupted"]
PermissionMode = Literal["default", "acceptEdits", "bypassPermissions", "plan", "dontAsk", "auto"]

#: From each status to those that may follow. ``failed`` -> ``queued`` is a further run; so are the other ends.
WORK_ORDER_TRANSITIONS: Final[Mapping[WorkOrderStatus, frozenset[WorkOrderStatus]]] = {
    "queued": frozenset({"running", "canceled", "failed"}),
    "running": frozenset({"succeeded", "failed", "canceled", "queued"}),
    "succeeded": frozenset({"queued"}),
    "failed": frozenset({"queued"}),
    "canceled": frozenset({"queued"}),
}

RUN_TRANSITIONS: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    "running": frozenset({"succeeded", "failed", "canceled", "interrupted"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "canceled": frozenset(),
    "interrupted": frozenset(),
}

#: A caller's place in a trace: ``00-TRACE-PARENT-FLAGS`` (W3C Trace Context), neither of the two ids all zeros.
TRACEPARENT: Final = r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"

FINAL_STATUSES: Final[frozenset[WorkOrderStatus]] = frozenset({"succeeded", "failed", "canceled"})


def check_work_order_transition(old: WorkOrderStatus, new: WorkOrderStatus) -> None:
    """Raise `IllegalTransition` unless a work order may go from ``old`` to ``new``."""
    if new not in WORK_ORDER_TRANSITIONS[old]:
        raise IllegalTransition(f"a work order that is {old} can't become {new}")


def check_run_transition(old: RunStatus, new: RunStatus) -> None:
    """Raise `IllegalTransition` unless a run may go from ``old`` to ``new``."""
    if new not in RUN_TRANSITIONS[old]:
        raise IllegalTransition(f"a run that is {old} can't become {new}")


@attrs.frozen(kw_only=True)
class WorkspaceSource:
    """Where the agent works: a ``local`` directory below one of the workspace roots, or a ``fresh`` empty one."""

    type: Literal["local", "fresh"]
    path: str | None = None


@attrs.frozen(kw_only=True)
class StreamingOptions:
    """Which of a run's events are made at all. Errors and lifecycle events always are."""

    emit_tool_calls: bool = True
    emit_tool_results: bool = True
    emit_output: bool = True
    #: Milliseconds between two `ProgressUpdate` of a quiet run; at least 100.
    progress_interval_ms: int = attrs.field(default=5000, validator=attrs.validators.ge(100))


@attrs.frozen(kw_only=True)
class WorkOrderRequest:
    """The body of ``POST /api/v1/work-orders`` and of the WebSocket's ``submit``."""

    task_prompt: str = attrs.field(validator=attrs.validators.min_len(1))
    workspace_source: WorkspaceSource
    agent_type: str = "claude-code"
    #: The client's own id makes the submission idempotent: letters, digits, ``._:-``, at most 128.
    id: str | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.matches_re(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")),
    )
    model: str | None = None
    max_turns: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    permission_mode: PermissionMode | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    system_prompt: str | None = None
    resume_session_id: str | None = None
    timeout_seconds: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    idle_timeout_seconds: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    env: dict[str, str] | None = None
    max_attempts: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(100)])
    interactive: bool = False
    #: Ask the agent for partial messages even while nobody subscribed with ``includeDeltas``.
    include_deltas: bool = False
    streaming: StreamingOptions = attrs.field(factory=StreamingOptions)
    #: The caller's W3C trace context, which the runs continue; over HTTP the header of that name does the same. No part of
    #: what is asked for: the same ``id`` may come again with another one.
    traceparent: str | None = attrs.field(
        default=None, eq=False, validator=attrs.validators.optional(attrs.validators.matches_re(TRACEPARENT))
    )


@attrs.frozen(kw_only=True)
class WorkOrder:
    """A work order as it is kept in the journal and answered over HTTP."""

    id: str
    request: WorkOrderRequest
    #: The resolved, absolute workspace.
    workspace: str
    status: WorkOrderStatus
    created_at: datetime
    updated_at: datetime
    #: Runs so far.
    run_count: int = 0
    #: Attempts at the current task; a further run begins again at 0.
    attempt: int = 0
    #: What the last run told; a further run can resume it.
    session_id: str | None = None
    #: What the next run is asked instead of the request's prompt.
    next_prompt: str | None = None
    #: The session that the next run continues.
    next_session_id: str | None = None
    error: str | None = None
    error_code: str | None = None


@attrs.frozen(kw_only=True)
class Run:
    """One attempt: one agent process from spawn to exit. The final result is in it once it ended."""

    id: str
    work_order_id: str
    run_number: int
    agent_type: str
    status: RunStatus
    started_at: datetime
    prompt: str
    ended_at: datetime | None = None
    duration_ms: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    error: str | None = None
    error_code: str | None = None
    result: str | None = None
    session_id: str | None = None
    resumed_session_id: str | None = None
    usage: Usage | None = None
    total_cost_usd: float | None = None
    turns: int | None = None
    #: Lines of the agent that could not be read.
    malformed_lines: int = 0
    #: Where the raw stdout and stderr are, below the data directory.
    directory: str | None = None
    details: dict[str, Any] | None = None
