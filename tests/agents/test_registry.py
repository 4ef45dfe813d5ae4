"""Which adapter serves which agent type."""

from __future__ import annotations

import pytest

from agentstream.agents.base import Adapter
from agentstream.agents.registry import registry
from agentstream.errors import ConfigError, InvalidMessage
from tests.agents.conftest import request


@pytest.mark.parametrize("agent_type", list(registry()))
def test_every_type_has_an_adapter_that_can_be_started(agent_type: str) -> None:
    adapter: Adapter = registry().get(agent_type)
    assert adapter.agent_type == agent_type
    assert adapter.label
    launch = adapter.launch(request(), {"PATH": "/bin"})
    assert launch.argv[: len(adapter.command)] == adapter.command
    assert launch.env["PATH"] == "/bin"
    assert adapter.parser(request()).summary.malformed_lines == 0


@pytest.mark.parametrize("agent_type", list(registry()))
def test_a_configured_command_replaces_the_program(agent_type: str) -> None:
    adapter = registry({agent_type: ["/opt/wrapper", "--"]}).get(agent_type)
    assert adapter.command == ("/opt/wrapper", "--")
    assert adapter.launch(request(), {}).argv[:2] == ("/opt/wrapper", "--")


def test_an_unknown_type_is_told_with_the_known_ones() -> None:
    with pytest.raises(InvalidMessage, match=r"expected one of claude-code, .*got 'gpt'"):
        registry().get("gpt")
    with pytest.raises(ConfigError, match=r"\[agents.gpt\]: no such agent type"):
        registry({"gpt": ["gpt"]})


def test_an_adapter_is_made_once() -> None:
    agents = registry()
    assert agents.get("claude-code") is agents.get("claude-code")
    assert "claude-code" in agents
    assert "gpt" not in agents
