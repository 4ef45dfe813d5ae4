"""``agentstream run``: one run in the foreground, without a daemon and without a journal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from agentstream import config
from agentstream.agents.base import RunRequest
from agentstream.cli import keys, screen, shell, watching
from agentstream.cli.wishes import agent_options
from agentstream.client.nursery import open_helpers
from agentstream.errors import ExecutionCancelled
from agentstream.model import wire
from agentstream.model.events import Decision, Event
from agentstream.redaction import Redactor, secrets_in
from agentstream.settings import Settings

if TYPE_CHECKING:
    from agentstream.runs.driver import Driver


@click.command("run")
@click.argument("prompt")
@agent_options
@click.option(
    "--cwd",
    default=".",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Where it works. [default: the current directory]",
)
@click.option("--config", "config_file", type=click.Path(exists=True, dir_okay=False), help="Settings (TOML).")
@click.option("--json", "as_json", is_flag=True, help="One event a line, as JSON.")
def run(prompt: str, agent_type: str, wishes: dict[str, Any], cwd: str, config_file: str | None, as_json: bool) -> None:
    """Run an agent once, in the foreground, without a daemon.

    PROMPT says what it should do; - reads it from standard input. Exit status: 0 succeeded, 1 failed, 130 canceled. Ctrl-C stops
    the agent and everything it started.
    """
    with shell.clear_errors():
        settings = config.load({"runs.workspace_roots": (cwd,)}, toml_path=config_file)
        config.check_agents(settings, [agent_type, *settings.agents])
        driver = _driver(agent_type, settings)
    can_ask = not as_json and keys.is_interactive()
    request = RunRequest(
        prompt=shell.prompt_text(prompt),
        cwd=cwd,
        run_id=f"run-{uuid4().hex}",
        timeout_seconds=settings.runs.timeout_seconds,
        idle_timeout_seconds=settings.runs.idle_timeout_seconds,
        ask_approvals=can_ask and driver.capabilities().approvals,
        **wishes,
    )
    shell.run(_execute, driver, request, _redactor(agent_type, settings), as_json=as_json, can_ask=can_ask)


def _driver(agent_type: str, settings: Settings) -> Driver:
    """As the daemon would make it, with the same limits and sandbox; only a cgroup of its own is for services."""
    # Here, since the commands that only talk to a daemon start faster without the run nursery.
    from agentstream.agents.registry import registry
    from agentstream.runs.cgroup import enforce
    from agentstream.runs.driver import Driver
    from agentstream.runs.sandbox import open_sandbox
    from agentstream.runs.spec import RunLimits

    agent = settings.agents.get(agent_type)
    adapter = registry({agent_type: agent.command} if agent and agent.command else {}).get(agent_type)
    resources, _ = enforce(settings.limits, None)
    limits = RunLimits(
        max_output_bytes=settings.limits.output_bytes,
        approval_timeout=settings.runs.approval_seconds,
        resources=resources,
    )
    data_dir = settings.server.data_dir
    sandbox = None
    if settings.sandbox.enabled:
        sandbox = open_sandbox(settings.sandbox, hidden=[data_dir] if data_dir.exists() else [])
    return Driver(adapter, env=agent.env if agent else None, limits=limits, sandbox=sandbox)


def _redactor(agent_type: str, settings: Settings) -> Redactor:
    """What is printed here often ends in somebody's log."""
    patterns = settings.security.redact_variables
    secrets = secrets_in(config.process_environment(), patterns)
    if (agent := settings.agents.get(agent_type)) is not None:
        secrets |= secrets_in(agent.env, patterns)
    return Redactor(secrets)


async def _execute(driver: Driver, request: RunRequest, redactor: Redactor, *, as_json: bool, can_ask: bool) -> int:
    shown = screen.choose(as_json=as_json, several=False, keys=can_ask)

    def show(event: Event) -> None:
        shown.show(event, wire.to_json(event).decode())

    prepared = driver.prepare(request, show, redact=redactor.data)
    executor = prepared.executor

    async def resolve(request_id: str, decision: Decision) -> None:
        await executor.resolve_approval(request_id, decision)

    with shown:
        async with open_helpers() as nursery:
            # Instead of cancelling us from outside: so the agent's last events are still seen, and `run_canceled` after them.
            await nursery.start(shell.on_signal, partial(executor.cancel, "stopped by a signal"))
            watching.attend(nursery, shown, resolve if request.ask_approvals else None)
            try:
                result = await prepared.execute()
            except ExecutionCancelled:
                return shell.STOPPED
    return 0 if result.success else 1
