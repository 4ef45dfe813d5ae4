"""From an agent's `write()` to a subscriber's `recv()`, with the journal on.

Ours is a whole daemon (`agentstream serve`) that carries out work orders whose agents print 20 lines a second each, with
the moment at which each was written: supervisor, spool file, inotify, parser, throttle, journal, commit, broadcaster. Beside
it what one would write in an afternoon: node's `readline` on a pipe and `ws`, without journal, parser or order. All agents are
started before the first of them prints. Thinking lines are used, which the throttle passes at once: merging output within
100 ms is a feature, not a delay of the machinery.

Everything is on the same cores: the agents, the server, and the one process of all subscribers, which stamps what comes when it
gets to it. 50 runs and 100 subscribers are 100,000 deliveries a second, which is more than some machines can do with a system
call for each; a server that can't then falls behind further and further, or sends together what waits. With 5 runs and 10
subscribers there are 1,000.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.daemon import Gate, daemon
from bench.duel import OURS, ask, child, subscribers, tell
from bench.peers import SOURCES, Peers
from bench.report import Goal, Result, number

NODE = "node readline + ws"


def of_daemon(runs: int, rate: int, lines: int, clients: int) -> Any:
    """What the subscribers report."""
    with tempfile.TemporaryDirectory() as directory:
        gate = Gate(Path(directory))
        with (
            daemon(Path(directory), agent=gate.talker(rate, lines), runs=runs) as one,
            subscribers(one.port, clients, mode="latency") as crowd,
        ):
            ids = [f"run-{number}" for number in range(runs)]
            one.submit(ids)
            gate.open_for(runs)
            one.wait(ids)
            return crowd.stop()


def of_relay(argv: Sequence[str], runs: int, rate: int, lines: int, clients: int) -> Any:
    """The same by the relay."""
    with tempfile.TemporaryDirectory() as directory:
        gate = Gate(Path(directory))
        with (
            child([*argv, str(runs), *gate.talker(rate, lines)]) as relay,
            subscribers(int(ask(relay)), clients, wish="", mode="latency") as crowd,
        ):
            tell(relay, "go")
            gate.open_for(runs)
            ask(relay)
            time.sleep(0.5)
            return crowd.stop()


def delays(told: Any, lines: int) -> list[float]:
    """Milliseconds, sorted. Raises RuntimeError when a subscriber got anything but each of so many lines once."""
    for found, different, _ in told["seen"]:
        if found != lines or different != lines:
            raise RuntimeError(f"a subscriber got {found} lines, {different} different ones, of {lines}")
    return sorted(us / 1000 for us in told["us"])


def middle(times: Sequence[float]) -> float:
    """The median of what is sorted."""
    return times[len(times) // 2]


def late(times: Sequence[float]) -> float:
    """The 99th percentile of what is sorted."""
    return times[len(times) * 99 // 100]


def run(
    peers: Peers, *, sizes: Sequence[tuple[int, int]] = ((5, 10), (50, 100)), rate: int = 20, lines: int = 80
) -> Result:
    """Measure it; ``sizes`` are runs and subscribers, the last those of the goal."""
    argv = None
    if peers.node and peers.ws:
        argv = (peers.node, str(SOURCES / "relay.cjs"), str(peers.ws))
    times: dict[tuple[str, str], list[float]] = {}
    for runs, clients in sizes:
        what = f"{runs} runs x {rate} lines/s, {clients} subscribers"
        times[OURS, what] = delays(of_daemon(runs, rate, lines, clients), runs * lines)
        if argv is not None:
            times[NODE, what] = delays(of_relay(argv, runs, rate, lines, clients), runs * lines)
    ours = {what: one for (name, what), one in times.items() if name == OURS}
    # `what` is now that of the goal.
    goals = [
        Goal(
            what=f"c: p50 at most 1.5 ms, p99 at most 10 ms ({what})",
            reached=f"{number(middle(ours[what]))} and {number(late(ours[what]))} ms",
            met=middle(ours[what]) <= 1.5 and late(ours[what]) <= 10,
        ),
    ]
    ratios = []
    if argv is not None:
        pairs = [(middle(one), middle(times[NODE, size])) for size, one in ours.items()]
        goals.append(
            Goal(
                what="c: p50 at most 1 ms above a bare node relay without a journal",
                reached="; ".join(
                    f"{number(us)} ms against {number(them)} ms ({size})"
                    for (us, them), size in zip(pairs, ours, strict=True)
                ),
                met=all(us - them <= 1 for us, them in pairs),
            )
        )
        ratios = [
            f"{size}: {number(middle(one) / middle(times[NODE, size]))} times the p50 and "
            f"{number(late(one) / late(times[NODE, size]))} times the p99 of the relay"
            for size, one in ours.items()
        ]
    return Result(
        title="c. Latency from the agent to the subscribers",
        story=__doc__ or "",
        columns=("", "p50 ms", "p99 ms", "worst ms", "lines received"),
        rows=[
            (f"{name}: {what}", number(middle(one)), number(late(one)), number(one[-1]), number(len(one)))
            for (name, what), one in times.items()
        ],
        unit=f"p50 in milliseconds with {sizes[0][0]} runs, less is better",
        bars=[(name, middle(one)) for (name, _), one in times.items()][: len(times) // len(sizes)],
        ratios=ratios,
        goals=goals,
        absent=[] if argv else [NODE],
    )
