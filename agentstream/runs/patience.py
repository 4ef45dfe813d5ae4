"""How long a run waits for what, and what it does then. Pure: the time is an argument.

Four clocks, each of which only runs while nothing better explains the silence:

- *idle*: no output for the idle limit. Stops the run, or, when the agent has finished its turn and only waits for the next
  message, closes its input so that it ends by itself. Does not run while a permission request is open.
- *approval*: each open permission request expires by itself.
- *input*: after its terminal line an agent that takes no more messages gets its input closed; while tasks of it run in the
  background only after the background grace, because closing would end them.
- *exit*: with its input closed, an agent that has finished gets the result grace (or the background grace) to exit.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator

import attrs


class Due(enum.Enum):
    """What to do now."""

    EXPIRE_APPROVAL = "expire_approval"
    CLOSE_INPUT = "close_input"
    STOP_IDLE = "stop_idle"
    STOP_FINISHED = "stop_finished"


@attrs.define(kw_only=True)
class Patience:
    """The state of one run's clocks; times in seconds of one monotonic clock. The run keeps the fields true."""

    idle_timeout: float | None
    result_grace: float
    background_grace: float
    #: Further messages may come until the input is closed.
    interactive: bool
    last_activity: float
    #: When the agent's terminal line came; None while it works.
    finished_at: float | None = None
    #: Tool calls and tasks of the agent that still run.
    in_flight: int = 0
    input_open: bool = False
    close_requested: bool = False
    #: Open permission requests and when each expires.
    approvals: dict[str, float] = attrs.field(factory=dict)
    #: The run is being stopped: no clock runs any more.
    stopping: bool = False

    def _clocks(self) -> Iterator[tuple[float, Due, str]]:
        if self.stopping:
            return
        for request_id, expiry in self.approvals.items():
            yield expiry, Due.EXPIRE_APPROVAL, request_id
        waits_for_message = self.input_open and self.finished_at is not None
        if self.idle_timeout is not None and not self.approvals:
            if not waits_for_message:
                yield self.last_activity + self.idle_timeout, Due.STOP_IDLE, ""
            elif not self.close_requested:
                yield self.last_activity + self.idle_timeout, Due.CLOSE_INPUT, ""
        if self.finished_at is None:
            return
        if not self.input_open:
            grace = self.background_grace if self.in_flight else self.result_grace
            yield self.finished_at + grace, Due.STOP_FINISHED, ""
        elif self.close_requested or not self.interactive:
            yield self.finished_at + (self.background_grace if self.in_flight else 0), Due.CLOSE_INPUT, ""

    def next_deadline(self) -> float:
        """When `due` must be asked again at the latest; infinity: not before something changes."""
        return min((when for when, _, _ in self._clocks()), default=math.inf)

    def due(self, now: float) -> list[tuple[Due, str]]:
        """What has run out: the action, and the request id of an approval."""
        return [(action, request_id) for when, action, request_id in self._clocks() if now >= when]
