"""What is known of the runs that are being watched, and its picture. Pure: events and times in, rich renderables out.

One run: a header below the lines that scroll by. Several: a panel each, side by side where the terminal is wide enough, with the
run's last lines. What does not fit is counted, not squeezed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agentstream.cli.lines import STATUS_STYLES, facts, line, tool_input
from agentstream.cli.text import count, duration, many, money, one_line
from agentstream.model.events import (
    AgentSession,
    AgentToolCall,
    AgentUsage,
    ApprovalRequested,
    ApprovalResolved,
    Event,
    ProgressUpdate,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunStarted,
    WorkOrderCreated,
    WorkOrderStatus,
    WorkOrderUpdated,
)
from agentstream.model.orders import FINAL_STATUSES

#: Lines kept for a panel.
_PANEL_LINES: Final = 5
#: Below this width, in columns, a panel says too little.
_PANEL_WIDTH: Final = 56
_PANEL_HEIGHT: Final = _PANEL_LINES + 4
_OUTCOMES: Final[dict[type[Event], WorkOrderStatus]] = {
    RunCompleted: "succeeded",
    RunFailed: "failed",
    RunCanceled: "canceled",
}
#: These change the header and would only be noise between the lines.
HEADER_ONLY: Final = (ProgressUpdate, AgentUsage)


@attrs.define
class View:
    """One work order and its latest run."""

    work_order_id: str
    prompt: str = ""
    status: WorkOrderStatus = "queued"
    agent_type: str = ""
    #: Where the agent works, as its session says.
    workspace: str = ""
    started_at: datetime | None = None
    #: How the run ended and how long it took; None while it goes on.
    outcome: WorkOrderStatus | None = None
    seconds: float = 0.0
    phase: str = "Starting"
    percentage: int = 0
    remaining: float | None = None
    tool_calls: int = 0
    tokens: int = 0
    cost: float | None = None
    #: Permission requests without an answer, oldest first.
    approvals: dict[str, ApprovalRequested] = attrs.field(factory=dict)
    last: deque[Text] = attrs.field(factory=lambda: deque(maxlen=_PANEL_LINES))

    @property
    def ended(self) -> bool:
        """The work order has a final status."""
        return self.status in FINAL_STATUSES

    def take(self, event: Event) -> None:
        """Learn from an event."""
        match event:
            case WorkOrderCreated():
                self.prompt = event.task_prompt
                self.status = event.status
            case WorkOrderUpdated():
                self.status = event.status
            case RunStarted():
                # A further run starts from nothing.
                self.agent_type = event.agent_type
                self.started_at, self.outcome = event.timestamp, None
                self.phase, self.percentage, self.remaining = "Starting", 0, None
                self.tool_calls, self.tokens, self.cost = 0, 0, None
                self.status = "running"
            case RunCompleted() | RunFailed() | RunCanceled():
                self.outcome, self.seconds = _OUTCOMES[type(event)], event.duration_ms / 1000
                self.approvals.clear()
                if isinstance(event, RunCompleted):
                    self.percentage = 100
                    self.cost = event.total_cost_usd or self.cost
                    self.tokens = event.usage.total_tokens if event.usage else self.tokens
            case ProgressUpdate():
                self.phase, self.percentage = event.current_phase, event.percentage
                self.remaining = event.estimated_remaining_seconds
                self.tool_calls = max(self.tool_calls, event.tool_call_count)
            case AgentSession():
                self.workspace = event.cwd or self.workspace
            case AgentToolCall():
                self.tool_calls += 1
            case AgentUsage():
                cached = (event.cache_read_tokens or 0) + (event.cache_creation_tokens or 0)
                self.tokens = event.input_tokens + event.output_tokens + cached
                self.cost = event.total_cost_usd or self.cost
            case ApprovalRequested():
                self.approvals[event.request_id] = event
            case ApprovalResolved():
                self.approvals.pop(event.request_id, None)
        if not isinstance(event, (*HEADER_ONLY, WorkOrderCreated)):
            # A panel shows the prompt anyway, and has one row for a line: of long output, the end.
            text = line(event, self.workspace)
            self.last.extend(part for part in text.split("\n", allow_blank=False)[-_PANEL_LINES:])

    def elapsed(self, now: datetime) -> float:
        """Seconds since the run started; clocks of two machines may differ, so never less than nothing."""
        if self.outcome is not None:
            return self.seconds
        return max(0.0, (now - self.started_at).total_seconds()) if self.started_at else 0.0


def header(view: View, now: datetime, *, brief: bool = False) -> RenderableType:
    """Phase, bar, tool calls, time and money on one row; ``brief``: only as much as leaves the bar its place in a panel."""
    status = view.outcome or view.status
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1, min_width=8)
    row.add_column(no_wrap=True, justify="right")
    style = STATUS_STYLES[status]
    if view.approvals:
        state = Text("Asking", "bold yellow")
    else:
        state = Text(view.phase if status == "running" else status, f"bold {style}")
    left = view.remaining if view.remaining is not None and view.remaining >= 1 and status == "running" else None
    elapsed = duration(view.elapsed(now), ticking=view.outcome is None)
    told = [f"{view.percentage} %", many(view.tool_calls, "tool call"), elapsed]
    more = [
        f"about {duration(left, ticking=True)} left" if left is not None else None,
        f"{count(view.tokens)} tokens" if view.tokens else None,
        money(view.cost) if view.cost else None,
    ]
    bar = ProgressBar(total=100, completed=view.percentage, complete_style=style, finished_style=style)
    row.add_row(state, bar, Text(facts(*told, *([] if brief else more)), "bright_black"))
    return row


def ask(request: ApprovalRequested, *, keys: bool) -> Text:
    """The question of a permission request, and how to answer it: with ``keys`` by a key press, else by a command."""
    told = f"{one_line(request.tool_name, 60)} {tool_input(request.input)}"
    how = " [y/n]" if keys else f"  agentstream approve {one_line(request.request_id)}"
    return Text.assemble(("? allow ", "bold yellow"), (told, "bold"), (how, "yellow"))


def panel(view: View, now: datetime) -> Panel:
    """One work order among others."""
    agent = "demo agent" if view.agent_type == "demo" else one_line(view.agent_type, 30)
    title = Text.assemble((one_line(view.work_order_id, 24), "bold"), (f" {agent}", "bright_black"))
    lines = Text("\n").join(view.last)
    lines.no_wrap, lines.overflow = True, "ellipsis"
    return Panel(
        Group(
            header(view, now, brief=True),
            Text(one_line(view.prompt, 200), "italic", no_wrap=True, overflow="ellipsis"),
            lines,
        ),
        title=title,
        title_align="left",
        border_style="yellow" if view.approvals else STATUS_STYLES[view.status],
        height=_PANEL_HEIGHT,
    )


def side_by_side(views: Sequence[View], now: datetime, width: int, height: int) -> RenderableType:
    """As many panels as fit into ``width`` columns and ``height`` rows; those that ask something come first."""
    if not views:
        return Text("nothing runs; waiting for work orders", "bright_black")
    columns = min(max(1, width // _PANEL_WIDTH), len(views))
    # One row is for the count of the others, one for the cursor.
    room = columns * max(1, (height - 2) // _PANEL_HEIGHT)
    ordered = sorted(views, key=lambda view: (not view.approvals, view.status != "running"))
    grid = Table.grid(expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1)
    shown = [panel(view, now) for view in ordered[:room]]
    for first in range(0, len(shown), columns):
        grid.add_row(*shown[first : first + columns])
    hidden = len(views) - len(shown)
    return grid if not hidden else Group(grid, Text(f"and {hidden} more", "bright_black"))


@attrs.define
class Board:
    """All that is watched, by work order. Ended work orders leave it, so it is as large as what runs and waits."""

    views: dict[str, View] = attrs.field(factory=dict)

    def take(self, event: Event) -> View:
        """Learn from an event, and return the view that it changed. The caller drops what has ended (`forget`)."""
        view = self.views.get(event.work_order_id)
        if view is None:
            view = self.views[event.work_order_id] = View(event.work_order_id)
        view.take(event)
        return view

    def forget(self, work_order_id: str) -> None:
        """Drop a view."""
        self.views.pop(work_order_id, None)

    @property
    def question(self) -> ApprovalRequested | None:
        """The oldest permission request without an answer."""
        waiting = (request for view in self.views.values() for request in view.approvals.values())
        return min(waiting, key=lambda request: request.timestamp, default=None)

    def answered(self, request: ApprovalRequested) -> None:
        """Somebody here answered it."""
        view = self.views.get(request.work_order_id)
        if view is not None:
            view.approvals.pop(request.request_id, None)
