"""Google's Gemini CLI: ``gemini -p ... --output-format stream-json``. Pure.

Found by running it (tests/recordings/gemini): the model's text comes only in pieces, so the whole is put together here and
told when something else follows; a shell command that exits 3 is ``status: success``, and its exit status is nowhere; retries
are told on stderr only; the launcher ignores SIGINT and SIGTERM to itself; SIGTERM to the group makes it exit with status 0
and without a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from agentstream.agents.api_errors import code_of_failure
from agentstream.agents.base import Exit, Moment, Outcome, RunRequest, Summary
from agentstream.agents.content import count, mapping, maybe_string, readable, string
from agentstream.agents.endings import failure, last_line
from agentstream.agents.one_shot import OneShotAdapter, OneShotParser
from agentstream.model.events import Event, Usage

#: Characters of text that are put together before they are told, so that a model that never ends stays bounded.
_MAX_TEXT: Final = 1024 * 1024

#: Exit statuses of the program (its documentation, "exit codes").
_NO_LOGIN, _BAD_INPUT = 41, 42


class GeminiParser(OneShotParser):
    """One run's lines."""

    ignored = frozenset()
    tools: ClassVar = {
        "run_shell_command": "Bash",
        "write_file": "Write",
        "replace": "Edit",
        "read_file": "Read",
        "read_many_files": "Read",
        "glob": "Glob",
        "grep_search": "Grep",
        "search_file_content": "Grep",
        "web_fetch": "WebFetch",
        "google_web_search": "WebSearch",
    }

    def __init__(self, request: RunRequest, *, preview_limit: int | None = 500) -> None:
        super().__init__(request, preview_limit=preview_limit)
        self._pieces: list[str] = []
        self._size = 0

    def close(self, at: Moment) -> list[Event]:
        """What was said until the end, then the open calls."""
        out: list[Event] = []
        self._flush(at, out)
        return [*out, *super().close(at)]

    def _flush(self, at: Moment, out: list[Event]) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._summary.result_text = text
            self.say(text, at, out)

    def init(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The session."""
        self.session(at, out, string(line, "session_id"), model=maybe_string(line, "model"))

    def message(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A piece of text, or the prompt sent back."""
        if line.get("role") != "assistant":
            return
        text = string(line, "content")
        self._pieces.append(text)
        self._size += len(text)
        if line.get("delta"):
            self.delta(text, at, out)
        if not line.get("delta") or self._size > _MAX_TEXT:
            self._flush(at, out)

    def tool_use(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A call."""
        self._flush(at, out)
        name = string(line, "tool_name")
        arguments = mapping(line.get("parameters"))
        self.call(maybe_string(line, "tool_id"), self.tools.get(name, "Other"), name, arguments, at, out)

    def tool_result(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A result; many tools succeed without saying anything."""
        self._flush(at, out)
        error = maybe_string(mapping(line.get("error")), "message")
        text = error or readable(line.get("output"))
        self.result(maybe_string(line, "tool_id"), line.get("status") == "success", text, at, out)

    def an_error(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A warning or an error that does not end the run."""
        self._flush(at, out)
        self.error("AGENT_ERROR", readable(line.get("message")) or "an error without a message", at, out)

    def report(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The last line."""
        self._flush(at, out)
        if line.get("status") != "success":
            text = maybe_string(mapping(line.get("error")), "message") or "the run failed"
            self.failed(code_of_failure(text), text, at, out)
        self.finish()
        stats = line.get("stats")
        if type(stats) is dict:
            cached = count(stats.get("cached"))
            self.total(
                Usage(
                    input_tokens=max(0, count(stats.get("input_tokens")) - cached),
                    output_tokens=count(stats.get("output_tokens")),
                    cache_read_tokens=cached,
                ),
                at,
                out,
            )

    readers: ClassVar = {
        "init": init,
        "message": message,
        "tool_use": tool_use,
        "tool_result": tool_result,
        "error": an_error,
        "result": report,
    }


class GeminiAdapter(OneShotAdapter):
    """How Gemini CLI is started."""

    agent_type = "gemini-cli"
    label = "Gemini CLI"
    program = "gemini"
    parser_class = GeminiParser
    variables = ("GEMINI_*", "GOOGLE_*")
    quiet: ClassVar = {"GEMINI_TELEMETRY_ENABLED": "false", "NO_COLOR": "1"}
    keys = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    login_file = ".gemini/oauth_creds.json"
    deltas = True

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """Everything is allowed, for nobody could be asked."""
        model = [f"--model={request.model}"] if request.model else []
        resume = [f"--resume={request.resume_session_id}"] if request.resume_session_id else []
        return ["--output-format=stream-json", "--yolo", "--skip-trust", *model, *resume, f"--prompt={prompt}"]

    def outcome(self, summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
        """It has exit statuses of its own for no login and for a session that doesn't exist."""
        if not summary.finished and exit.code == _NO_LOGIN:
            return failure("NOT_LOGGED_IN", last_line(stderr_tail))
        if not summary.finished and exit.code == _BAD_INPUT:
            return failure("SESSION_NOT_FOUND" if "resum" in stderr_tail else "INVALID_USAGE", last_line(stderr_tail))
        return super().outcome(summary, exit, stderr_tail)
