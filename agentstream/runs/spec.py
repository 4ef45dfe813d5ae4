"""What a run is given: its bounds, and everything the nursery needs to know before the agent starts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import attrs

from agentstream.agents.base import Adapter, RunRequest
from agentstream.model.orders import StreamingOptions


@attrs.frozen(kw_only=True)
class GroupFiles:
    """The cgroup of a run, made by its supervisor below ``parent``: file names and what is written to them."""

    parent: str
    files: Mapping[str, str]


@attrs.frozen(kw_only=True)
class RunLimits:
    """Bounds of one run. Sizes in bytes, times in seconds."""

    #: Of stdout, of stderr, and of the events in the result (each); head and tail are kept.
    max_collected_bytes: int = 10 * 1024 * 1024
    #: A longer line is cut, and counts as malformed. Real agents print lines of several MB.
    max_line_bytes: int = 64 * 1024 * 1024
    #: stdout or stderr beyond this stops the run, because it is written to disk.
    max_output_bytes: int = 4 * 1024 * 1024 * 1024
    #: What an agent may take to exit after its terminal line; then it is stopped, and the run is completed all the same.
    result_grace: float = 10.0
    #: The same while tasks of the agent run in the background.
    background_grace: float = 60.0
    #: Without any output for so long the run is stopped (not while an approval is open); None: never.
    idle_timeout: float | None = None
    #: What somebody may take to answer a permission request; then it is denied.
    approval_timeout: float = 300.0
    #: Resource limits of the agent, by the names of the `resource` module.
    resources: Mapping[str, int] = attrs.field(factory=dict)
    #: The run gets a cgroup of its own; None: no.
    cgroup: GroupFiles | None = None
    #: The command is bubblewrap, and the agent is inside.
    sandboxed: bool = False


@attrs.frozen(kw_only=True)
class RunSpec:
    """One run, complete."""

    work_order_id: str
    run_id: str
    run_number: int
    argv: tuple[str, ...]
    cwd: str
    #: The whole environment of the agent.
    env: Mapping[str, str]
    #: What the agent can read from stdin at once.
    stdin: bytes
    #: stdin stays open behind that.
    keep_stdin_open: bool
    #: Seconds of wall-clock time; None: no limit.
    timeout: float | None
    #: Knows the agent; None for a command that nothing is known of.
    adapter: Adapter | None
    request: RunRequest
    options: StreamingOptions
    limits: RunLimits
    #: Where raw stdout and stderr are kept; None: in a temporary directory, during the run.
    directory: Path | None
    capture: Literal["spool", "pipe"]
    watch_workspace: bool
    #: Directories below the workspace whose changes are nobody's business, such as the daemon's own data.
    watch_exclude: tuple[Path, ...] = ()

    def envelope(self) -> dict[str, Any]:
        """What every event of this run begins with, now."""
        return {"work_order_id": self.work_order_id, "run_id": self.run_id, "timestamp": datetime.now(UTC)}
