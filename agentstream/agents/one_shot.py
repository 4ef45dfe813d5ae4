"""Programs that take one prompt, work, print JSON lines and exit: what our knowledge of them has in common. Pure.

They take no further messages and ask for no permissions, and what a request may ask of them is little. A setting that a program
does not have is refused rather than ignored: who forbids a tool or chooses ``plan`` must not get a run in which neither holds.

The prompt is an argument, as recorded, so the system's limit of 128 KiB holds; one that begins with ``-`` or ``@`` gets a space in
front, for every one of these programs would take it for an option or a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from agentstream.agents.base import (
    Capabilities,
    Exit,
    Launch,
    Moment,
    Outcome,
    RunRequest,
    StopStep,
    StopTarget,
    Summary,
)
from agentstream.agents.claude_code import argument
from agentstream.agents.content import mapping
from agentstream.agents.endings import died, exit_signal, failure, last_line
from agentstream.agents.parsing import LineParser
from agentstream.errors import Conflict, InvalidMessage
from agentstream.model.events import AgentOutputDelta, AgentSession, Decision, Event, ToolName

#: What the argument parsers of these programs print when they refuse an option.
_COMPLAINT: Final = re.compile(
    r"unexpected argument|unknown (argument|option)|invalid (command format|value)|not enough arguments", re.IGNORECASE
)
_HELP: Final = re.compile(r"^(usage|options|positionals):", re.IGNORECASE | re.MULTILINE)

#: SIGTERM to the group: what these programs do with SIGINT to the process alone ranges from nothing to leaving a worker behind.
GROUP_ONLY: Final = (StopStep(StopTarget.GROUP, signal="SIGTERM", grace=3.0),)


class OneShotParser(LineParser):
    """Dispatches from ``readers`` by the line's ``type``; kinds in ``ignored`` are known to say nothing new."""

    readers: ClassVar[Mapping[str, Callable[[Any, dict[str, Any], Moment, list[Event]], None]]] = {}
    ignored: ClassVar[frozenset[str]] = frozenset()
    tools: ClassVar[Mapping[str, ToolName]] = {}

    def __init__(self, request: RunRequest, *, preview_limit: int | None = 500) -> None:
        super().__init__(request, preview_limit=preview_limit)
        self._session: AgentSession | None = None
        self._error_told = ""

    def read(self, item: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """One line."""
        kind = self.kind_of(item)
        if kind in self.ignored:
            return
        reader = self.readers.get(kind)
        if reader is None:
            self.raw(kind, item, at, out)
        else:
            reader(self, item, at, out)

    def session(self, at: Moment, out: list[Event], session_id: str, **more: Any) -> None:
        """The session, told when it says something new."""
        self._summary.session_id = session_id
        known = self._session
        if known is None or known.session_id != session_id:
            self._session = AgentSession(
                timestamp=at.wall, work_order_id=self.work_order_id, run_id=self.run_id, session_id=session_id, **more
            )
            out.append(self._session)

    def delta(self, text: str, at: Moment, out: list[Event], *, message_id: str | None = None) -> None:
        """A piece of text of which the whole follows."""
        if text and self.streaming.emit_output:
            out.append(
                AgentOutputDelta(
                    timestamp=at.wall,
                    work_order_id=self.work_order_id,
                    run_id=self.run_id,
                    content=text,
                    message_id=message_id,
                )
            )

    def retrying(self, code: str, why: str, at: Moment, out: list[Event]) -> None:
        """The program tries a request again; it is the reason if the run ends before it worked."""
        self._summary.error_code, self._summary.error = code, why
        self.error("API_RETRY", f"tries again, because {why}", at, out)

    def failed(self, code: str, text: str, at: Moment, out: list[Event]) -> None:
        """The program says that it failed; told once, however often it says so."""
        self._summary.error_code, self._summary.error = code, text
        if self._error_told != text:
            self._error_told = text
            self.error(code, text or "an error without a message", at, out)

    def working(self) -> None:
        """The agent is at it (again)."""
        self._summary.finished = False
        self._summary.error_code = self._summary.error = None

    def finish(self) -> None:
        """The line with which the program ends."""
        self._summary.finished = True
        if self._summary.error_code is not None:
            self._summary.result_text = None


class OneShotAdapter:
    """An `Adapter` of such a program. Subclasses give the names, `options` and the parser."""

    agent_type: ClassVar[str]
    label: ClassVar[str]
    program: ClassVar[str]
    parser_class: ClassVar[type[LineParser]]
    variables: ClassVar[tuple[str, ...]] = ()
    quiet: ClassVar[Mapping[str, str]] = {}
    #: Variables that hold a key, in the order in which the program prefers them.
    keys: ClassVar[tuple[str, ...]] = ()
    #: Where the program keeps its login, relative to HOME; a JSON object.
    login_file: ClassVar[str | None] = None
    #: The variable that replaces the directory of `login_file`.
    login_directory: ClassVar[str | None] = None
    stop_steps: tuple[StopStep, ...] = GROUP_ONLY
    deltas: ClassVar[bool] = False
    cost: ClassVar[bool] = False

    def __init__(self, command: Sequence[str] = ()) -> None:
        self.command = tuple(command) or (self.program,)

    def capabilities(self) -> Capabilities:
        """Sessions can be resumed; nothing is asked and nobody is heard while it works."""
        return Capabilities(resume=True, deltas=self.deltas, cost=self.cost, permission_modes=("bypassPermissions",))

    # --- starting it -----------------------------------------------------------------------------------------------

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """The arguments after the program, whose environment will be ``env``."""
        raise NotImplementedError

    def launch(self, request: RunRequest, base_env: Mapping[str, str]) -> Launch:
        """How to start it. Raises `InvalidMessage` for settings that the program doesn't have."""
        if not request.prompt.strip():
            raise InvalidMessage("taskPrompt: expected a text, got an empty one", details={"field": "taskPrompt"})
        unsupported = {
            "interactive": request.interactive,
            "permissionMode": request.permission_mode not in (None, "bypassPermissions"),
            "maxTurns": request.max_turns is not None,
            "allowedTools": bool(request.allowed_tools),
            "disallowedTools": bool(request.disallowed_tools),
            "systemPrompt": bool(request.system_prompt),
        }
        for field, asked in unsupported.items():
            if asked:
                raise InvalidMessage(f"{field}: {self.label} can't do this; leave it out", details={"field": field})
        prompt = argument("taskPrompt", request.prompt)
        argument("model", request.model or "")
        argument("resumeSessionId", request.resume_session_id or "")
        if prompt[0] in "-@":
            prompt = " " + prompt
        env = {**base_env, **self.quiet, **request.env}
        return Launch(argv=(*self.command, *self.options(request, prompt, env)), env=env)

    def parser(
        self, request: RunRequest, *, preview_limit: int | None = 500, approval_seconds: float = 300.0
    ) -> LineParser:
        """A fresh parser."""
        return self.parser_class(request, preview_limit=preview_limit)

    def version_command(self) -> tuple[str, ...] | None:
        """All of them have this option."""
        return (*self.command, "--version")

    # --- its end ---------------------------------------------------------------------------------------------------

    def outcome(self, summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
        """Its last line decides; without one, how the process ended, and what it complained of before."""
        if summary.finished:
            if summary.error_code is None:
                return Outcome(success=True)
            return failure(summary.error_code, summary.error)
        if exit_signal(exit) is None and exit.code != 0:
            if summary.error_code is not None:
                return failure(summary.error_code, summary.error)
            if summary.session_id is None and (complaint := _complaint(stderr_tail)):
                return failure("INVALID_USAGE", complaint)
        return died(exit, stderr_tail, before=summary.error)

    # --- talking to it ---------------------------------------------------------------------------------------------

    def message(self, text: str) -> bytes:
        """It takes none."""
        raise Conflict(f"{self.label} takes no further messages; start a further run that resumes the session")

    def interrupt(self) -> bytes:
        """It has no turns."""
        raise Conflict(f"{self.label} can't be interrupted; cancel the run, then resume its session")

    def approval(
        self, request_id: str, decision: Decision, *, message: str | None, updated_input: dict[str, Any] | None
    ) -> bytes:
        """It asks for nothing."""
        raise Conflict(f"{self.label} asks for no permissions")

    # --- its login -------------------------------------------------------------------------------------------------

    def login_files(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Where the program keeps its login."""
        if self.login_file is None:
            return ()
        directory = env.get(self.login_directory, "") if self.login_directory else ""
        if directory.startswith("/"):
            return (f"{directory}/{self.login_file.rpartition('/')[2]}",)
        home = env.get("HOME", "")
        return (f"{home}/{self.login_file}",) if home.startswith("/") else ()

    def login(self, env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
        """A key of the environment, or the program's own login."""
        for name in self.keys:
            if env.get(name):
                return f"API key ({name})"
        for path, text in files.items():
            try:
                if mapping(orjson.loads(text)):
                    return f"login of {path}"
            except orjson.JSONDecodeError:
                continue
        return None

    def login_hint(self) -> str | None:
        """None: a provider may also be set up in files that only the program understands; it tells when there is none."""
        return None


def _complaint(stderr: str) -> str | None:
    for line in stderr.splitlines():
        if _COMPLAINT.search(line):
            return line.strip()[:500]
    return last_line(stderr.partition("\n")[0]) or "it printed its help" if _HELP.search(stderr) else None
