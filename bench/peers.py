"""Where the peers are: node with `ws`, `websockets`, nginx with nchan, claude-agent-sdk, a C compiler, valgrind.

What is missing is named, never fetched.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import attrs

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
BATCH, SINGLE, NO_JOURNAL = "agentstream, one batch", "agentstream, one by one", "agentstream, no journal"
NODE, WEBSOCKETS, NCHAN = "node ws", "websockets", "nginx nchan"
#: Where Debian puts programs that are not everybody's.
SYSTEM = "/usr/sbin:/sbin"


@attrs.frozen
class Peers:
    """What there is to run beside us. ``temporary``: a directory for what is made once."""

    node_modules: Path
    temporary: Path

    @property
    def node(self) -> str | None:
        """The node program."""
        return shutil.which("node")

    @property
    def ws(self) -> Path | None:
        """The module `ws` of node, which is there too."""
        there = self.node_modules / "ws"
        return there if self.node and (there / "index.js").is_file() else None

    @property
    def nchan(self) -> tuple[str, str] | None:
        """The nginx program and its module nchan."""
        nginx = shutil.which("nginx") or shutil.which("nginx", path=SYSTEM)
        if nginx is None:
            return None
        told = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
        paths = [word.partition("=")[2] for word in told.split() if word.startswith("--modules-path=")]
        module = Path(*paths, "ngx_nchan_module.so")
        return (nginx, str(module)) if module.is_file() else None

    @property
    def cc(self) -> str | None:
        """A C compiler."""
        return shutil.which("cc")

    @property
    def floor(self) -> str:
        """The name of the bare loop of write(2) among `fan_out`."""
        return f"bare write() loop ({'C' if self.cc else 'Python: no C compiler here'})"

    def fan_out(self) -> tuple[dict[str, Sequence[str]], list[str]]:
        """Servers that speak the protocol of `bench.duel`, by name, ours first; and who is absent."""
        found: dict[str, Sequence[str]] = {BATCH: ours("batch"), SINGLE: ours("single"), NO_JOURNAL: ours("nojournal")}
        absent = []
        if self.node and self.ws:
            found[NODE] = (self.node, str(SOURCES / "ws_server.cjs"), str(self.ws))
        else:
            absent.append(NODE)
        if find_spec("websockets"):
            found[self.websockets] = (sys.executable, "-m", "bench.websockets_server")
        else:
            absent.append(WEBSOCKETS)
        if not find_spec("uvloop"):
            absent.append("uvloop")
        if self.nchan:
            found[NCHAN] = (sys.executable, "-m", "bench.nchan_server", *self.nchan, str(self.temporary / "nchan"))
        else:
            absent.append(NCHAN)
        found[self.floor] = self._write_loop()
        return found, absent

    @property
    def websockets(self) -> str:
        """The name of `websockets` among `fan_out`, with its loop."""
        return f"{WEBSOCKETS} on {'uvloop' if find_spec('uvloop') else 'asyncio'}"

    def _write_loop(self) -> tuple[str, ...]:
        if self.cc is None:
            return (sys.executable, str(SOURCES / "write_loop.py"))
        program = self.temporary / "write_loop"
        if not program.exists():
            subprocess.run([self.cc, "-O2", "-o", program, SOURCES / "write_loop.c"], check=True)
        return (str(program),)

    def versions(self) -> dict[str, str]:
        """Name and version of what is there; "absent" for what is not."""
        found = dict.fromkeys(("node", "ws", "nginx with nchan", "cc", "valgrind"), "absent")
        if self.node:
            found["node"] = _first_line(self.node, "--version")
        if self.node and self.ws:
            found["ws"] = _first_line(
                self.node, "-e", f"console.log(require({str(self.ws / 'package.json')!r}).version)"
            )
        if self.nchan:
            found["nginx with nchan"] = _first_line(self.nchan[0], "-v").rpartition("/")[2]
        if self.cc:
            found["cc"] = _first_line(self.cc, "-dumpfullversion")
        if valgrind := shutil.which("valgrind"):
            found["valgrind"] = _first_line(valgrind, "--version").removeprefix("valgrind-")
        for package in ("websockets", "uvloop", "claude-agent-sdk"):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "absent"
        return found


def ours(mode: str) -> tuple[str, ...]:
    """How to start our server; see `bench.our_server`."""
    return (sys.executable, "-m", "bench.our_server", mode)


def python() -> str:
    """Its name and minor version, which instruction counts depend on."""
    return (
        f"{platform.python_implementation()} {platform.python_version_tuple()[0]}.{platform.python_version_tuple()[1]}"
    )


def _first_line(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).strip().splitlines()[0]
