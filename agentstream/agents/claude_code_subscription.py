"""Claude Code on a subscription, never on an API key. Pure.

An API key in the environment wins over the subscription's login (seen at the server), and would be billed without anybody
noticing. So every variable that holds a key, or switches to a cloud that is paid by use, is removed from the child's environment,
whoever set it; and a run is refused before it starts where there is no login of a subscription.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from agentstream.agents.base import RunRequest
from agentstream.agents.claude_code import CLOUDS, ClaudeCodeAdapter, subscription

#: What the subscription itself logs in with.
_KEPT: Final = frozenset({"CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR"})
#: Keys and tokens of the API, of gateways and clouds, by the names the program reads; headers can carry a key as well.
_KEY: Final = re.compile(
    r"(ANTHROPIC|CLAUDE_CODE|CLAUDE)_.*(API_?KEY|AUTH_?TOKEN|CUSTOM_HEADERS).*"
    r"|ANTHROPIC_(BEDROCK|VERTEX|FOUNDRY|AWS)_.*|CLAUDE_CODE_(USE|SKIP)_(BEDROCK|VERTEX|FOUNDRY|ANTHROPIC_AWS|MANTLE)\w*"
    r"|AWS_BEARER_TOKEN_BEDROCK|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|PROFILE)"
    r"|GOOGLE_APPLICATION_CREDENTIALS|VERTEX_\w*"
)


def is_api_key(name: str) -> bool:
    """Whether the variable would make the program use, or bill, anything but the subscription."""
    return name not in _KEPT and (name in CLOUDS or _KEY.fullmatch(name) is not None)


class ClaudeCodeSubscriptionAdapter(ClaudeCodeAdapter):
    """Claude Code that can only use a subscription."""

    agent_type = "claude-code-subscription"
    label = "Claude Code (subscription)"

    def environment(self, request: RunRequest, base_env: Mapping[str, str]) -> dict[str, str]:
        """As for Claude Code, without any key."""
        whole = super().environment(request, base_env)
        return {name: value for name, value in whole.items() if not is_api_key(name)}

    def login_hint(self) -> str | None:
        """Without the subscription's login nothing is started."""
        return (
            "Claude Code (subscription): no subscription is logged in; run `claude` and then /login as the daemon's user, or set "
            "CLAUDE_CODE_OAUTH_TOKEN to what `claude setup-token` prints. API keys are not used by this agent type"
        )

    def login(self, env: Mapping[str, str], files: Mapping[str, str]) -> str | None:
        """Only a subscription counts."""
        found = subscription(env, files)
        return super().login({name: env[name] for name in env if not is_api_key(name)}, files) if found else None
