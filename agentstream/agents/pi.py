"""pi: ``pi --mode json -p``. Pure.

Found by running it (tests/recordings/pi): the exit status is 0 even after a 401, a message with ``stopReason: error`` tells
it; ``agent_end`` comes once for each retry; every delta repeats the whole message (lines of megabytes), of which only the
delta is read; usage and cost are those of each message of the model. Its options take their value as the next argument only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from agentstream.agents.api_errors import code_of_failure
from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.content import count, mapping, maybe_string, number, readable, string
from agentstream.agents.one_shot import OneShotAdapter, OneShotParser
from agentstream.model.events import Event, Usage


class PiParser(OneShotParser):
    """One run's lines."""

    #: The same content comes with ``message_end`` and ``tool_execution_end``.
    ignored = frozenset({"turn_start", "turn_end", "message_start", "tool_execution_update", "auto_retry_end"})
    tools: ClassVar = {"bash": "Bash", "write": "Write", "edit": "Edit", "read": "Read", "grep": "Grep", "find": "Glob"}

    def a_session(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The session."""
        self.session(at, out, string(line, "id"), cwd=maybe_string(line, "cwd"))

    def agent_start(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The agent works (again)."""
        self.working()

    def message_update(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A piece of text, or of something of which the whole follows."""
        event = line["assistantMessageEvent"]
        if event.get("type") == "text_delta":
            message_id = maybe_string(mapping(line.get("message")), "responseId")
            self.delta(string(event, "delta"), at, out, message_id=message_id)

    def message_end(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """What the model said. Its tool calls are told when they begin; other roles tell nothing new."""
        message = line["message"]
        if message.get("role") != "assistant":
            return
        message_id = maybe_string(message, "responseId")
        for block in message["content"]:
            if block.get("type") == "text":
                text = string(block, "text")
                self._summary.result_text = text
                self.say(text, at, out, message_id=message_id)
            elif block.get("type") == "thinking":
                self.think(string(block, "thinking"), at, out, message_id=message_id)
        self._add(mapping(message.get("usage")), at, out)
        reason = message.get("stopReason")
        if reason in ("error", "aborted"):
            text = maybe_string(message, "errorMessage") or f"the model's answer ended with {reason}"
            self.failed("ABORTED" if reason == "aborted" else code_of_failure(text), text, at, out)
        elif self._summary.error_code is not None:
            self.working()

    def _add(self, usage: dict[str, Any], at: Moment, out: list[Event]) -> None:
        old = self._summary.usage or Usage(total_cost_usd=0.0)
        self._summary.turns = (self._summary.turns or 0) + 1
        self.total(
            Usage(
                input_tokens=old.input_tokens + count(usage.get("input")),
                output_tokens=old.output_tokens + count(usage.get("output")),
                cache_read_tokens=(old.cache_read_tokens or 0) + count(usage.get("cacheRead")),
                cache_creation_tokens=(old.cache_creation_tokens or 0) + count(usage.get("cacheWrite")),
                total_cost_usd=(old.total_cost_usd or 0.0) + (number(mapping(usage.get("cost")).get("total")) or 0.0),
            ),
            at,
            out,
        )

    def tool_start(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A call."""
        name = string(line, "toolName")
        tool = self.tools.get(name, "Other")
        self.call(maybe_string(line, "toolCallId"), tool, name, mapping(line.get("args")), at, out)

    def tool_end(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A result."""
        content = mapping(line.get("result")).get("content", line.get("result"))
        self.result(maybe_string(line, "toolCallId"), not line.get("isError"), _text(content), at, out)

    def retry(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A request is tried again."""
        why = maybe_string(line, "errorMessage") or "a request failed"
        attempts = f"attempt {line.get('attempt')} of {line.get('maxAttempts')}"
        self.retrying(code_of_failure(why), f"{why}, {attempts}", at, out)

    def agent_end(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The last line, unless another attempt follows."""
        self.finish()

    readers: ClassVar = {
        "session": a_session,
        "agent_start": agent_start,
        "message_update": message_update,
        "message_end": message_end,
        "tool_execution_start": tool_start,
        "tool_execution_end": tool_end,
        "auto_retry_start": retry,
        "agent_end": agent_end,
    }


def _text(content: Any) -> str:
    """pi puts an image's data beside its type, without a source around them."""
    if type(content) is not list:
        return readable(content)
    return readable([_block(block) for block in content])


def _block(block: Any) -> Any:
    if type(block) is dict and block.get("type") == "image" and "data" in block:
        source = {"type": "base64", "media_type": block.get("mimeType"), "data": block["data"]}
        return {"type": "image", "source": source}
    return block


class PiAdapter(OneShotAdapter):
    """How pi is started."""

    agent_type = "pi"
    label = "pi"
    program = "pi"
    parser_class = PiParser
    variables = ("PI_*", "ANTHROPIC_API_KEY", "ANTHROPIC_OAUTH_TOKEN", "OPENAI_API_KEY", "GEMINI_API_KEY")
    quiet: ClassVar = {"PI_SKIP_VERSION_CHECK": "1", "PI_TELEMETRY": "0"}
    keys = ("ANTHROPIC_OAUTH_TOKEN", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY")
    login_file = ".pi/agent/auth.json"
    deltas = True
    cost = True

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """The model may be given as ``PROVIDER/MODEL``."""
        provider, slash, model = (request.model or "").partition("/")
        chosen = ["--provider", provider, "--model", model] if slash else ["--model", provider] if provider else []
        session = ["--session", request.resume_session_id] if request.resume_session_id else []
        return ["--mode", "json", "-p", *chosen, *session, prompt]
