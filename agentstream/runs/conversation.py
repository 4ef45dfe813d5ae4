"""The way back: what is written to an agent's stdin while it runs, and the permission requests that wait for an answer.

One conversation belongs to one run. Writing is serialised, and bounded in time: an agent that doesn't read its stdin must
not hold up whoever answers it. What to write is the adapter's knowledge, when to write is the caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import trio

from agentstream.agents.base import Adapter
from agentstream.errors import Conflict, NotFound
from agentstream.model.events import ApprovalRequested, Decision

#: Seconds an agent may take to read a message. A pipe takes 64 KiB at once, so only longer messages wait at all.
WRITE_PATIENCE: Final = 10.0


class Conversation:
    """stdin of one run. ``on_change`` is told when the input or the open requests changed."""

    def __init__(self, adapter: Adapter | None, on_change: Callable[[], None]) -> None:
        self._adapter = adapter
        self.on_change = on_change
        self._stream: trio.abc.SendStream | None = None
        self._lock = trio.StrictFIFOLock()
        self._open: dict[str, ApprovalRequested] = {}
        #: The user's messages that were written.
        self.messages = 0

    def attach(self, stream: trio.abc.SendStream) -> None:
        """The agent runs, and its stdin is open."""
        self._stream = stream
        self.on_change()

    @property
    def is_open(self) -> bool:
        """The agent still takes input."""
        return self._stream is not None

    async def write(self, data: bytes) -> None:
        """Write to stdin. Raises `Conflict` when it is closed, or the agent doesn't read."""
        async with self._lock:
            if self._stream is None:
                raise Conflict("this run takes no input any more")
            problem = "this run takes no input any more"
            with trio.move_on_after(WRITE_PATIENCE) as patience:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._stream.send_all(data)
                    return
            if patience.cancelled_caught:
                # Half a line may have been written: nothing can follow it.
                problem = "the agent does not read its input; the run's input was closed"
            await self._close()
            raise Conflict(problem)

    async def close(self) -> None:
        """Close stdin; harmless when it is closed."""
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)
            self.on_change()

    def _agent(self) -> Adapter:
        if self._adapter is None:
            raise Conflict("this program takes no messages")
        return self._adapter

    async def send_message(self, text: str) -> None:
        """A further message of the user."""
        await self.write(self._agent().message(text))
        self.messages += 1

    async def interrupt(self) -> None:
        """Stop the current turn."""
        await self.write(self._agent().interrupt())

    # --- approvals -------------------------------------------------------------------------------------------------

    @property
    def approvals(self) -> list[ApprovalRequested]:
        """What waits for an answer, oldest first."""
        return list(self._open.values())

    def opened(self, request: ApprovalRequested) -> None:
        """The agent asks."""
        self._open[request.request_id] = request
        self.on_change()

    def closed(self, request_id: str) -> None:
        """The agent took its question back, or it was answered."""
        self._open.pop(request_id, None)
        self.on_change()

    async def answer(
        self, request_id: str, decision: Decision, *, message: str | None, updated_input: dict[str, Any] | None
    ) -> None:
        """Answer a question once. Raises `NotFound` when it is not open (any more)."""
        request = self._open.pop(request_id, None)
        if request is None:
            raise NotFound(f"no open approval request {request_id}; it was answered, expired or withdrawn")
        self.on_change()
        if updated_input is None:
            updated_input = request.input
        try:
            await self.write(self._agent().approval(request_id, decision, message=message, updated_input=updated_input))
        except BaseException:
            if self.is_open:
                self.opened(request)
            raise
