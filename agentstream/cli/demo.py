"""``serve --demo``: what a newcomer sees. The daemon's address, how to subscribe, and a demo run's events as they come.

It is an ordinary client of the daemon beside it: it submits a work order for the demo agent and watches it.
"""

from __future__ import annotations

import sys
from functools import partial

import click

from agentstream import config
from agentstream.cli import screen, watching
from agentstream.client import connect
from agentstream.client.nursery import open_helpers
from agentstream.daemon import Listening
from agentstream.model.orders import WorkOrderRequest, WorkspaceSource

_PROMPT = "Show what agentstream shows: a small program, its test, and a mistake that gets mended"


def say_listening(listening: Listening) -> None:
    """The one line that scripts wait for."""
    click.echo(f"listening on {listening.url}")
    sys.stdout.flush()


def _how_to_subscribe(listening: Listening, token: str | None) -> str:
    place = f"--data-dir {listening.data_dir}"
    if listening.url.startswith("unix:"):
        return f"Watch it from another terminal:\n  agentstream watch --all {place}\n"
    fragment = f"#token={token}" if token else ""
    query = f"?token={token}" if token else ""
    socket = listening.url.replace("http", "ws", 1) + "/ws" + query
    return (
        f"The page:\n  {listening.url}/{fragment}\n"
        "Subscribe from another terminal, with any WebSocket client or with ours:\n"
        f"""  npx wscat -c '{socket}' -x '{{"type":"subscribe","workOrderId":"*","replayCount":50}}' -w 600\n"""
        f"  {sys.executable} -m agentstream watch --all --since 0 {place}\n"
    )


async def show(listening: Listening) -> None:
    """Submit the demo work order and print its events as they come. Returns when it has ended; the daemon stays up."""
    daemon = config.find_daemon(url=listening.url, data_dir=listening.data_dir)
    click.echo(f"\n{_how_to_subscribe(listening, daemon.token)}")
    click.echo("A demo run (no model is asked, nothing leaves this machine):\n")
    request = WorkOrderRequest(
        task_prompt=_PROMPT, agent_type="demo", workspace_source=WorkspaceSource(type="fresh"), permission_mode="auto"
    )
    shown = screen.choose(as_json=False, several=False, keys=False)
    async with connect(daemon.url, daemon.token, on_retry=partial(watching.tell_retry, shown)) as client:
        work_order_id = await client.submit(request)
        with shown:
            async with open_helpers() as nursery:
                watching.attend(nursery, shown, None)
                await watching.Follower(client, shown).one(work_order_id, 0)
    click.echo("\nThe demo run has ended; the daemon stays up. Ctrl-C stops it.")
    sys.stdout.flush()
