"""The one way to stop a run: its cancel scope, and why it was cancelled. The first cause counts."""

from __future__ import annotations

import enum

import trio


class Cause(enum.Enum):
    """Why a run was stopped before its agent ended by itself."""

    CANCEL = "cancel"
    SURROUNDING = "surrounding"
    CALLBACK = "callback"
    TIMEOUT = "timeout"
    IDLE = "idle"
    OUTPUT = "output"
    #: The agent told that it is finished, but does not exit.
    FINISHED = "finished"


class StopSwitch:
    """Wraps the wait for the agent. May be thrown at any time, any number of times."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.cause: Cause | None = None
        self.reason: str | None = None

    def throw(self, cause: Cause, reason: str | None = None) -> None:
        """Stop the run; without effect when it was stopped before."""
        if self.cause is None:
            self.cause, self.reason = cause, reason
        self.scope.cancel()

    def settle(self) -> None:
        """Called when the scope was left: what cancelled it without a cause was its deadline."""
        if self.cause is None and self.scope.cancelled_caught:
            self.cause = Cause.TIMEOUT
