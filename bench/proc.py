"""What a process takes of the machine, seen from outside, by its id. Linux."""

from __future__ import annotations

import time
from pathlib import Path


def cpu(pid: int) -> float:
    """CPU seconds of all its threads since its start, user and system, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def anonymous(pid: int) -> int:
    """Bytes that are its own for certain: resident and not of a file. What it shares with others of its kind is not in it."""
    return _field(Path(f"/proc/{pid}/status"), "RssAnon:")


def proportional(pid: int) -> int:
    """Bytes resident, what is shared counted by share: only these may be added up over many processes."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def children(pid: int) -> list[int]:
    """Ids of its children, whichever thread started them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _field(path: Path, name: str) -> int:
    """0 for a process that has ended."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
