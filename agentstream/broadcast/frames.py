"""RFC 6455 frames as a server sends them: whole messages, unmasked, no extensions. Pure.

trio-websocket keeps the handshake, reading and closing of a connection; what goes out to thousands of subscribers is framed
here, once for all of them: a server doesn't mask (RFC 6455, 5.1), so the same bytes fit every socket. No compression:
it would have to be done per connection.
"""

from __future__ import annotations

from typing import Final

from agentstream.journal.base import Record
from agentstream.model import wire

_FIN_TEXT: Final = 0x81
_FIN_CLOSE: Final = 0x88

#: A ping without payload. RFC 6455, 5.5.2.
PING: Final = b"\x89\x00"


def frame(payload: bytes) -> bytes:
    """``payload`` (UTF-8) as one unmasked text message. RFC 6455, 5.2."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (_FIN_TEXT, size, payload)
    if size < 65536:
        return b"%c\x7e%b%b" % (_FIN_TEXT, size.to_bytes(2), payload)
    return b"%c\x7f%b%b" % (_FIN_TEXT, size.to_bytes(8), payload)


def event_frame(record: Record) -> bytes:
    """A record as subscribers get it, its ``seq`` spliced into the stored text."""
    return frame(record.body if record.seq is None else wire.with_seq(record.body, record.seq))


def close_frame(code: int, reason: str = "") -> bytes:
    """The closing handshake's first half; ``reason`` is cut to what fits. RFC 6455, 5.5.1: at most 125 bytes of payload."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return b"%c%c%b%b" % (_FIN_CLOSE, 2 + len(text), code.to_bytes(2), text)
