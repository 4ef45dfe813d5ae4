"""docs/images/terminal.svg: ``agentstream submit --watch`` and ``watch --all`` on a real terminal, with the demo agent.

Run as ``python -m tests.pictures.recording``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from agentstream.agents.demo import program_command
from tests.browser.daemon import Daemon
from tests.pictures.film import svg
from tests.pictures.terminal import Terminal

RECORDING: Final = Path(__file__).parents[2] / "docs" / "images" / "terminal.svg"
TITLE: Final = (
    "agentstream in a terminal: one run from its start to its end, then several side by side, one of which asks"
)
#: Wide enough for two panels side by side.
COLUMNS, ROWS = 114, 22
#: Seconds between two steps of the demo agent.
PACE: Final = 0.35


def act(terminal: Terminal, daemon: Daemon) -> int:
    """What is seen; the number of the frame that tells most."""
    terminal.until("$ ")
    terminal.film(0.6)
    terminal.type('agentstream submit "Count the words of a text, with tests" --workspace . --agent demo --watch')
    terminal.until("● succeeded")
    terminal.until("\n$ ")
    terminal.film(2.5)
    terminal.type("clear; agentstream watch --all")
    terminal.until("waiting for work orders")
    daemon.submit("Upgrade the parser to the new grammar", pace=0.5)
    daemon.submit("Rebuild the search index from scratch", scenario="long")
    asking = daemon.submit("Tidy up the release scripts", scenario="approval", permissionMode="default", pace=0.4)
    daemon.submit("Read the changelog and say what is missing", pace=0.7)
    for question in ("Write", "Bash"):
        terminal.until(f"? allow {question}")
        terminal.film(2)
        telling = len(terminal.frames) - 1
        terminal.press("y")
    terminal.until(f"{asking} ● succeeded")
    terminal.film(2.5)
    terminal.press("\x03")
    terminal.until("\n$ ")
    return telling


def main() -> None:
    """Write the recording."""
    # A name without meaning: it can be read in the picture.
    directory = Path(tempfile.gettempdir()) / "agentstream-demo"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    settings = directory / "settings.toml"
    command = [*program_command(), f"--pace={PACE}"]
    settings.write_text(f"[agents.demo]\ncommand = {json.dumps(command)}\n")
    try:
        with Daemon(directory, "--config", str(settings)) as daemon:
            project = daemon.workspaces / "words"
            project.mkdir()
            env = {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(directory),
                "TERM": "xterm-256color",
                "LANG": "C.UTF-8",
                "PS1": "$ ",
                "AGENTSTREAM_URL": daemon.url,
                "AGENTSTREAM_TOKEN": daemon.token,
            }
            with Terminal(["sh", "-i"], columns=COLUMNS, rows=ROWS, env=env, cwd=project) as terminal:
                still = act(terminal, daemon)
                frames = terminal.frames
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    RECORDING.write_text(svg(frames, columns=COLUMNS, rows=ROWS, title=TITLE, hold=2.0, still=still))


if __name__ == "__main__":
    main()
