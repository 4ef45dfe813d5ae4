"""Where real agent programs run in the tests: in a network namespace with nothing but loopback.

`command` wraps a command so that it, and everything it starts, sees no network but its own 127.0.0.1. ``unshare`` makes the
namespace (as root, or as root of a user namespace of its own where the system allows that), and this module, run as a program
inside, brings ``lo`` up with one ioctl, so that iproute2 is not needed.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
#: Set inside, for those who need to know. Not AGENTSTREAM_*: those are settings, and the daemon refuses unknown ones.
INSIDE: Final = "TEST_SANDBOXED"
#: The newest version that the recordings were made with, and that the tests are written for.
CLAUDE_PACKAGE: Final = "@anthropic-ai/claude-code@2.1.197"

# <linux/sockios.h>, <linux/if.h>
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1


def command(argv: Sequence[str]) -> list[str]:
    """``argv`` wrapped to run in a namespace of its own, with loopback up. Its pipes and signals are those of the wrapper."""
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    return [*unshare, sys.executable, "-m", "tests.support.sandbox", *argv]


@functools.cache
def unavailable() -> str | None:
    """Why there can be no namespace here, or None when there can."""
    if shutil.which("unshare") is None:
        return "no loopback-only namespace: `unshare` (util-linux) is not installed"
    tried = subprocess.run(command(["true"]), cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"no loopback-only namespace: not permitted here ({tried.stderr.strip().splitlines()[-1:]})"
    return None


def inside() -> bool:
    """This process runs in such a namespace."""
    return INSIDE in os.environ


def find_claude() -> Path | None:
    """The Claude Code CLI: ``TEST_CLAUDE``, else the checkout's ``.tools``, else the ``PATH``."""
    if named := os.environ.get("TEST_CLAUDE"):
        return Path(named)
    # Not .bin/claude: without its install script that is a stub. The program itself is in the package for the platform.
    for program in (CHECKOUT / ".tools" / "node_modules" / "@anthropic-ai").glob("claude-code-linux-*/claude"):
        return program
    found = shutil.which("claude")
    return Path(found) if found else None


def claude_environment(home: Path, api_url: str) -> dict[str, str]:
    """A complete environment for the CLI: its own home, the scripted model server, no telemetry, no update, no account."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "ANTHROPIC_BASE_URL": api_url,
        "ANTHROPIC_API_KEY": "sk-fake-not-a-key",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    if os.geteuid() == 0:
        # Without it, the CLI refuses --permission-mode bypassPermissions to root.
        environment["IS_SANDBOX"] = "1"
    return environment


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def main() -> None:
    """Run inside the new namespace: bring ``lo`` up, then become the command."""
    _bring_loopback_up()
    os.environ[INSIDE] = "1"
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
