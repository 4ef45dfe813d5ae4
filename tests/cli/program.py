"""The command line as a child process, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: Signals as a terminal's foreground job has them, whatever those who run the tests ignore.
_START = """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from agentstream.cli import main
main(prog_name="agentstream")
"""
#: Seconds; a cold start on a busy machine takes two of them.
PATIENCE = 60


def environment(home: Path) -> dict[str, str]:
    """Nothing of ours and nothing of the caller's, so that no daemon or setting of this machine is found."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "PYTHONFAULTHANDLER": "1"}


def start(*args: str, home: Path, cwd: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start ``agentstream ARGS``; use it as a context manager."""
    return subprocess.Popen(
        [sys.executable, "-c", _START, *args],
        cwd=cwd or home,
        env={**environment(home), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(*args: str, home: Path, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of ``agentstream ARGS``."""
    with start(*args, home=home, cwd=cwd, **variables) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err
