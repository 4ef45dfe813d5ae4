"""From an agent's `write()` to a subscriber's `recv()`, with the journal on.

Ours is a whole daemon (`agentstream serve`) that carries out work orders whose agent prints 20 lines a second, each with
the moment at which it was written: supervisor, spool file, inotify, parser, throttle, journal, commit, broadcaster. Beside
it what one would write in an afternoon: node's `readline` on a pipe and `ws`, without journal, parser or order. Thinking
lines are used, which the throttle passes at once: merging output within 100 ms is a feature, not a delay of the machinery.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.duel import PATIENCE, ask, start, subscribers, tell
from bench.peers import SOURCES, Peers
from bench.report import Goal, Result, number

OURS, NODE = "agentstream", "node readline + ws"


def call(url: str, body: Any = None) -> Any:
    """An HTTP call of the daemon."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())["data"]


def talker(rate: int, lines: int) -> list[str]:
    """The agent's command."""
    return [sys.executable, "-I", "-S", str(SOURCES / "talker.py"), str(rate), str(lines)]


def of_daemon(runs: int, rate: int, lines: int, clients: int) -> list[float]:
    """Microseconds of every line at every subscriber."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        (home / "work").mkdir()
        config = home / "config.toml"
        config.write_text(
            f"[agents.demo]\ncommand = {json.dumps(talker(rate, lines))}\n[runs]\nmax_concurrent_runs = {runs}\n"
        )
        argv = [sys.executable, "-m", "agentstream", "serve", "--port", "0", "--no-auth", "--config", str(config)]
        with start(
            [*argv, "--data-dir", str(home / "data"), "--workspace-root", str(home / "work")], quiet=True
        ) as daemon:
            try:
                url = ask(daemon).removeprefix("listening on ").strip()
                with subscribers(int(url.rpartition(":")[2]), clients, subscribe=True, mode="latency") as other:
                    try:
                        workspace = {"type": "local", "path": str(home / "work")}
                        body = {"taskPrompt": "talk", "workspaceSource": workspace, "agentType": "demo"}
                        ids = [call(f"{url}/api/v1/work-orders", body)["id"] for _ in range(runs)]
                        deadline = time.monotonic() + PATIENCE
                        for one in ids:
                            while (status := call(f"{url}/api/v1/work-orders/{one}")["status"]) in (
                                "queued",
                                "running",
                            ):
                                if time.monotonic() > deadline:
                                    raise RuntimeError(f"the work order {one} did not end")
                                time.sleep(0.5)
                            if status != "succeeded":
                                raise RuntimeError(f"the work order {one} ended as {status}")
                        tell(other, "stop")
                        return list(json.loads(ask(other)))
                    finally:
                        other.kill()
            finally:
                daemon.terminate()
                daemon.wait(PATIENCE)


def of_relay(argv: Sequence[str], runs: int, rate: int, lines: int, clients: int) -> list[float]:
    """The same by the relay."""
    with start([*argv, str(runs), *talker(rate, lines)]) as relay:
        try:
            with subscribers(int(ask(relay)), clients, subscribe=False, mode="latency") as other:
                try:
                    tell(relay, "go")
                    ask(relay)
                    time.sleep(0.5)
                    tell(other, "stop")
                    return list(json.loads(ask(other)))
                finally:
                    other.kill()
        finally:
            relay.kill()


def run(peers: Peers, *, runs: int = 5, rate: int = 20, lines: int = 100, clients: int = 10, rounds: int = 2) -> Result:
    """Measure it; all rounds together."""
    seen: dict[str, list[float]] = {OURS: []}
    argv = None
    if peers.node and peers.node_ws:
        argv = (peers.node, str(SOURCES / "relay.cjs"), str(peers.node_modules / "ws"))
        seen[NODE] = []
    for _ in range(rounds):
        seen[OURS] += of_daemon(runs, rate, lines, clients)
        if argv is not None:
            seen[NODE] += of_relay(argv, runs, rate, lines, clients)
    whole = runs * lines * clients * rounds
    for name, times in seen.items():
        # A line that two recv() shared is not found: rare. Many are a loss.
        if len(times) < 0.98 * whole:
            raise RuntimeError(f"{name}: {len(times)} of {whole} lines arrived")
        times.sort()
    p50 = {name: times[len(times) // 2] / 1000 for name, times in seen.items()}
    p99 = {name: times[len(times) * 99 // 100] / 1000 for name, times in seen.items()}
    what = f"{runs} runs x {rate} lines/s, {clients} subscribers"
    goals = [
        Goal(
            what="c: p50 at most 1.5 ms, p99 at most 10 ms (50 runs, 100 subscribers)",
            reached=f"{number(p50[OURS])} and {number(p99[OURS])} ms with {what}",
            met=False if p50[OURS] > 1.5 or p99[OURS] > 10 else None,
        )
    ]
    ratios = []
    if NODE in seen:
        goals.append(
            Goal(
                what="c: p50 at most 1 ms above a bare node relay without a journal",
                reached=f"{number(p50[OURS])} ms against {number(p50[NODE])} ms",
                met=p50[OURS] - p50[NODE] <= 1,
            )
        )
        ratios.append(
            f"agentstream: {number(p50[OURS] / p50[NODE])} times the p50 and "
            f"{number(p99[OURS] / p99[NODE])} times the p99 of the relay"
        )
    return Result(
        name="latency",
        title=f"c. Latency, {what}",
        story=__doc__ or "",
        columns=("", "p50 ms", "p99 ms", "worst ms", "lines received"),
        rows=[
            (name, number(p50[name]), number(p99[name]), number(times[-1] / 1000), number(len(times)))
            for name, times in seen.items()
        ],
        unit="p50 in milliseconds, less is better",
        bars=list(p50.items()),
        ratios=ratios,
        goals=goals,
        absent=[] if NODE in seen else [NODE],
    )
