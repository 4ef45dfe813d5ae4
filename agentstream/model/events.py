"""What happens in a work order and its runs: one frozen attrs class per ``type`` of PROTOCOL.md, "Events".

Events are made by the parsers in `agentstream.agents` and by the run nursery. They carry no ``seq`` until the journal gives
them one; JSON text without ``seq`` is what the journal stores, and ``seq`` is spliced in when a frame is made (`wire`). Field
names here are snake_case, on the wire they are camelCase; optional fields that are None are left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import attrs

ToolName = Literal["Read", "Write", "Edit", "Bash", "Grep", "Glob", "WebFetch", "WebSearch", "Other"]
ErrorSource = Literal["stderr", "agent", "parser", "daemon"]
FileAction = Literal["created", "modified", "deleted"]
Phase = Literal["Starting", "Reading", "Planning", "Implementing", "Testing", "Finalizing"]
WorkOrderStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
Decision = Literal["allow", "deny"]
FilterName = Literal[
    "include_tool_calls",
    "include_tool_results",
    "include_output",
    "include_file_changes",
    "include_progress",
    "include_thinking",
    "include_deltas",
    "include_raw",
]


def _tag(value: str) -> Any:
    return attrs.field(default=value, init=False, repr=False)


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events. ``timestamp`` is UTC; on the wire ISO 8601 with milliseconds and ``Z``."""

    #: The filters that must all be on for a subscriber to get this event; empty: it is always sent.
    filters: ClassVar[tuple[FilterName, ...]] = ()
    #: An ephemeral event is never journalled and has no ``seq``.
    ephemeral: ClassVar[bool] = False

    type: str = _tag("")
    work_order_id: str
    timestamp: datetime
    #: Position in the journal; None until the journal has given one, and for ever on ephemeral events.
    seq: int | None = None
    #: False when the disk failed and this event was delivered without being journalled; otherwise left out.
    journalled: bool | None = None


# --- work orders -------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class WorkOrderCreated(Event):
    """Goes to every authenticated client, whatever it subscribed to."""

    type: Literal["work_order_created"] = _tag("work_order_created")
    task_prompt: str
    status: WorkOrderStatus
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class WorkOrderUpdated(Event):
    """A status transition (`orders.WORK_ORDER_TRANSITIONS`)."""

    type: Literal["work_order_updated"] = _tag("work_order_updated")
    status: WorkOrderStatus
    previous_status: WorkOrderStatus | None = None


# --- runs --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RunEvent(Event):
    """Base of all events that belong to one run."""

    run_id: str


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens and money. Counts are cumulative for what the carrying event describes (a turn, or the whole run)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    total_cost_usd: float | None = None

    @property
    def total_tokens(self) -> int:
        """Input, output and both kinds of cache tokens together."""
        return (
            self.input_tokens + self.output_tokens + (self.cache_read_tokens or 0) + (self.cache_creation_tokens or 0)
        )


@attrs.frozen(kw_only=True)
class RunStarted(RunEvent):
    """The agent's process is about to be spawned. ``run_number`` counts the work order's runs from 1."""

    type: Literal["run_started"] = _tag("run_started")
    run_number: int
    agent_type: str
    resumed: bool | None = None


@attrs.frozen(kw_only=True)
class RunCompleted(RunEvent):
    """The agent finished its task."""

    type: Literal["run_completed"] = _tag("run_completed")
    duration_ms: int
    result: str | None = None
    session_id: str | None = None
    usage: Usage | None = None
    total_cost_usd: float | None = None
    turns: int | None = None
    pr_url: str | None = None
    branch_name: str | None = None
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class RunFailed(RunEvent):
    """The run ended without finishing its task. ``error`` says what to do; ``error_code`` is one of docs/errors.md."""

    type: Literal["run_failed"] = _tag("run_failed")
    error: str
    error_code: str
    exit_code: int | None = None
    signal: str | None = None
    duration_ms: int
    session_id: str | None = None
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class RunCanceled(RunEvent):
    """Somebody stopped the run. Comes after the last event of the agent."""

    type: Literal["run_canceled"] = _tag("run_canceled")
    reason: str | None = None
    duration_ms: int
    session_id: str | None = None


@attrs.frozen(kw_only=True)
class RunRetryScheduled(RunEvent):
    """The run failed with something worth retrying; the next attempt starts at ``retry_at``."""

    type: Literal["run_retry_scheduled"] = _tag("run_retry_scheduled")
    attempt: int
    max_attempts: int
    error_code: str
    delay_seconds: float
    retry_at: datetime


# --- the agent ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AgentSession(RunEvent):
    """The agent told its session, which can be resumed later."""

    type: Literal["agent_session"] = _tag("agent_session")
    session_id: str
    model: str | None = None
    agent_version: str | None = None
    cwd: str | None = None
    tools: list[str] | None = None


@attrs.frozen(kw_only=True)
class AgentToolCall(RunEvent):
    """The agent calls a tool. ``tool`` is the protocol's name for it, ``tool_name`` the agent's own."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_tool_calls",)

    type: Literal["agent_tool_call"] = _tag("agent_tool_call")
    tool_use_id: str
    tool: ToolName
    tool_name: str
    input: dict[str, Any]
    parent_tool_use_id: str | None = None
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class AgentToolResult(RunEvent):
    """A tool call's result. ``content_length`` is in characters, ``duration_ms`` is timed by us from the call."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_tool_results",)

    type: Literal["agent_tool_result"] = _tag("agent_tool_result")
    tool_use_id: str
    success: bool
    content_preview: str
    content_length: int
    duration_ms: int
    parent_tool_use_id: str | None = None


@attrs.frozen(kw_only=True)
class AgentOutput(RunEvent):
    """Text that the agent says."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_output",)

    type: Literal["agent_output"] = _tag("agent_output")
    content: str
    message_id: str | None = None
    parent_tool_use_id: str | None = None


@attrs.frozen(kw_only=True)
class AgentThinking(RunEvent):
    """What the agent thinks, where it shows it."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_thinking",)

    type: Literal["agent_thinking"] = _tag("agent_thinking")
    content: str
    message_id: str | None = None
    parent_tool_use_id: str | None = None


@attrs.frozen(kw_only=True)
class AgentOutputDelta(RunEvent):
    """A piece of text as the model produces it; the full `AgentOutput` follows."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_output", "include_deltas")
    ephemeral: ClassVar[bool] = True

    type: Literal["agent_output_delta"] = _tag("agent_output_delta")
    content: str
    message_id: str | None = None


@attrs.frozen(kw_only=True)
class AgentError(RunEvent):
    """Something went wrong, in the agent or around it. Never throttled, filtered or dropped."""

    type: Literal["agent_error"] = _tag("agent_error")
    message: str
    code: str
    source: ErrorSource
    details: dict[str, Any] | None = None
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class AgentUsage(RunEvent):
    """Tokens and money of the run so far."""

    type: Literal["agent_usage"] = _tag("agent_usage")
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    total_cost_usd: float | None = None


@attrs.frozen(kw_only=True)
class PlanItem:
    """One entry of the agent's to-do list; ``status`` is ``pending``, ``in_progress`` or ``completed``."""

    content: str
    status: str


@attrs.frozen(kw_only=True)
class AgentPlan(RunEvent):
    """The agent's whole to-do list, each time it changes."""

    type: Literal["agent_plan"] = _tag("agent_plan")
    items: list[PlanItem]


@attrs.frozen(kw_only=True)
class AgentRateLimit(RunEvent):
    """The agent's account is near or over a limit. ``status``: ``allowed``, ``allowed_warning`` or ``rejected``."""

    type: Literal["agent_rate_limit"] = _tag("agent_rate_limit")
    status: str
    resets_at: datetime | None = None
    kind: str | None = None


@attrs.frozen(kw_only=True)
class AgentStatus(RunEvent):
    """What the agent does besides talking and calling tools: ``compaction``, ``hook``, ``task``, ``status``."""

    type: Literal["agent_status"] = _tag("agent_status")
    kind: str
    message: str
    details: dict[str, Any] | None = None
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class AgentRaw(RunEvent):
    """A line that no parser knows. ``kind`` is its type as far as it can be told."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_raw",)

    type: Literal["agent_raw"] = _tag("agent_raw")
    kind: str
    raw: Any
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class ApprovalRequested(RunEvent):
    """The agent asks whether it may use a tool. Without an answer until ``expires_at`` it is denied."""

    type: Literal["approval_requested"] = _tag("approval_requested")
    request_id: str
    tool_name: str
    input: dict[str, Any]
    expires_at: datetime
    tool_use_id: str | None = None
    truncated: dict[str, int] | None = None


@attrs.frozen(kw_only=True)
class ApprovalResolved(RunEvent):
    """A request was answered, or expired (then ``message`` says so)."""

    type: Literal["approval_resolved"] = _tag("approval_resolved")
    request_id: str
    decision: Decision
    message: str | None = None


# --- the workspace and progress -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class FileChanged(RunEvent):
    """A file of the workspace changed. ``path`` is relative to it, with ``/``; no ``size_bytes`` when deleted."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_file_changes",)

    type: Literal["file_changed"] = _tag("file_changed")
    path: str
    action: FileAction
    size_bytes: int | None = None


@attrs.frozen(kw_only=True)
class ProgressUpdate(RunEvent):
    """An estimate. ``percentage`` never falls and is 100 only when the run is complete."""

    filters: ClassVar[tuple[FilterName, ...]] = ("include_progress",)

    type: Literal["progress_update"] = _tag("progress_update")
    percentage: int
    current_phase: Phase
    tool_call_count: int
    elapsed_seconds: float
    estimated_remaining_seconds: float | None = None


@attrs.frozen(kw_only=True)
class UnknownEvent(Event):
    """What a client makes of a type that it doesn't know yet. Never sent by the daemon."""

    type: str = attrs.field()
    data: dict[str, Any]


#: Every event class that goes over the wire, in the order of the reference.
EVENT_CLASSES: tuple[type[Event], ...] = (
    WorkOrderCreated,
    WorkOrderUpdated,
    RunStarted,
    RunCompleted,
    RunFailed,
    RunCanceled,
    RunRetryScheduled,
    AgentSession,
    AgentToolCall,
    AgentToolResult,
    AgentOutput,
    AgentThinking,
    AgentOutputDelta,
    AgentError,
    AgentUsage,
    AgentPlan,
    AgentRateLimit,
    AgentStatus,
    AgentRaw,
    ApprovalRequested,
    ApprovalResolved,
    FileChanged,
    ProgressUpdate,
)
