"""How runs end badly: THE table of error codes, each with what it means and what to do. Pure.

``run_failed.errorCode`` and ``agent_error.code`` are codes of this table; docs/errors.md is generated from it. An adapter finds
out which of them it was, `failure` makes the `Outcome`; so the same ending reads the same whatever the agent was.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import attrs

from agentstream.agents.base import Exit, Outcome, Summary
from agentstream.model.wire import format_time

#: Characters of stderr that are quoted in a message.
_QUOTED: Final = 500


@attrs.frozen
class ErrorCode:
    """One code. ``where``: it ends a ``run``, or it is told by an ``event`` of a run that goes on."""

    code: str
    where: Literal["run", "event"]
    #: What happened, without a full stop; a message begins with it.
    meaning: str
    #: What to do about it; a sentence.
    advice: str
    #: Another attempt may succeed.
    retryable: bool = False


ERROR_CODES: Final[tuple[ErrorCode, ...]] = (
    # What the agent says of itself.
    ErrorCode(
        "MAX_TURNS",
        "run",
        "the agent used up its turns before it was done",
        "Raise maxTurns, or continue the session with a further run.",
    ),
    ErrorCode(
        "MAX_BUDGET",
        "run",
        "the agent used up its budget before it was done",
        "Raise the budget, or continue the session with a further run.",
    ),
    ErrorCode(
        "REFUSED", "run", "the model refused the task", "Rephrase the prompt in a new session, or choose another model."
    ),
    ErrorCode(
        "ABORTED",
        "run",
        "the turn was interrupted and the run ended with it",
        "Continue the session with a further run if it was not meant to end.",
    ),
    ErrorCode(
        "NOT_LOGGED_IN",
        "run",
        "the agent has no login",
        "Log in with the agent's own program, or give the daemon a key; `agentstream agents` shows which login is used.",
    ),
    ErrorCode(
        "AUTHENTICATION_FAILED",
        "run",
        "the API refused the agent's login",
        "Renew the key or log in again; `agentstream agents` shows which login is used.",
    ),
    ErrorCode(
        "CREDIT_EXHAUSTED",
        "run",
        "the account has no credit left",
        "Add credit, or use another login, then run it again.",
    ),
    ErrorCode(
        "RATE_LIMITED",
        "run",
        "the account is over its rate limit",
        "Wait until the limit resets, or use another login.",
        retryable=True,
    ),
    ErrorCode("OVERLOADED", "run", "the API is overloaded", "Try again in a few minutes.", retryable=True),
    ErrorCode(
        "NETWORK",
        "run",
        "the API could not be reached",
        "Check the network, the proxy and the base URL, then try again.",
        retryable=True,
    ),
    ErrorCode(
        "API_ERROR", "run", "the API failed", "Try again; if it lasts, look at the API's status.", retryable=True
    ),
    ErrorCode(
        "INVALID_REQUEST",
        "run",
        "the API refused the request",
        "Change what it names: the model, the length of the prompt, or a setting.",
    ),
    ErrorCode(
        "SESSION_NOT_FOUND",
        "run",
        "there is no such session to resume",
        "Resume in the workspace in which it was made, or start without resumeSessionId.",
    ),
    ErrorCode("AGENT_ERROR", "run", "the agent gave up", "Read its last output and its stderr."),
    # What the process tells by how it ends.
    ErrorCode(
        "NO_RESULT",
        "run",
        "the agent exited with status 0 but without its final line, so nothing says that the task is done",
        "Look at the workspace, then continue the session or run it again.",
        retryable=True,
    ),
    ErrorCode(
        "INVALID_USAGE",
        "run",
        "the agent's program refused how it was started",
        "Correct the option that it names, or install a version that has it.",
    ),
    ErrorCode(
        "EXIT_STATUS", "run", "the program ended with an exit status that is not 0", "Read its output and its stderr."
    ),
    ErrorCode(
        "KILLED",
        "run",
        "a signal from outside killed the agent",
        "Find out who sent it; SIGKILL is often the out-of-memory killer, which writes to the kernel's log.",
        retryable=True,
    ),
    ErrorCode("CRASHED", "run", "the agent's program crashed", "Read its stderr; update the program.", retryable=True),
    # What the daemon does and meets.
    ErrorCode(
        "SPAWN_FAILED",
        "run",
        "the program could not be started",
        "Install it, correct [agents.TYPE] command, or make the directory that is missing.",
    ),
    ErrorCode(
        "AGENT_UNAVAILABLE",
        "run",
        "the agent can't be used here",
        "Install its program and log in; `agentstream agents` shows what is missing.",
    ),
    ErrorCode(
        "WORKSPACE", "run", "the workspace can't be used", "Check that it exists, is writable and has space left."
    ),
    ErrorCode("TIMEOUT", "run", "the run took longer than timeoutSeconds", "Raise the limit or make the task smaller."),
    ErrorCode(
        "IDLE_TIMEOUT",
        "run",
        "the agent printed nothing for idleTimeoutSeconds",
        "Raise the limit if the task has long quiet steps.",
        retryable=True,
    ),
    ErrorCode(
        "INTERRUPTED",
        "run",
        "the daemon stopped or was killed while the run was going on",
        "Continue the session with a further run.",
        retryable=True,
    ),
    ErrorCode("CALLBACK_FAILED", "run", "the event callback raised", "Mend the callback; its exception is the cause."),
    ErrorCode(
        "OUTPUT_LIMIT",
        "run",
        "the agent printed more than a run may",
        "Look at the raw stdout; something prints without an end.",
    ),
    ErrorCode(
        "CANCELLED", "run", "the run was cancelled", "Submit it again, or continue its session with a further run."
    ),
    ErrorCode(
        "FORBIDDEN",
        "run",
        "the workspace has come to lie outside the workspace roots",
        "Look for a symbolic link in its path.",
    ),
    ErrorCode("INTERNAL_ERROR", "run", "agentstream itself failed", "Report it with the daemon's log."),
    # What a run tells while it goes on.
    ErrorCode("API_RETRY", "event", "a request to the API failed and is tried again by the agent", "Nothing, yet."),
    ErrorCode(
        "CONTROL_REFUSED",
        "event",
        "the agent did not accept a message, an interrupt or an answer",
        "Its message says why; the run goes on.",
    ),
    ErrorCode(
        "MALFORMED_LINE",
        "event",
        "a line of the agent could not be read and was skipped; told once for each kind of malformation",
        "Look at the raw stdout; a wrapper that prints to stdout is the usual cause.",
    ),
    ErrorCode(
        "STDIN",
        "event",
        "the prompt could not be handed over",
        "The agent closed its stdin at once; its stderr may say why.",
    ),
    ErrorCode(
        "OUTPUT_DROPPED",
        "event",
        "a run was stopped with more unread output than could be read in 10 s",
        "The raw stdout has all of it.",
    ),
    ErrorCode(
        "LEFT_BEHIND",
        "event",
        "processes of the run could not be killed",
        "Look at the system's log; the kernel holds them.",
    ),
    ErrorCode(
        "WORKSPACE_TOO_LARGE",
        "event",
        "the workspace has more files than are watched",
        "Changes beyond are not told; put what is generated into .gitignore.",
    ),
    ErrorCode("STDERR", "event", "the agent printed a line on stderr", "Depends on the line; many are harmless."),
)

BY_CODE: Final[Mapping[str, ErrorCode]] = {row.code: row for row in ERROR_CODES}

#: Signals that a program gets for its own fault; the others come from outside.
_OWN_FAULT: Final = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"})


def failure(code: str, detail: str | None = None, *, retry_at: datetime | None = None) -> Outcome:
    """The outcome for ``code``: its meaning, what the agent said, and what to do. Raises KeyError for an unknown code."""
    row = BY_CODE[code]
    detail = (detail or "").strip().rstrip(".")
    said = f"{row.meaning}: {detail}" if detail else row.meaning
    resets = f" It resets at {format_time(retry_at)}." if retry_at is not None and row.retryable else ""
    return Outcome(
        success=False,
        error_code=code,
        error=f"{said}.{resets} {row.advice}",
        retryable=row.retryable,
        retry_at=retry_at if row.retryable else None,
    )


def exit_signal(exit: Exit) -> str | None:  # noqa: A002 - the process's exit
    """The signal that ended it, also where the program caught it and exited with 128 + its number."""
    if exit.signal is not None:
        return exit.signal
    if exit.code is not None and 128 < exit.code < 128 + signal.NSIG:
        try:
            return signal.Signals(exit.code - 128).name
        except ValueError:
            return None
    return None


def died(exit: Exit, stderr_tail: str, *, before: str | None = None) -> Outcome:  # noqa: A002
    """The outcome of a process that ended without its final line. ``before``: the trouble that it was in."""
    name = exit_signal(exit)
    last = last_line(stderr_tail)
    if name is not None and name not in _OWN_FAULT:
        return failure("KILLED", f"{name}, after {before}" if before else name)
    if name is not None:
        return failure("CRASHED", f"{name}: {last}" if last else name)
    if exit.code == 0:
        return failure("NO_RESULT", last)
    return failure("CRASHED", f"exit status {exit.code}: {last}" if last else f"exit status {exit.code}")


def exit_outcome(summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002
    """The outcome of a program that nothing is known of: its exit status alone decides."""
    if exit.code == 0:
        return Outcome(success=True)
    if exit.signal is not None:
        return died(exit, stderr_tail)
    last = last_line(stderr_tail)
    return failure("EXIT_STATUS", f"{exit.code}: {last}" if last else f"{exit.code}")


def last_line(text: str) -> str:
    """The last line that is not empty, bounded."""
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return line if len(line) <= _QUOTED else line[:_QUOTED] + "..."
