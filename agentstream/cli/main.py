"""The command line: what there is. Each command is one `trio.run`; what they do is in the modules beside this one."""

from __future__ import annotations

import click

from agentstream import __version__
from agentstream.cli import foreground, local, remote, system


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentstream")
def main() -> None:
    """Run coding agents and watch what they do, live."""


for _command in (
    local.serve,
    foreground.run,
    remote.submit,
    remote.watch,
    remote.list_work_orders,
    remote.show,
    remote.cancel,
    remote.logs,
    remote.approve,
    remote.deny,
    remote.agents,
    local.token,
    local.config_group,
    system.systemd,
):
    main.add_command(_command)
