"""What client and daemon say to each other over ``/ws`` besides events (PROTOCOL.md, "WebSocket").

Client messages are structured strictly (`wire.client_message`): a wrong field becomes one `InvalidMessage` that names it.
Unknown keys are ignored. Every client message may carry ``id``; the answer carries it back.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

import attrs

from agentstream.model.events import Decision
from agentstream.model.orders import WorkOrderRequest


def _tag(value: str) -> Any:
    return attrs.field(default=value, init=False, repr=False)


_NOT_EMPTY: Any = attrs.validators.min_len(1)
_OPTIONAL_NOT_NEGATIVE: Any = attrs.validators.optional(attrs.validators.ge(0))


@attrs.frozen(kw_only=True)
class Filters:
    """Which events a subscriber wants of a work order; what no filter governs is always sent."""

    include_tool_calls: bool = True
    include_tool_results: bool = True
    include_output: bool = True
    include_file_changes: bool = True
    include_progress: bool = True
    include_thinking: bool = True
    include_deltas: bool = False
    include_raw: bool = False


# --- client to server --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ClientMessage:
    """Base of everything that a client may send."""

    #: The scope a token needs for it: ``read``, ``control``, or None for what needs no token.
    scope: ClassVar[Literal["read", "control"] | None] = "read"

    type: str = _tag("")
    id: str | None = None


@attrs.frozen(kw_only=True)
class Auth(ClientMessage):
    """The first message, where no header, subprotocol or query carried the token."""

    scope: ClassVar[Literal["read", "control"] | None] = None
    type: Literal["auth"] = _tag("auth")
    token: str


@attrs.frozen(kw_only=True)
class Subscribe(ClientMessage):
    """Ask for a work order's events (``"*"``: of all). At most one of the three ways to replay may be given.

    The filter keys are also accepted at the top level of the message; inside ``filters`` they win.
    """

    type: Literal["subscribe"] = _tag("subscribe")
    work_order_id: str = attrs.field(validator=_NOT_EMPTY)
    filters: Filters = attrs.field(factory=Filters)
    #: Replay what came after this ``seq``. ``epoch`` as last seen makes sure that it means the same journal.
    since_seq: int | None = attrs.field(default=None, validator=_OPTIONAL_NOT_NEGATIVE)
    epoch: str | None = None
    #: Replay what happened at or after this time.
    replay_since: datetime | None = None
    #: Replay the last so many events.
    replay_count: int | None = attrs.field(default=None, validator=_OPTIONAL_NOT_NEGATIVE)
    #: Above this rate, progress, deltas and outputs are merged or skipped; errors and lifecycle never are.
    max_events_per_second: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )


@attrs.frozen(kw_only=True)
class Unsubscribe(ClientMessage):
    """End a subscription."""

    type: Literal["unsubscribe"] = _tag("unsubscribe")
    work_order_id: str = attrs.field(validator=_NOT_EMPTY)


@attrs.frozen(kw_only=True)
class Ping(ClientMessage):
    """Answered by `Pong`."""

    type: Literal["ping"] = _tag("ping")


@attrs.frozen(kw_only=True)
class Submit(ClientMessage):
    """Submit a work order: the fields of `WorkOrderRequest` beside ``type``.

    ``id`` is both: the answer carries it back, and it is the work order's own id, which makes the call idempotent. A client
    that wants the two to differ gives the work order's as ``workOrderId``.
    """

    scope: ClassVar[Literal["read", "control"] | None] = "control"
    type: Literal["submit"] = _tag("submit")
    request: WorkOrderRequest


@attrs.frozen(kw_only=True)
class Cancel(ClientMessage):
    """Cancel a work order, or one run of it."""

    scope: ClassVar[Literal["read", "control"] | None] = "control"
    type: Literal["cancel"] = _tag("cancel")
    work_order_id: str | None = None
    run_id: str | None = None
    reason: str | None = None


@attrs.frozen(kw_only=True)
class Interrupt(ClientMessage):
    """Stop the current turn, keep the run."""

    scope: ClassVar[Literal["read", "control"] | None] = "control"
    type: Literal["interrupt"] = _tag("interrupt")
    run_id: str = attrs.field(validator=_NOT_EMPTY)


@attrs.frozen(kw_only=True)
class SendMessage(ClientMessage):
    """A follow-up to a run that takes input."""

    scope: ClassVar[Literal["read", "control"] | None] = "control"
    type: Literal["send_message"] = _tag("send_message")
    run_id: str = attrs.field(validator=_NOT_EMPTY)
    text: str = attrs.field(validator=_NOT_EMPTY)


@attrs.frozen(kw_only=True)
class CloseInput(ClientMessage):
    """No more messages: the run ends after its turn."""

    scope: ClassVar[Literal["read", "control"] | None] = "control"
    type: Literal["close_input"] = _tag("close_input")
    run_id: str = attrs.field(validator=_NOT_EMPTY)


@attrs.frozen(kw_only=True)
class ResolveApproval(ClientMessage):
    """Answer an `ApprovalRequested`."""

    scope: ClassVar[Literal["read", "control"] | None] = "control"
    type: Literal["resolve_approval"] = _tag("resolve_approval")
    request_id: str = attrs.field(validator=_NOT_EMPTY)
    decision: Decision
    message: str | None = None
    updated_input: dict[str, Any] | None = None


CLIENT_MESSAGES: tuple[type[ClientMessage], ...] = (
    Auth,
    Subscribe,
    Unsubscribe,
    Ping,
    Submit,
    Cancel,
    Interrupt,
    SendMessage,
    CloseInput,
    ResolveApproval,
)


# --- server to client --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ServerMessage:
    """Base of what the daemon sends besides events."""

    type: str = _tag("")
    timestamp: datetime
    #: The ``id`` of the client's message that this answers.
    id: str | None = None


@attrs.frozen(kw_only=True)
class SubscriptionConfirmed(ServerMessage):
    """``seq`` is the journal's head at that moment; ``epoch`` names the journal."""

    type: Literal["subscription_confirmed"] = _tag("subscription_confirmed")
    work_order_id: str
    epoch: str
    seq: int
    filters: Filters


@attrs.frozen(kw_only=True)
class UnsubscriptionConfirmed(ServerMessage):
    """Nothing more comes for this subscription."""

    type: Literal["unsubscription_confirmed"] = _tag("unsubscription_confirmed")
    work_order_id: str


@attrs.frozen(kw_only=True)
class Pong(ServerMessage):
    """The answer to `Ping`."""

    type: Literal["pong"] = _tag("pong")


@attrs.frozen(kw_only=True)
class ReplayComplete(ServerMessage):
    """Everything up to ``seq`` was replayed; what follows is live."""

    type: Literal["replay_complete"] = _tag("replay_complete")
    work_order_id: str
    seq: int


@attrs.frozen(kw_only=True)
class Gap(ServerMessage):
    """Events ``from_seq`` to ``to_seq`` can't all be replayed: trimmed (``retention``), or of another journal (``epoch``).

    Retention: what is left of them follows (with ``"*"``, work orders that are still running). Epoch: what was seen up to
    ``to_seq`` is of a journal that is gone; the one that there is now is replayed from its beginning.
    """

    type: Literal["gap"] = _tag("gap")
    work_order_id: str
    from_seq: int
    to_seq: int
    reason: Literal["retention", "epoch"]


@attrs.frozen(kw_only=True)
class EventsSkipped(ServerMessage):
    """``count`` events were left out because of the subscription's ``max_events_per_second``; told before the next that passes.

    Journalled ones among them have a ``seq`` from ``from_seq`` to ``to_seq``, and can be read over HTTP.
    """

    type: Literal["events_skipped"] = _tag("events_skipped")
    work_order_id: str
    count: int
    from_seq: int | None = None
    to_seq: int | None = None


@attrs.frozen(kw_only=True)
class Ok(ServerMessage):
    """The client's message was carried out."""

    type: Literal["ok"] = _tag("ok")


@attrs.frozen(kw_only=True)
class Submitted(ServerMessage):
    """The answer to `Submit`."""

    type: Literal["submitted"] = _tag("submitted")
    work_order_id: str


@attrs.frozen(kw_only=True)
class Error(ServerMessage):
    """The client's message could not be carried out. Never closes the connection, save for authentication."""

    type: Literal["error"] = _tag("error")
    code: str
    message: str
    details: dict[str, Any] | None = None


SERVER_MESSAGES: tuple[type[ServerMessage], ...] = (
    SubscriptionConfirmed,
    UnsubscriptionConfirmed,
    Pong,
    ReplayComplete,
    Gap,
    EventsSkipped,
    Ok,
    Submitted,
    Error,
)
