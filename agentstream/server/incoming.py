"""What comes in over a WebSocket, understood: the token of a handshake, the message in a text, where a subscription begins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agentstream.broadcast.batch import ALL
from agentstream.errors import AgentstreamError, InvalidMessage, RateLimited
from agentstream.journal.base import Journal
from agentstream.model import wire
from agentstream.model.messages import ClientMessage, Gap, Subscribe
from agentstream.server.auth import bearer
from agentstream.server.head import RequestHead

#: In the WebSocket's subprotocols, before the token: a page can't set headers.
SUBPROTOCOL: Final = "bearer."
#: Characters of a work order id, as `WorkOrderRequest.id`.
_MAX_ID: Final = 128


def token_of(head: RequestHead) -> str | None:
    """The token that came with the handshake, from where it is found first."""
    places: tuple[Callable[[], str | None], ...] = (
        lambda: next((found for value in head.values(b"authorization") if (found := bearer(value))), None),
        lambda: next(
            (
                one.removeprefix(SUBPROTOCOL)
                for one in head.tokens(b"sec-websocket-protocol")
                if one.startswith(SUBPROTOCOL)
            ),
            None,
        ),
        lambda: head.query("token"),
    )
    return next((token for place in places if (token := place())), None)


def message_in(text: str | bytes, wait: float) -> ClientMessage:
    """Raises `InvalidMessage`, and `RateLimited` where ``wait`` seconds were better."""
    if wait:
        raise RateLimited(
            f"too many messages; come back in {wait:.2f} s", details={"retryAfterSeconds": round(wait, 3)}
        )
    if isinstance(text, bytes):
        raise InvalidMessage("expected a text message, got a binary one")
    return wire.client_message(text)


def id_of(text: str | bytes) -> str | None:
    """The ``id`` of a message that could not be understood."""
    try:
        found = wire.json_object(text).get("id")
    except AgentstreamError:
        return None
    return found if isinstance(found, str) else None


async def beginning(message: Subscribe, journal: Journal) -> tuple[int | None, Gap | None]:
    """After which ``seq`` the replay begins, None: there is none; and what can't be replayed. Raises `InvalidMessage`."""
    key = message.work_order_id
    if len(key) > _MAX_ID:
        raise InvalidMessage(f"workOrderId: expected at most {_MAX_ID} characters", details={"field": "workOrderId"})
    asked = (message.since_seq, message.replay_since, message.replay_count)
    if sum(one is not None for one in asked) > 1:
        raise InvalidMessage(
            "sinceSeq: expected only one of sinceSeq, replaySince and replayCount", details={"field": "sinceSeq"}
        )
    of = None if key == ALL else key
    since, gap = message.since_seq, None
    if since is not None:
        if since > journal.head if message.epoch is None else message.epoch != journal.epoch:
            # A seq beyond the head can only be of another journal.
            gap = Gap(timestamp=datetime.now(UTC), work_order_id=key, from_seq=0, to_seq=since, reason="epoch")
            since = 0
        since = min(since, journal.head)
    elif message.replay_since is not None:
        since = await journal.seq_before_time(message.replay_since, of)
    elif message.replay_count is not None:
        since = await journal.seq_before_last(message.replay_count, of)
    return since, gap
