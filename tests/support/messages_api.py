"""A scripted Anthropic Messages API on 127.0.0.1, so that the real Claude Code CLI runs without an account.

A script is what the model says: a list of `Turn`s, of which each request of the main conversation takes the next one; a failed
turn (429, a cut connection) is used up like any other, so the CLI's retry gets the turn after it. A sub-agent has turns of its own,
found by a marker in its first message. Everything else that the CLI asks on the side (a title, a token count, a quota probe)
carries no tools, is answered with something harmless and uses up nothing.

Threads instead of trio, on purpose: the model must go on talking while the event loop under test is blocked. A `hold` in the
blocks makes the model wait until a file exists, so a test decides when things happen, and nothing depends on timing.

Source of the wire format: the public Messages API reference (streaming), and what Claude Code 2.1.197 was seen to accept.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import attrs

Block = Mapping[str, Any]

#: Replaced by the workspace's absolute path in every string of a turn.
WORKSPACE: Final = "$WORKSPACE"
#: Characters of a delta. Small enough that a text has several, large enough that a 1 MB tool input stays quick.
_DELTA: Final = 4096
_FEW: Final = 12
#: Seconds between two looks for the file of a `hold`.
_LOOK: Final = 0.005
_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def text(content: str) -> Block:
    """The model says something."""
    return {"type": "text", "text": content}


def thinking(content: str) -> Block:
    """The model thinks aloud."""
    return {"type": "thinking", "thinking": content, "signature": "c2lnbmVk"}


def tool(name: str, /, **arguments: Any) -> Block:
    """The model calls a tool."""
    return {"type": "tool_use", "name": name, "input": arguments}


def hold(path: Path | str) -> Block:
    """The model falls silent until ``path`` exists."""
    return {"type": "hold", "path": str(path)}


@attrs.frozen(kw_only=True)
class Turn:
    """What the model answers to one request: blocks, or a failure."""

    blocks: Sequence[Block] = ()
    #: None: ``tool_use`` when a tool is called, else ``end_turn``.
    stop_reason: str | None = None
    #: An HTTP error instead of an answer.
    status: int = 200
    #: The error's message.
    message: str = "scripted failure"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    #: Drop the connection after so many bytes of the answer's body.
    cut_after: int | None = None
    #: An ``error`` event of this type in the stream, in place of its end.
    stream_error: str | None = None
    #: Give this turn to every further request too.
    forever: bool = False


def say(*blocks: Block | str, **options: Any) -> Turn:
    """A turn of blocks; a plain string is a text."""
    return Turn(blocks=[text(block) if isinstance(block, str) else block for block in blocks], **options)


def fail(status: int, **options: Any) -> Turn:
    """A turn that is an HTTP error."""
    return Turn(status=status, **options)


@attrs.frozen(kw_only=True)
class Script:
    """What the model says to whom. Without a turn left, requests get a 400, which the CLI does not retry."""

    turns: Sequence[Turn]
    #: From a marker in a sub-agent's first message to what that sub-agent is told.
    subagents: Mapping[str, Sequence[Turn]] = attrs.field(factory=dict)
    #: Takes the place of `WORKSPACE`.
    workspace: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The same as JSON: ``{"turns": [{"blocks": [...]}, {"status": 429}], "subagents": {"MARKER": [...]}}``."""
        return cls(
            turns=[Turn(**turn) for turn in data["turns"]],
            subagents={marker: [Turn(**turn) for turn in turns] for marker, turns in data.get("subagents", {}).items()},
            workspace=data.get("workspace", ""),
        )


@attrs.frozen(kw_only=True)
class Request:
    """One request as it came in; ``kind`` is what the server took it for."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    kind: str


class _Director:
    """Decides who gets which turn."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._queues = {"main": list(script.turns)} | {name: list(turns) for name, turns in script.subagents.items()}
        self._lock = threading.Lock()

    def kind(self, body: Any) -> str:
        """``main``, the marker of a sub-agent, or ``side``."""
        if not isinstance(body, dict) or not body.get("tools"):
            return "side"
        opening = json.dumps(body["messages"][:1], ensure_ascii=False)
        return next((marker for marker in self._script.subagents if marker in opening), "main")

    def next_turn(self, kind: str) -> Turn:
        if kind == "side":
            return say("ok")
        with self._lock:
            queue = self._queues[kind]
            if not queue:
                return fail(400, message=f"the script has no turn left for {kind}")
            turn = queue[0] if queue[0].forever else queue.pop(0)
        return attrs.evolve(turn, blocks=[_replaced(block, self._script.workspace) for block in turn.blocks])


def _replaced(value: Any, workspace: str) -> Any:
    match value:
        case str():
            return value.replace(WORKSPACE, workspace)
        case Mapping():
            return {key: _replaced(item, workspace) for key, item in value.items()}
        case list() | tuple():
            return [_replaced(item, workspace) for item in value]
        case _:
            return value


# --- one answer ----------------------------------------------------------------------------------------------------

_USAGE: Final = {"input_tokens": 50, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 5}


def _content(turn: Turn, number: int) -> list[dict[str, Any]]:
    blocks = [dict(block) for block in turn.blocks if block["type"] != "hold"]
    for index, block in enumerate(blocks):
        if block["type"] == "tool_use":
            block.setdefault("id", f"toolu_{number:04d}_{index}")
    return blocks


def _message(turn: Turn, number: int, model: str) -> dict[str, Any]:
    content = _content(turn, number)
    calls = any(block["type"] == "tool_use" for block in content)
    return {
        "id": f"msg_{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": turn.stop_reason or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": {**_USAGE, "output_tokens": 20},
    }


def _stream(turn: Turn, number: int, model: str) -> Iterator[dict[str, Any] | Block]:
    """The events of one streamed answer, with `hold`s where the script has them."""
    message = _message(turn, number, model)
    opening = {**message, "content": [], "stop_reason": None, "usage": {**_USAGE, "output_tokens": 1}}
    yield {"type": "message_start", "message": opening}
    yield {"type": "ping"}
    content = enumerate(message["content"])
    for scripted in turn.blocks:
        if scripted["type"] == "hold":
            yield scripted
        else:
            yield from _block_events(*next(content))
    if turn.stream_error is not None:
        yield {"type": "error", "error": {"type": turn.stream_error, "message": turn.message}}
        return
    closing = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": closing, "usage": {"output_tokens": 20}}
    yield {"type": "message_stop"}


def _block_events(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "text":
            start: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        case "thinking":
            start = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            start = {**block, "input": {}}
            arguments = json.dumps(block["input"], ensure_ascii=False)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(arguments)]
        case _:  # redacted thinking and whatever comes next travels whole
            start, deltas = block, []
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _pieces(content: str) -> Iterable[str]:
    size = max(1, min(_DELTA, -(-len(content) // _FEW)))
    return (content[start : start + size] for start in range(0, len(content), size))


# --- the server ----------------------------------------------------------------------------------------------------


class _Cut(Exception):
    """The script says that the connection breaks here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Say nothing: requests are recorded instead."""

    def do_HEAD(self) -> None:
        self.server.record(self, None, "probe")
        self._send(200, b"")

    def do_GET(self) -> None:
        self.server.record(self, None, "unknown")
        self._send(404, _error(404, "this server only speaks the Messages API"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"null")
        match self.path.partition("?")[0]:
            case "/v1/messages/count_tokens":
                self.server.record(self, body, "count_tokens")
                self._send(200, json.dumps({"input_tokens": 42}).encode())
            case "/v1/messages":
                kind = self.server.director.kind(body)
                number = self.server.record(self, body, kind)
                self._answer(self.server.director.next_turn(kind), number, body)
            case _:
                self.server.record(self, body, "unknown")
                self._send(404, _error(404, "this server only speaks the Messages API"))

    def _answer(self, turn: Turn, number: int, body: Mapping[str, Any]) -> None:
        model = str(body.get("model", "unknown"))
        if turn.status != 200:
            for block in turn.blocks:
                self.server.hold(block)
            self._send(turn.status, _error(turn.status, turn.message), turn.headers)
        elif not body.get("stream"):
            for block in turn.blocks:
                self.server.hold(block)
            self._send(200, json.dumps(_message(turn, number, model), ensure_ascii=False).encode(), turn.headers)
        else:
            self._send_stream(turn, number, model)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self._finish_head(headers or {})
        self.wfile.write(body)

    def _send_stream(self, turn: Turn, number: int, model: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self._finish_head(turn.headers)
        left = turn.cut_after
        try:
            for event in _stream(turn, number, model):
                if event["type"] == "hold":
                    self.server.hold(event)
                    continue
                data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
                cut = left is not None and len(data) > left
                data = data[:left] if cut else data
                left = None if left is None else left - len(data)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if data else b"")
                self.wfile.flush()
                if cut:
                    raise _Cut
            self.wfile.write(b"0\r\n\r\n")
        except _Cut:
            # The end comes without the last chunk. Not a reset: that would also take back what was sent before.
            self.close_connection = True

    def _finish_head(self, headers: Mapping[str, str]) -> None:
        self.send_header("request-id", "req_scripted")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _error(status: int, message: str) -> bytes:
    kind = _ERROR_TYPES.get(status, "api_error")
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


class _Server(http.server.ThreadingHTTPServer):
    #: Connections stay open for as long as the CLI likes; nobody waits for their threads.
    daemon_threads = True

    def __init__(self, script: Script, port: int, record: Path | None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.director = _Director(script)
        self.requests: list[Request] = []
        self._file = record
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    def record(self, handler: _Handler, body: Any, kind: str) -> int:
        """Keep the request; returns how many there were."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(method=handler.command, path=handler.path, headers=headers, body=body, kind=kind)
        with self._lock:
            self.requests.append(request)
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(attrs.asdict(request), ensure_ascii=False) + "\n")
            return len(self.requests)

    def hold(self, block: Block) -> None:
        """Return when the file of a `hold` exists or the server stops; at once for any other block."""
        if block["type"] == "hold":
            path = Path(block["path"])
            while not path.exists() and not self._stopping.wait(_LOOK):
                pass

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A CLI that was killed in the middle of an answer is what the tests are about."""

    def stop(self) -> None:
        self._stopping.set()
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class MessagesAPI:
    """The server as an object: ``with MessagesAPI(script) as api: ... api.url ... api.requests``."""

    def __init__(self, script: Script, *, port: int = 0, record: Path | None = None) -> None:
        self._server = _Server(script, port, record)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """For ``ANTHROPIC_BASE_URL``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[Request]:
        """Everything that was asked so far, in order."""
        return list(self._server.requests)

    def asked(self, kind: str = "main") -> list[Request]:
        """The requests of the main conversation, of a sub-agent, or on the ``side``."""
        return [request for request in self.requests if request.kind == kind]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join()

    def wait(self) -> None:
        """Serve until the process ends."""
        self._thread.join()


def main() -> None:
    """``python -m tests.support.messages_api --script FILE``: prints its port, then serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path, help="append every request to this file, one JSON object a line")
    options = parser.parse_args()
    script = Script.from_json(json.loads(options.script.read_text(encoding="utf-8")))
    with MessagesAPI(script, port=options.port, record=options.record) as api:
        print(api.url.rpartition(":")[2], flush=True)  # noqa: T201 - its one line of output
        api.wait()


if __name__ == "__main__":
    main()
