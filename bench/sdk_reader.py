"""claude-agent-sdk's own transport and message parser over a file of lines: argv is FILE; prints lines and seconds.

The program that it takes for Claude Code's prints the file and ends, whatever it is asked. The clock runs from when that has been
started until the last line was parsed, so that our imports and the start of a process don't count.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions
from claude_agent_sdk._errors import MessageParseError
from claude_agent_sdk._internal.message_parser import parse_message
from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport


async def main(file: str) -> None:
    """Read and parse it all."""
    with tempfile.TemporaryDirectory() as directory:
        cli = Path(directory) / "claude"
        cli.write_text(f"#!/bin/sh\nexec cat {shlex.quote(file)}\n")
        cli.chmod(0o700)
        transport = SubprocessCLITransport(prompt="", options=ClaudeAgentOptions(cli_path=cli))
        await transport.connect()
        start, lines = time.perf_counter(), 0
        async for line in transport.read_messages():
            lines += 1
            # A line type that this version doesn't know costs what it costs.
            with suppress(MessageParseError):
                parse_message(line)
        seconds = time.perf_counter() - start
        await transport.close()
    print(lines, seconds)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
