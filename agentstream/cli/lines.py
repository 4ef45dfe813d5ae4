"""One event, one line for people: a symbol, a colour, what matters. Pure.

Each event class has its function in the table at the end; a test fails when one has none. Long texts (output) keep their lines;
everything else is one line. Whatever an agent may have put in goes through `text.safe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import orjson
from rich.text import Text

from agentstream.cli.text import count, duration, many, money, one_line, safe, size
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentOutputDelta,
    AgentPlan,
    AgentRateLimit,
    AgentRaw,
    AgentSession,
    AgentStatus,
    AgentThinking,
    AgentToolCall,
    AgentToolResult,
    AgentUsage,
    ApprovalRequested,
    ApprovalResolved,
    Event,
    FileChanged,
    ProgressUpdate,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunRetryScheduled,
    RunStarted,
    ToolName,
    UnknownEvent,
    WorkOrderCreated,
    WorkOrderStatus,
    WorkOrderUpdated,
)

#: No emoji, and nothing that Unicode made wide later (☰): terminals disagree on their width.
TOOL_STYLES: Final[Mapping[ToolName, tuple[str, str]]] = {
    "Read": ("◇", "cyan"),
    "Write": ("✚", "green"),
    "Edit": ("✎", "yellow"),
    "Bash": ("$", "magenta"),
    "Grep": ("⌕", "blue"),
    "Glob": ("✱", "blue"),
    "WebFetch": ("⇣", "bright_blue"),
    "WebSearch": ("⇄", "bright_blue"),
    "Other": ("⚙", "bright_cyan"),
}
STATUS_STYLES: Final[Mapping[WorkOrderStatus, str]] = {
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "canceled": "bright_black",
}
_FILE_STYLES: Final = {"created": ("+", "green"), "modified": ("~", "yellow"), "deleted": ("-", "red")}
#: What says most about a call, in the order in which it is looked for; agents agree on these names more or less.
_TELLING: Final = ("command", "file_path", "path", "pattern", "query", "url", "description", "prompt")


def line(event: Event, workspace: str = "") -> Text:
    """What a person should see of an event. Paths below ``workspace``, if it is known, are shown without it.

    Not in questions: who allows something must see it as it is.
    """
    if workspace:
        match event:
            case AgentToolCall():
                event = attrs.evolve(event, input=_shorter(event.input, f"{workspace}/"))
            case AgentToolResult():
                event = attrs.evolve(event, content_preview=event.content_preview.replace(f"{workspace}/", ""))
    return _LINES[type(event)](event)


def _shorter(given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value.replace(prefix, "") if isinstance(value, str) else value for key, value in given.items()}


def tool_input(given: Mapping[str, Any]) -> str:
    """What a tool was called with, in short."""
    for key in _TELLING:
        value = given.get(key)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        if isinstance(value, str) and value:
            return one_line(value)
    if isinstance(todos := given.get("todos"), list):
        return many(len(todos), "item")
    return one_line(orjson.dumps(given, default=str, option=orjson.OPT_NON_STR_KEYS).decode()) if given else ""


def facts(*parts: str | None) -> str:
    """Those parts that are known, joined."""
    return " · ".join(part for part in parts if part)


def _made(symbol: str, style: str, head: str, rest: str = "", rest_style: str = "") -> Text:
    text = Text.assemble((f"{symbol} {head}", style))
    if rest:
        text.append(" ")
        text.append(rest, rest_style)
    return text


def _nested(parent: str | None, text: Text) -> Text:
    """What a sub-agent does stands further to the right."""
    return Text("  ") + text if parent else text


def _work_order_created(event: WorkOrderCreated) -> Text:
    return _made("●", STATUS_STYLES[event.status], event.status, one_line(event.task_prompt))


def _work_order_updated(event: WorkOrderUpdated) -> Text:
    return _made("●", STATUS_STYLES[event.status], event.status)


def _run_started(event: RunStarted) -> Text:
    agent = "demo (no model is asked)" if event.agent_type == "demo" else one_line(event.agent_type)
    return _made("▶", "bold cyan", f"run {event.run_number}", facts(agent, "resumed" if event.resumed else None))


def _run_completed(event: RunCompleted) -> Text:
    tokens = event.usage.total_tokens if event.usage else 0
    told = facts(
        duration(event.duration_ms / 1000),
        many(event.turns, "turn") if event.turns else None,
        f"{count(tokens)} tokens" if tokens else None,
        money(event.total_cost_usd) if event.total_cost_usd else None,
        one_line(event.branch_name) if event.branch_name else None,
        one_line(event.pr_url) if event.pr_url else None,
    )
    return _made("✔", "bold green", "completed", told)


def _run_failed(event: RunFailed) -> Text:
    told = facts(
        one_line(event.error, 500),
        one_line(event.error_code),
        f"exit status {event.exit_code}" if event.exit_code is not None else None,
        event.signal and one_line(event.signal),
        duration(event.duration_ms / 1000),
    )
    return _made("✘", "bold red", "failed", told, "red")


def _run_canceled(event: RunCanceled) -> Text:
    return _made("■", "bold bright_black", "canceled", one_line(event.reason or ""))


def _run_retry_scheduled(event: RunRetryScheduled) -> Text:
    told = f"attempt {event.attempt} of {event.max_attempts} in {duration(event.delay_seconds)}"
    return _made("↻", "yellow", "retry", facts(told, one_line(event.error_code)))


def _agent_session(event: AgentSession) -> Text:
    told = facts(*(one_line(part) for part in (event.session_id, event.model, event.agent_version) if part))
    return _made("⚑", "bright_black", "session", told, "bright_black")


def _agent_tool_call(event: AgentToolCall) -> Text:
    symbol, style = TOOL_STYLES[event.tool]
    return _nested(
        event.parent_tool_use_id, _made(symbol, f"bold {style}", one_line(event.tool_name, 60), tool_input(event.input))
    )


def _agent_tool_result(event: AgentToolResult) -> Text:
    symbol, style = ("✓", "green") if event.success else ("✗", "red")
    told = one_line(event.content_preview, 120)
    text = Text.assemble(("  " + symbol, style), (f" {duration(event.duration_ms / 1000)} ", "bright_black"))
    return _nested(event.parent_tool_use_id, text.append(told, "" if not event.success else "bright_black"))


def _agent_output(event: AgentOutput) -> Text:
    return _nested(event.parent_tool_use_id, Text(safe(event.content)))


def _agent_thinking(event: AgentThinking) -> Text:
    return _nested(event.parent_tool_use_id, Text(f"… {one_line(event.content)}", "italic bright_black"))


def _agent_output_delta(event: AgentOutputDelta) -> Text:
    return Text(safe(event.content), "bright_black")


def _agent_error(event: AgentError) -> Text:
    return _made("!", "bold red", event.source, facts(one_line(event.message, 500), one_line(event.code)), "red")


def usage(event: AgentUsage) -> str:
    """Tokens and money of an event."""
    cached = (event.cache_read_tokens or 0) + (event.cache_creation_tokens or 0)
    return facts(
        f"{count(event.input_tokens + cached)} tokens in",
        f"{count(event.output_tokens)} out",
        money(event.total_cost_usd) if event.total_cost_usd else None,
    )


def _agent_usage(event: AgentUsage) -> Text:
    return Text(f"Σ {usage(event)}", "bright_black")


def _agent_plan(event: AgentPlan) -> Text:
    done = sum(item.status == "completed" for item in event.items)
    current = next((item.content for item in event.items if item.status == "in_progress"), "")
    return _made("≡", "bold", f"plan {done}/{len(event.items)}", one_line(current))


def _agent_rate_limit(event: AgentRateLimit) -> Text:
    resets = f"until {event.resets_at:%H:%M} UTC" if event.resets_at else None
    return _made(
        "⧗", "yellow", "rate limit", facts(one_line(event.status), event.kind and one_line(event.kind), resets)
    )


def _agent_status(event: AgentStatus) -> Text:
    return Text(f"· {facts(one_line(event.kind, 40), one_line(event.message))}", "bright_black")


def _agent_raw(event: AgentRaw) -> Text:
    raw = event.raw if isinstance(event.raw, str) else orjson.dumps(event.raw, default=str).decode()
    return Text(f"? {one_line(event.kind, 40)} {one_line(raw)}", "bright_black")


def _approval_requested(event: ApprovalRequested) -> Text:
    told = f"{one_line(event.tool_name, 60)} {tool_input(event.input)}"
    text = _made("?", "bold yellow", "allow", told, "bold")
    return text.append(f"  (request {one_line(event.request_id)})", "bright_black")


def _approval_resolved(event: ApprovalResolved) -> Text:
    symbol, style, word = ("✓", "green", "allowed") if event.decision == "allow" else ("✗", "red", "denied")
    return _made(symbol, style, word, one_line(event.message or ""))


def _file_changed(event: FileChanged) -> Text:
    symbol, style = _FILE_STYLES[event.action]
    told = size(event.size_bytes) if event.size_bytes is not None else ""
    return _made("  " + symbol, style, one_line(event.path, 200), told, "bright_black")


def progress(event: ProgressUpdate) -> str:
    """Where a run stands."""
    left = event.estimated_remaining_seconds
    return facts(
        f"{event.percentage} %",
        event.current_phase,
        many(event.tool_call_count, "tool call"),
        duration(event.elapsed_seconds),
        f"about {duration(left)} left" if left else None,
    )


def _progress_update(event: ProgressUpdate) -> Text:
    return Text(f"‣ {progress(event)}", "bright_black")


def _unknown_event(event: UnknownEvent) -> Text:
    return Text(f"? {one_line(event.type)}", "bright_black")


_LINES: Final[Mapping[type[Event], Callable[[Any], Text]]] = {
    WorkOrderCreated: _work_order_created,
    WorkOrderUpdated: _work_order_updated,
    RunStarted: _run_started,
    RunCompleted: _run_completed,
    RunFailed: _run_failed,
    RunCanceled: _run_canceled,
    RunRetryScheduled: _run_retry_scheduled,
    AgentSession: _agent_session,
    AgentToolCall: _agent_tool_call,
    AgentToolResult: _agent_tool_result,
    AgentOutput: _agent_output,
    AgentThinking: _agent_thinking,
    AgentOutputDelta: _agent_output_delta,
    AgentError: _agent_error,
    AgentUsage: _agent_usage,
    AgentPlan: _agent_plan,
    AgentRateLimit: _agent_rate_limit,
    AgentStatus: _agent_status,
    AgentRaw: _agent_raw,
    ApprovalRequested: _approval_requested,
    ApprovalResolved: _approval_resolved,
    FileChanged: _file_changed,
    ProgressUpdate: _progress_update,
    UnknownEvent: _unknown_event,
}
