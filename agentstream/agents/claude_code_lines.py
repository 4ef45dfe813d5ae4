"""Reading Claude Code's stream-json: a line in, events out. Pure.

`ClaudeLines` has a method for each kind of line and block that is about the work; `claude_code_status` has those about the run;
`claude_code_kinds` has the table by which they are found.

A run may have several turns (stream input): each begins with ``system/init`` and ends with ``result``. After a ``result`` the
program is finished until something of a further turn comes; lines of a sub-agent or of a background task are no such thing, they
go on for 5 s after the result. The simplified one-block lines of older tools (``{"type":"text","text":...}``) are read as well.

Reading is tolerant where the meaning survives (a ``result`` counts whatever its usage looks like) and strict where it doesn't: a
block without its text raises, and becomes an `agent_raw`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final

from agentstream.agents import claude_code_status as status
from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.claude_code_endings import result_code
from agentstream.agents.content import count, mapping, maybe_string, number, readable, string
from agentstream.agents.endings import BY_CODE
from agentstream.agents.parsing import TURN_ENDED, LineParser, OpenCall
from agentstream.agents.plan import Plan
from agentstream.model.events import (
    AgentOutputDelta,
    AgentPlan,
    AgentSession,
    ApprovalRequested,
    ApprovalResolved,
    Event,
    ToolName,
    Usage,
)

#: Claude Code's names for what the protocol has a name for; everything else is ``Other``. The lower case ones run at the API.
TOOLS: Final[dict[str, ToolName]] = {
    "Read": "Read",
    "NotebookRead": "Read",
    "Write": "Write",
    "Edit": "Edit",
    "MultiEdit": "Edit",
    "NotebookEdit": "Edit",
    "Bash": "Bash",
    "PowerShell": "Bash",
    "Grep": "Grep",
    "Glob": "Glob",
    "WebFetch": "WebFetch",
    "web_fetch": "WebFetch",
    "WebSearch": "WebSearch",
    "web_search": "WebSearch",
}
#: Reads ``item`` (a line, or a block of it): the parser, the item, the whole line, the time, where to put the events.
Reader = Callable[[Any, dict[str, Any], dict[str, Any], Moment, list[Event]], None]

#: Their results can't be understood without their input.
_TASK_TOOLS: Final = frozenset({"TaskCreate", "TaskUpdate", "TaskList"})
#: "No expiry" still has to be a date: ten years.
_LONGEST_APPROVAL: Final = 10 * 366 * 86_400.0
#: Permission requests that are remembered as open. The program asks for a few at a time.
_MAX_ASKED: Final = 1_000


class ClaudeLines(LineParser):
    """One run's lines. What reads which kind is the subclass's table."""

    readers: ClassVar[Mapping[str, Reader]]
    # What differs in programs that speak a dialect of this.
    tools: ClassVar[Mapping[str, ToolName]] = TOOLS
    list_tool: ClassVar[str] = "TodoWrite"
    version_key: ClassVar[str] = "claude_code_version"
    input_has_cached: ClassVar[bool] = False

    def __init__(
        self, request: RunRequest, *, preview_limit: int | None = 500, approval_seconds: float = 300.0
    ) -> None:
        super().__init__(request, preview_limit=preview_limit)
        self._approval = timedelta(seconds=min(max(approval_seconds, 0.0), _LONGEST_APPROVAL))
        self._asked: dict[str, None] = {}
        self._session: tuple[Any, ...] | None = None
        self._plan = Plan()
        self._delta_message: str | None = None
        #: Background tasks by id, with the tool call that started each.
        self.tasks: dict[str, str | None] = {}
        # Of the current turn: what the API complained about, whether it was out of reach, and whether the model refused.
        self._api_error: str | None = None
        self.network = False
        self.refused = False
        self._error_told = False

    def read(self, item: dict[str, Any], at: Moment, out: list[Event]) -> None:
        reader = self.readers.get(item["type"]) or self.readers.get(self.kind_of(item))
        if reader is None:
            self.raw(self.kind_of(item), item, at, out)
        else:
            reader(self, item, item, at, out)

    def kind_of(self, item: dict[str, Any]) -> str:
        kind = item.get("type")
        if kind == "system":
            return f"system/{item.get('subtype')}"
        if kind == "control_request":
            return f"control_request/{mapping(item.get('request')).get('subtype')}"
        return super().kind_of(item)

    def in_flight(self) -> int:
        return len(self._calls) + len(self.tasks)

    def working(self) -> None:
        """The agent is at it (again): whatever was the matter before is over."""
        self._summary.finished = False
        self._summary.error_code = self._summary.error = None
        self._api_error = None
        self.network = self.refused = self._error_told = False

    # --- messages --------------------------------------------------------------------------------------------------

    def init(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        self.working()
        self._delta_message = None
        session_id = string(line, "session_id")
        self._summary.session_id = session_id
        tools = line.get("tools")
        session = AgentSession(
            timestamp=at.wall,
            session_id=session_id,
            model=maybe_string(line, "model"),
            agent_version=maybe_string(line, self.version_key),
            cwd=maybe_string(line, "cwd"),
            tools=[tool for tool in tools if type(tool) is str] if type(tools) is list else None,
            work_order_id=self.work_order_id,
            run_id=self.run_id,
        )
        what = (session.session_id, session.model, session.agent_version, session.cwd, session.tools)
        if what != self._session:
            self._session = what
            out.append(session)

    def assistant(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        message = line.get("message")
        error = line.get("error")
        if type(message) is dict and message.get("model") == "<synthetic>" and error:
            self.api_failed(maybe_string(line, "error") or "unknown", readable(message.get("content")), at, out)
            return
        if line.get("parent_tool_use_id") is None:
            self.working()
        self._blocks("assistant", message, line, at, out)

    def user(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        self._blocks("user", line.get("message"), line, at, out)

    def _blocks(self, role: str, message: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        if type(message) is dict:
            # A message that is itself a block (older tools) may have a "content" of its own: a tool_result's.
            blocks = [message] if f"{role} [{message.get('type')}]" in self.readers else message["content"]
        else:
            blocks = message
        if type(blocks) is str:
            blocks = [{"type": "text", "text": blocks}]
        if type(blocks) is not list:
            raise TypeError("content")
        for block in blocks:
            kind = f"{role} [{block.get('type')}]" if type(block) is dict else f"{role} [unknown]"
            reader = self.readers.get(kind)
            before = len(out)
            try:
                if reader is not None:
                    reader(self, block, line, at, out)
                    continue
            except Exception:  # noqa: BLE001 - one block of an unknown shape doesn't hurt its neighbours
                del out[before:]
            self.raw(kind, block, at, out)

    def text(self, block: dict[str, Any], line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        self.say(string(block, "text"), at, out, message_id=_message_id(line), parent=_parent(line))

    def thinking(self, block: dict[str, Any], line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        key = "thinking" if "thinking" in block else "text"
        self.think(string(block, key), at, out, message_id=_message_id(line), parent=_parent(line))

    def redacted(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        self.think("[redacted thinking]", at, out, message_id=_message_id(line), parent=_parent(line))

    def tool_use(self, block: dict[str, Any], line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        name = string(block, "name")
        arguments = block.get("input")
        if type(arguments) is not dict:
            arguments = {} if arguments is None else {"input": arguments}
        parent = _parent(line)
        self.call(
            maybe_string(block, "id"),
            self.tools.get(name, "Other"),
            name,
            arguments,
            at,
            out,
            parent=parent,
            keep_input=name in _TASK_TOOLS,
        )
        # A sub-agent's list is its own affair.
        if name == self.list_tool and parent is None and self._plan.replace(arguments.get("todos")):
            self._planned(at, out)

    def tool_result(self, block: dict[str, Any], line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        content = block.get("content")
        if content is None:
            content = block.get("output")
        failed = bool(block.get("is_error")) or _is_error_content(content)
        tool_use_id = maybe_string(block, "tool_use_id")
        structured = line.get("tool_use_result")
        call = self.result(tool_use_id, not failed, readable(content), at, out, parent=_parent(line))
        if tool_use_id is not None:
            status.tool_ended(self, tool_use_id, failed, structured)
        if call is not None and call.input is not None and call.parent is None and not failed:
            self._task_tool(call, mapping(structured), at, out)

    def user_text(self, block: dict[str, Any], line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        text = string(block, "text")
        if text.startswith("[Request interrupted") and not line.get("isReplay"):
            self.status("status", text.strip("[]"), at, out)

    # --- the to-do list --------------------------------------------------------------------------------------------

    def _task_tool(self, call: OpenCall, structured: dict[str, Any], at: Moment, out: list[Event]) -> None:
        asked = call.input or {}
        changed = False
        if call.name == "TaskCreate":
            task = mapping(structured.get("task"))
            subject = maybe_string(task, "subject") or maybe_string(asked, "subject")
            if (key := maybe_string(task, "id")) and subject:
                changed = self._plan.create(key, subject)
        elif call.name == "TaskUpdate":
            if structured.get("success") is not False and (key := maybe_string(asked, "taskId")):
                changed = self._plan.update(key, asked)
        else:
            changed = self._plan.replace(structured.get("tasks"))
        if changed:
            self._planned(at, out)

    def _planned(self, at: Moment, out: list[Event]) -> None:
        out.append(
            AgentPlan(timestamp=at.wall, items=self._plan.items(), work_order_id=self.work_order_id, run_id=self.run_id)
        )

    # --- deltas, limits, permissions -------------------------------------------------------------------------------

    def stream_event(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        # A delta doesn't say whose it is, and a sub-agent's text in between would break the main agent's.
        if line.get("parent_tool_use_id") is not None:
            return
        event = line["event"]
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = event["delta"]
            if delta.get("type") == "text_delta" and self.streaming.emit_output:
                out.append(
                    AgentOutputDelta(
                        timestamp=at.wall,
                        content=string(delta, "text"),
                        message_id=self._delta_message,
                        work_order_id=self.work_order_id,
                        run_id=self.run_id,
                    )
                )
        elif kind == "message_start":
            self._delta_message = maybe_string(event["message"], "id")

    def may_it(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        request = line["request"]
        request_id = string(line, "request_id")
        asked = request.get("input")
        event = ApprovalRequested(
            timestamp=at.wall,
            request_id=request_id,
            tool_name=string(request, "tool_name"),
            input=asked if type(asked) is dict else {},
            expires_at=at.wall + self._approval,
            tool_use_id=maybe_string(request, "tool_use_id"),
            work_order_id=self.work_order_id,
            run_id=self.run_id,
        )
        self._asked[request_id] = None
        if len(self._asked) > _MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        out.append(event)

    def take_back(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        request_id = string(line, "request_id")
        if request_id in self._asked:
            del self._asked[request_id]
            out.append(
                ApprovalResolved(
                    timestamp=at.wall,
                    request_id=request_id,
                    decision="deny",
                    message="The agent took the request back: the turn was interrupted.",
                    work_order_id=self.work_order_id,
                    run_id=self.run_id,
                )
            )

    def control_response(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        response = mapping(line.get("response"))
        if response.get("subtype") == "error":
            self.error("CONTROL_REFUSED", readable(response.get("error")) or "no reason given", at, out)

    # --- endings ---------------------------------------------------------------------------------------------------

    def failing(self, code: str, message: str) -> None:
        """Trouble that may yet pass; it is told as the reason when the run ends in it."""
        if not self._summary.finished:
            self._summary.error_code, self._summary.error = code, message

    def code_of(self, line: Mapping[str, Any], error: str | None, text: str) -> str | None:
        """The code of a ``result`` line, or of what is known of it already; None: the task is done."""
        return result_code(line, error, text, refused=self.refused, network=self.network)

    def api_failed(self, error: str, text: str, at: Moment, out: list[Event]) -> None:
        """A request failed for good. ``error`` is the program's word for it."""
        self._api_error = error
        code = self.code_of({"is_error": True}, error, text) or "API_ERROR"
        self.failing(code, text)
        self.error(code, text or BY_CODE[code].meaning, at, out, details={"error": error})
        self._error_told = True

    def report(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        summary = self._summary
        # What runs in the background goes on; every other call of this turn will have no result any more.
        background = {call for call in self.tasks.values() if call is not None}
        ended = [call.tool_use_id for call in self._calls.values() if call.parent not in background]
        self.give_up(ended, TURN_ENDED, at, out)
        text = line.get("result")
        text = text if type(text) is str else ""
        errors = line.get("errors")
        if not text:
            text = maybe_string(mapping(line.get("error")), "message") or ""
        if not text and type(errors) is list:
            # The diagnostics of an aborted turn are for the program's makers.
            text = "; ".join([error for error in errors if type(error) is str and not error.startswith("[ede_")])
        code = self.code_of(line, self._api_error, text)
        # A program that hangs after its last line is interrupted by us; that takes nothing back.
        if not (code == "ABORTED" and summary.finished):
            summary.finished = True
            summary.error_code = code
            summary.error = (text or None) if code is not None else None
            summary.result_text = text if code is None else None
        summary.turns = (summary.turns or 0) + count(line.get("num_turns"))
        if summary.session_id is None and code is None:
            # Without an init, of a line of older tools; a failed one names a session that doesn't exist.
            summary.session_id = maybe_string(line, "session_id")
        if code is not None and code != "ABORTED" and not self._error_told:
            self.error(code, text or BY_CODE[code].meaning, at, out)
        self._error_told = True
        self._usage(line, at, out)

    def _usage(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        cost = number(line.get("total_cost_usd"))
        if cost is None:
            cost = number(line.get("cost_usd"))
        # modelUsage has the whole process and the sub-agents; usage has this turn, and none of them.
        models = [model for model in mapping(line.get("modelUsage")).values() if type(model) is dict]
        turn = line.get("usage")
        if models:
            usage = Usage(
                input_tokens=sum(count(model.get("inputTokens")) for model in models),
                output_tokens=sum(count(model.get("outputTokens")) for model in models),
                cache_read_tokens=sum(count(model.get("cacheReadInputTokens")) for model in models),
                cache_creation_tokens=sum(count(model.get("cacheCreationInputTokens")) for model in models),
                total_cost_usd=cost,
            )
        elif type(turn) is dict or cost is not None:
            turn, old = mapping(turn), self._summary.usage or Usage()
            cached = count(turn.get("cache_read_input_tokens"))
            fresh = max(0, count(turn.get("input_tokens")) - (cached if self.input_has_cached else 0))
            usage = Usage(
                input_tokens=old.input_tokens + fresh,
                output_tokens=old.output_tokens + count(turn.get("output_tokens")),
                cache_read_tokens=(old.cache_read_tokens or 0) + cached,
                cache_creation_tokens=(old.cache_creation_tokens or 0) + count(turn.get("cache_creation_input_tokens")),
                total_cost_usd=cost,
            )
        else:
            return
        self.total(usage, at, out)


def _message_id(line: dict[str, Any]) -> str | None:
    return maybe_string(mapping(line.get("message")), "id")


def _parent(line: dict[str, Any]) -> str | None:
    return maybe_string(line, "parent_tool_use_id")


def _is_error_content(content: Any) -> bool:
    """Tools that run at the API tell their failure by the type of their content."""
    return type(content) is dict and str(content.get("type")).endswith("_error")
