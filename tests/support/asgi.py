"""A small ASGI client: drives an application in this process, without sockets, as a server would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import attrs
import trio
from starlette.types import ASGIApp, Message


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """``data`` of a successful envelope."""
        envelope = self.json()
        assert envelope["success"] is True, envelope
        assert envelope["requestId"] == self.headers["x-request-id"]
        return envelope["data"]

    @property
    def code(self) -> str:
        """The error code of a failed one."""
        envelope = self.json()
        assert envelope["success"] is False, envelope
        assert envelope["requestId"] == self.headers["x-request-id"]
        assert envelope["error"]["message"]
        code: str = envelope["error"]["code"]
        return code


@attrs.define
class Stream:
    """An answer that is still coming."""

    status: int
    headers: Mapping[str, str]
    _chunks: trio.MemoryReceiveChannel[bytes]
    _rest: bytes = b""

    async def until(self, end: bytes) -> bytes:
        """What comes up to and with ``end``. Raises `trio.EndOfChannel` when the answer ends before."""
        while end not in self._rest:
            self._rest += await self._chunks.receive()
        text, _, self._rest = self._rest.partition(end)
        return text + end

    async def message(self) -> tuple[int | None, dict[str, Any]]:
        """The next server-sent message with data: its id and the data."""
        while True:
            lines = (await self.until(b"\n\n")).decode().strip().splitlines()
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if "data" in fields:
                return int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])


@attrs.frozen(kw_only=True)
class Client:
    """Talks to ``app`` as somebody who connected to ``server`` from ``client``."""

    app: ASGIApp
    token: str | None = None
    server: tuple[str, int] | None = ("127.0.0.1", 7171)
    client: tuple[str, int] | None = ("127.0.0.1", 50000)
    scheme: str = "http"
    #: Called with each whole answer: method, path, answer.
    check: Callable[[str, str, Answer], None] | None = None

    def _scope(self, method: str, target: str, headers: Mapping[str, str | None]) -> dict[str, Any]:
        path, _, query = target.partition("?")
        all_headers: dict[str, str | None] = {"host": "localhost:7171"}
        if self.token is not None:
            all_headers["authorization"] = f"Bearer {self.token}"
        all_headers |= {name.lower(): value for name, value in headers.items()}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": self.scheme,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in all_headers.items()
                if value is not None
            ],
            "client": self.client,
            "server": self.server,
            "state": {},
            "extensions": {},
        }

    async def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterable[bytes] = b"",
        json_body: Any = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """One request and its whole answer. A header that is None is left out."""
        sent: list[bytes] = [body] if isinstance(body, bytes) else list(body)
        headers = dict(headers or {})
        if json_body is not None:
            sent = [json.dumps(json_body).encode()]
            headers.setdefault("content-type", "application/json")
        pending: list[Message] = [
            {"type": "http.request", "body": part, "more_body": number < len(sent)}
            for number, part in enumerate(sent, 1)
        ]
        messages: list[Message] = []

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            if pending:
                return pending.pop(0)
            await trio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            messages.append(message)

        with trio.fail_after(30):
            await self.app(self._scope(method, target, headers), receive, send)
        start, *rest = messages
        assert start["type"] == "http.response.start"
        assert rest[-1].get("more_body", False) is False
        answer = Answer(start["status"], _headers(start), b"".join(part.get("body", b"") for part in rest))
        if self.check is not None:
            self.check(method, unquote(target.partition("?")[0]), answer)
        return answer

    async def get(self, target: str, **headers: str | None) -> Answer:
        """GET; headers by keyword, ``_`` for ``-``."""
        return await self.request(
            "GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    async def post(self, target: str, json_body: Any = None, **headers: str | None) -> Answer:
        """POST of JSON."""
        return await self.request(
            "POST",
            target,
            json_body=json_body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    @asynccontextmanager
    async def stream(self, target: str, **headers: str | None) -> AsyncIterator[Stream]:
        """GET an answer that does not end by itself. Leaving the block is the client's hanging up, and waits for the app to end."""
        to_client, chunks = trio.open_memory_channel[bytes](0)
        started: list[Message] = []
        has_started, gone = trio.Event(), trio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
                has_started.set()
            elif not gone.is_set() and message.get("body"):
                await to_client.send(message["body"])

        async def run() -> None:
            plain = {
                "accept": "text/event-stream",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            }
            async with to_client:
                await self.app(self._scope("GET", target, plain), receive, send)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await has_started.wait()
                try:
                    yield Stream(started[0]["status"], _headers(started[0]), chunks)
                finally:
                    gone.set()


def _headers(start: Message) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
