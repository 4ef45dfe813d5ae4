"""What the HTTP calls take and give besides what has its own room: queries, small bodies, lists (PROTOCOL.md, "HTTP").

A query's fields are its parameters; they come as text and are read by type. Lists are objects with ``items``, so that something can
stand beside them.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from agentstream.model.events import ApprovalRequested, Decision, WorkOrderStatus
from agentstream.model.messages import Gap
from agentstream.model.orders import Run, WorkOrder

_ge, _le = attrs.validators.ge, attrs.validators.le
#: SQLite's integers, and so ``seq``, end here.
MAX_SEQ: Final = 2**63 - 1
#: Events in one answer; each has up to 64 KiB, so the answer is bounded in bytes besides (`server.handlers`).
MAX_EVENTS: Final = 1000


# --- queries -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class NoQuery:
    """A call without parameters."""


@attrs.frozen(kw_only=True)
class WorkOrderQuery:
    """Which work orders, newest first."""

    status: WorkOrderStatus | None = None
    limit: int = attrs.field(default=50, validator=[_ge(1), _le(200)])
    #: What the page before said; without it, the first page.
    cursor: str | None = None


@attrs.frozen(kw_only=True)
class RunQuery:
    """Whose runs, by number."""

    work_order_id: str = attrs.field(validator=attrs.validators.min_len(1))


@attrs.frozen(kw_only=True)
class CancelQuery:
    """Why it is canceled."""

    reason: str | None = None


@attrs.frozen(kw_only=True)
class EventQuery:
    """Which events of a work order (``*``: of all), in the order of ``seq``."""

    #: Events after this ``seq``; without it, from the first that is kept.
    since_seq: int | None = attrs.field(default=None, validator=attrs.validators.optional([_ge(0), _le(MAX_SEQ)]))
    #: The journal that ``sinceSeq`` belongs to, as last seen; another one is answered by a gap.
    epoch: str | None = None
    limit: int = attrs.field(default=500, validator=[_ge(1), _le(MAX_EVENTS)])


# --- bodies --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class FurtherRun:
    """A further run of an ended work order."""

    #: What to do now; without it, the work order's own prompt.
    task_prompt: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.min_len(1))
    )
    #: Continue the agent's last session.
    resume: bool = False


@attrs.frozen(kw_only=True)
class Message:
    """A follow-up to a run that takes input."""

    text: str = attrs.field(validator=attrs.validators.min_len(1))


@attrs.frozen(kw_only=True)
class CancelRun:
    """Why it is canceled."""

    reason: str | None = None


@attrs.frozen(kw_only=True)
class ApprovalAnswer:
    """The answer to a permission request."""

    decision: Decision
    message: str | None = None
    #: The tool's input as it shall be, instead of the one that was asked for.
    updated_input: dict[str, Any] | None = None


# --- answers -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Done:
    """It was carried out; there is nothing more to say."""


@attrs.frozen(kw_only=True)
class WorkOrderList:
    """A page; ``cursor`` fetches the next one and is left out at the end."""

    items: list[WorkOrder]
    cursor: str | None = None


@attrs.frozen(kw_only=True)
class RunList:
    """The runs of a work order."""

    items: list[Run]


@attrs.frozen(kw_only=True)
class ApprovalList:
    """Permission requests that wait for an answer, oldest first."""

    items: list[ApprovalRequested]


@attrs.frozen(kw_only=True)
class EventPage:
    """Events in the order of ``seq``. Ask again with ``sinceSeq`` = ``lastSeq``; at the end ``lastSeq`` reaches ``head``."""

    items: list[dict[str, Any]]
    epoch: str
    #: The ``seq`` up to which this answer tells everything there is.
    last_seq: int
    #: The journal's highest ``seq`` at this moment.
    head: int
    #: What can't be told any more.
    gap: Gap | None = None


@attrs.frozen(kw_only=True)
class ToolOutcome:
    """A tool call's result, whole."""

    success: bool
    content: str
    content_length: int


@attrs.frozen(kw_only=True)
class ToolCallDetail:
    """One tool call and, once it is there, its result; nothing cut."""

    tool_use_id: str
    tool: str
    tool_name: str
    input: dict[str, Any]
    work_order_id: str | None = None
    run_id: str | None = None
    parent_tool_use_id: str | None = None
    result: ToolOutcome | None = None


@attrs.frozen(kw_only=True)
class Problem:
    """What went wrong, whose fault it is (``code``), and what to do."""

    code: str
    message: str
    details: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Health:
    """``degraded``: it runs, and something is wrong; ``problems`` says what. ``unready``: it takes no work orders."""

    status: Literal["ok", "degraded", "unready"]
    problems: list[str]
    version: str
