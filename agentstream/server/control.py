"""What a WebSocket client asks of the orchestrator, carried out beside the connection.

Some of it takes seconds (a cancel waits for the agent to be gone), and trio-websocket answers no pings while nobody receives.
So each request runs on a *lane*: those that address the same run or approval in the order in which they came, different ones
side by side. Lanes live in the server's nursery: who asks for a cancel and hangs up has asked for it all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import attrs
import structlog
import trio

from agentstream.errors import AgentstreamError, InvalidMessage, RateLimited
from agentstream.model.messages import (
    Cancel,
    ClientMessage,
    CloseInput,
    Error,
    Interrupt,
    Ok,
    ResolveApproval,
    SendMessage,
    ServerMessage,
    Submit,
    Submitted,
)
from agentstream.orchestration.base import Orchestration

log = structlog.get_logger()

#: Requests of one connection that may be under way. A person has a few; a program that needs more waits for answers.
MAX_UNDER_WAY: Final = 64

CONTROL_MESSAGES: Final = (Submit, Cancel, Interrupt, SendMessage, CloseInput, ResolveApproval)


def error_message(error: Exception, message_id: str | None) -> Error:
    """An exception as the client gets it; what is no `AgentstreamError` is ours, and tells nothing of our inside."""
    if isinstance(error, AgentstreamError):
        code, text, details = error.code, error.message, error.details
    else:
        code, text, details = "INTERNAL_ERROR", "the daemon could not do that because of a fault of its own", None
    return Error(timestamp=datetime.now(UTC), id=message_id, code=code, message=text, details=details)


@attrs.define(eq=False)
class Lanes:
    """The requests of one connection. ``say`` sends an answer; it must not block or raise."""

    orchestration: Orchestration
    nursery: trio.Nursery
    say: Callable[[ServerMessage], None]
    _lanes: dict[tuple[str, str], deque[ClientMessage]] = attrs.field(factory=dict, init=False)
    _under_way: int = attrs.field(default=0, init=False)

    def start(self, message: ClientMessage) -> None:
        """Carry out a control message, and answer it. Raises `RateLimited` when too many are under way, and `InvalidMessage`."""
        if self._under_way >= MAX_UNDER_WAY:
            raise RateLimited(
                f"{MAX_UNDER_WAY} requests are under way; wait for an answer", details={"retryAfterSeconds": 1}
            )
        key = _lane(message)
        self._under_way += 1
        if key in self._lanes:
            self._lanes[key].append(message)
        else:
            self._lanes[key] = deque([message])
            self.nursery.start_soon(self._work, key)

    async def _work(self, key: tuple[str, str]) -> None:
        lane = self._lanes[key]
        while lane:
            message = lane.popleft()
            try:
                answer = await _carry_out(self.orchestration, message)
            except Exception as error:
                if not isinstance(error, AgentstreamError):
                    log.exception("a request over WebSocket failed", type=message.type)
                answer = error_message(error, message.id)
            self._under_way -= 1
            self.say(answer)
        del self._lanes[key]


def _lane(message: ClientMessage) -> tuple[str, str]:
    match message:
        case Cancel(work_order_id=None, run_id=None):
            raise InvalidMessage(
                "workOrderId: expected a work order to cancel, or a runId", details={"field": "workOrderId"}
            )
        case Cancel():
            # Not behind a message that the agent doesn't take: that is what one cancels for.
            return "cancel", f"{message.work_order_id} {message.run_id}"
        case Interrupt() | SendMessage() | CloseInput():
            return "run", message.run_id
        case ResolveApproval():
            return "approval", message.request_id
        case _:
            return "submit", ""


async def _carry_out(orchestration: Orchestration, message: ClientMessage) -> ServerMessage:
    match message:
        case Submit():
            work_order, _ = await orchestration.submit(message.request)
            return Submitted(timestamp=datetime.now(UTC), id=message.id, work_order_id=work_order.id)
        case Cancel():
            await orchestration.cancel(
                work_order_id=message.work_order_id, run_id=message.run_id, reason=message.reason
            )
        case Interrupt():
            await orchestration.interrupt(message.run_id)
        case SendMessage():
            await orchestration.send_message(message.run_id, message.text)
        case CloseInput():
            await orchestration.close_input(message.run_id)
        case ResolveApproval():
            await orchestration.resolve_approval(
                message.request_id, message.decision, message=message.message, updated_input=message.updated_input
            )
        case _:
            raise AssertionError(f"{message.type} is no control message")
    return Ok(timestamp=datetime.now(UTC), id=message.id)
