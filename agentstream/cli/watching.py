"""Following work orders of a daemon on a screen; shared by ``watch`` and ``submit --watch``."""

from __future__ import annotations

import sys

import trio

from agentstream.cli import shell
from agentstream.cli.board import View
from agentstream.cli.keys import Resolve, answer_questions
from agentstream.cli.screen import FRAMES_PER_SECOND, Screen
from agentstream.client import Client, Retry, Subscription
from agentstream.errors import Gap
from agentstream.model.events import Event, WorkOrderCreated, WorkOrderStatus, WorkOrderUpdated
from agentstream.model.orders import FINAL_STATUSES


def attend(nursery: trio.Nursery, screen: Screen, resolve: Resolve | None) -> None:
    """Keep a screen moving and, with ``resolve``, answer questions from the keyboard, until the nursery ends."""
    nursery.start_soon(_redraw, screen)
    if resolve is not None:
        nursery.start_soon(answer_questions, screen, resolve, sys.stdin.fileno())


async def _redraw(screen: Screen) -> None:
    while True:
        await trio.sleep(1 / FRAMES_PER_SECOND)
        screen.redraw()


def tell_retry(screen: Screen, retry: Retry) -> None:
    """Say once that the connection is gone, not at each attempt."""
    if retry.failures == 1:
        screen.notice(f"{retry.reason}; trying again, nothing is missed")


def tell_gap(screen: Screen, gap: Gap) -> None:
    """Say what will not be seen."""
    why = "they were trimmed" if gap.reason == "retention" else "the daemon has another journal now"
    screen.notice(f"events {gap.from_seq} to {gap.to_seq} are missing: {why}")


class Follower:
    """Shows what subscriptions bring, and remembers how a work order stands."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client = client
        self._screen = screen
        self._status: WorkOrderStatus | None = None

    async def one(self, work_order_id: str, since: int) -> int:
        """Show a work order from ``since`` to its end; the exit status that its outcome stands for. Raises `NotFound`."""
        self._status = (await self._client.work_order(work_order_id))["status"]
        # First to the end of what happened: a final status in the middle of it may have been followed by a further run.
        history = self._client.subscribe(work_order_id, since=since, follow=False, on_gap=self._gap)
        async with history:
            async for event in history:
                self._show(event, history)
        if self._status not in FINAL_STATUSES:
            live = self._client.subscribe(work_order_id, since=history.seq, epoch=history.epoch, on_gap=self._gap)
            async with live:
                async for event in live:
                    self._show(event, live)
                    if self._status in FINAL_STATUSES:
                        break
        return {"succeeded": 0, "canceled": shell.STOPPED}.get(str(self._status), 1)

    async def all(self, since: int | None) -> int:
        """Show everything, from now on or from ``since``, without an end."""
        epoch = None
        if since is None:
            since, epoch = await self._what_runs()
        async with self._client.subscribe("*", since=since, epoch=epoch, on_gap=self._gap) as events:
            async for event in events:
                self._show(event, events)
        return 0

    async def _what_runs(self) -> tuple[int, str]:
        """Put what runs and waits on the board; the point from which events make that wrong."""
        # The head first: what happens while we look comes once more as events.
        now = await self._client.api.get("/work-orders/*/events", limit=1)
        for status in ("queued", "running"):
            for item in (await self._client.work_orders(status=status))["items"]:
                view = View(
                    item["id"],
                    prompt=item["request"]["taskPrompt"],
                    status=item["status"],
                    agent_type=item["request"]["agentType"],
                )
                self._screen.board.views[view.work_order_id] = view
        return now["head"], now["epoch"]

    def _show(self, event: Event, source: Subscription) -> None:
        if isinstance(event, WorkOrderCreated | WorkOrderUpdated):
            self._status = event.status
        self._screen.show(event, source.text)

    def _gap(self, gap: Gap) -> None:
        tell_gap(self._screen, gap)
