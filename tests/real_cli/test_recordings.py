"""The real CLI, alone, still prints the kinds of lines that the recordings have: they are what the parser was written for.

When this fails after an upgrade of the CLI, record again before touching the parser.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.real_cli.conftest import Stage
from tests.support.messages_api import Turn, fail, say, thinking, tool
from tests.support.sandbox import CHECKOUT

pytestmark = pytest.mark.real_cli

_RECORDINGS: Final = CHECKOUT / "tests" / "recordings" / "claude"
_ALWAYS: Final = ("--output-format", "stream-json", "--verbose", "--permission-mode", "bypassPermissions")
#: Their number depends on how the network cuts the stream, and on the clock.
_UNCOUNTED: Final = frozenset({"stream_event", "system/thinking_tokens", "system/status"})


@attrs.frozen(kw_only=True)
class Case:
    """What the model says, and how the CLI is started, so that it does what it did in a recording."""

    turns: Sequence[Turn]
    arguments: Sequence[str] = ()
    subagents: Mapping[str, Sequence[Turn]] = attrs.field(factory=dict)
    environment: Mapping[str, str] = attrs.field(factory=dict)
    exit_code: int = 0


_ONE_RETRY: Final = {"CLAUDE_CODE_MAX_RETRIES": "1"}
CASES: Final[Mapping[str, Case]] = {
    "basic": Case(
        turns=[
            say("I'll look at the files first.", tool("Bash", command="ls -la && echo hi", description="run")),
            say("Now writing a file.", tool("Write", file_path="$WORKSPACE/hello.py", content="print('hello')\n")),
            say(tool("Read", file_path="$WORKSPACE/hello.py")),
            say(tool("Bash", command="python3 hello.py; exit 3")),
            say(tool("Edit", file_path="$WORKSPACE/hello.py", old_string="'hello'", new_string="'hello world'")),
            say("All done."),
        ]
    ),
    "b_thinking_partial": Case(
        turns=[say(thinking("Let me think about that. " * 8), "Thought about it.")],
        arguments=["--include-partial-messages"],
    ),
    "c_subagent": Case(
        turns=[
            say("Delegating.", tool("Task", description="Look", prompt="SUB-ONE", subagent_type="general-purpose")),
            say("The sub-agent said 42."),
        ],
        subagents={"SUB-ONE": [say(tool("Bash", command="echo from-sub-agent")), say("Sub: final answer 42.")]},
    ),
    "d_429_once": Case(turns=[fail(429, headers={"retry-after": "1"}), say("Recovered fine.")]),
    "d_529_always_retries2": Case(turns=[fail(529, forever=True)], environment=_ONE_RETRY, exit_code=1),
    "d_credit": Case(turns=[fail(400, message="Your credit balance is too low to access the API.")], exit_code=1),
    "d_midstream_abort_once": Case(turns=[say("A longer text. " * 200, cut_after=2000), say("Recovered fine.")]),
    "e_maxturns1": Case(
        turns=[say("One.", tool("Bash", command="echo one")), say("Two.")], arguments=["--max-turns", "1"], exit_code=1
    ),
    "m_refusal_stop": Case(turns=[say("I can't.", stop_reason="refusal")], exit_code=1),
    "j_resume_unknown": Case(turns=[], arguments=["--resume", "00000000-0000-4000-8000-000000000000"], exit_code=1),
}


def kind(line: Mapping[str, Any]) -> str:
    """As in the table of line kinds: the type with what tells it apart."""
    match line:
        case {"type": "assistant" | "user" as speaker, "message": {"content": [{"type": str(block)}, *_]}}:
            return f"{speaker} [{block}]"
        case {"type": "assistant" | "user" as speaker}:
            return f"{speaker} [string]"
        case {"type": str(name), "subtype": str(subtype)}:
            return f"{name}/{subtype}"
        case _:
            return str(line["type"])


def kinds(printed: bytes) -> list[str]:
    """The kinds of all lines in order; retries count once, what comes in any number not at all."""
    found = [kind(json.loads(line)) for line in printed.split(b"\n") if line]
    return [name for name, _ in groupby(name for name in found if name not in _UNCOUNTED)]


@pytest.mark.parametrize("name", CASES)
def test_the_cli_prints_what_was_recorded(name: str, claude: Path, stage: Stage) -> None:
    case = CASES[name]
    api = stage.model(*case.turns, subagents=case.subagents)
    stdout = stage.directory / "stdout"
    with stdout.open("wb") as spool:  # not a pipe: the CLI does not drain one when it exits
        ended = subprocess.run(
            [claude, "-p", "make hello", *_ALWAYS, *case.arguments],
            cwd=stage.workspace,
            env=stage.environment(api, **case.environment),
            stdin=subprocess.DEVNULL,
            stdout=spool,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert kinds(stdout.read_bytes()) == kinds((_RECORDINGS / f"{name}.jsonl").read_bytes()), ended.stderr
    assert ended.returncode == case.exit_code
