"""What `StreamingExecutor.execute` returns."""

from __future__ import annotations

from datetime import datetime

import attrs

from agentstream.model.events import Event, Usage


@attrs.frozen(kw_only=True)
class ExecutionResult:
    """The final result of one agent process; equal with and without an event callback.

    ``stdout`` and ``stderr`` are bounded (`StreamingExecutor`, ``max_collected_bytes``): when ``truncated``, the head and the
    tail were kept and a line in between says how many bytes are missing. The same bound holds for ``events``. Bytes that are
    not UTF-8 are replaced by U+FFFD.
    """

    success: bool
    #: The exit status; None when the process was killed by ``signal`` or never started.
    exit_code: int | None
    #: Name of the signal that killed it, ``SIGKILL`` for example.
    signal: str | None = None
    stdout: str = ""
    stderr: str = ""
    events: tuple[Event, ...] = ()
    session_id: str | None = None
    #: Input, output and cache tokens together; 0 when the agent told none.
    tokens_used: int = 0
    usage: Usage | None = None
    total_cost_usd: float | None = None
    turns: int | None = None
    result_text: str | None = None
    #: Milliseconds from spawn to the end of the last process of the run.
    duration_ms: int = 0
    cancelled: bool = False
    timed_out: bool = False
    truncated: bool = False
    #: Why it is no success: a code of docs/errors.md and a message that says what to do.
    error_code: str | None = None
    error: str | None = None
    #: Another attempt may succeed, but not before ``retry_at`` if that is known.
    retryable: bool = False
    retry_at: datetime | None = None
    #: Lines that could not be read as what the agent should print.
    malformed_lines: int = 0
