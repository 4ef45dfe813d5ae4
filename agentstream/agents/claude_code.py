"""Claude Code: how it is started, talked to and logged in. Pure.

The prompt goes over stdin: an argument is limited to 128 KiB by the kernel, and one that begins with ``-`` would be an option.
Every option is given as ``--name=value``, so that no value can be taken for an option, and none of the variadic ones
(``--allowedTools``) swallows what follows. With ``interactive`` or ``ask_approvals`` stdin stays open and speaks stream-json: one
JSON object a line, for messages and for the control protocol (interrupt, permissions).

``systemPrompt`` is *appended* to Claude Code's own: replacing that (``--system-prompt``) would take away how its tools are to be
used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import orjson

from agentstream.agents.base import (
    Capabilities,
    Exit,
    Launch,
    Outcome,
    Parser,
    RunRequest,
    StopStep,
    StopTarget,
    Summary,
)
from agentstream.agents.claude_code_endings import outcome
from agentstream.agents.claude_code_kinds import ClaudeCodeParser
from agentstream.agents.content import mapping, maybe_string
from agentstream.errors import InvalidMessage
from agentstream.model.events import Decision
from agentstream.model.orders import PermissionMode

#: No update checks, telemetry and error reports from a run that nobody watches.
QUIET: Final[Mapping[str, str]] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}
#: Set inside a Claude Code session; a daemon that was started from one would make its runs believe that they are nested.
_NESTED: Final = ("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT", "CLAUDE_CODE_SESSION_ID")

#: Linux' limit for one argument (MAX_ARG_STRLEN), with its terminating zero.
MAX_ARGUMENT: Final = 131_072 - 1

#: Names the interrupt in its acknowledgement only. The same each time, for an adapter has no state; nothing waits for it.
_INTERRUPT_ID: Final = "agentstream-interrupt"

CLOUDS: Final[Mapping[str, str]] = {
    "CLAUDE_CODE_USE_BEDROCK": "Amazon Bedrock",
    "CLAUDE_CODE_USE_VERTEX": "Google Vertex AI",
    "CLAUDE_CODE_USE_FOUNDRY": "Microsoft Foundry",
}


class ClaudeCodeAdapter:
    """Claude Code with whatever login the environment gives it."""

    agent_type = "claude-code"
    label = "Claude Code"
    variables: tuple[str, ...] = (
        "ANTHROPIC_*",
        "CLAUDE_CODE_*",
        "CLAUDE_CONFIG_DIR",
        # Where a cloud's account is; its keys themselves are only handed on by an operator who says so in the configuration.
        "AWS_REGION",
        "AWS_PROFILE",
        "AWS_BEARER_TOKEN_BEDROCK",
        "CLOUD_ML_REGION",
        "API_TIMEOUT_MS",
        "MAX_THINKING_TOKENS",
        "BASH_DEFAULT_TIMEOUT_MS",
        "BASH_MAX_TIMEOUT_MS",
        "BASH_MAX_OUTPUT_LENGTH",
        "MCP_TIMEOUT",
        "MCP_TOOL_TIMEOUT",
        "MAX_MCP_OUTPUT_TOKENS",
        "IS_SANDBOX",
    )
    #: SIGINT to the program ends it cleanly within 0.1 s, with results and a last line; SIGTERM makes it leave its tools behind.
    stop_steps: tuple[StopStep, ...] = (
        StopStep(StopTarget.AGENT, signal="SIGINT", grace=3.0),
        StopStep(StopTarget.GROUP, signal="SIGTERM", grace=2.0),
    )

    def __init__(self, command: Sequence[str] = ("claude",)) -> None:
        self.command = tuple(command)

    def capabilities(self) -> Capabilities:
        """Everything that the protocol knows."""
        return Capabilities(
            interactive=True,
            interrupt=True,
            approvals=True,
            resume=True,
            deltas=True,
            cost=True,
            max_turns=True,
            permission_modes=get_args(PermissionMode),
        )

    # --- starting it -----------------------------------------------------------------------------------------------

    def launch(self, request: RunRequest, base_env: Mapping[str, str]) -> Launch:
        """How to start it. Raises `InvalidMessage` for an empty prompt and for values that can't be an argument."""
        if not request.prompt.strip():
            raise InvalidMessage("taskPrompt: expected a text, got an empty one", details={"field": "taskPrompt"})
        converses = request.interactive or request.ask_approvals
        argv = [*self.command, "-p", "--output-format=stream-json", "--verbose"]
        if converses:
            argv.append("--input-format=stream-json")
        if request.ask_approvals:
            argv.append("--permission-prompt-tool=stdio")
        if request.include_deltas:
            argv.append("--include-partial-messages")
        options = (
            ("--model", "model", request.model),
            ("--max-turns", "maxTurns", str(request.max_turns) if request.max_turns is not None else None),
            ("--permission-mode", "permissionMode", request.permission_mode),
            ("--allowedTools", "allowedTools", _listed("allowedTools", request.allowed_tools)),
            ("--disallowedTools", "disallowedTools", _listed("disallowedTools", request.disallowed_tools)),
            ("--append-system-prompt", "systemPrompt", request.system_prompt),
            ("--resume", "resumeSessionId", request.resume_session_id),
        )
        argv += [f"{option}={argument(field, value)}" for option, field, value in options if value]
        return Launch(
            argv=tuple(argv),
            env=self.environment(request, base_env),
            stdin=self.message(request.prompt) if converses else request.prompt.encode(errors="replace"),
            keep_stdin_open=converses,
        )

    def environment(self, request: RunRequest, base_env: Mapping[str, str]) -> dict[str, str]:
        """The child's whole environment."""
        base = {name: value for name, value in base_env.items() if name not in _NESTED}
        return {**base, **QUIET, **request.env}

    def parser(
        self, request: RunRequest, *, preview_limit: int | None = 500, approval_seconds: float = 300.0
    ) -> Parser:
        """A fresh parser."""
        return ClaudeCodeParser(request, preview_limit=preview_limit, approval_seconds=approval_seconds)

    def outcome(self, summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
        """What became of the run."""
        return outcome(summary, exit, stderr_tail)

    # --- talking to it ---------------------------------------------------------------------------------------------

    def message(self, text: str) -> bytes:
        """A further message. Sent while a turn is going on it joins that turn: one ``result`` for both."""
        return _line(
            {
                "type": "user",
                "message": {"role": "user", "content": text},
                "parent_tool_use_id": None,
                "session_id": "",
            }
        )

    def interrupt(self) -> bytes:
        """Stop the turn. Acknowledged within milliseconds; a ``result`` with an aborted ``terminal_reason`` follows."""
        return _line({"type": "control_request", "request_id": _INTERRUPT_ID, "request": {"subtype": "interrupt"}})

    def approval(
        self, request_id: str, decision: Decision, *, message: str | None, updated_input: dict[str, Any] | None
    ) -> bytes:
        """The answer to ``can_use_tool``. A denial's message is what the model reads as the tool's result."""
        answer: dict[str, Any]
        if decision == "allow":
            if updated_input is None:
                raise ValueError(
                    "Claude Code allows a call only with its input: pass the request's own as updated_input"
                )
            answer = {"behavior": "allow", "updatedInput": updated_input}
        else:
            answer = {"behavior": "deny", "message": message or "The user denied this tool call."}
        return _line(
            {
                "type": "control_response",
                "response": {"subtype": "success", "request_id": request_id, "response": answer},
            }
        )

    # --- its login -------------------------------------------------------------------------------------------------

    def login_files(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """The credentials file of the subscription."""
        directory = env.get("CLAUDE_CONFIG_DIR") or (f"{env['HOME']}/.claude" if env.get("HOME") else "")
        return (f"{directory}/.credentials.json",) if directory.startswith("/") else ()

    def login_hint(self) -> str | None:
        """None: a key may also come from the program's own settings, which only it can read; it tells when there is none."""
        return None

    def version_command(self) -> tuple[str, ...] | None:
        """Prints "2.1.197 (Claude Code)"."""
        return (*self.command, "--version")

    def login(self, env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
        """In the order in which the program itself prefers them: an API key wins over a subscription."""
        found = next((name for variable, name in CLOUDS.items() if _is_on(env.get(variable))), None)
        if found is None:
            keys = [name for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN") if env.get(name)]
            found = f"API key ({' and '.join(keys)})" if keys else subscription(env, files)
        if found is None:
            return None
        gateway = env.get("ANTHROPIC_BASE_URL")
        return f"{found}, through the gateway {_address(gateway)}" if gateway else found


def subscription(env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
    """The login of a subscription in words: the token variable, or a credentials file that holds an access token."""
    if env.get("CLAUDE_CODE_OAUTH_TOKEN"):
        return "subscription (CLAUDE_CODE_OAUTH_TOKEN)"
    for path, text in files.items():
        try:
            oauth = mapping(mapping(orjson.loads(text)).get("claudeAiOauth"))
        except orjson.JSONDecodeError:
            continue
        if maybe_string(oauth, "accessToken"):
            plan = maybe_string(oauth, "subscriptionType")
            return f"subscription ({plan + ', ' if plan else ''}{path})"
    return None


def argument(field: str, value: str) -> str:
    """``value`` as it may stand in an argument; raises `InvalidMessage` that names ``field``."""
    if "\0" in value:
        raise InvalidMessage(f"{field}: expected a text without zero characters", details={"field": field})
    size = len(value.encode(errors="replace"))
    if size > MAX_ARGUMENT - 64:  # the option's name is part of the argument
        raise InvalidMessage(
            f"{field}: expected at most {MAX_ARGUMENT - 64} bytes (the system's limit for an argument), got {size}; "
            "put long texts into the prompt or a file of the workspace",
            details={"field": field},
        )
    return value


def _listed(field: str, tools: Sequence[str] | None) -> str | None:
    # The program splits at commas and spaces outside parentheses; an empty entry would be a tool without a name.
    if tools and not all(tool.strip() for tool in tools):
        raise InvalidMessage(f"{field}: expected names of tools, got an empty one", details={"field": field})
    return ",".join(tools) if tools else None


def _line(message: dict[str, Any]) -> bytes:
    # orjson refuses half a surrogate pair, which only a caller from Python can pass.
    try:
        return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        text = message["message"]["content"].encode(errors="replace").decode()
        return orjson.dumps({**message, "message": {"role": "user", "content": text}}, option=orjson.OPT_APPEND_NEWLINE)


def _is_on(value: str | None) -> bool:
    return value is not None and value.lower() not in ("", "0", "false", "no", "off")


def _address(url: str) -> str:
    """Scheme, host and port only: a URL may carry a secret in every other part."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        return "of ANTHROPIC_BASE_URL"
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
