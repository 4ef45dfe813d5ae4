"""What an agent program looks like to the rest: how it is started, what its lines mean, how it is stopped. Pure.

An `Adapter` is our knowledge of one command-line program, with no I/O, no clock and no trio: a request goes in, a `Launch`
comes out; lines go in, events come out; how the process ended goes in, an `Outcome` comes out. `agentstream.runs` does what
an adapter says. One file per program.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import uuid4

import attrs

from agentstream.model.events import Decision, Event, Usage
from agentstream.model.orders import StreamingOptions


@attrs.frozen
class Moment:
    """A point in time, read from both clocks by the caller: UTC for timestamps, monotonic seconds for durations."""

    wall: datetime
    monotonic: float


@attrs.frozen(kw_only=True)
class RunRequest:
    """Everything an adapter needs to know to start its program once."""

    prompt: str
    #: Path of the workspace, which exists. `Driver` makes it absolute before an adapter sees it.
    cwd: str
    work_order_id: str = "adhoc"
    #: Unique: processes that were left behind are found by it.
    run_id: str = attrs.field(factory=lambda: f"run-{uuid4().hex[:16]}")
    model: str | None = None
    max_turns: int | None = None
    permission_mode: str | None = None
    allowed_tools: Sequence[str] | None = None
    disallowed_tools: Sequence[str] | None = None
    system_prompt: str | None = None
    resume_session_id: str | None = None
    #: Seconds of wall-clock time after which the run is stopped; None: no limit.
    timeout_seconds: float | None = None
    #: Seconds without any output after which the run is stopped; None: no limit.
    idle_timeout_seconds: float | None = None
    #: Variables on top of the base environment; they win over it and over what the adapter adds.
    env: Mapping[str, str] = attrs.field(factory=dict)
    #: stdin stays open and takes messages.
    interactive: bool = False
    #: Permission requests are to be asked over the control protocol instead of being decided by ``permission_mode``.
    ask_approvals: bool = False
    #: Ask for partial messages.
    include_deltas: bool = False
    streaming: StreamingOptions = attrs.field(factory=StreamingOptions)


@attrs.frozen(kw_only=True)
class Launch:
    """How to start the program. The environment is complete: nothing else is inherited."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    #: Written to stdin first. Then stdin is closed, unless ``keep_stdin_open``.
    stdin: bytes = b""
    keep_stdin_open: bool = False


@attrs.frozen(kw_only=True)
class Capabilities:
    """What a program can do through us; clients read it from ``GET /agents``."""

    interactive: bool = False
    interrupt: bool = False
    approvals: bool = False
    resume: bool = False
    deltas: bool = False
    cost: bool = False
    max_turns: bool = False
    permission_modes: tuple[str, ...] = ()


class StopTarget(enum.Enum):
    """Whom a stop step addresses."""

    AGENT = "agent"
    GROUP = "group"
    STDIN = "stdin"


@attrs.frozen
class StopStep:
    """One step of asking a program to end: send ``signal`` (a name) or ``data`` to the target, then wait ``grace`` seconds."""

    target: StopTarget
    signal: str | None = None
    data: bytes | None = None
    grace: float = 2.0


#: For a program that nothing is known of. SIGKILL to everything that is left always follows.
DEFAULT_STOP_STEPS: tuple[StopStep, ...] = (
    StopStep(StopTarget.AGENT, signal="SIGINT", grace=2.0),
    StopStep(StopTarget.GROUP, signal="SIGTERM", grace=2.0),
)


@attrs.define(kw_only=True)
class Summary:
    """What a parser has learnt of the run so far; read by the executor when the run is over."""

    session_id: str | None = None
    #: Tokens of the whole run.
    usage: Usage | None = None
    total_cost_usd: float | None = None
    turns: int | None = None
    result_text: str | None = None
    #: The program printed the line with which it ends (a further turn of an interactive run takes it back).
    finished: bool = False
    #: What that line, or the errors before it, say: None for success, otherwise a code of docs/errors.md.
    error_code: str | None = None
    error: str | None = None
    #: When a rate limit resets, if the program told.
    resets_at: datetime | None = None
    #: Lines that were no line of this program: broken JSON, binary, over the bound.
    malformed_lines: int = 0
    #: Tool calls and tasks in flight; an interactive run is not idle, and its input not closed, while there are some.
    in_flight: int = 0


@attrs.frozen(kw_only=True)
class Exit:
    """How the process ended: ``code`` or ``signal`` (a name), never both."""

    code: int | None = None
    signal: str | None = None


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a run."""

    success: bool
    #: A code of docs/errors.md; None on success.
    error_code: str | None = None
    #: For people: what happened and what to do.
    error: str | None = None
    #: Another attempt may succeed.
    retryable: bool = False
    #: Not before this time.
    retry_at: datetime | None = None


class Parser(Protocol):
    """Lines of one run in, events out. One parser serves one process; it is not shared."""

    @property
    def summary(self) -> Summary:
        """What was learnt so far. The same object all the time."""

    def parse(self, line: bytes, at: Moment) -> list[Event]:
        """The events of one stdout line, without its newline. Never raises, whatever the line is (promise 9)."""

    def close(self, at: Moment) -> list[Event]:
        """The process is gone: close what is open (a failed `AgentToolResult` for each call without a result)."""


class Adapter(Protocol):
    """Our knowledge of one agent program."""

    @property
    def agent_type(self) -> str:
        """The ``agentType`` of the protocol."""

    @property
    def label(self) -> str:
        """Its name for people."""

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its fixed leading arguments; replaced by ``[agents.TYPE] command = [...]``."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of environment variables that the program may take from the daemon's own environment (``PREFIX_*`` allowed)."""

    @property
    def stop_steps(self) -> tuple[StopStep, ...]:
        """How to ask it to end."""

    def capabilities(self) -> Capabilities:
        """What it can do through us."""

    def login(self, env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
        """Which login would be used with ``env`` (never the secret itself), or None when there is none.

        ``files`` are the contents of those of `login_files` that exist.
        """

    def login_hint(self) -> str | None:
        """What to do when there is no login; None where the program is started all the same (and tells it by itself)."""

    def version_command(self) -> tuple[str, ...] | None:
        """The command that prints the program's version and ends; None when it has none."""

    def login_files(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Absolute paths of files that may hold a login."""

    def launch(self, request: RunRequest, base_env: Mapping[str, str]) -> Launch:
        """How to start it for ``request``. Raises `InvalidMessage` for a request that it can't carry out."""

    def parser(
        self, request: RunRequest, *, preview_limit: int | None = 500, approval_seconds: float = 300.0
    ) -> Parser:
        """A fresh parser. ``preview_limit`` None: whole tool results (for ``GET /runs/{id}/tool-calls/{toolUseId}``)."""

    def outcome(self, summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
        """What became of the run, when it was neither cancelled nor timed out."""

    def message(self, text: str) -> bytes:
        """What to write to stdin for a further message of the user. Raises `Conflict` where it takes none."""

    def interrupt(self) -> bytes:
        """What to write to stdin to stop the current turn. Raises `Conflict` where it can't."""

    def approval(
        self, request_id: str, decision: Decision, *, message: str | None, updated_input: dict[str, Any] | None
    ) -> bytes:
        """What to write to stdin to answer a permission request. Raises `Conflict` where it asks for none.

        An adapter has no state: where the answer is ``allow`` and nobody changed the input, the caller passes the request's own
        ``input`` as ``updated_input`` (Claude Code does not allow a call without one); leaving it out raises ValueError.
        """
