"""Commands that talk to a daemon: submit, watch, list, show, cancel, logs, approve, deny, agents."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import click
import orjson
from rich.table import Table
from rich.text import Text

from agentstream import config
from agentstream.cli import keys, screen, shell, watching
from agentstream.cli.lines import STATUS_STYLES
from agentstream.cli.text import duration, money, one_line, safe, safe_json
from agentstream.cli.wishes import agent_options
from agentstream.client import Address, Api, connect
from agentstream.client.nursery import open_helpers
from agentstream.client.transport import segment
from agentstream.model.events import Decision, WorkOrderStatus
from agentstream.model.orders import WorkOrderRequest, WorkspaceSource


def daemon_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--url``, ``--token`` and ``--data-dir``; the command gets what they lead to as ``daemon``."""

    @click.option(
        "--url", help="The daemon: http(s)://HOST:PORT or unix:/PATH. [default: AGENTSTREAM_URL, or the local one]"
    )
    @click.option("--token", help="[default: AGENTSTREAM_TOKEN, or the data directory's]")
    @click.option("--data-dir", type=click.Path(file_okay=False), help="The data directory of a local daemon.")
    @functools.wraps(command)
    def wrapped(*args: Any, url: str | None, token: str | None, data_dir: str | None, **options: Any) -> None:
        with shell.clear_errors():
            daemon = config.find_daemon(url=url, token=token, data_dir=data_dir)
        command(*args, daemon=daemon, **options)

    return wrapped


json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")


# --- submit and watch ------------------------------------------------------------------------------------------------


@click.command()
@click.argument("prompt")
@click.option(
    "--workspace",
    required=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Where the agent works; below one of the daemon's workspace roots.",
)
@agent_options
@click.option("--id", "work_order_id", metavar="ID", help="Your own id: submitting it again does nothing.")
@click.option("--watch", "watched", is_flag=True, help="Watch it to its end; the exit status is the run's.")
@click.option("--json", "as_json", is_flag=True, help="With --watch: one event a line, exactly as on the wire.")
@daemon_options
def submit(
    prompt: str,
    workspace: str,
    agent_type: str,
    wishes: dict[str, Any],
    work_order_id: str | None,
    watched: bool,
    as_json: bool,
    daemon: config.DaemonAddress,
) -> None:
    """Submit a work order and print its id.

    PROMPT says what the agent should do; - reads it from standard input.
    """
    with shell.clear_errors():
        try:
            request = WorkOrderRequest(
                task_prompt=shell.prompt_text(prompt),
                workspace_source=WorkspaceSource(type="local", path=workspace),
                agent_type=agent_type,
                id=work_order_id,
                **wishes,
            )
        except ValueError:
            raise click.BadParameter(
                "expected letters, digits and ._:-, at most 128, the first a letter or digit", param_hint="--id"
            ) from None
    shell.run(_submit, daemon, request, watched=watched, as_json=as_json)


async def _submit(daemon: config.DaemonAddress, request: WorkOrderRequest, *, watched: bool, as_json: bool) -> int:
    if not watched:
        async with connect(daemon.url, daemon.token) as client:
            print(await client.submit(request))
        return 0
    return await _watch(daemon, request, since=0, as_json=as_json)


@click.command()
@click.argument("work_order_id", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="All work orders, from now on, side by side.")
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ", help="Begin after this seq.")
@click.option("--json", "as_json", is_flag=True, help="One event a line, exactly as on the wire.")
@daemon_options
def watch(
    work_order_id: str | None, everything: bool, since: int | None, as_json: bool, daemon: config.DaemonAddress
) -> None:
    """Watch a work order live, from its beginning to its end, or all of them.

    Reconnects and resumes by itself. Exit status for one work order: 0 succeeded, 1 failed, 130 canceled. On a terminal,
    permission requests are answered with y and n.
    """
    if (work_order_id is None) != everything:
        raise click.UsageError("give either the ID of a work order, or --all")
    shell.run(_watch, daemon, work_order_id, since=since, as_json=as_json)


async def _watch(
    daemon: config.DaemonAddress, target: str | WorkOrderRequest | None, *, since: int | None, as_json: bool
) -> int:
    """Watch one work order, one that is submitted first, or (None) all."""
    can_ask = not as_json and keys.is_interactive()
    shown = screen.choose(as_json=as_json, several=target is None, keys=can_ask)
    retry = partial(watching.tell_retry, shown)
    async with connect(daemon.url, daemon.token, on_retry=retry) as client:

        async def resolve(request_id: str, decision: Decision) -> None:
            await client.resolve_approval(request_id, decision)

        follower = watching.Follower(client, shown)
        if isinstance(target, WorkOrderRequest):
            target = await client.submit(target)
        with shown:
            async with open_helpers() as nursery:
                watching.attend(nursery, shown, resolve if can_ask else None)
                if target is None:
                    return await follower.all(since)
                return await follower.one(target, since or 0)


# --- looking ---------------------------------------------------------------------------------------------------------


@click.command("list")
@click.option("--status", type=click.Choice(list(STATUS_STYLES)), help="Only these.")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="At most so many, the newest."
)
@json_option
@daemon_options
def list_work_orders(status: str | None, limit: int, as_json: bool, daemon: config.DaemonAddress) -> None:
    """List work orders, newest first."""

    async def main() -> int:
        data = await _api(daemon).get("/work-orders", status=status, limit=limit)
        if as_json:
            _print_json(data)
            return 0
        table = _table("id", "status", "agent", "created", "runs", "prompt")
        for item in data["items"]:
            request = item["request"]
            table.add_row(
                one_line(item["id"]),
                _status(item["status"]),
                one_line(request["agentType"]),
                _moment(item["createdAt"]),
                str(item.get("runCount", 0)),
                one_line(request["taskPrompt"]),
            )
        _print_table(table)
        return 0

    shell.run(main)


@click.command()
@click.argument("work_order_id", metavar="ID")
@json_option
@daemon_options
def show(work_order_id: str, as_json: bool, daemon: config.DaemonAddress) -> None:
    """Show a work order and its runs, with their results."""

    async def main() -> int:
        api = _api(daemon)
        order = await api.get(f"/work-orders/{segment(work_order_id)}")
        runs = await api.get("/runs", workOrderId=work_order_id)
        if as_json:
            _print_json({**order, "runs": runs["items"]})
            return 0
        out = screen.console(sys.stdout)
        request = order["request"]
        fields = {
            "id": order["id"],
            "status": order["status"],
            "agent": request["agentType"],
            "workspace": order["workspace"],
            "created": order["createdAt"],
            "prompt": request["taskPrompt"],
        }
        for name, value in fields.items():
            out.print(Text.assemble((f"{name:<10}", "bold"), safe(str(value))), soft_wrap=True)
        for item in runs["items"]:
            out.print()
            out.print(_run_head(item), soft_wrap=True)
            for name in ("error", "result"):
                if item.get(name):
                    out.print(Text(safe(str(item[name])), "red" if name == "error" else ""), soft_wrap=True)
        return 0

    shell.run(main)


def _run_head(item: dict[str, Any]) -> Text:
    told = [one_line(item["id"])]
    if item.get("durationMs") is not None:
        told.append(duration(item["durationMs"] / 1000))
    if item.get("totalCostUsd"):
        told.append(money(item["totalCostUsd"]))
    if item.get("sessionId"):
        told.append(f"session {one_line(item['sessionId'])}")
    return Text.assemble((f"run {item['runNumber']} ", "bold"), _status(item["status"]), " ", " · ".join(told))


@click.command()
@click.argument("run_id", metavar="RUN_ID")
@click.option("--stderr", is_flag=True, help="What it wrote to stderr, instead of stdout.")
@daemon_options
def logs(run_id: str, stderr: bool, daemon: config.DaemonAddress) -> None:
    """Print what the agent of a run printed, byte by byte.

    On a terminal, control characters are shown instead of sent.
    """

    async def main() -> int:
        stream = "stderr" if stderr else "stdout"
        async with _api(daemon).open(f"/runs/{segment(run_id)}/{stream}") as answer:
            while piece := await answer.read():
                if sys.stdout.isatty():
                    print(safe(piece.decode(errors="replace")), end="", flush=True)
                else:
                    sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return 0

    shell.run(main)


@click.command()
@json_option
@daemon_options
def agents(as_json: bool, daemon: config.DaemonAddress) -> None:
    """List the agent types, whether each can run on the daemon's machine, and which login it would use."""

    async def main() -> int:
        data = await _api(daemon).get("/agents")
        if as_json:
            _print_json(data)
            return 0
        table = _table("agent", "", "version", "login, or problem")
        for item in data["items"]:
            problem = item.get("problem")
            if problem is None:
                state = Text("ready", "green")
            else:
                state = Text("not ready", "yellow") if item["installed"] else Text("missing", "red")
            table.add_row(
                one_line(item["agentType"]),
                state,
                one_line(item.get("version") or ""),
                one_line(problem or item.get("login") or item["program"], 300),
            )
        _print_table(table)
        return 0

    shell.run(main)


# --- acting ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("work_order_id", metavar="ID")
@daemon_options
def cancel(work_order_id: str, daemon: config.DaemonAddress) -> None:
    """Cancel a work order; returns when nothing of it runs any more."""

    async def main() -> int:
        async with connect(daemon.url, daemon.token) as client:
            await client.cancel(work_order_id, reason="canceled from the command line")
        return 0

    shell.run(main)


def _answer(name: str, decision: Decision, text: str) -> click.Command:
    @click.command(name, help=text)
    @click.argument("request_id", metavar="REQUEST_ID")
    @click.option("--message", help="What the agent is told.")
    @daemon_options
    def command(request_id: str, message: str | None, daemon: config.DaemonAddress) -> None:
        async def main() -> int:
            async with connect(daemon.url, daemon.token) as client:
                await client.resolve_approval(request_id, decision, message=message)
            return 0

        shell.run(main)

    return command


approve = _answer("approve", "allow", "Allow what an agent asks for.")
deny = _answer("deny", "deny", "Deny what an agent asks for.")


# --- printing --------------------------------------------------------------------------------------------------------


def _api(daemon: config.DaemonAddress) -> Api:
    return Api(Address.parse(daemon.url), daemon.token)


def _print_json(data: Any) -> None:
    text = orjson.dumps(data).decode()
    print(safe_json(text) if sys.stdout.isatty() else text)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns, 1):
        table.add_column(
            column, no_wrap=number < len(columns), overflow="ellipsis" if number == len(columns) else "fold"
        )
    return table


def _print_table(table: Table) -> None:
    out = screen.console(sys.stdout)
    if not out.is_terminal:
        out.width = 10_000  # In a pipe nothing is cut or folded: one line, one row. (print's own `width` only narrows.)
    out.print(table, soft_wrap=not out.is_terminal)


def _status(status: str) -> Text:
    # A newer daemon may have another one: it is printed, without a colour.
    return Text(one_line(status), STATUS_STYLES.get(cast("WorkOrderStatus", status), ""))


def _moment(text: str) -> str:
    return one_line(text.replace("T", " ")[:19])
