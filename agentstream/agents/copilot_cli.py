"""GitHub's Copilot CLI: ``copilot -p ... --output-format json``. Pure.

Found by running it (tests/recordings/copilot): a shell command that fails has ``success: true``, its exit status is apart; the
session's id is in the last line only, and is lost when the run is cancelled; there are no token counts; what the shell prints
comes again with the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from agentstream.agents.api_errors import code_of_failure
from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.content import mapping, maybe_string, readable, string
from agentstream.agents.one_shot import OneShotAdapter, OneShotParser
from agentstream.model.events import Event


class CopilotParser(OneShotParser):
    """One run's lines; nearly all have their content in ``data``."""

    ignored = frozenset(
        {
            "agent.interrupted",
            "assistant.idle",
            "assistant.message_start",
            "assistant.reasoning_delta",
            "assistant.tool_call_delta",
            "assistant.turn_end",
            "model.call_final_result",
            "model.call_finished",
            "model.call_start",
            "session.background_tasks_changed",
            "session.mcp_servers_loaded",
            "session.skills_loaded",
            "session.tools_updated",
            "tool.execution_partial_result",
            "tool.shell_output",
            "user.message",
        }
    )
    tools: ClassVar = {
        "bash": "Bash",
        "powershell": "Bash",
        "create": "Write",
        "edit": "Edit",
        "str_replace_editor": "Edit",
        "view": "Read",
        "grep": "Grep",
        "rg": "Grep",
        "glob": "Glob",
        "web_fetch": "WebFetch",
        "web_search": "WebSearch",
    }

    def __init__(self, request: RunRequest, *, preview_limit: int | None = 500) -> None:
        super().__init__(request, preview_limit=preview_limit)
        self._failure: tuple[str, str] | None = None

    def turn_start(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """One call of the model with what it leads to."""
        self._summary.turns = (self._summary.turns or 0) + 1

    def message(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """What the model said. The tools that it asks for are told when they begin."""
        data = line["data"]
        self.working()
        text = string(data, "content")
        if text:
            self._summary.result_text = text
        self.say(text, at, out, message_id=maybe_string(data, "messageId"))

    def message_delta(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A piece of text."""
        data = line["data"]
        self.delta(string(data, "deltaContent"), at, out, message_id=maybe_string(data, "messageId"))

    def reasoning(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A thought."""
        self.think(string(line["data"], "content"), at, out, message_id=maybe_string(line["data"], "reasoningId"))

    def tool_start(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A call."""
        data = line["data"]
        name = string(data, "toolName")
        arguments = mapping(data.get("arguments"))
        self.call(maybe_string(data, "toolCallId"), self.tools.get(name, "Other"), name, arguments, at, out)

    def tool_complete(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A result."""
        data = line["data"]
        exit_code = mapping(data.get("shellExecution")).get("exitCode")
        success = data.get("success") is True and exit_code in (None, 0)
        answer = data.get("result")
        text = readable(answer["content"] if type(answer) is dict and "content" in answer else answer)
        text = text or readable(mapping(data.get("error")).get("message"))
        self.result(maybe_string(data, "toolCallId"), success, text, at, out)

    def call_failure(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A request failed; the next line tells what becomes of it."""
        data = line["data"]
        text, status = maybe_string(data, "errorMessage") or "", data.get("statusCode")
        said = f"HTTP {status}" if type(status) is int else "the API could not be reached"
        code = code_of_failure(text, status) if type(status) is int else "NETWORK"
        self._failure = (code, f"{said}: {text}" if text else said)

    def retry(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The request is tried again."""
        reason = (maybe_string(line["data"], "reason") or "a failure").replace("_", " ")
        code, why = self._failure or ("API_ERROR", "")
        self.retrying(code, f"{reason} ({why})" if why else reason, at, out)

    def info(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """Something worth a line; retries are told already."""
        data = line["data"]
        if data.get("infoType") != "model_retry":
            kind = (maybe_string(data, "infoType") or "info").replace("_", " ")
            self.status("status", f"{kind}: {string(data, 'message')}", at, out)

    def abort(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """It was told to stop."""
        why = maybe_string(mapping(line.get("data")), "reason")
        self.status("status", "aborted" + (f": {why}" if why else ""), at, out)

    def an_error(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The run fails."""
        data = line["data"]
        text = " ".join(string(data, "message").split())
        known = {"authentication": "AUTHENTICATION_FAILED", "rate_limit": "RATE_LIMITED", "quota": "CREDIT_EXHAUSTED"}
        code = known.get(maybe_string(data, "errorType") or "") or code_of_failure(text, data.get("statusCode"))
        self.failed(code, text, at, out)

    def report(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The last line."""
        if (session_id := maybe_string(line, "sessionId")) is not None:
            self.session(at, out, session_id)
        if line.get("exitCode") == 0:
            self._summary.error_code = self._summary.error = None
        elif self._summary.error_code is None:
            self.failed("AGENT_ERROR", f"exit status {line.get('exitCode')}", at, out)
        self.finish()

    readers: ClassVar = {
        "assistant.turn_start": turn_start,
        "assistant.message": message,
        "assistant.message_delta": message_delta,
        "assistant.reasoning": reasoning,
        "tool.execution_start": tool_start,
        "tool.execution_complete": tool_complete,
        "model.call_failure": call_failure,
        "assistant.turn_retry": retry,
        "session.info": info,
        "session.error": an_error,
        "abort": abort,
        "result": report,
    }


class CopilotAdapter(OneShotAdapter):
    """How Copilot CLI is started."""

    agent_type = "copilot-cli"
    label = "GitHub Copilot CLI"
    program = "copilot"
    parser_class = CopilotParser
    variables = ("COPILOT_*", "GH_TOKEN", "GITHUB_TOKEN")
    quiet: ClassVar = {"COPILOT_AUTO_UPDATE": "false", "NO_COLOR": "1"}
    keys = ("COPILOT_PROVIDER_API_KEY", "COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN")
    deltas = True

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """Everything is allowed, for nobody could be asked."""
        model = [f"--model={request.model}"] if request.model else []
        resume = [f"--resume={request.resume_session_id}"] if request.resume_session_id else []
        flags = ["--output-format=json", "--allow-all-tools", "--allow-all-paths", "--no-auto-update", "--no-color"]
        return [*flags, *model, *resume, f"--prompt={prompt}"]
