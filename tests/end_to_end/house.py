"""The daemon as its users meet it: a child process on a free port, plain HTTP, and a WebSocket client that is not ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

#: Far more than anything here takes; only a hang meets it. In seconds.
PATIENCE = 60.0


class Daemon:
    """``agentstream serve`` in a data directory of its own. ``prefix``: a program that starts it."""

    def __init__(self, home: Path, *flags: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        self.data = home / "data"
        self.root = home / "work"
        self.root.mkdir(parents=True, exist_ok=True)
        self._flags = flags
        self._prefix = prefix
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[str] | None = None
        self.address = ""
        self.errors: list[str] = []
        self._readers: list[threading.Thread] = []

    def start(self) -> Self:
        command = [
            *self._prefix,
            sys.executable,
            "-m",
            "agentstream",
            "serve",
            "--port",
            "0",
            "--data-dir",
            str(self.data),
        ]
        self.process = subprocess.Popen(
            [*command, "--workspace-root", str(self.root), *self._flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._read(self._collect, self.process.stderr)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.process.wait(PATIENCE)
            self._close()
            raise AssertionError(f"the daemon did not start: {line!r} {''.join(self.errors)}")
        self.address = line.removeprefix("listening on ").strip()
        self._read(self.process.stdout.read)
        return self

    def _read(self, work: Callable[..., Any], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        self._readers.append(thread)

    def _collect(self, stream: Any) -> None:
        for line in stream:
            self.errors.append(line)

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._close()
        if error is not None:
            sys.stderr.write("".join(self.errors[-50:]))

    def _close(self) -> None:
        if self.process is not None:
            for thread in self._readers:
                thread.join(PATIENCE)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()

    def logged(self, text: str) -> str:
        """Wait for a line of the daemon's log that has ``text`` in it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in list(self.errors):
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"nothing with {text!r} was logged: {''.join(self.errors)}")

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and JSON answer."""
        request = urllib.request.Request(
            self.address + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token or self.token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def submit(self, prompt: str, **fields: Any) -> str:
        """Submit a work order in the root; its id."""
        workspace = {"type": "local", "path": str(self.root)}
        status, answer = self.http(
            "POST",
            "/api/v1/work-orders",
            {"taskPrompt": prompt, "workspaceSource": workspace, "agentType": "command", **fields},
        )
        assert status in (200, 201), answer
        return str(answer["data"]["id"])

    # --- WebSocket -----------------------------------------------------------------------------------------------------

    def subscriber(self, *, token: str | None = None) -> Subscriber:
        return Subscriber(self.address.replace("http", "ws", 1) + "/ws", token or self.token)


class Subscriber:
    """A client made with `websockets`."""

    def __init__(self, url: str, token: str) -> None:
        self._stack = ExitStack()
        self._opened = connect(
            url, additional_headers={"Authorization": f"Bearer {token}"}, open_timeout=PATIENCE, max_size=None
        )
        self.socket: ClientConnection
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self.socket = self._stack.enter_context(self._opened)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=PATIENCE))
        self.seen.append(message)
        return message

    def until(self, kind: str | Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read on to a message of that type, or for which the condition holds."""
        wanted = (lambda message: message["type"] == kind) if isinstance(kind, str) else kind
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = self.receive()
            if wanted(message):
                return message
        raise AssertionError(f"nothing like {kind} came; the last were {self.seen[-5:]}")

    def subscribe(self, work_order_id: str, **fields: Any) -> dict[str, Any]:
        self.send(type="subscribe", workOrderId=work_order_id, **fields)
        return self.until("subscription_confirmed")

    def until_ended(self, work_order_id: str) -> dict[str, Any]:
        return self.until(
            lambda message: (
                message["type"] == "work_order_updated"
                and message["workOrderId"] == work_order_id
                and message["status"] in ("succeeded", "failed", "canceled")
            )
        )

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What was seen of these types; all events without."""
        events = [m for m in self.seen if "seq" in m and m["type"] not in ("subscription_confirmed", "replay_complete")]
        return [event for event in events if not kinds or event["type"] in kinds]

    def types(self, without: Sequence[str] = ("progress_update",)) -> list[str]:
        return [message["type"] for message in self.seen if message["type"] not in without]
