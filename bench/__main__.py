"""`python -m bench`: run the workloads, print their ratios, write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import burst, growth, hotpath, latency, lines, paced, replay
from bench.peers import Peers
from bench.report import Goal, Result, write

ROOT = Path(__file__).parent.parent
#: In the order of the page, with the sizes of ``--tiny``: to see that it runs, not to measure.
WORKLOADS: dict[str, tuple[Callable[..., Result], dict[str, Any]]] = {
    "burst": (burst.run, {"clients": 3, "events": 50, "rounds": 1}),
    "paced": (paced.run, {"clients": 3, "events": 50, "rounds": 1}),
    "latency": (latency.run, {"runs": 1, "lines": 5, "clients": 2, "rounds": 1}),
    "lines": (lines.run, {"lines": 100, "rounds": 1}),
    "growth": (growth.run, {"events": 1000, "appends": 20}),
    "replay": (replay.run, {"events": 2000}),
    "hotpath": (hotpath.run, {"times": 200}),
}
NOT_MEASURED = [
    Goal(what="b: 1,000 x 200 events in a burst", reached="not measured yet", met=None),
    Goal(what="e: 300 concurrent runs, flat cost, at most 200 KiB each", reached="not measured yet", met=None),
    Goal(what="f: 10,000 subscribers, 20 KiB each, 1,000 connects/s", reached="not measured yet", met=None),
]


def facts(peers: Peers, load: str, seconds: float) -> list[tuple[str, str]]:
    """The machine, without names."""
    versions = ", ".join(f"{name} {version}" for name, version in peers.versions().items())
    return [
        ("day", f"{datetime.now(UTC):%Y-%m-%d}, {seconds:.0f} s in all"),
        (
            "cores",
            f"{len(os.sched_getaffinity(0))} ({platform.machine()}, {platform.system()} {platform.release().split('-')[0]})",
        ),
        ("load average before and after", f"{load} and {_load()}"),
        ("Python, SQLite", f"{platform.python_version()}, {sqlite3.sqlite_version}"),
        ("peers", versions),
    ]


def _load() -> str:
    return " / ".join(f"{one:.1f}" for one in os.getloadavg())


def main() -> None:
    """See --help."""
    options = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks, side by side with peers.")
    options.add_argument(
        "--only",
        action="append",
        choices=list(WORKLOADS),
        help="this workload (may be repeated); prints, writes no page",
    )
    options.add_argument("--tiny", action="store_true", help="as small as can be: only shows that it runs")
    options.add_argument("--node-modules", type=Path, default=ROOT / ".tools" / "node_modules", help="where ws is")
    options.add_argument("--docs", type=Path, help="where to write the page (default: docs, unless --only or --tiny)")
    given = options.parse_args()
    load, start = _load(), time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as temporary:
        peers = Peers(given.node_modules.absolute(), Path(temporary))
        for name in given.only or WORKLOADS:
            run, tiny = WORKLOADS[name]
            result = run(peers, **(tiny if given.tiny else {}))
            results.append(result)
            print(f"{result.title}  [{time.monotonic() - start:.0f} s]")
            for ratio in result.ratios:
                print(f"  {ratio}")
            for absent in result.absent:
                print(f"  absent: {absent}")
            sys.stdout.flush()
        docs = given.docs or (None if given.only or given.tiny else ROOT / "docs")
        if docs is not None:
            write(docs, facts(peers, load, time.monotonic() - start), results, NOT_MEASURED)
            print(f"written: {docs / 'benchmarks.md'}")


if __name__ == "__main__":
    main()
