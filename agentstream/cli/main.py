"""The command line; `main` is the console script. Each command is one `trio.run`; what they do is in the modules beside this."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

import click

from agentstream import __version__

#: Where each command is. A module is imported when its command is asked for: the daemon's start needs nothing that draws.
_COMMANDS: Final = {
    "serve": "local:serve",
    "run": "foreground:run",
    "submit": "remote:submit",
    "watch": "remote:watch",
    "list": "remote:list_work_orders",
    "show": "remote:show",
    "cancel": "remote:cancel",
    "logs": "remote:logs",
    "approve": "remote:approve",
    "deny": "remote:deny",
    "agents": "remote:agents",
    "token": "local:token",
    "config": "local:config_group",
    "systemd": "system:systemd",
}


class _Program(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        return cast("click.Command", getattr(import_module(f"agentstream.cli.{module}"), name))


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentstream")
def main() -> None:
    """Run coding agents and watch what they do, live."""
