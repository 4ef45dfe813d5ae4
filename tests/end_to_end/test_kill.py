"""``kill -9`` of the daemon at random moments, again and again, while runs print numbered lines and a subscriber resumes.

What the subscriber saw over all lives, put together, is exact: no hole, no duplicate, no ``seq`` used for two things; and it is the
beginning of what the journal replays afterwards.
"""

from __future__ import annotations

import contextlib
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from agentstream.runs.process import find_processes
from tests.end_to_end.house import Daemon

#: Endless, and fast enough that every moment of the way of an event is met: more than a batch a millisecond.
_NUMBERS = "i=0; while :; do i=$((i+1)); echo $i; done"


def lines(events: list[dict[str, Any]], work_order_id: str) -> list[int]:
    """The numbers that a work order's run printed, as they were seen."""
    texts = [e["content"] for e in events if e["type"] == "agent_output" and e["workOrderId"] == work_order_id]
    return [int(line) for text in texts for line in text.split("\n")]


@pytest.mark.parametrize("kills", [pytest.param(30, id="30"), pytest.param(500, id="500", marks=pytest.mark.soak)])
def test_a_subscriber_that_resumes_over_many_lives_sees_everything_once(tmp_path: Path, kills: int) -> None:
    dice = random.Random(kills)
    seen: list[dict[str, Any]] = []
    epoch: str | None = None
    for life in range(kills):
        with Daemon(tmp_path) as daemon, daemon.subscriber() as watcher:
            since = {"sinceSeq": seen[-1]["seq"], "epoch": epoch} if epoch else {"sinceSeq": 0}
            epoch = watcher.subscribe("*", **since)["epoch"]
            daemon.submit(_NUMBERS, id=f"life-{life}", streaming={"progressIntervalMs": 100})
            wanted = dice.randrange(1, 60)
            while len(watcher.events()) < wanted:
                watcher.receive()
            daemon.signal(signal.SIGKILL)
            daemon.wait()
            # What was on its way to us was committed before.
            with contextlib.suppress(ConnectionClosed):
                watcher.until(lambda _: False)
            seen += watcher.events()
    with Daemon(tmp_path) as daemon, daemon.subscriber() as watcher:
        watcher.subscribe("*", sinceSeq=seen[-1]["seq"], epoch=epoch)
        watcher.until("replay_complete")
        assert not [message for message in watcher.seen if message["type"] == "gap"]
        seen += watcher.events()
        with daemon.subscriber() as late:
            late.subscribe("*", sinceSeq=0, epoch=epoch)
            late.until("replay_complete")
            assert late.events() == seen
    seqs = [event["seq"] for event in seen]
    assert seqs == sorted(set(seqs))
    for life in range(kills):
        numbers = lines(seen, f"life-{life}")
        assert numbers == list(range(1, len(numbers) + 1))
    ended = [event for event in seen if event["type"] == "run_failed"]
    assert {event["errorCode"] for event in ended} <= {"INTERRUPTED"}
    started = {event["runId"] for event in seen if event["type"] == "run_started"}
    assert not started & set(find_processes().values())
