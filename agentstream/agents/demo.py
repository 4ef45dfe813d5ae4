"""The demo agent: how `demo_program` is started. Pure.

It speaks Claude Code's stream-json, so everything but the launch is `ClaudeCodeAdapter`'s. The program is run by its path with
``-I -S``: the child's working directory is the workspace, and nothing in it may be imported instead of the standard library.

Three variables of a request choose what it does, for tests and benchmarks: ``DEMO_SCENARIO`` (files, approval, long, numbers,
calls), ``DEMO_PACE`` (seconds between two steps), ``DEMO_COUNT`` (lines or calls). They become options: the program reads no
environment. Unlike Claude Code it asks for permission only where ``permissionMode`` is ``default`` by name, so that a first
look needs no answers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Final, get_args

from agentstream.agents.base import Capabilities, Launch, RunRequest
from agentstream.agents.claude_code import ClaudeCodeAdapter, argument
from agentstream.errors import InvalidMessage
from agentstream.model.orders import PermissionMode

_OPTIONS: Final[Mapping[str, str]] = {
    "DEMO_SCENARIO": "--scenario",
    "DEMO_PACE": "--pace",
    "DEMO_COUNT": "--count",
}


def program_command() -> tuple[str, ...]:
    """This interpreter, isolated, with the program's file."""
    spec = find_spec("agentstream.agents.demo_program")
    assert spec is not None
    assert spec.origin is not None
    return (sys.executable, "-I", "-S", spec.origin)


class DemoAdapter(ClaudeCodeAdapter):
    """Needs no account, no network and no installation."""

    agent_type = "demo"
    label = "Demo agent (no model, no account)"
    variables: tuple[str, ...] = ()

    def __init__(self, command: Sequence[str] = ()) -> None:
        super().__init__(command or program_command())

    def capabilities(self) -> Capabilities:
        """What `demo_program` understands of Claude Code's options and control protocol."""
        return Capabilities(
            interactive=True,
            interrupt=True,
            approvals=True,
            resume=True,
            deltas=True,
            permission_modes=get_args(PermissionMode),
        )

    def launch(self, request: RunRequest, base_env: Mapping[str, str]) -> Launch:
        """How to start it. Raises `InvalidMessage` for an empty prompt."""
        if not request.prompt.strip():
            raise InvalidMessage("taskPrompt: expected a text, got an empty one", details={"field": "taskPrompt"})
        converses = request.interactive or request.ask_approvals
        asks = request.ask_approvals and request.permission_mode == "default"
        argv = [*self.command]
        if converses:
            argv.append("--input-format=stream-json")
        if asks:
            argv += ["--permission-prompt-tool=stdio", "--scenario=approval"]
        if request.include_deltas:
            argv.append("--include-partial-messages")
        if request.permission_mode is not None:
            argv.append(f"--permission-mode={argument('permissionMode', request.permission_mode)}")
        if request.resume_session_id is not None:
            argv.append(f"--resume={argument('resumeSessionId', request.resume_session_id)}")
        argv += [
            f"{option}={argument(name, request.env[name])}" for name, option in _OPTIONS.items() if name in request.env
        ]
        return Launch(
            argv=tuple(argv),
            env={**base_env, **request.env},
            stdin=self.message(request.prompt) if converses else request.prompt.encode(errors="replace"),
            keep_stdin_open=converses,
        )

    def login_files(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """None: there is nothing to log in to."""
        return ()

    def login(self, env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
        """Says that none is needed, so that nobody looks for one."""
        return "none needed"
