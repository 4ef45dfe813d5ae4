"""What the parsers of all agent programs have in common. Pure.

`LineParser.parse` turns one line into events and never raises: what is no JSON object is counted and told once per kind and
run; what is JSON but not of a shape that the program's own parser knows becomes `AgentRaw`. A subclass implements `read` with
the helpers below, which pair results with calls, time them, and leave out what the run's `StreamingOptions` don't want.
Leaving out an event never changes the summary: the result is the same with and without streaming (promise 8).
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from agentstream.agents.base import Moment, RunRequest, Summary
from agentstream.agents.content import Malformed, load, preview
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentRaw,
    AgentStatus,
    AgentThinking,
    AgentToolCall,
    AgentToolResult,
    AgentUsage,
    ErrorSource,
    Event,
    ToolName,
    Usage,
)

#: Calls without a result that are remembered. Agents run tens in parallel; beyond this the oldest is given up.
MAX_OPEN_CALLS: Final = 1_000
#: Characters of a malformed line that are shown.
_SHOWN: Final = 200

UNFINISHED: Final = "No result: the agent ended before the tool did."
TURN_ENDED: Final = "No result: the turn ended before the tool did."
_GIVEN_UP: Final = "No result: too many calls are open."


@attrs.frozen
class OpenCall:
    """A tool call that has no result yet. ``input`` is kept only where the result can't be understood without it."""

    tool_use_id: str
    name: str
    started: float
    parent: str | None
    input: dict[str, Any] | None = None


class LineParser:
    """A `Parser` for programs that print one JSON object a line. Subclasses implement `read`."""

    def __init__(self, request: RunRequest, *, preview_limit: int | None = 500) -> None:
        self.work_order_id = request.work_order_id
        self.run_id = request.run_id
        self.streaming = request.streaming
        self._preview_limit = preview_limit
        self._summary = Summary()
        self._calls: dict[str, OpenCall] = {}
        self._lines = 0
        self._numbered = 0
        self._told: set[str] = set()

    @property
    def summary(self) -> Summary:
        """What was learnt so far. The same object all the time."""
        return self._summary

    def parse(self, line: bytes, at: Moment) -> list[Event]:
        """The events of one line. Empty lines are none and are skipped. Never raises."""
        self._lines += 1
        out: list[Event] = []
        if not line or line.isspace():
            return out
        try:
            item = load(line)
        except Malformed as malformed:
            self.malformed(malformed, line, at, out)
            return out
        try:
            self.read(item, at, out)
        except Exception:  # noqa: BLE001 - a shape that `read` doesn't know, whatever it is: promise 9
            self.raw(self.kind_of(item), item, at, out)
        self._summary.in_flight = self.in_flight()
        return out

    def close(self, at: Moment) -> list[Event]:
        """The process is gone: a failed result for each call that has none."""
        out: list[Event] = []
        self.give_up(list(self._calls), UNFINISHED, at, out)
        self._summary.in_flight = 0
        return out

    def read(self, item: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """Append the events of ``item`` to ``out``. Any exception makes the line an `AgentRaw`."""
        raise NotImplementedError

    def kind_of(self, item: dict[str, Any]) -> str:
        """What kind of line it is, as far as it can be told."""
        kind = item.get("type")
        return kind if type(kind) is str and kind else "unknown"

    def in_flight(self) -> int:
        """Tool calls and tasks without an end."""
        return len(self._calls)

    # --- events ----------------------------------------------------------------------------------------------------

    def say(
        self, text: str, at: Moment, out: list[Event], *, message_id: str | None = None, parent: str | None = None
    ) -> None:
        """Text that the agent says; an empty one says nothing."""
        if text and self.streaming.emit_output:
            out.append(
                AgentOutput(
                    timestamp=at.wall,
                    content=text,
                    message_id=message_id,
                    parent_tool_use_id=parent,
                    work_order_id=self.work_order_id,
                    run_id=self.run_id,
                )
            )

    def think(
        self, text: str, at: Moment, out: list[Event], *, message_id: str | None = None, parent: str | None = None
    ) -> None:
        """What the agent thinks. It has a filter of its own, so ``emit_output`` doesn't govern it."""
        if text:
            out.append(
                AgentThinking(
                    timestamp=at.wall,
                    content=text,
                    message_id=message_id,
                    parent_tool_use_id=parent,
                    work_order_id=self.work_order_id,
                    run_id=self.run_id,
                )
            )

    def call(
        self,
        tool_use_id: str | None,
        tool: ToolName,
        name: str,
        arguments: dict[str, Any],
        at: Moment,
        out: list[Event],
        *,
        parent: str | None = None,
        keep_input: bool = False,
    ) -> None:
        """A tool is called. Without an id it gets one of ours."""
        if not tool_use_id:
            self._numbered += 1
            tool_use_id = f"call-{self._numbered}"
        self._calls[tool_use_id] = OpenCall(tool_use_id, name, at.monotonic, parent, arguments if keep_input else None)
        if self.streaming.emit_tool_calls:
            out.append(
                AgentToolCall(
                    timestamp=at.wall,
                    tool_use_id=tool_use_id,
                    tool=tool,
                    tool_name=name,
                    input=arguments,
                    parent_tool_use_id=parent,
                    work_order_id=self.work_order_id,
                    run_id=self.run_id,
                )
            )
        if len(self._calls) > MAX_OPEN_CALLS:
            self.give_up([next(iter(self._calls))], _GIVEN_UP, at, out)

    def result(
        self,
        tool_use_id: str | None,
        success: bool,
        text: str,
        at: Moment,
        out: list[Event],
        *,
        parent: str | None = None,
        duration_ms: int | None = None,
    ) -> OpenCall | None:
        """A tool's result; returns its call. Without an id it belongs to the last call that is open."""
        if not tool_use_id:
            tool_use_id = next(reversed(self._calls), "unknown")
        call = self._calls.pop(tool_use_id, None)
        if duration_ms is None:
            duration_ms = max(0, round((at.monotonic - call.started) * 1000)) if call is not None else 0
        if self.streaming.emit_tool_results:
            out.append(
                AgentToolResult(
                    timestamp=at.wall,
                    tool_use_id=tool_use_id,
                    success=success,
                    content_preview=preview(text, self._preview_limit),
                    content_length=len(text),
                    duration_ms=duration_ms,
                    parent_tool_use_id=parent or (call.parent if call is not None else None),
                    work_order_id=self.work_order_id,
                    run_id=self.run_id,
                )
            )
        return call

    def give_up(self, tool_use_ids: list[str], why: str, at: Moment, out: list[Event]) -> None:
        """Calls that will have no result any more."""
        for tool_use_id in tool_use_ids:
            self.result(tool_use_id, False, why, at, out)

    def error(
        self,
        code: str,
        message: str,
        at: Moment,
        out: list[Event],
        *,
        details: dict[str, Any] | None = None,
        source: ErrorSource = "agent",
    ) -> None:
        """Something went wrong; never left out."""
        out.append(
            AgentError(
                timestamp=at.wall,
                code=code,
                message=message,
                source=source,
                details=details,
                work_order_id=self.work_order_id,
                run_id=self.run_id,
            )
        )

    def status(
        self, kind: str, message: str, at: Moment, out: list[Event], details: dict[str, Any] | None = None
    ) -> None:
        """What the agent does besides talking and calling tools."""
        out.append(
            AgentStatus(
                timestamp=at.wall,
                kind=kind,
                message=message,
                details=details,
                work_order_id=self.work_order_id,
                run_id=self.run_id,
            )
        )

    def raw(self, kind: str, item: Any, at: Moment, out: list[Event]) -> None:
        """A line, or a part of one, that this parser doesn't know."""
        out.append(
            AgentRaw(timestamp=at.wall, kind=kind, raw=item, work_order_id=self.work_order_id, run_id=self.run_id)
        )

    def total(self, usage: Usage, at: Moment, out: list[Event]) -> None:
        """Tokens and money of the whole run so far."""
        self._summary.usage = usage
        if usage.total_cost_usd is not None:
            self._summary.total_cost_usd = usage.total_cost_usd
        out.append(
            AgentUsage(
                timestamp=at.wall,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_creation_tokens=usage.cache_creation_tokens,
                total_cost_usd=usage.total_cost_usd,
                work_order_id=self.work_order_id,
                run_id=self.run_id,
            )
        )

    def malformed(self, malformed: Malformed, line: bytes, at: Moment, out: list[Event]) -> None:
        """Count a line that could not be read; tell the first of each kind."""
        self._summary.malformed_lines += 1
        if malformed.kind in self._told:
            return
        self._told.add(malformed.kind)
        self.error(
            "MALFORMED_LINE",
            f"line {self._lines} of the agent's output {malformed.why}; it was skipped, as will be others like it",
            at,
            out,
            details={
                "line": self._lines,
                "bytes": len(line),
                # Four bytes make at most one character less than they are: enough, without decoding megabytes.
                "preview": line[: _SHOWN * 4].decode(errors="replace")[:_SHOWN],
            },
            source="parser",
        )
