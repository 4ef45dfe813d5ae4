"""Subscribers that read nothing, and what they cost the daemon: its memory, as the kernel counts it, and nobody else's events."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, Message, Request, TextMessage

from tests.end_to_end.house import PATIENCE, Daemon

#: Calls as often as its prompt says a tool, as Claude Code would print it: two events each, with their number and 200 bytes.
_PRINTER = """
import json, sys
count = int(json.loads(sys.stdin.readline())["message"]["content"])
x = "x" * 200
call = '{"type":"assistant","message":{"content":[{"type":"tool_use","id":"%d","name":"Bash","input":{"command":"%s"}}]}}'
result = '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"%d","content":"%s"}]}}'
for number in range(count):
    print(call % (number, x))
    print(result % (number, x))
print('{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"done","session_id":"s"}')
"""
_MIB = 1024 * 1024


class Reader:
    """A client that reads when it is told to: no library reads ahead for it."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        self._events = self._receive()
        self._messages = self._read()

    def __enter__(self) -> Self:
        address = urlsplit(self._daemon.address)
        self._socket.connect((address.hostname, address.port))
        bearer = [(b"Authorization", f"Bearer {self._daemon.token}".encode())]
        self._send(Request(host=address.netloc, target="/ws", extra_headers=bearer))
        assert isinstance(next(self._events), AcceptConnection)
        self._send(Message(data=json.dumps({"type": "subscribe", "workOrderId": "*"})))
        assert next(self._messages)["type"] == "subscription_confirmed"
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _send(self, event: Request | Message[str]) -> None:
        self._socket.sendall(self._protocol.send(event))

    def _receive(self) -> Iterator[Event]:
        while data := self._socket.recv(64 * 1024):
            self._protocol.receive_data(data)
            yield from self._protocol.events()

    def _read(self) -> Iterator[dict[str, Any]]:
        text = ""
        for event in self._events:
            assert isinstance(event, TextMessage)
            text += event.data
            if event.message_finished:
                yield json.loads(text)
                text = ""

    def hear(self, calls: int) -> None:
        """Read to the end of a run: each of its events is there, once and in order."""
        heard: list[tuple[str, str]] = []
        seqs: list[int] = []
        for message in self._messages:
            if "seq" in message:
                seqs.append(message["seq"])
            if "toolUseId" in message:
                heard.append((message["type"], message["toolUseId"]))
            if message["type"] in ("run_completed", "run_failed"):
                assert message["type"] == "run_completed", message
                break
        assert seqs == list(range(1, len(seqs) + 1))
        both = ("agent_tool_call", "agent_tool_result")
        assert heard == [(kind, str(number)) for number in range(calls) for kind in both]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    printer = tmp_path / "printer.py"
    printer.write_text(_PRINTER)
    config = tmp_path / "agentstream.toml"
    config.write_text(
        f"[agents.claude-code]\ncommand = {json.dumps([sys.executable, str(printer)])}\n"
        "[broadcast]\nping_interval_seconds = 3600\nstall_seconds = 3600\n"
    )
    with Daemon(tmp_path, "--config", str(config)) as started:
        yield started


def peak(daemon: Daemon) -> int:
    """The most memory that the daemon's process ever had, in bytes."""
    assert daemon.process is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("calls", [10_000, pytest.param(500_000, marks=pytest.mark.soak)])
def test_who_stops_reading_gets_all_later_and_costs_no_memory(daemon: Daemon, calls: int) -> None:
    with Reader(daemon) as slow, Reader(daemon) as quick:
        daemon.submit(str(calls), agentType="claude-code")
        quick.hear(calls)
        slow.hear(calls)
        assert peak(daemon) < 200 * _MIB


def test_a_thousand_that_stopped_reading_cost_little_memory(daemon: Daemon) -> None:
    calls = 10_000
    with ExitStack() as stack:
        quick, *stalled = [stack.enter_context(Reader(daemon)) for _ in range(1001)]
        daemon.submit(str(calls), agentType="claude-code")
        quick.hear(calls)
        assert peak(daemon) < 200 * _MIB
        for one in (stalled[0], stalled[500], stalled[999]):
            one.hear(calls)
