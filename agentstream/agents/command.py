"""Any program: plain text in, output out; and the reader for programs that nothing is known of. Pure.

`PlainParser` makes each line of text an `AgentOutput` without its newline, empty ones too, so that the contents joined by newlines
are the text. `LenientParser` serves `StreamingExecutor` with an arbitrary command: lines that are JSON objects are read as Claude
Code's, others are text. `CommandAdapter` runs the prompt as a command line; its exit status decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentstream.agents.base import (
    DEFAULT_STOP_STEPS,
    Capabilities,
    Exit,
    Launch,
    Moment,
    Outcome,
    Parser,
    RunRequest,
    StopStep,
    Summary,
)
from agentstream.agents.claude_code import argument
from agentstream.agents.claude_code_kinds import ClaudeCodeParser
from agentstream.agents.endings import exit_outcome
from agentstream.agents.parsing import LineParser
from agentstream.errors import Conflict, InvalidMessage
from agentstream.model.events import AgentOutput, Decision, Event


def _text(parser: LineParser, line: bytes, at: Moment) -> list[Event]:
    if not parser.streaming.emit_output:
        return []
    content = line.removesuffix(b"\r").decode(errors="replace")
    return [AgentOutput(work_order_id=parser.work_order_id, run_id=parser.run_id, timestamp=at.wall, content=content)]


class PlainParser(LineParser):
    """Text and nothing else; bytes that are not UTF-8 become U+FFFD."""

    def parse(self, line: bytes, at: Moment) -> list[Event]:
        """One line is one output."""
        return _text(self, line, at)


class LenientParser(ClaudeCodeParser):
    """A line that begins with ``{`` is read as Claude Code's (and is malformed when it is no JSON); every other is text."""

    def __init__(
        self, request: RunRequest, *, preview_limit: int | None = 500, approval_seconds: float = 300.0
    ) -> None:
        super().__init__(request, preview_limit=preview_limit, approval_seconds=approval_seconds)
        self._speaks_json = False

    def parse(self, line: bytes, at: Moment) -> list[Event]:
        """The events of one line. Between JSON lines an empty one is nothing; in text it is an empty line."""
        if line.startswith(b"{"):
            self._speaks_json = True
            return super().parse(line, at)
        if self._speaks_json and (not line or line.isspace()):
            return []
        self._speaks_json = False
        return _text(self, line, at)


class CommandAdapter:
    """``/bin/sh -c PROMPT`` in the workspace."""

    agent_type = "command"
    label = "Command"
    variables: tuple[str, ...] = ()
    stop_steps: tuple[StopStep, ...] = DEFAULT_STOP_STEPS

    def __init__(self, command: Sequence[str] = ("/bin/sh", "-c")) -> None:
        self.command = tuple(command)

    def capabilities(self) -> Capabilities:
        """It may read further messages as lines of its stdin."""
        return Capabilities(interactive=True)

    def login(self, env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
        """None is needed."""
        return "none needed"

    def login_hint(self) -> str | None:
        """None is needed."""
        return None

    def version_command(self) -> tuple[str, ...] | None:
        """The shell has no such option."""
        return None

    def login_files(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """None."""
        return ()

    def launch(self, request: RunRequest, base_env: Mapping[str, str]) -> Launch:
        """Raises `InvalidMessage` for an empty command line, one over the system's limit, and a session to resume."""
        if not request.prompt.strip():
            raise InvalidMessage("taskPrompt: expected a command line", details={"field": "taskPrompt"})
        if request.resume_session_id is not None:
            raise InvalidMessage(
                "resumeSessionId: a command has no sessions; leave it out", details={"field": "resumeSessionId"}
            )
        return Launch(
            argv=(*self.command, argument("taskPrompt", request.prompt)),
            env={**base_env, **request.env},
            keep_stdin_open=request.interactive,
        )

    def parser(
        self, request: RunRequest, *, preview_limit: int | None = 500, approval_seconds: float = 300.0
    ) -> Parser:
        """Plain text."""
        return PlainParser(request, preview_limit=preview_limit)

    def outcome(self, summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
        """The exit status alone."""
        return exit_outcome(summary, exit, stderr_tail)

    def message(self, text: str) -> bytes:
        """A line on its stdin."""
        return text.encode(errors="replace") + b"\n"

    def interrupt(self) -> bytes:
        """A command has no turns."""
        raise Conflict("a command has no turns to interrupt; cancel the run instead")

    def approval(
        self, request_id: str, decision: Decision, *, message: str | None, updated_input: dict[str, Any] | None
    ) -> bytes:
        """A command asks for nothing."""
        raise Conflict("a command asks for no permissions")
