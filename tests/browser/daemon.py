"""The daemon as a child process, and calls to it as any client would make them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

#: Seconds that anything may take on a busy machine before the test gives up.
PATIENCE = 120.0

#: Seconds between two looks at something that nobody tells us about.
LOOK = 0.1

FINAL = ("succeeded", "failed", "canceled")


class Daemon:
    """``agentstream serve`` on a data directory and a port of its own; it can be stopped and started again on both."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self._flags = flags
        self.data_dir = directory / "data"
        self.workspaces = directory / "workspaces"
        self.workspaces.mkdir(parents=True)
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The token that it made at its first start."""
        return (self.data_dir / "token").read_text().strip()

    def start(self) -> None:
        """Start it and wait until it accepts."""
        command = [str(Path(sys.executable).with_name("agentstream")), "serve", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), "--workspace-root", str(self.workspaces), *self._flags]
        with (self.directory / "stderr").open("a") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
                text=True,
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening on http://"):
                self.port = int(line.strip().rsplit(":", 1)[1])
                return
        self.stop()
        raise AssertionError(f"the daemon did not start:\n{(self.directory / 'stderr').read_text()}")

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One HTTP call; the answer's ``data``."""
        request = urllib.request.Request(
            f"{self.url}/api/v1{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.read().decode()}") from None

    def submit(self, prompt: str, *, scenario: str = "files", pace: float = 0, count: int = 10, **fields: Any) -> str:
        """Submit a work order for the demo agent; its id."""
        order = self.call(
            "POST",
            "/work-orders",
            {
                "taskPrompt": prompt,
                "agentType": "demo",
                "workspaceSource": {"type": "fresh"},
                "env": {"DEMO_SCENARIO": scenario, "DEMO_PACE": str(pace), "DEMO_COUNT": str(count)},
                **fields,
            },
        )
        order_id: str = order["id"]
        return order_id

    def wait(self, work_order_id: str, *statuses: str) -> str:
        """Wait until the work order has one of these statuses (default: it has ended)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status: str = self.call("GET", f"/work-orders/{work_order_id}")["status"]
            if status in (statuses or FINAL):
                return status
            assert time.monotonic() < deadline, f"{work_order_id} is still {status}"
            time.sleep(LOOK)
