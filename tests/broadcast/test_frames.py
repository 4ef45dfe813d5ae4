"""Frames are what any RFC 6455 client reads; here wsproto's own reader is the judge."""

from __future__ import annotations

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Event, Ping, TextMessage

from agentstream.broadcast.frames import PING, close_frame, event_frame, frame
from agentstream.journal.base import Record
from agentstream.model import wire


def read(data: bytes) -> list[Event]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_every_length_encoding_is_read_back(size: int) -> None:
    text = "x" * size
    parts = read(frame(text.encode()))
    assert all(isinstance(part, TextMessage) for part in parts)
    assert "".join(part.data for part in parts if isinstance(part, TextMessage)) == text


def test_event_frame_has_its_seq_first() -> None:
    record = Record(17, "w", "agent_error", b'{"type":"agent_error","workOrderId":"w"}')
    (message,) = read(event_frame(record))
    assert isinstance(message, TextMessage)
    assert wire.json_object(message.data) == {"seq": 17, "type": "agent_error", "workOrderId": "w"}


def test_an_ephemeral_event_has_no_seq() -> None:
    (message,) = read(event_frame(Record(None, "w", "agent_output_delta", b'{"type":"agent_output_delta"}')))
    assert isinstance(message, TextMessage)
    assert wire.json_object(message.data) == {"type": "agent_output_delta"}


def test_control_frames() -> None:
    (ping,) = read(PING)
    assert isinstance(ping, Ping)
    (close,) = read(close_frame(4008, "took nothing" + "é" * 100))
    assert isinstance(close, CloseConnection)
    assert close.code == 4008
    assert (close.reason or "").startswith("took nothingé")
