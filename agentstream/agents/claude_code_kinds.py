"""Claude Code's kinds of lines, and what becomes of each: THE table. Pure.

The parser dispatches from `LINE_KINDS` and docs/reference/claude-code-lines.md is generated from it, so that they can't differ.
A kind is ``type``, ``type/subtype``, or ``type [block]``; what is not in the table becomes an `agent_raw`. The kinds were found
by running the program (tests/recordings/claude), save those of tools at the API, the compact boundary and the one-block lines of
older tools, which are documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from agentstream.agents import claude_code_status as status
from agentstream.agents.base import Moment
from agentstream.agents.claude_code_lines import ClaudeLines, Reader
from agentstream.model.events import Event


def _ignore(_parser: ClaudeLines, _item: Any, _line: Any, _at: Moment, _out: list[Event]) -> None:
    pass


@attrs.frozen
class LineKind:
    """A kind of line or block, who reads it, and what becomes of it."""

    kind: str
    becomes: str
    read: Reader


LINE_KINDS: Final[tuple[LineKind, ...]] = (
    LineKind(
        "system/init",
        "`agent_session`, when it says something new: with stream input it comes again for each turn",
        ClaudeLines.init,
    ),
    LineKind(
        "assistant",
        "its blocks, one by one. A message of the model `<synthetic>` with an `error` is an error of the API shown as "
        "text: `agent_error`, no output. Its `usage` is ignored: it is not the turn's",
        ClaudeLines.assistant,
    ),
    LineKind("assistant [text]", "`agent_output`; an empty text is skipped", ClaudeLines.text),
    LineKind("assistant [thinking]", "`agent_thinking`; an empty one is skipped", ClaudeLines.thinking),
    LineKind("assistant [redacted_thinking]", "`agent_thinking` that says that it is redacted", ClaudeLines.redacted),
    LineKind(
        "assistant [tool_use]",
        "`agent_tool_call`; a `TodoWrite` of the main agent is `agent_plan` besides",
        ClaudeLines.tool_use,
    ),
    LineKind("assistant [server_tool_use]", "`agent_tool_call`: a tool that runs at the API", ClaudeLines.tool_use),
    LineKind("assistant [mcp_tool_use]", "`agent_tool_call`: a tool that runs at the API", ClaudeLines.tool_use),
    LineKind("assistant [web_search_tool_result]", "`agent_tool_result`", ClaudeLines.tool_result),
    LineKind("assistant [web_fetch_tool_result]", "`agent_tool_result`", ClaudeLines.tool_result),
    LineKind("assistant [mcp_tool_result]", "`agent_tool_result`", ClaudeLines.tool_result),
    LineKind("user", "its blocks, one by one", ClaudeLines.user),
    LineKind(
        "user [tool_result]",
        "`agent_tool_result`, timed from its call; images become their type and size. That of a `TaskCreate`, "
        "`TaskUpdate` or `TaskList` of the main agent is `agent_plan` besides, when the list changed",
        ClaudeLines.tool_result,
    ),
    LineKind(
        "user [text]",
        "`agent_status` when it is the marker of an interrupt; otherwise nothing: the prompt of a sub-agent (it is in the "
        "call's input), a message of ours sent back, or a text of the program to the model",
        ClaudeLines.user_text,
    ),
    LineKind("user [image]", "nothing: it was sent to the model", _ignore),
    LineKind("user [document]", "nothing: it was sent to the model", _ignore),
    LineKind(
        "stream_event",
        "`agent_output_delta` for a piece of text of the main agent; nothing for every other raw event of the API (pieces of "
        "thinking and of tool input, starts and stops): the whole follows",
        ClaudeLines.stream_event,
    ),
    LineKind(
        "result",
        "`agent_usage` with the total of the run so far; a failed `agent_tool_result` for each call that has none; "
        "`agent_error` for a failure that was not told before. It ends the run, or the turn with stream input",
        ClaudeLines.report,
    ),
    LineKind(
        "rate_limit_event", "`agent_rate_limit`; a rejection's time of reset is when to try again", status.rate_limit
    ),
    LineKind("system/api_retry", "`agent_error` with the code `API_RETRY`: which attempt, when, why", status.api_retry),
    LineKind(
        "system/status",
        "`agent_status`: `compaction` when it begins and ends, otherwise `status`; nothing when it only says that the last "
        "one is over",
        status.status,
    ),
    LineKind(
        "system/compact_boundary", "`agent_status` `compaction`: the conversation was summarized", status.compacted
    ),
    LineKind("system/hook_started", "`agent_status` `hook`", status.hook_started),
    LineKind(
        "system/hook_response", "`agent_status` `hook` with its outcome, exit status and output", status.hook_response
    ),
    LineKind(
        "system/task_started", "`agent_status` `task`; it is in flight until its notification", status.task_started
    ),
    LineKind("system/task_progress", "`agent_status` `task`", status.task_progress),
    LineKind("system/task_updated", "`agent_status` `task`; a final status ends its flight", status.task_updated),
    LineKind("system/task_notification", "`agent_status` `task`: it has ended", status.task_notification),
    LineKind(
        "system/model_refusal_no_fallback",
        "`agent_status` `status`; the failure that follows has the code `REFUSED`",
        status.refusal,
    ),
    LineKind("system/thinking_tokens", "nothing: an estimate, many times a second", _ignore),
    LineKind("control_request/can_use_tool", "`approval_requested`, which is answered over stdin", ClaudeLines.may_it),
    LineKind(
        "control_cancel_request",
        "`approval_resolved` as denied: the agent took its request back",
        ClaudeLines.take_back,
    ),
    LineKind(
        "control_response",
        "nothing when it confirms what we sent; `agent_error` with the code `CONTROL_REFUSED` when it refuses it",
        ClaudeLines.control_response,
    ),
    LineKind("text", "`agent_output` (one block, as older tools print it)", ClaudeLines.text),
    LineKind("thinking", "`agent_thinking` (one block)", ClaudeLines.thinking),
    LineKind("tool_use", "`agent_tool_call` (one block)", ClaudeLines.tool_use),
    LineKind("tool_result", "`agent_tool_result` (one block)", ClaudeLines.tool_result),
    LineKind("error", "`agent_error` with the code `AGENT_ERROR` (older tools)", status.plain_error),
)


class ClaudeCodeParser(ClaudeLines):
    """The parser of one run of Claude Code."""

    readers: ClassVar[Mapping[str, Reader]] = {row.kind: row.read for row in LINE_KINDS}


def line_kinds_markdown() -> str:
    """docs/reference/claude-code-lines.md."""
    rows = "".join(f"| `{row.kind}` | {row.becomes} |\n" for row in LINE_KINDS)
    return (
        "# Claude Code: kinds of lines, and what becomes of each\n\n"
        "Generated from the parser's own table (`agentstream/agents/claude_code_kinds.py`). A kind is a line's `type`, "
        "`type/subtype`, or `type [block]` for a block inside a message.\n\n"
        "| line | what becomes of it |\n| --- | --- |\n"
        f"{rows}"
        "| any other | `agent_raw` with the line, for subscribers with `includeRaw` |\n"
        "| no JSON object | skipped and counted; the first of each kind of malformation in a run is an `agent_error` with the "
        "code `MALFORMED_LINE` |\n"
        "| empty | skipped |\n"
    )
