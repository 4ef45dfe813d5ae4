"""``agentstream run``: one run in the foreground, without a daemon and without a journal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from agentstream import config
from agentstream.agents.base import RunRequest
from agentstream.cli import keys, screen, shell, watching
from agentstream.client.nursery import open_helpers
from agentstream.errors import ExecutionCancelled
from agentstream.model import wire
from agentstream.model.events import Decision, Event

if TYPE_CHECKING:
    from agentstream.runs.driver import Driver


@click.command("run")
@click.argument("prompt")
@click.option("--agent", "agent_type", default="claude-code", show_default=True, metavar="TYPE", help="Which agent.")
@click.option(
    "--cwd",
    default=".",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Where it works. [default: the current directory]",
)
@click.option("--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="Settings (TOML).")
@click.option("--json", "as_json", is_flag=True, help="One event a line, as JSON.")
def run(prompt: str, agent_type: str, cwd: str, config_file: str | None, as_json: bool) -> None:
    """Run an agent once, in the foreground, without a daemon.

    PROMPT says what it should do; - reads it from standard input. Exit status: 0 succeeded, 1 failed, 130 canceled. Ctrl-C stops
    the agent and everything it started.
    """
    # Here, since the commands that only talk to a daemon start faster without the run nursery.
    from agentstream.runs.driver import driver_for

    with shell.clear_errors():
        settings = config.load({"runs.workspace_roots": (cwd,)}, toml_path=config_file)
        config.check_agents(settings, [agent_type, *settings.agents])
        agent = settings.agents.get(agent_type)
        commands = {agent_type: agent.command} if agent and agent.command else {}
        driver = driver_for(agent_type, commands=commands, env=agent.env if agent else None)
    can_ask = not as_json and keys.is_interactive()
    request = RunRequest(
        prompt=shell.prompt_text(prompt),
        cwd=cwd,
        run_id=f"run-{uuid4().hex}",
        timeout_seconds=settings.runs.timeout_seconds,
        idle_timeout_seconds=settings.runs.idle_timeout_seconds,
        ask_approvals=can_ask and driver.capabilities().approvals,
    )
    shell.run(_execute, driver, request, as_json=as_json, can_ask=can_ask)


async def _execute(driver: Driver, request: RunRequest, *, as_json: bool, can_ask: bool) -> int:
    shown = screen.choose(as_json=as_json, several=False, keys=can_ask)

    def show(event: Event) -> None:
        shown.show(event, wire.to_json(event).decode())

    executor = (prepared := driver.prepare(request, show)).executor

    async def resolve(request_id: str, decision: Decision) -> None:
        await executor.resolve_approval(request_id, decision)

    async with open_helpers() as nursery:
        # Instead of cancelling us from outside: so the agent's last events are still seen, and `run_canceled` after them.
        await nursery.start(shell.on_signal, partial(executor.cancel, "stopped by a signal"))
        with shown:
            watching.attend(nursery, shown, resolve if request.ask_approvals else None)
            try:
                result = await prepared.execute()
            except ExecutionCancelled:
                return shell.STOPPED
    return 0 if result.success else 1
