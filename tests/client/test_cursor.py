"""The pure core of resuming: any way of cutting a connection gives each event once and in order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.client.cursor import Backoff, Cursor
from agentstream.errors import AgentstreamError, Forbidden, Gap, NotFound
from agentstream.model.events import AgentOutput, AgentToolCall, UnknownEvent

NOW = "2026-01-31T12:00:00.000Z"


def output(seq: int | None, work_order_id: str = "w") -> dict[str, Any]:
    message = {
        "type": "agent_output",
        "workOrderId": work_order_id,
        "runId": "r",
        "timestamp": NOW,
        "content": f"{seq}",
    }
    return message if seq is None else {**message, "seq": seq}


def created(seq: int, work_order_id: str) -> dict[str, Any]:
    return {
        "type": "work_order_created",
        "workOrderId": work_order_id,
        "timestamp": NOW,
        "seq": seq,
        "taskPrompt": "x",
        "status": "queued",
    }


def confirmed(seq: int, epoch: str = "e1") -> dict[str, Any]:
    return {
        "type": "subscription_confirmed",
        "workOrderId": "w",
        "timestamp": NOW,
        "epoch": epoch,
        "seq": seq,
        "filters": {},
    }


def replay_complete(seq: int) -> dict[str, Any]:
    return {"type": "replay_complete", "workOrderId": "w", "timestamp": NOW, "seq": seq}


def gap(from_seq: int, to_seq: int, reason: str) -> dict[str, Any]:
    return {
        "type": "gap",
        "workOrderId": "w",
        "timestamp": NOW,
        "fromSeq": from_seq,
        "toSeq": to_seq,
        "reason": reason,
    }


def daemon(journal: list[int], head: int, since: int | None) -> list[dict[str, Any]]:
    """What a connection brings: confirmation, replay, its end, and then live events with another work order's creation."""
    replay = [] if since is None else [output(seq) for seq in journal if since < seq <= head]
    messages = [confirmed(head), created(10_000, "other"), *replay]
    if since is not None:
        messages.append(replay_complete(head))
    return messages + [output(seq) for seq in journal if seq > head]


@settings(deadline=None)
@given(
    journal=st.lists(st.integers(1, 300), unique=True, max_size=60).map(sorted),
    lives=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 300)), max_size=8),
    since=st.one_of(st.none(), st.integers(0, 300)),
)
def test_any_cuts_give_each_event_once(journal: list[int], lives: list[tuple[int, int]], since: int | None) -> None:
    cursor = Cursor("w", seq=since)
    got: list[int | None] = []
    first_head: int | None = None
    heads = sorted(head for _, head in lives)
    for (cut, _), head in zip([*lives, (10_000, 0)], [*heads, 300], strict=True):
        request = cursor.request("m")
        for position, message in enumerate(daemon(journal, head, request.since_seq)):
            if position >= cut:
                break
            if first_head is None:
                first_head = head
            event = cursor.take(message)
            if event is not None:
                assert isinstance(event, AgentOutput)
                got.append(event.seq)
    start = since if since is not None else first_head
    assert start is not None
    assert got == [seq for seq in journal if seq > start]


def test_a_count_is_asked_for_again_only_while_nothing_came() -> None:
    cursor = Cursor("w", replay_count=5)
    assert cursor.request("1").replay_count == 5
    cursor.take(confirmed(20))
    assert cursor.request("2").replay_count == 5
    cursor.take(confirmed(20))
    cursor.take(output(16))
    again = cursor.request("3")
    assert (again.since_seq, again.epoch, again.replay_count) == (16, "e1", None)


def test_a_time_is_asked_for_again_only_while_nothing_came() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    cursor = Cursor("w", replay_since=moment)
    assert cursor.request("1").replay_since == moment
    cursor.take(confirmed(20))
    cursor.take(replay_complete(20))
    assert (cursor.request("2").since_seq, cursor.request("2").replay_since) == (20, None)


def test_the_end_of_the_replay_moves_the_cursor_over_what_filters_hid() -> None:
    cursor = Cursor("w", seq=3)
    cursor.request("1")
    assert cursor.replaying
    cursor.take(confirmed(90))
    assert cursor.seq == 3
    cursor.take(replay_complete(90))
    assert (cursor.seq, cursor.replaying) == (90, False)


def test_other_work_orders_are_not_handed_out_and_do_not_move_the_cursor() -> None:
    cursor = Cursor("w", seq=0)
    cursor.request("1")
    cursor.take(confirmed(9))
    assert cursor.take(created(50, "other")) is None
    assert cursor.take(output(1)) is not None
    assert cursor.seq == 1


def test_a_subscription_to_all_takes_every_work_order() -> None:
    cursor = Cursor("*")
    cursor.request("1")
    cursor.take(confirmed(0))
    assert cursor.take(created(1, "other")) is not None
    assert cursor.take(output(2)) is not None


def test_ephemeral_events_pass_and_do_not_move_the_cursor() -> None:
    cursor = Cursor("w", seq=4)
    assert cursor.take(output(None)) is not None
    assert cursor.seq == 4


def test_another_epoch_starts_the_numbers_again() -> None:
    cursor = Cursor("w", seq=500, epoch="old")
    assert cursor.request("1").epoch == "old"
    cursor.take(confirmed(7, "new"))
    found = cursor.take(gap(501, 7, "epoch"))
    assert isinstance(found, Gap)
    assert found.reason == "epoch"
    event = cursor.take(output(2))
    assert event is not None
    assert (cursor.seq, cursor.epoch) == (2, "new")
    assert cursor.request("2").epoch == "new"


def test_a_cut_between_confirmation_and_gap_does_not_hide_the_gap() -> None:
    cursor = Cursor("w", seq=500, epoch="old")
    cursor.request("1")
    cursor.take(confirmed(7, "new"))
    again = cursor.request("2")
    assert (again.since_seq, again.epoch) == (500, "old")


def test_a_seq_beyond_the_head_is_of_another_journal_too() -> None:
    cursor = Cursor("w", seq=500)
    cursor.request("1")
    cursor.take(confirmed(7, "new"))
    assert isinstance(cursor.take(gap(0, 500, "epoch")), Gap)
    assert cursor.take(output(1)) is not None
    assert (cursor.request("2").since_seq, cursor.request("2").epoch) == (1, "new")


def test_a_gap_says_what_is_missing_and_goes_on_behind_it() -> None:
    cursor = Cursor("w", seq=3)
    cursor.request("1")
    cursor.take(confirmed(100))
    found = cursor.take(gap(4, 60, "retention"))
    assert isinstance(found, Gap)
    assert (found.from_seq, found.to_seq) == (4, 60)
    assert 'on_gap="continue"' in found.message
    assert cursor.take(output(58)) is not None  # not trimmed yet
    assert cursor.take(output(61)) is not None
    assert cursor.seq == 61


@pytest.mark.parametrize(
    ("code", "expected"),
    [("NOT_FOUND", NotFound), ("FORBIDDEN", Forbidden), ("OF_NEXT_YEAR", AgentstreamError)],
)
def test_an_error_is_raised_as_what_it_is(code: str, expected: type[AgentstreamError]) -> None:
    cursor = Cursor("w")
    with pytest.raises(expected, match="because"):
        cursor.take({"type": "error", "timestamp": NOW, "code": code, "message": "because"})


def test_what_a_newer_daemon_says_is_unknown_not_an_error() -> None:
    cursor = Cursor("w", seq=0)
    event = cursor.take({"type": "agent_dance", "workOrderId": "w", "timestamp": NOW, "seq": 1, "step": "left"})
    assert isinstance(event, UnknownEvent)
    tool = {
        "type": "agent_tool_call",
        "workOrderId": "w",
        "runId": "r",
        "timestamp": NOW,
        "seq": 2,
        "toolUseId": "t",
        "tool": "Teleport",
        "toolName": "teleport",
        "input": {},
    }
    newer = cursor.take(tool)
    assert isinstance(newer, UnknownEvent)
    assert (newer.type, newer.seq, newer.data["tool"]) == ("agent_tool_call", 2, "Teleport")
    assert isinstance(cursor.take({**tool, "seq": 3, "tool": "Bash"}), AgentToolCall)


def test_backoff_doubles_to_its_ceiling_with_full_jitter() -> None:
    backoff = Backoff(first=0.25, most=15.0)
    assert [backoff.delay(failures, 1.0) for failures in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
    assert backoff.delay(5, 0.0) == 0.0
    assert backoff.delay(10**9, 0.5) == 7.5
