"""What can be read again from a run's raw stdout: one tool call and its result, whole.

Events are cut to what the wire takes; the raw log is not. So nothing is stored twice: the lines that name the call are parsed once
more, by a parser that does not cut. Blocking; call it in a thread.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from agentstream.agents.base import Adapter, Moment, RunRequest
from agentstream.errors import NotFound
from agentstream.model import wire
from agentstream.model.events import AgentToolCall, AgentToolResult


def find_tool_call(stdout: Path, adapter: Adapter, request: RunRequest, tool_use_id: str) -> dict[str, Any]:
    """{toolUseId, toolName, tool, input, result?} with result {success, content, contentLength}. Raises `NotFound`."""
    parser = adapter.parser(attrs.evolve(request, streaming=type(request.streaming)()), preview_limit=None)
    needle = tool_use_id.encode()
    found: dict[str, Any] = {}
    try:
        with stdout.open("rb") as file:
            for line in file:
                if needle not in line:
                    continue
                for event in parser.parse(line.rstrip(b"\r\n"), Moment(datetime.now(UTC), 0.0)):
                    match event:
                        case AgentToolCall() if event.tool_use_id == tool_use_id:
                            found.update(wire.to_dict(event))
                        case AgentToolResult() if event.tool_use_id == tool_use_id:
                            found["result"] = {
                                "success": event.success,
                                "content": event.content_preview,
                                "contentLength": event.content_length,
                            }
    except FileNotFoundError:
        raise NotFound("the raw output of this run is gone; retention has removed it") from None
    if "toolUseId" not in found:
        raise NotFound(f"this run has no tool call {tool_use_id}")
    return {
        key: found[key]
        for key in ("workOrderId", "runId", "toolUseId", "tool", "toolName", "input", "parentToolUseId", "result")
        if key in found
    }
