"""Many runs at a time: what each costs the daemon, from 10 to 300, and whether each line arrives.

A whole daemon carries out so many work orders at a time, each by an agent that prints 10 lines a second, each watched by a
subscriber of its own, all on the same cores. Every subscriber must get every line of its run, once and in order. CPU is the
daemon's over some seconds in which all runs talk, by line. Memory is the daemon's own (anonymous: what no other process can share)
above what it had with the subscribers connected and no run. Each run also has a supervisor process, which is not the daemon's
cost and is told beside; the agent is whatever it is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import attrs

from bench import proc
from bench.daemon import Daemon, Gate, daemon
from bench.duel import subscribers
from bench.latency import delays, late, middle
from bench.peers import Peers
from bench.report import Goal, Result, number

KIB = 1024
#: Of the window's seconds, how many the agents talk before it, and how many after.
BEFORE, AFTER = 0.2, 0.4


@attrs.frozen(kw_only=True)
class Cost:
    """Of so many runs. CPU in microseconds a line, and of one core; ``rate`` in lines/s that came through; memory in bytes.

    Of each ``supervisor`` by share; delays in ms.
    """

    runs: int
    cpu: float
    busy: float
    rate: float
    memory: float
    supervisor: float
    p50: float
    p99: float


def measured(runs: int, rate: int, window: float) -> Cost:
    """One daemon, so many runs. Raises RuntimeError when a subscriber missed a line, or got one twice or out of order."""
    lines = int(rate * window * (BEFORE + 1 + AFTER))
    with tempfile.TemporaryDirectory() as directory:
        gate = Gate(Path(directory))
        with (
            daemon(Path(directory), agent=gate.talker(rate, lines), runs=runs) as one,
            subscribers(one.port, runs, wish="run-%d", mode="latency") as crowd,
        ):
            before = proc.anonymous(one.pid)
            ids = [f"run-{number}" for number in range(runs)]
            one.submit(ids)
            gate.open_for(runs)
            opened = time.monotonic()
            time.sleep(window * BEFORE)
            first = _sample(one)
            # A daemon that can't keep up answers late; the agents don't wait for it.
            time.sleep(max(0.0, opened + window * (BEFORE + 1) - time.monotonic()))
            memory = proc.anonymous(one.pid) - before
            supervisors = [size for pid in proc.children(one.pid) if (size := proc.proportional(pid))]
            events, cpu, seconds = (now - then for now, then in zip(_sample(one), first, strict=True))
            one.wait(ids)
            told = crowd.stop()
    times = delays(told, lines)
    if not all(in_order for _, _, in_order in told["seen"]):
        raise RuntimeError("a subscriber got lines out of order")
    return Cost(
        runs=runs,
        cpu=cpu / max(1, events) * 1e6,
        busy=cpu / seconds,
        rate=events / seconds,
        memory=memory / runs,
        supervisor=sum(supervisors) / max(1, len(supervisors)),
        p50=middle(times),
        p99=late(times),
    )


def _sample(one: Daemon) -> tuple[int, float, float]:
    """Events that it published, CPU seconds that it has taken, and when."""
    return one.published(), proc.cpu(one.pid), time.monotonic()


def run(_peers: Peers, *, counts: Sequence[int] = (10, 100, 300), rate: int = 10, window: float = 5.0) -> Result:
    """Measure it."""
    costs = [measured(count, rate, window) for count in counts]
    first, last = costs[0], costs[-1]
    # Of further runs: what the first ones cost has things in it that are there once.
    further = [
        (more.memory * more.runs - less.memory * less.runs) / (more.runs - less.runs) for less, more in pairwise(costs)
    ]
    what = " / ".join(str(one.runs) for one in costs)
    return Result(
        title=f"e. {what} runs at a time, {rate} lines/s each",
        story=__doc__ or "",
        columns=("", *(f"{one.runs} runs" for one in costs)),
        rows=[
            ("daemon's CPU, us a line", *(number(one.cpu) for one in costs)),
            ("daemon's CPU, % of one core", *(number(one.busy * 100) for one in costs)),
            ("lines/s that came through", *(number(one.rate) for one in costs)),
            ("daemon's memory, KiB a run", *(number(one.memory / KIB) for one in costs)),
            ("daemon's memory, KiB for each further run", "", *(number(one / KIB) for one in further)),
            ("supervisor's memory, KiB a run", *(number(one.supervisor / KIB) for one in costs)),
            ("agent's write() to recv(): p50 ms", *(number(one.p50) for one in costs)),
            ("agent's write() to recv(): p99 ms", *(number(one.p99) for one in costs)),
        ],
        unit="microseconds of the daemon's CPU per line, less is better",
        bars=[(f"agentstream, {one.runs} runs", one.cpu) for one in costs],
        ratios=[
            f"CPU of a line with {last.runs} runs: {number(last.cpu / first.cpu)} times that with {first.runs}",
            f"memory of a run with {last.runs} runs: {number(last.memory / first.memory)} times that with {first.runs}",
        ],
        goals=[
            Goal(
                what=f"e: no loss with {last.runs} concurrent runs of {rate} lines/s, a subscriber each",
                reached="every line arrived once and in order, or this page would not have been written",
                met=True,
            ),
            Goal(
                what=f"e: CPU of a run flat from {first.runs} to {last.runs} runs (10%)",
                reached=f"{' / '.join(number(one.cpu) for one in costs)} us a line with {what}",
                met=max(one.cpu for one in costs) <= 1.1 * first.cpu,
            ),
            Goal(
                what=f"e: memory of a run flat from {first.runs} to {last.runs} runs (10%), at most 200 KiB in the daemon",
                reached=f"{' / '.join(number(one.memory / KIB) for one in costs)} KiB a run with {what}",
                met=last.memory <= min(1.1 * first.memory, 200 * KIB),
            ),
        ],
    )
