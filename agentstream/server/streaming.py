"""Answers whose body comes piece by piece: event streams and raw logs.

Starlette's own StreamingResponse would do, were it not for anyio between it and Trio. Sending waits for the socket, so a slow
client costs one chunk; that a client which takes nothing at all is given up is the listener's business, which owns the stream
(Hypercorn sends under a shield, no timeout up here could reach it).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, cast

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentstream.redaction import Redactor

#: Read from a raw log at once, in bytes.
_CHUNK: Final = 64 * 1024


class StreamResponse(Response):
    """Sends what ``chunks`` yields, and closes it when the client is gone."""

    def __init__(self, chunks: AsyncIterator[bytes], *, media: str) -> None:
        self._chunks = cast("AsyncGenerator[bytes, None]", chunks)
        self.status_code = 200
        self.background = None
        # Proxies must neither collect nor change it.
        self.init_headers({"Content-Type": media, "X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        async with aclosing(self._chunks) as chunks, trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_disconnect, receive, nursery.cancel_scope)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async for chunk in chunks:
                    if chunk:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()


async def _cancel_on_disconnect(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def file_chunks(path: str, redactor: Redactor) -> AsyncIterator[bytes]:
    """What is in the file now, redacted. What an agent adds meanwhile is left out, or a fast one would never let us end."""
    stream = redactor.stream()
    async with await trio.open_file(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size
        while left > 0 and (chunk := await file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield stream.feed(chunk)  # noqa: ASYNC119 - Starlette closes it; what is open is a file that was only read
    yield stream.close()
