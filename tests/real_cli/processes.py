"""Which processes belong to a run: those that carry its mark in their environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def marked(run_id: str) -> Iterator[tuple[int, str]]:
    """Pid and command line of each living process of the run. A zombie has no environment and is none."""
    mark = f"AGENTSTREAM_RUN_ID={run_id}\0".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes() + b"\0":
                    yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
