"""What the journal's tests share: short ways to make things, and a subscriber that remembers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from agentstream.journal.base import Record
from agentstream.journal.store import Store
from agentstream.journal.writer import EventRow
from agentstream.model.events import AgentOutput, AgentOutputDelta, WorkOrderStatus
from agentstream.model.orders import Run, RunStatus, WorkOrder, WorkOrderRequest, WorkspaceSource

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)


def output(content: object, *, work_order: str = "w1", seconds: float = 0.0) -> AgentOutput:
    return AgentOutput(
        work_order_id=work_order, run_id="r1", timestamp=NOON + timedelta(seconds=seconds), content=str(content)
    )


def outputs(first: int, last: int, *, work_order: str = "w1") -> list[AgentOutput]:
    """One a second, numbered."""
    return [output(number, work_order=work_order, seconds=number) for number in range(first, last + 1)]


def delta(content: str) -> AgentOutputDelta:
    return AgentOutputDelta(work_order_id="w1", run_id="r1", timestamp=NOON, content=content)


def order(name: str, status: WorkOrderStatus = "queued", *, seconds: float = 0.0) -> WorkOrder:
    return WorkOrder(
        id=name,
        request=WorkOrderRequest(task_prompt="do it", workspace_source=WorkspaceSource(type="fresh"), env={"A": "b"}),
        workspace="/w",
        status=status,
        created_at=NOON,
        updated_at=NOON + timedelta(seconds=seconds),
    )


def attempt(name: str, work_order: str, status: RunStatus = "running", *, number: int = 1) -> Run:
    return Run(
        id=name,
        work_order_id=work_order,
        run_number=number,
        agent_type="demo",
        status=status,
        started_at=NOON,
        prompt="do it",
        directory=f"runs/{name}",
    )


def rows(first: int, last: int, *, work_order: str = "w1") -> list[EventRow]:
    return [
        (seq, work_order, "agent_output", NOON_MS + seq * 1000, b'{"type":"agent_output","content":"%d"}' % seq)
        for seq in range(first, last + 1)
    ]


def seqs(records: Sequence[Record]) -> list[int | None]:
    return [record.seq for record in records]


def content(record: Record) -> str:
    return str(orjson.loads(record.body)["content"])


def contents(records: Sequence[Record]) -> list[str]:
    return [content(record) for record in records]


class Subscriber:
    """The other end of ``publish``."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.groups: list[int] = []

    async def __call__(self, records: Sequence[Record]) -> None:
        self.records += records
        self.groups.append(len(records))


def abandon(store: Store) -> None:
    """End as after ``kill -9``: nothing is written any more."""
    store.release()


def journal_path(directory: Path) -> Path:
    return directory / "journal.sqlite"
