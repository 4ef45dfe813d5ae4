"""The client against the real daemon, through its death and its return."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path

import trio

from agentstream.client import Backoff, Client, Retry, connect
from agentstream.model.events import AgentOutput, Event, RunCompleted, RunFailed, WorkOrderUpdated
from agentstream.model.orders import FINAL_STATUSES, WorkOrderRequest, WorkspaceSource
from tests.end_to_end.house import PATIENCE, Daemon


def request(daemon: Daemon, script: str) -> WorkOrderRequest:
    return WorkOrderRequest(
        task_prompt=script,
        agent_type="command",
        workspace_source=WorkspaceSource(type="local", path=str(daemon.root)),
    )


async def journalled(client: Client, work_order_id: str) -> list[int]:
    """Every seq of the work order, as HTTP tells it."""
    seqs: list[int] = []
    while True:
        since = seqs[-1] if seqs else 0
        page = await client.api.get(f"/work-orders/{work_order_id}/events", sinceSeq=since, limit=1000)
        if not page["items"]:
            return seqs
        seqs += [item["seq"] for item in page["items"]]


async def subscribers(daemon: Daemon, count: int) -> None:
    """Wait until the daemon has so many connections."""
    wanted = f"agentstream_subscribers {count}.0".encode()

    def look() -> bytes:
        headers = {"Authorization": f"Bearer {daemon.token}"}
        with urllib.request.urlopen(urllib.request.Request(f"{daemon.address}/metrics", headers=headers)) as answer:
            text: bytes = answer.read()
            return text

    while wanted not in await trio.to_thread.run_sync(look):  # noqa: ASYNC110 - the daemon is another process
        await trio.sleep(0.1)


def is_final(event: Event) -> bool:
    return isinstance(event, WorkOrderUpdated) and event.status in FINAL_STATUSES


async def test_submit_subscribe_and_ask(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon, trio.fail_after(PATIENCE):
        async with connect(daemon.address, daemon.token) as client:
            work_order_id = await client.submit(request(daemon, "echo hello"))
            events = []
            async for event in client.subscribe(work_order_id, since=0):
                events.append(event)
                if is_final(event):
                    break
            assert "hello" in [event.content for event in events if isinstance(event, AgentOutput)]
            assert any(isinstance(event, RunCompleted) for event in events)
            assert (await client.work_order(work_order_id))["status"] == "succeeded"
            (run,) = (await client.runs(work_order_id))["items"]
            assert (await client.run(run["id"]))["status"] == "succeeded"
            assert work_order_id in [item["id"] for item in (await client.work_orders())["items"]]
            assert "demo" in [item["agentType"] for item in (await client.agents())["items"]]
            assert (await client.approvals())["items"] == []
            history = [event async for event in client.subscribe(work_order_id, follow=False)]
            assert [event.seq for event in history] == [event.seq for event in events]


async def test_a_daemon_that_is_killed_and_comes_back_leaves_no_hole_and_no_duplicate(tmp_path: Path) -> None:
    socket = tmp_path / "socket"  # an address that stays
    script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo line $i; sleep 0.002; done"
    seen: list[int | None] = []
    retries: list[Retry] = []
    failures: list[str] = []
    backoff = Backoff(first=0.05, most=0.5)
    with Daemon(tmp_path, "--unix", str(socket)) as first, trio.fail_after(2 * PATIENCE):
        async with connect(first.address, first.token, backoff=backoff, on_retry=retries.append) as client:
            work_order_id = await client.submit(request(first, script))
            async with client.subscribe(work_order_id, since=0) as events:
                while len(seen) < 50:
                    seen.append((await anext(events)).seq)
                first.signal(signal.SIGKILL)
                first.wait()
                with Daemon(tmp_path, "--unix", str(socket)):
                    async for event in events:
                        seen.append(event.seq)
                        if isinstance(event, RunFailed):
                            failures.append(event.error_code)
                        if is_final(event):
                            break
                    assert seen == await journalled(client, work_order_id)
    assert retries
    assert failures == ["INTERRUPTED"]


async def test_a_consumer_that_pauses_loses_nothing(tmp_path: Path) -> None:
    """Longer than the daemon's patience: it is closed with 4008, comes back, and reads on."""
    settings = tmp_path / "a.toml"
    settings.write_text("[broadcast]\nstall_seconds = 1\nbacklog_bytes = 65536\n")
    retries: list[Retry] = []
    with Daemon(tmp_path, "--config", str(settings)) as daemon, trio.fail_after(2 * PATIENCE):
        async with connect(
            daemon.address, daemon.token, backoff=Backoff(first=0.0, most=0.0), on_retry=retries.append
        ) as client:
            # 30 MB: more than all buffers on the way hold.
            work_order_id = await client.submit(request(daemon, f"yes {'x' * 20_000} | head -n 1500"))
            seen = []
            async with client.subscribe(work_order_id, since=0) as events:
                async for event in events:
                    seen.append(event.seq)
                    if len(seen) == 3:
                        # The run goes on to its end meanwhile.
                        async for other in client.subscribe(work_order_id, since=0):
                            if is_final(other):
                                break
                        await subscribers(daemon, 1)  # the one for commands
                    if is_final(event):
                        break
            assert seen == await journalled(client, work_order_id)
            assert retries
