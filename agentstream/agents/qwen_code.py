"""Qwen Code: ``qwen -p ... --output-format stream-json``, a dialect of Claude Code's. Pure.

Found by running it (tests/recordings/qwen): several tool_use blocks in one line; the reason of a failed result is in
``error.message``, after having been printed as if the model had said it; retries are ``system/retry``; input tokens include
the cached ones; there is no cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from agentstream.agents.api_errors import code_of_failure
from agentstream.agents.base import Moment, RunRequest
from agentstream.agents.claude_code_kinds import ClaudeCodeParser
from agentstream.agents.content import mapping, maybe_string
from agentstream.agents.one_shot import OneShotAdapter
from agentstream.model.events import Event, ToolName


class QwenParser(ClaudeCodeParser):
    """One run's lines."""

    tools: ClassVar[Mapping[str, ToolName]] = {
        "run_shell_command": "Bash",
        "write_file": "Write",
        "edit": "Edit",
        "read_file": "Read",
        "grep_search": "Grep",
        "glob": "Glob",
        "web_fetch": "WebFetch",
        "web_search": "WebSearch",
    }
    list_tool = "todo_write"
    version_key = "qwen_code_version"
    input_has_cached = True

    def code_of(self, line: Mapping[str, Any], error: str | None, text: str) -> str | None:
        """The text is all that tells what was wrong with a request."""
        code = super().code_of(line, error, text)
        return code_of_failure(text) if code in ("AGENT_ERROR", "API_ERROR") and "API Error" in text else code

    def text_or_error(self, block: dict[str, Any], line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The model's text, or an error of the API that is printed like one."""
        text = block.get("text")
        if type(text) is str and text.startswith("[API Error:"):
            self.api_failed("unknown", text, at, out)
        else:
            self.text(block, line, at, out)

    def retry(self, _: Any, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A request is tried again."""
        data = mapping(line.get("data"))
        why = (maybe_string(data, "reason") or "a request failed").replace("_", " ")
        attempt = f"attempt {data['attempt']} of {data.get('maxRetries')}" if "attempt" in data else "another attempt"
        self.failing(code_of_failure(why), f"{why}, {attempt}")
        self.error("API_RETRY", f"{attempt}, because {why}", at, out)

    readers: ClassVar = {**ClaudeCodeParser.readers, "assistant [text]": text_or_error, "system/retry": retry}


class QwenAdapter(OneShotAdapter):
    """How Qwen Code is started."""

    agent_type = "qwen-code"
    label = "Qwen Code"
    program = "qwen"
    parser_class = QwenParser
    variables = ("QWEN_*", "OPENAI_*", "DASHSCOPE_*")
    quiet: ClassVar = {"QWEN_CODE_SUPPRESS_YOLO_WARNING": "1", "NO_COLOR": "1"}
    keys = ("OPENAI_API_KEY", "DASHSCOPE_API_KEY")
    login_file = ".qwen/oauth_creds.json"

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """Everything is allowed, for nobody could be asked. A key is used only when it is asked to."""
        auth = ["--auth-type=openai"] if env.get("OPENAI_API_KEY") else []
        model = [f"--model={request.model}"] if request.model else []
        resume = [f"--resume={request.resume_session_id}"] if request.resume_session_id else []
        return ["--output-format=stream-json", "--yolo", *auth, *model, *resume, f"--prompt={prompt}"]
