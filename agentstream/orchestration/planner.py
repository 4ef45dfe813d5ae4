"""Which run happens next. Pure: the whole state in, what is to be done out (`plan`); doing it is the orchestrator's.

The queue is fair by age: work orders start in the order in which they were queued, as long as there is room. One work order has at
most one run at a time. A work order that waits for its retry time keeps its place, but lets others pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs


@attrs.frozen(kw_only=True)
class Waiting:
    """A queued work order; ``not_before`` in seconds of the caller's monotonic clock."""

    work_order_id: str
    not_before: float = 0.0


@attrs.frozen(kw_only=True)
class Plan:
    """What to do now, and when to ask again at the latest (None: when something changes)."""

    start: tuple[str, ...]
    ask_again_at: float | None


def plan(waiting: Sequence[Waiting], running: Collection[str], *, max_concurrent: int, now: float) -> Plan:
    """Which of the waiting work orders to start, given those that run.

    Invariants: never more than ``max_concurrent`` at once; never one that runs already, and none twice; none before its time; of
    those that may start, the oldest first.
    """
    room = max_concurrent - len(running)
    start: list[str] = []
    later: list[float] = []
    for order in waiting:
        if order.work_order_id in running or order.work_order_id in start:
            continue
        if order.not_before > now:
            later.append(order.not_before)
        elif len(start) < room:
            start.append(order.work_order_id)
    return Plan(start=tuple(start), ask_again_at=min(later, default=None))
