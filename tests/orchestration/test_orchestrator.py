"""The orchestrator with a real journal and real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from agentstream.errors import Conflict, Forbidden, InvalidMessage, NotFound
from agentstream.journal.base import Record
from agentstream.journal.sqlite import SqliteJournal, open_journal
from agentstream.model import wire
from agentstream.model.orders import FINAL_STATUSES, WorkOrder, WorkOrderRequest, WorkspaceSource
from agentstream.orchestration.orchestrator import Orchestrator
from agentstream.orchestration.setup import OrchestratorOptions
from agentstream.runs.driver import driver_for

PATIENCE = 60


@attrs.define
class House:
    """A journal and an orchestrator, and what was published."""

    journal: SqliteJournal
    orchestrator: Orchestrator
    workspace: Path
    published: list[dict[str, Any]]

    def request(self, prompt: str, **fields: Any) -> WorkOrderRequest:
        return WorkOrderRequest(
            **{
                "task_prompt": prompt,
                "agent_type": "command",
                "workspace_source": WorkspaceSource(type="local", path=str(self.workspace)),
                **fields,
            }
        )

    async def until(self, condition: Callable[[], Any]) -> Any:
        with trio.fail_after(PATIENCE):
            while not (found := condition()):
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.005)
            return found

    def of(self, work_order_id: str, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.published if event["workOrderId"] == work_order_id and event["type"] == kind]

    async def ended(self, work_order_id: str) -> WorkOrder:
        with trio.fail_after(PATIENCE):
            while True:
                order = await self.journal.work_order(work_order_id)
                if order is not None and order.status in FINAL_STATUSES:
                    return order
                await trio.sleep(0.005)


Open = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def house(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def open_house(**options: Any) -> AsyncIterator[House]:
        workspace = tmp_path / "workspace"
        workspace.mkdir(exist_ok=True)
        published: list[dict[str, Any]] = []

        async def publish(records: Sequence[Record]) -> None:
            published.extend({**wire.json_object(record.body), "seq": record.seq} for record in records)

        async with open_journal(tmp_path / "journal.sqlite", publish=publish) as journal:
            orchestrator = Orchestrator(
                journal,
                {"command": driver_for("command"), "demo": driver_for("demo")},
                OrchestratorOptions(workspace_roots=(tmp_path,), data_dir=tmp_path / "data", **options),
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(orchestrator.run)
                yield House(journal, orchestrator, workspace, published)
                with trio.fail_after(PATIENCE):
                    await orchestrator.stop(0)
                nursery.cancel_scope.cancel()

    return open_house


async def test_a_work_order_goes_from_queued_to_succeeded(house: Open) -> None:
    async with house() as it:
        order, created = await it.orchestrator.submit(it.request("echo hello; echo 1 > made"))
        assert created
        ended = await it.ended(order.id)
        assert (ended.status, ended.run_count) == ("succeeded", 1)
        mine = [event for event in it.published if event["workOrderId"] == order.id]
        assert [event["seq"] for event in mine] == sorted(event["seq"] for event in mine)
        kinds = [event["type"] for event in mine if event["type"] != "progress_update"]
        assert kinds == [
            "work_order_created",
            "work_order_updated",
            "run_started",
            "agent_output",
            "file_changed",
            "run_completed",
            "work_order_updated",
        ]
        [run] = await it.journal.runs(order.id)
        assert (run.status, run.exit_code) == ("succeeded", 0)
        assert await trio.Path(it.orchestrator.raw_log(run, "stdout")).read_text() == "hello\n"


async def test_a_failing_run_fails_its_work_order_and_says_why(house: Open) -> None:
    async with house() as it:
        order, _ = await it.orchestrator.submit(it.request("echo oh no >&2; exit 4"))
        ended = await it.ended(order.id)
        assert ended.status == "failed"
        assert "oh no" in (ended.error or "")
        [failed] = it.of(order.id, "run_failed")
        assert failed["exitCode"] == 4


async def test_no_more_runs_at_once_than_allowed_and_in_order(house: Open) -> None:
    async with house(max_concurrent_runs=1) as it:
        gate = it.workspace / "gate"
        first, _ = await it.orchestrator.submit(it.request(f"while [ ! -e {gate} ]; do sleep 0.01; done"))
        second, _ = await it.orchestrator.submit(it.request("echo second"))
        await it.until(lambda: it.of(first.id, "run_started"))
        assert it.orchestrator.statistics().running == 1
        assert it.orchestrator.statistics().queued == 1
        assert not it.of(second.id, "run_started")
        gate.touch()
        assert (await it.ended(second.id)).status == "succeeded"
        assert it.of(first.id, "run_completed")[0]["seq"] < it.of(second.id, "run_started")[0]["seq"]


async def test_cancel_of_a_queued_work_order_starts_nothing(house: Open) -> None:
    async with house(max_concurrent_runs=1) as it:
        first, _ = await it.orchestrator.submit(it.request("sleep 1000"))
        second, _ = await it.orchestrator.submit(it.request("echo never"))
        canceled = await it.orchestrator.cancel(work_order_id=second.id, reason="not needed")
        assert canceled.status == "canceled"
        assert not it.of(second.id, "run_started")
        assert (await it.orchestrator.cancel(work_order_id=first.id)).status == "canceled"


async def test_cancel_of_a_running_work_order_stops_it(house: Open) -> None:
    async with house() as it:
        order, _ = await it.orchestrator.submit(it.request("echo up; sleep 1000"))
        await it.until(lambda: it.of(order.id, "agent_output"))
        with trio.fail_after(PATIENCE):
            canceled = await it.orchestrator.cancel(work_order_id=order.id, reason="enough")
        assert canceled.status == "canceled"
        [event] = it.of(order.id, "run_canceled")
        assert event["reason"] == "enough"
        again = await it.orchestrator.cancel(work_order_id=order.id)
        assert again.status == "canceled"


async def test_the_same_id_and_body_again_is_the_same_work_order(house: Open) -> None:
    async with house() as it:
        request = it.request("echo once", id="mine")
        order, created = await it.orchestrator.submit(request)
        again, created_again = await it.orchestrator.submit(request)
        assert (created, created_again, again.id) == (True, False, order.id)
        with pytest.raises(Conflict, match="another body"):
            await it.orchestrator.submit(it.request("echo twice", id="mine"))
        await it.ended(order.id)
        assert (await it.orchestrator.submit(request))[1] is False
        assert len(it.of(order.id, "run_started")) == 1


async def test_a_further_run_of_an_ended_work_order(house: Open) -> None:
    async with house() as it:
        order, _ = await it.orchestrator.submit(it.request("echo one"))
        await it.ended(order.id)
        with pytest.raises(Conflict, match="no session"):
            await it.orchestrator.further_run(order.id, task_prompt=None, resume=True)
        await it.orchestrator.further_run(order.id, task_prompt="echo two", resume=False)
        await it.until(lambda: len(it.of(order.id, "run_completed")) == 2)
        assert [event["runNumber"] for event in it.of(order.id, "run_started")] == [1, 2]
        assert [event["content"] for event in it.of(order.id, "agent_output")] == ["one", "two"]


async def test_workspaces_outside_the_roots_are_refused(house: Open, tmp_path: Path) -> None:
    async with house() as it:
        (it.workspace / "out").symlink_to("/")
        for path in ("/", "/etc", str(it.workspace / "out"), str(it.workspace / ".." / ".." / "..")):
            with pytest.raises(Forbidden, match="not below a workspace root"):
                await it.orchestrator.submit(
                    it.request("echo x", workspace_source=WorkspaceSource(type="local", path=path))
                )
        with pytest.raises(InvalidMessage, match="does not exist"):
            await it.orchestrator.submit(
                it.request("echo x", workspace_source=WorkspaceSource(type="local", path=str(tmp_path / "nowhere")))
            )
        with pytest.raises(InvalidMessage, match="path"):
            await it.orchestrator.submit(it.request("echo x", workspace_source=WorkspaceSource(type="local")))


async def test_a_workspace_that_became_a_link_out_of_the_roots_is_refused_at_the_start(
    house: Open, tmp_path: Path
) -> None:
    async with house(max_concurrent_runs=1) as it:
        first, _ = await it.orchestrator.submit(it.request("sleep 1000"))
        inner = it.workspace / "inner"
        inner.mkdir()
        order, _ = await it.orchestrator.submit(
            it.request("touch here", workspace_source=WorkspaceSource(type="local", path=str(inner)))
        )
        inner.rmdir()
        inner.symlink_to("/")
        await it.orchestrator.cancel(work_order_id=first.id)
        ended = await it.ended(order.id)
        assert (ended.status, ended.error_code) == ("failed", "FORBIDDEN")
        assert it.of(order.id, "run_failed")[0]["errorCode"] == "FORBIDDEN"


async def test_a_fresh_workspace_is_made_for_its_work_order_alone(house: Open) -> None:
    async with house() as it:
        order, _ = await it.orchestrator.submit(
            it.request("pwd; ls -A | wc -l", workspace_source=WorkspaceSource(type="fresh"))
        )
        await it.ended(order.id)
        text = "\n".join(event["content"] for event in it.of(order.id, "agent_output"))
        assert text == f"{order.workspace}\n0"


async def test_unknown_agents_and_ids_are_told(house: Open) -> None:
    async with house() as it:
        with pytest.raises(InvalidMessage, match="agentType: expected one of command, demo, got 'nobody'"):
            await it.orchestrator.submit(it.request("x", agent_type="nobody"))
        with pytest.raises(NotFound):
            await it.orchestrator.cancel(work_order_id="nothing")
        with pytest.raises(NotFound):
            await it.orchestrator.send_message("run-nothing", "hello")
        with pytest.raises(NotFound):
            await it.orchestrator.resolve_approval("nothing", "allow")


async def test_stopping_cancels_runs_after_the_grace_and_keeps_the_queue(house: Open) -> None:
    async with house(max_concurrent_runs=1) as it:
        first, _ = await it.orchestrator.submit(it.request("sleep 1000"))
        second, _ = await it.orchestrator.submit(it.request("echo later"))
        await it.until(lambda: it.of(first.id, "run_started"))
        with trio.fail_after(PATIENCE):
            await it.orchestrator.stop(0.05)
        with pytest.raises(Conflict, match="stopping"):
            await it.orchestrator.submit(it.request("echo x"))
        stopped = await it.journal.work_order(first.id)
        waiting = await it.journal.work_order(second.id)
        assert stopped is not None
        assert waiting is not None
        assert (stopped.status, waiting.status) == ("canceled", "queued")
    async with house() as it:
        assert (await it.ended(second.id)).status == "succeeded"


async def test_one_tool_call_whole_from_the_raw_log(house: Open) -> None:
    async with house() as it:
        order, _ = await it.orchestrator.submit(
            it.request("make something small", agent_type="demo", env={"DEMO_PACE": "0"})
        )
        await it.ended(order.id)
        [run] = await it.journal.runs(order.id)
        call = it.of(order.id, "agent_tool_call")[0]
        whole = await it.orchestrator.tool_call(run.id, call["toolUseId"])
        assert whole["toolName"] == call["toolName"]
        assert whole["result"]["success"] in (True, False)
        with pytest.raises(NotFound, match="no tool call"):
            await it.orchestrator.tool_call(run.id, "toolu_nothing")


async def test_agents_tells_what_is_there(house: Open) -> None:
    async with house() as it:
        infos = {info.agent_type: info for info in await it.orchestrator.agents()}
        assert infos["command"].installed
        assert infos["demo"].problem is None


async def test_without_traces_of_our_own_the_agent_is_in_its_callers_trace(house: Open) -> None:
    context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with house() as here:
        for traceparent in (context, None):
            order, _ = await here.orchestrator.submit(here.request("echo [$TRACEPARENT]", traceparent=traceparent))
            await here.ended(order.id)
            # What is committed is published before the order has ended.
            assert [event["content"] for event in here.of(order.id, "agent_output")] == [f"[{traceparent or ''}]"]


async def test_another_trace_context_is_no_other_work_order(house: Open) -> None:
    async with house() as here:
        asked = here.request("true", id="same", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        _, new = await here.orchestrator.submit(asked)
        again = attrs.evolve(asked, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01")
        order, new_again = await here.orchestrator.submit(again)
        assert (new, new_again) == (True, False)
        assert order.request.traceparent == asked.traceparent
