"""Lines as Claude Code prints them, made by hand."""

from __future__ import annotations

from typing import Any

import orjson

from agentstream.agents.base import Parser, Summary
from agentstream.agents.claude_code import ClaudeCodeAdapter
from agentstream.model.events import Event
from tests.agents.conftest import moment, play, request


def parser(**options: Any) -> Parser:
    return ClaudeCodeAdapter().parser(request(), **options)


def lines(*items: Any) -> list[bytes]:
    return [orjson.dumps(item) for item in items]


def read(*items: Any) -> list[Event]:
    """The events of some lines, without those of the end."""
    fresh = parser()
    return [event for index, line in enumerate(lines(*items)) for event in fresh.parse(line, moment(index))]


def summary_of(*items: Any) -> Summary:
    fresh = parser()
    play(fresh, lines(*items))
    return fresh.summary


INIT = {
    "type": "system",
    "subtype": "init",
    "session_id": "s-1",
    "model": "opus",
    "cwd": "/workspace",
    "tools": ["Bash"],
}
DONE = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": "done"}


def call(tool_use_id: str, name: str = "Bash", parent: str | None = None, **arguments: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": tool_use_id, "name": name, "input": arguments}
    return {"type": "assistant", "message": {"id": "m", "content": [block]}, "parent_tool_use_id": parent}


def result(tool_use_id: str, content: Any = "ok", structured: Any = None, **more: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": tool_use_id, "content": content, **more}
    return {"type": "user", "message": {"role": "user", "content": [block]}, "tool_use_result": structured}


def only(events: list[Event], kind: type[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]
