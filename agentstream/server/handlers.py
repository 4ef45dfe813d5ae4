"""What each HTTP call does: one small function each, in the order of PROTOCOL.md. `agentstream.server.api` is their table."""

from __future__ import annotations

import re
from typing import Final

import attrs
import orjson
import trio
from starlette.responses import Response

from agentstream.errors import NotFound
from agentstream.model import calls, wire
from agentstream.model.orders import TRACEPARENT, Run, WorkOrder, WorkOrderRequest
from agentstream.orchestration.base import AgentInfo, Orchestration
from agentstream.redaction import Redactor, secrets_in
from agentstream.server import sse
from agentstream.server.call import INTEGER, Call
from agentstream.server.problems import Unavailable
from agentstream.server.streaming import StreamResponse, file_chunks

#: One answer of events holds no more than this (but always one event): encoding more would hold up everybody else.
_PAGE_BYTES: Final = 1024 * 1024


def shown(work_order: WorkOrder) -> WorkOrder:
    """A work order as others may see it: the names of its environment's variables, not their values."""
    env = work_order.request.env
    if not env:
        return work_order
    masked = attrs.evolve(work_order.request, env=dict.fromkeys(env, "[redacted]"))
    return attrs.evolve(work_order, request=masked)


# --- work orders -----------------------------------------------------------------------------------------------------


def _accepting(call: Call) -> Orchestration:
    orchestration = call.parts.orchestration
    if not orchestration.statistics().accepting:
        raise Unavailable("the daemon is stopping and takes no new work; try again when it is back")
    return orchestration


async def submit_work_order(call: Call) -> Response:
    request: WorkOrderRequest = call.body
    # A header that is none begins no trace, and is no reason to refuse the work.
    if request.traceparent is None and call.traceparent and re.fullmatch(TRACEPARENT, call.traceparent):
        request = attrs.evolve(request, traceparent=call.traceparent)
    work_order, new = await _accepting(call).submit(request)
    return call.answer(shown(work_order), 201 if new else 200)


async def list_work_orders(call: Call) -> Response:
    query: calls.WorkOrderQuery = call.query
    page = await call.parts.journal.work_orders(status=query.status, limit=query.limit, cursor=query.cursor)
    return call.answer(calls.WorkOrderList(items=[shown(item) for item in page.items], cursor=page.cursor))


async def _work_order(call: Call) -> WorkOrder:
    found = await call.parts.journal.work_order(call.path["id"])
    if found is None:
        raise NotFound(f"no work order {call.path['id'][:128]}")
    return found


async def get_work_order(call: Call) -> Response:
    return call.answer(shown(await _work_order(call)))


async def cancel_work_order(call: Call) -> Response:
    query: calls.CancelQuery = call.query
    work_order = await call.parts.orchestration.cancel(work_order_id=call.path["id"], reason=query.reason)
    return call.answer(shown(work_order))


async def start_further_run(call: Call) -> Response:
    body: calls.FurtherRun = call.body
    work_order = await _accepting(call).further_run(call.path["id"], task_prompt=body.task_prompt, resume=body.resume)
    return call.answer(shown(work_order), 201)


async def get_events(call: Call) -> Response:
    query: calls.EventQuery = call.query
    parts = call.parts
    work_order_id = call.path["id"]
    if work_order_id != "*":
        await _work_order(call)
    since = query.since_seq
    if call.wants_stream:
        if call.last_event_id and INTEGER.fullmatch(call.last_event_id):
            # What the browser saw last is newer than what its page was opened with.
            since = min(max(0, int(call.last_event_id)), calls.MAX_SEQ)
        return StreamResponse(
            sse.stream(
                parts.journal,
                parts.doorbell,
                work_order_id,
                since=since,
                epoch=query.epoch,
                now=parts.now,
                allowed=call.allowed,
            ),
            media="text/event-stream; charset=utf-8",
        )
    start, gap = await sse.start_of(parts.journal, work_order_id, since=since, epoch=query.epoch, now=parts.now())
    if gap is not None and gap.reason == "retention":
        start = gap.to_seq
    # Before the read: what is published meanwhile may be missing from it.
    head = parts.journal.head
    records = await parts.journal.read(
        start, work_order_ids=sse.names(work_order_id), limit=query.limit, max_bytes=_PAGE_BYTES
    )
    items = [orjson.Fragment(wire.with_seq(record.body, record.seq or 0)) for record in records]
    last = (records[-1].seq or start) if records else max(start, head)
    page = {"items": items, "epoch": parts.journal.epoch, "lastSeq": last, "head": max(head, last)}
    if gap is not None:
        page["gap"] = wire.to_dict(gap)
    return call.answer(page)


# --- runs --------------------------------------------------------------------------------------------------------------


async def _run(call: Call) -> Run:
    found = await call.parts.journal.run(call.path["id"])
    if found is None:
        raise NotFound(f"no run {call.path['id'][:128]}")
    return found


async def list_runs(call: Call) -> Response:
    query: calls.RunQuery = call.query
    if await call.parts.journal.work_order(query.work_order_id) is None:
        raise NotFound(f"no work order {query.work_order_id[:128]}")
    return call.answer(calls.RunList(items=await call.parts.journal.runs(query.work_order_id)))


async def get_run(call: Call) -> Response:
    return call.answer(await _run(call))


async def _redactor(call: Call, run: Run) -> Redactor:
    """For what an agent printed: the raw log is as the agent wrote it, also where it shows its work order's own secrets."""
    work_order = await call.parts.journal.work_order(run.work_order_id)
    env = (work_order.request.env if work_order is not None else None) or {}
    return call.parts.redactor.with_secrets(secrets_in(env, call.parts.secret_variables))


async def _raw(call: Call, name: str) -> Response:
    run = await _run(call)
    path = call.parts.orchestration.raw_log(run, name)
    if not await trio.Path(path).is_file():
        raise NotFound(f"the raw {name} of this run is gone; retention has removed it")
    return StreamResponse(file_chunks(path, await _redactor(call, run)), media="text/plain; charset=utf-8")


async def get_stdout(call: Call) -> Response:
    return await _raw(call, "stdout")


async def get_stderr(call: Call) -> Response:
    return await _raw(call, "stderr")


async def get_tool_call(call: Call) -> Response:
    redactor = await _redactor(call, await _run(call))
    detail = await call.parts.orchestration.tool_call(call.path["id"], call.path["toolUseId"])
    # From the raw log, so of any size.
    return await trio.to_thread.run_sync(lambda: call.answer(detail, redactor=redactor))


async def send_message(call: Call) -> Response:
    body: calls.Message = call.body
    await call.parts.orchestration.send_message(call.path["id"], body.text)
    return call.answer({})


async def interrupt_run(call: Call) -> Response:
    await call.parts.orchestration.interrupt(call.path["id"])
    return call.answer({})


async def close_input(call: Call) -> Response:
    await call.parts.orchestration.close_input(call.path["id"])
    return call.answer({})


async def cancel_run(call: Call) -> Response:
    body: calls.CancelRun = call.body
    return call.answer(shown(await call.parts.orchestration.cancel(run_id=call.path["id"], reason=body.reason)))


# --- approvals and agents ------------------------------------------------------------------------------------------------


async def list_approvals(call: Call) -> Response:
    return call.answer(calls.ApprovalList(items=call.parts.orchestration.approvals()))


async def answer_approval(call: Call) -> Response:
    body: calls.ApprovalAnswer = call.body
    await call.parts.orchestration.resolve_approval(
        call.path["requestId"], body.decision, message=body.message, updated_input=body.updated_input
    )
    return call.answer({})


@attrs.frozen(kw_only=True)
class AgentList:
    """Agent types, as they are on this machine now."""

    items: list[AgentInfo]


async def list_agents(call: Call) -> Response:
    return call.answer(AgentList(items=await call.parts.orchestration.agents()))
