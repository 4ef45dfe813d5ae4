"""Options that say how an agent is to be run, for all commands that start one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, get_args

import click

from agentstream.model.orders import PermissionMode


def agent_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command gets what was given as ``wishes``: fields of `WorkOrderRequest`, which `RunRequest` has by the same names."""

    @click.option(
        "--agent", "agent_type", default="claude-code", show_default=True, metavar="TYPE", help="Which agent."
    )
    @click.option("--model", metavar="NAME", help="The model, by the name that the agent has for it.")
    @click.option(
        "--permission-mode",
        type=click.Choice(get_args(PermissionMode)),
        help="What the agent may do without asking. [default: the agent's own]",
    )
    @click.option("--allow-tool", "allowed_tools", multiple=True, metavar="TOOL", help="Needs no question; repeatable.")
    @click.option("--deny-tool", "disallowed_tools", multiple=True, metavar="TOOL", help="Is not there; repeatable.")
    @click.option("--resume", "resume_session_id", metavar="SESSION", help="Go on with this session of the agent's.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        model: str | None,
        permission_mode: str | None,
        allowed_tools: tuple[str, ...],
        disallowed_tools: tuple[str, ...],
        resume_session_id: str | None,
        **options: Any,
    ) -> None:
        wishes = {
            "model": model,
            "permission_mode": permission_mode,
            "allowed_tools": list(allowed_tools) or None,
            "disallowed_tools": list(disallowed_tools) or None,
            "resume_session_id": resume_session_id,
        }
        command(*args, wishes=wishes, **options)

    return wrapped
