"""Where the peers are: node with `ws`, `websockets`, a C compiler. What is missing is named, never fetched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import attrs

HERE = Path(__file__).parent
SOURCES = HERE / "sources"


@attrs.frozen
class Peers:
    """What there is to run beside us. ``temporary``: where the C program is compiled to."""

    node_modules: Path
    temporary: Path

    @property
    def node(self) -> str | None:
        """The node program."""
        return shutil.which("node")

    @property
    def node_ws(self) -> tuple[str, ...] | None:
        """How to start the peer that is made with node and `ws`."""
        if self.node is None or not (self.node_modules / "ws" / "index.js").is_file():
            return None
        return (self.node, str(SOURCES / "ws_server.cjs"), str(self.node_modules / "ws"))

    @property
    def websockets(self) -> tuple[str, ...] | None:
        """How to start the peer that is made with `websockets`."""
        return (sys.executable, "-m", "bench.websockets_server") if find_spec("websockets") else None

    def write_loop(self) -> tuple[tuple[str, ...], str]:
        """The bare loop of write(2), and the language it is in."""
        compiler = shutil.which("cc")
        if compiler is None:
            return (sys.executable, str(SOURCES / "write_loop.py")), "Python os.write: no C compiler here"
        program = self.temporary / "write_loop"
        if not program.exists():
            subprocess.run([compiler, "-O2", "-o", program, SOURCES / "write_loop.c"], check=True)
        return (str(program),), "C"

    def versions(self) -> dict[str, str]:
        """Name and version of what is there; "absent" for what is not."""
        found = {"node": "absent", "ws": "absent", "websockets": "absent", "cc": "absent", "claude-agent-sdk": "absent"}
        if self.node:
            found["node"] = _first_line(self.node, "--version")
        if self.node_ws and self.node:
            code = f"console.log(require({str(self.node_modules / 'ws' / 'package.json')!r}).version)"
            found["ws"] = _first_line(self.node, "-e", code)
        if self.websockets:
            import websockets

            found["websockets"] = websockets.__version__
        if compiler := shutil.which("cc"):
            found["cc"] = _first_line(compiler, "-dumpfullversion")
        if find_spec("claude_agent_sdk"):
            found["claude-agent-sdk"] = "installed, but no workload uses it"
        found["nginx with nchan"] = found["uvloop"] = "absent"
        return found


def _first_line(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
