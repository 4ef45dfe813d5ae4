"""OpenAI's Codex: ``codex exec --json``. Pure.

Found by running it (tests/recordings/codex): started -> call, completed -> result; ids of items restart with each process; a
patch that fails has no line, only stderr; ``error`` is used for retry notices and for the final error; usage is that of the
whole thread, so a run that resumes one reports the thread's. There is no cost. SIGINT to the process ends it cleanly, without
a last line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from agentstream.agents.api_errors import code_of_failure
from agentstream.agents.base import DEFAULT_STOP_STEPS, Moment, RunRequest, StopStep
from agentstream.agents.content import count, mapping, maybe_string, readable, string
from agentstream.agents.one_shot import OneShotAdapter, OneShotParser
from agentstream.model.events import Event, ToolName, Usage

_RETRY: Final = re.compile(r"Reconnecting\.\.\. (\d+/\d+) \((.*)\)", re.DOTALL)


class CodexParser(OneShotParser):
    """One run's lines."""

    tools: ClassVar = {"command_execution": "Bash", "file_change": "Edit", "web_search": "WebSearch"}

    def thread_started(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The session."""
        self.session(at, out, string(line, "thread_id"))

    def turn_started(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The agent works."""
        self.working()

    def item_started(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A call."""
        item = line["item"]
        kind = string(item, "type")
        if kind in ("agent_message", "reasoning"):
            return
        self._call(kind, item, at, out)

    def item_completed(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A text, a thought, or a call's result."""
        item = line["item"]
        kind, item_id = string(item, "type"), maybe_string(item, "id")
        if self._summary.error_code is not None:
            self.working()
        if kind == "agent_message":
            text = string(item, "text")
            self._summary.result_text = text
            self.say(text, at, out, message_id=item_id)
        elif kind == "reasoning":
            self.think(string(item, "text"), at, out, message_id=item_id)
        elif kind in self.tools or kind == "mcp_tool_call":
            if item_id is None or item_id not in self._calls:
                self._call(kind, item, at, out)
            if kind == "file_change":
                changes = item.get("changes")
                text = "\n".join(
                    f"{mapping(change).get('kind')} {mapping(change).get('path')}"
                    for change in (changes if type(changes) is list else [])
                )
            else:
                text = readable(item.get("aggregated_output", item.get("result", item.get("error"))))
            # A search has no status.
            self.result(item_id, item.get("status", "completed") == "completed", text, at, out)
        else:
            self.raw(f"item.completed [{kind}]", item, at, out)

    def _call(self, kind: str, item: dict[str, Any], at: Moment, out: list[Event]) -> None:
        tool: ToolName = self.tools.get(kind, "Other")
        changes = item.get("changes")
        if kind == "file_change" and type(changes) is list:
            kinds = {mapping(change).get("kind") for change in changes}
            tool = "Write" if kinds == {"add"} else "Edit"
        said = ("id", "type", "status", "aggregated_output", "exit_code", "result", "error")
        arguments = {key: value for key, value in item.items() if key not in said}
        self.call(maybe_string(item, "id"), tool, maybe_string(item, "tool") or kind, arguments, at, out)

    def an_error(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A retry, or the end."""
        text = string(line, "message")
        retry = _RETRY.match(text)
        if retry:
            self.retrying(code_of_failure(retry[2]), f"{retry[2]}, attempt {retry[1]}", at, out)
        else:
            self.failed(code_of_failure(text), text, at, out)

    def turn_failed(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The last line of a run that failed."""
        text = maybe_string(mapping(line.get("error")), "message") or "the turn failed"
        self.failed(code_of_failure(text), text, at, out)
        self.finish()

    def turn_completed(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The last line of a run that worked."""
        self._summary.error_code = self._summary.error = None
        self._summary.turns = (self._summary.turns or 0) + 1
        self.finish()
        usage = line.get("usage")
        if type(usage) is dict:
            cached = count(usage.get("cached_input_tokens"))
            # The API counts cached tokens among the input; ours are apart.
            fresh = max(0, count(usage.get("input_tokens")) - cached)
            written = count(usage.get("cache_write_input_tokens"))
            self.total(
                Usage(
                    input_tokens=fresh,
                    output_tokens=count(usage.get("output_tokens")),
                    cache_read_tokens=cached,
                    cache_creation_tokens=written,
                ),
                at,
                out,
            )

    readers: ClassVar = {
        "thread.started": thread_started,
        "turn.started": turn_started,
        "item.started": item_started,
        "item.completed": item_completed,
        "error": an_error,
        "turn.failed": turn_failed,
        "turn.completed": turn_completed,
    }


class CodexAdapter(OneShotAdapter):
    """How Codex is started."""

    agent_type = "openai-codex"
    label = "OpenAI Codex"
    program = "codex"
    parser_class = CodexParser
    variables = ("CODEX_*", "OPENAI_*")
    keys = ("CODEX_API_KEY", "OPENAI_API_KEY")
    login_file = ".codex/auth.json"
    login_directory = "CODEX_HOME"
    stop_steps: tuple[StopStep, ...] = DEFAULT_STOP_STEPS

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """``exec``, or ``exec resume ID``; without its own sandbox and approvals, which nobody could answer."""
        resume = ["resume", request.resume_session_id] if request.resume_session_id else []
        model = [f"--model={request.model}"] if request.model else []
        flags = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        return ["exec", *resume, *flags, *model, prompt]
