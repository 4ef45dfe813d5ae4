"""One fan-out of one server to subscribers in another process, timed from outside.

The protocol that every server here speaks: argv ends with EVENTS RATE SIZE CLIENTS; it prints its port; at the line ``go`` on stdin
it sends EVENTS texts of SIZE bytes to all CLIENTS that are connected (RATE a second; 0: as fast as it can), the last one with
``~END~`` in it; at the line ``stop`` it prints the CPU seconds since ``go`` (all threads, user and system) and exits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

#: Seconds for any one of these; only a hang meets it.
PATIENCE = 120.0
#: How the names of our servers begin.
OURS = "agentstream"


@attrs.frozen
class Outcome:
    """``seconds`` from the word go to the last subscriber's last event; ``cpu`` seconds of the server."""

    seconds: float
    cpu: float
    deliveries: int

    @property
    def per_second(self) -> float:
        """Deliveries a second of wall-clock time."""
        return self.deliveries / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU for each delivery."""
        return self.cpu / self.deliveries * 1e6


def ask(process: subprocess.Popen[str]) -> str:
    """The next line of a child."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} ended with {process.wait(PATIENCE)}")
    return line


def tell(process: subprocess.Popen[str], line: str) -> None:
    """A line for a child."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


@contextmanager
def child(argv: Sequence[str], *, quiet: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A child with pipes, killed at the end. ``quiet``: what it logs is thrown away."""
    stderr = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@attrs.frozen
class Crowd:
    """Connected subscribers (`bench.subscribers`); how many seconds their handshakes took, and their subscriptions."""

    process: subprocess.Popen[str]
    count: int
    connecting: float
    subscribing: float

    def seen(self) -> Any:
        """What they report next."""
        return json.loads(ask(self.process))

    def wait_for(self, events: int) -> float:
        """The moment (CLOCK_MONOTONIC) of the last event at the last of them. Raises RuntimeError when one missed an event."""
        seen = self.seen()
        if seen["frames"] != events or seen["most"] != seen["least"]:
            raise RuntimeError(f"a subscriber missed some of {events} events: {seen}")
        return float(seen["at"])

    def stop(self) -> Any:
        """Tell them that it is over; their report."""
        tell(self.process, "stop")
        return self.seen()


@contextmanager
def subscribers(port: int, count: int, *, wish: str = "*", mode: str = "count") -> Iterator[Crowd]:
    """So many, connected. ``wish`` is the work order they subscribe to (``%d``: the subscriber's number), empty: none."""
    with child([sys.executable, "-m", "bench.subscribers", str(port), str(count), wish, mode]) as process:
        yield Crowd(process, count, *json.loads(ask(process)))


def duel(server: Sequence[str], *, wish: str, clients: int, events: int, rate: int, size: int) -> Outcome:
    """Run it once. Raises RuntimeError when a subscriber missed an event."""
    with (
        child([*server, str(events), str(rate), str(size), str(clients)]) as one,
        subscribers(int(ask(one)), clients, wish=wish) as crowd,
    ):
        began = time.monotonic()
        tell(one, "go")
        ended = crowd.wait_for(events)
        tell(one, "stop")
        return Outcome(ended - began, float(ask(one)), clients * events)


def interleaved(contestants: dict[str, Sequence[str]], rounds: int, **sizes: int) -> dict[str, Outcome]:
    """Each in turn, ``rounds`` times, so that a busy moment of the machine hits all; the least time and the least CPU of each."""
    best: dict[str, Outcome] = {}
    for _ in range(rounds):
        for name, server in contestants.items():
            outcome = duel(server, wish="*" if name.startswith(OURS) else "", **sizes)
            print(f"  {name}: {outcome.seconds:.2f} s, {outcome.cpu_us:.2f} us each", file=sys.stderr, flush=True)
            known = best.get(name, outcome)
            best[name] = Outcome(min(known.seconds, outcome.seconds), min(known.cpu, outcome.cpu), outcome.deliveries)
    return best
