"""A whole daemon as an operator starts it, with agents that talk at a pace (`sources/talker.py`)."""

from __future__ import annotations

import json
import os
import select
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from bench.duel import PATIENCE, ask, child
from bench.peers import SOURCES

#: As many runs at a time as the workload says, requests as fast as they come, and no pings: the subscribers answer none.
CONFIG = """
[agents.demo]
command = {command}
[runs]
max_concurrent_runs = {runs}
[server]
requests_per_second = 10000
request_burst = 10000
[broadcast]
ping_interval_seconds = 3600
"""


@attrs.frozen
class Gate:
    """Where agents wait until all of them are there: two FIFOs in a directory."""

    home: Path
    _arrivals: int = attrs.field(init=False)

    @_arrivals.default
    def _made(self) -> int:
        for name in ("arrivals", "gate"):
            os.mkfifo(self.home / name)
        # Open for both, it has no end of file.
        return os.open(self.home / "arrivals", os.O_RDWR)

    def talker(self, rate: int, lines: int) -> list[str]:
        """The command of an agent that waits here and then prints."""
        return [sys.executable, "-I", "-S", str(SOURCES / "talker.py"), str(rate), str(lines), str(self.home)]

    def open_for(self, agents: int) -> None:
        """Wait until so many agents are here, and let them, and whoever comes later, go on."""
        while agents:
            if not select.select([self._arrivals], [], [], PATIENCE)[0]:
                raise RuntimeError(f"{agents} agents did not start")
            agents -= len(os.read(self._arrivals, agents))
        os.open(self.home / "gate", os.O_RDWR)


@attrs.frozen
class Daemon:
    """A running one. ``ready``: seconds from its start until it accepted connections."""

    home: Path
    url: str
    pid: int
    ready: float

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def call(self, path: str, body: Any = None) -> Any:
        """A call of its API."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())["data"]

    def published(self) -> int:
        """Events so far, as its metrics tell."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("agentstream_events_total{"))

    def submit(self, ids: Sequence[str]) -> None:
        """A work order by each of these ids, in a workspace of its own."""
        for one in ids:
            (self.home / "work" / one).mkdir(parents=True)
            workspace = {"type": "local", "path": str(self.home / "work" / one)}
            body = {"id": one, "taskPrompt": "talk", "workspaceSource": workspace, "agentType": "demo"}
            self.call("work-orders", body)

    def wait(self, ids: Sequence[str]) -> None:
        """Until all of these have succeeded. Raises RuntimeError when one does not."""
        deadline = time.monotonic() + PATIENCE
        for one in ids:
            while (status := self.call(f"work-orders/{one}")["status"]) in ("queued", "running"):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the work order {one} did not end")
                time.sleep(0.5)
            if status != "succeeded":
                raise RuntimeError(f"the work order {one} ended as {status}")


@contextmanager
def daemon(home: Path, *, agent: Sequence[str] = (), runs: int = 1, data: Path | None = None) -> Iterator[Daemon]:
    """One whose files are in ``home``, or those of its ``data`` directory there; ``agent`` is the command of every run."""
    (home / "work").mkdir()
    config = home / "config.toml"
    config.write_text(CONFIG.format(command=json.dumps([*agent] or ["true"]), runs=runs))
    argv = [sys.executable, "-m", "agentstream", "serve", "--port", "0", "--no-auth", "--config", str(config)]
    start = time.perf_counter()
    with child(
        [*argv, "--data-dir", str(data or home / "data"), "--workspace-root", str(home / "work")], quiet=True
    ) as process:
        url = ask(process).removeprefix("listening on ").strip()
        try:
            yield Daemon(home, url, process.pid, time.perf_counter() - start)
        finally:
            process.terminate()
            process.wait(PATIENCE)
