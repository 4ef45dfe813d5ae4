"""Which adapter serves which agent type. Pure.

Adapters are imported when they are first asked for: a daemon that runs one agent doesn't load the knowledge of nine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Final, cast

from agentstream.agents.base import Adapter
from agentstream.errors import ConfigError, InvalidMessage

#: Module and class, by agent type; in the order in which they are listed to people.
ADAPTERS: Final[Mapping[str, tuple[str, str]]] = {
    "claude-code": ("claude_code", "ClaudeCodeAdapter"),
    "claude-code-subscription": ("claude_code_subscription", "ClaudeCodeSubscriptionAdapter"),
    "openai-codex": ("openai_codex", "CodexAdapter"),
    "gemini-cli": ("gemini_cli", "GeminiAdapter"),
    "opencode": ("opencode", "OpencodeAdapter"),
    "qwen-code": ("qwen_code", "QwenAdapter"),
    "pi": ("pi", "PiAdapter"),
    "copilot-cli": ("copilot_cli", "CopilotAdapter"),
    "command": ("command", "CommandAdapter"),
    "demo": ("demo", "DemoAdapter"),
}


class AgentRegistry:
    """The adapters of one configuration; each is made once."""

    def __init__(self, commands: Mapping[str, Sequence[str]] | None = None) -> None:
        self._commands = dict(commands or {})
        self._adapters: dict[str, Adapter] = {}
        unknown = [agent_type for agent_type in self._commands if agent_type not in ADAPTERS]
        if unknown:
            raise ConfigError(f"[agents.{unknown[0]}]: no such agent type; known are {', '.join(ADAPTERS)}")

    def __iter__(self) -> Iterator[str]:
        return iter(ADAPTERS)

    def __contains__(self, agent_type: object) -> bool:
        return agent_type in ADAPTERS

    def get(self, agent_type: str) -> Adapter:
        """The adapter of ``agent_type``. Raises `InvalidMessage` that lists the known types."""
        if agent_type not in ADAPTERS:
            raise InvalidMessage(
                f"agentType: expected one of {', '.join(ADAPTERS)}, got {agent_type[:60]!r}",
                details={"field": "agentType", "expected": "one of " + ", ".join(ADAPTERS)},
            )
        if agent_type not in self._adapters:
            module, name = ADAPTERS[agent_type]
            adapter = getattr(import_module(f"agentstream.agents.{module}"), name)
            command = self._commands.get(agent_type)
            self._adapters[agent_type] = cast("Adapter", adapter(tuple(command)) if command else adapter())
        return self._adapters[agent_type]


def registry(commands: Mapping[str, Sequence[str]] | None = None) -> AgentRegistry:
    """A registry in which ``commands`` (``[agents.TYPE] command``) replace the programs of those types."""
    return AgentRegistry(commands)
