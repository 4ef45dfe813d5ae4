"""Claude Code's lines that tell about the run rather than of the work: limits, retries, hooks, tasks, compaction. Pure.

Rows of `claude_code_kinds.LINE_KINDS`; each function reads one kind of line for a parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentstream.agents.base import Moment
from agentstream.agents.claude_code_endings import api_code
from agentstream.agents.content import mapping, maybe_string, number, picked, readable, string, time_of
from agentstream.model.events import AgentRateLimit, Event

if TYPE_CHECKING:
    from agentstream.agents.claude_code_lines import ClaudeLines

#: Background tasks that are remembered. A run has a handful.
_MAX_TASKS: Final = 1_000
_ENDED: Final = frozenset({"completed", "failed", "killed", "stopped", "canceled", "cancelled"})


def rate_limit(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    info = line["rate_limit_info"]
    resets_at = time_of(info.get("resetsAt"))
    status = string(info, "status")
    # A warning's reset is no reason to wait.
    parser.summary.resets_at = resets_at if status == "rejected" else None
    out.append(
        AgentRateLimit(
            work_order_id=parser.work_order_id,
            run_id=parser.run_id,
            timestamp=at.wall,
            status=status,
            resets_at=resets_at,
            kind=maybe_string(info, "rateLimitType"),
        )
    )


def api_retry(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    error, status = maybe_string(line, "error"), line.get("error_status")
    parser.network = status is None
    if status is None:
        why = "the API could not be reached"
    else:
        why = f"{(error or 'an error').replace('_', ' ')} (HTTP {readable(status)})"
    attempt, most = line.get("attempt"), line.get("max_retries")
    delay = number(line.get("retry_delay_ms")) or 0.0
    parser.failing(api_code(error, status, "", network=status is None), f"{why}, attempt {attempt} of {most}")
    parser.error(
        "API_RETRY",
        f"attempt {attempt} of {most} in {delay / 1000:.1f} s, because {why}",
        at,
        out,
        details=picked(line, "attempt", "max_retries", "retry_delay_ms", "error_status", "error"),
    )


def status(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    now, result = maybe_string(line, "status"), maybe_string(line, "compact_result")
    if result is not None:
        error = maybe_string(line, "compact_error")
        parser.status("compaction", f"compaction {result}" + (f": {error}" if error else ""), at, out)
    elif now == "compacting":
        parser.status("compaction", "compacting the conversation", at, out)
    elif now is not None:
        parser.status("status", now, at, out)
    elif mode := maybe_string(line, "permissionMode"):
        parser.status("status", f"permission mode {mode}", at, out)


def compacted(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    details = picked(mapping(line.get("compact_metadata")), "trigger", "pre_tokens", "post_tokens")
    parser.status("compaction", "the conversation was summarized", at, out, details)


def hook_started(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    name = maybe_string(line, "hook_name") or "unnamed"
    parser.status("hook", f"hook {name} started", at, out, picked(line, "hook_id", "hook_name", "hook_event"))


def hook_response(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    name, outcome = maybe_string(line, "hook_name") or "unnamed", maybe_string(line, "outcome") or "ended"
    details = picked(line, "hook_id", "hook_name", "hook_event", "outcome", "exit_code", "output")
    parser.status("hook", f"hook {name}: {outcome}", at, out, details)


def task_started(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    parser.tasks[string(line, "task_id")] = maybe_string(line, "tool_use_id")
    if len(parser.tasks) > _MAX_TASKS:
        del parser.tasks[next(iter(parser.tasks))]
    details = picked(line, "task_id", "tool_use_id", "task_type", "subagent_type")
    parser.status("task", f"task started: {maybe_string(line, 'description') or 'unnamed'}", at, out, details)


def task_progress(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    details = picked(line, "task_id", "tool_use_id", "last_tool_name", "usage")
    parser.status("task", f"task: {maybe_string(line, 'description') or 'going on'}", at, out, details)


def task_updated(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    task_id = string(line, "task_id")
    now = maybe_string(mapping(line.get("patch")), "status")
    if now in _ENDED:
        parser.tasks.pop(task_id, None)
    parser.status("task", f"task {now or 'updated'}", at, out, {"taskId": task_id, **({"status": now} if now else {})})


def task_notification(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    parser.tasks.pop(string(line, "task_id"), None)
    now, summary = maybe_string(line, "status") or "ended", maybe_string(line, "summary")
    details = picked(line, "task_id", "tool_use_id", "status", "output_file", "usage")
    parser.status("task", f"task {now}" + (f": {summary}" if summary else ""), at, out, details)


def tool_ended(parser: ClaudeLines, tool_use_id: str, failed: bool, structured: Any) -> None:
    """A result ends its call's task, unless it only says that the task goes on in the background.

    Every recorded task has a notification of its own; but a run whose task were never over would never be idle, so the
    plain cases do not rely on it.
    """
    if tool_use_id not in parser.tasks.values():
        return
    result = mapping(structured)
    if not failed and (not result or "backgroundTaskId" in result or result.get("status", "completed") != "completed"):
        return
    for task_id in [task for task, call in parser.tasks.items() if call == tool_use_id]:
        del parser.tasks[task_id]


def refusal(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    parser.refused = True
    why = maybe_string(line, "api_refusal_explanation") or maybe_string(line, "api_refusal_category")
    parser.status(
        "status",
        "the model refused the request" + (f": {why}" if why else ""),
        at,
        out,
        picked(line, "original_model", "api_refusal_category"),
    )


def plain_error(parser: ClaudeLines, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
    error = line.get("error")
    text = maybe_string(mapping(error), "message") or maybe_string(line, "message") or readable(error)
    parser.failing("AGENT_ERROR", text)
    parser.error("AGENT_ERROR", text or "an error without a message", at, out)
