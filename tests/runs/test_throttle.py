"""Throttling delays only what follows at once, loses nothing, and keeps the order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentOutputDelta,
    AgentThinking,
    AgentToolCall,
    AgentToolResult,
    Event,
    RunCompleted,
)
from agentstream.model.limits import MAX_EVENT_BYTES, fit
from agentstream.runs.throttle import MAX_WAITING, Throttle, ThrottledChannel

IDS: dict[str, Any] = {"work_order_id": "w", "run_id": "r", "timestamp": datetime(2026, 1, 31, tzinfo=UTC)}


def output(content: str, message_id: str | None = "m", parent: str | None = None) -> AgentOutput:
    return AgentOutput(**IDS, content=content, message_id=message_id, parent_tool_use_id=parent)


def delta(content: str, message_id: str | None = "m") -> AgentOutputDelta:
    return AgentOutputDelta(**IDS, content=content, message_id=message_id)


def call(name: str) -> AgentToolCall:
    return AgentToolCall(**IDS, tool_use_id=name, tool="Other", tool_name=name, input={})


def error(message: str = "broken") -> AgentError:
    return AgentError(**IDS, message=message, code="X", source="agent")


def thought(content: str) -> AgentThinking:
    return AgentThinking(**IDS, content=content)


def result(name: str) -> AgentToolResult:
    return AgentToolResult(**IDS, tool_use_id=name, success=True, content_preview="", content_length=0, duration_ms=1)


def completed() -> RunCompleted:
    return RunCompleted(**IDS, duration_ms=1)


# --- the rules ---------------------------------------------------------------------------------------------------


def test_the_first_output_passes_at_once_and_further_ones_are_merged_until_the_window_closes() -> None:
    throttle = Throttle()
    assert throttle.push(output("a"), 10.0) == [output("a")]
    assert throttle.push(output("b"), 10.02) == []
    assert throttle.push(output("c"), 10.09) == []
    assert throttle.next_deadline() == pytest.approx(10.1)
    assert throttle.due(10.099) == []
    assert throttle.due(10.101) == [output("b\nc")]
    assert throttle.next_deadline() is None


def test_quiet_is_counted_from_the_last_release() -> None:
    throttle = Throttle()
    throttle.push(output("a"), 10.0)
    throttle.push(output("b"), 10.05)
    assert throttle.due(10.1) == [output("b")]
    assert throttle.push(output("c"), 10.15) == []
    assert throttle.due(10.2) == [output("c")]
    assert throttle.push(output("d"), 10.31) == [output("d")]


def test_what_waits_too_long_goes_before_what_comes() -> None:
    throttle = Throttle()
    throttle.push(output("a"), 10.0)
    throttle.push(output("b"), 10.05)
    assert throttle.push(output("c"), 11.0) == [output("b")]
    assert throttle.flush(11.0) == [output("c")]


def test_outputs_of_different_messages_are_released_together_but_not_merged() -> None:
    throttle = Throttle()
    throttle.push(output("a"), 0.0)
    for event in (output("b"), output("c", "n"), output("d", "n"), output("e", "n", "task"), output("f", "n")):
        assert throttle.push(event, 0.01) == []
    assert throttle.due(0.2) == [output("b"), output("c\nd", "n"), output("e", "n", "task"), output("f", "n")]


def test_a_merged_output_has_the_time_of_its_first_part() -> None:
    throttle = Throttle()
    throttle.push(output("a"), 0.0)
    first = output("b")
    throttle.push(first, 0.01)
    throttle.push(attrs.evolve(output("c"), timestamp=first.timestamp + timedelta(seconds=1)), 0.02)
    assert throttle.due(0.2) == [attrs.evolve(first, content="b\nc")]


def test_rapid_tool_calls_are_one_batch_of_single_calls() -> None:
    throttle = Throttle()
    assert throttle.push(call("1"), 0.0) == [call("1")]
    assert throttle.push(call("2"), 0.01) == []
    assert throttle.push(call("3"), 0.02) == []
    assert throttle.due(0.05) == [call("2"), call("3")]
    assert throttle.push(call("4"), 0.11) == [call("4")]


def test_deltas_are_joined_raw() -> None:
    throttle = Throttle()
    assert throttle.push(delta("Hel"), 0.0) == [delta("Hel")]
    assert throttle.push(delta("lo "), 0.01) == []
    assert throttle.push(delta("you"), 0.02) == []
    assert throttle.due(0.05) == [delta("lo you")]


@pytest.mark.parametrize("event", [error(), completed(), result("1"), thought("hm"), call("1"), delta("x")])
def test_another_kind_of_event_releases_what_waits_first(event: Event) -> None:
    throttle = Throttle()
    throttle.push(output("a"), 0.0)
    throttle.push(output("b"), 0.01)
    assert throttle.push(event, 0.02) == [output("b"), event]
    assert throttle.push(output("c"), 0.03) == []


def test_errors_never_wait() -> None:
    throttle = Throttle()
    for step in range(100):
        assert throttle.push(error(str(step)), step / 1000) == [error(str(step))]


def test_merged_output_fits_into_one_event_whatever_its_characters() -> None:
    for text in ("x" * 5000, "\x00" * 900, "漢" * 1700):
        throttle = Throttle()
        released = [event for _ in range(50) for event in throttle.push(output(text), 0.0)]
        released += throttle.flush(0.0)
        assert 5 < len(released) < 20
        assert all(len(fit(event)) == 1 for event in released)


def test_a_single_output_over_the_bound_passes_unmerged() -> None:
    throttle = Throttle()
    throttle.push(output("a"), 0.0)
    throttle.push(output("b"), 0.0)
    huge = output("x" * MAX_EVENT_BYTES)
    assert throttle.push(huge, 0.0) == [output("b")]
    assert throttle.push(output("c"), 0.0) == [huge]


def test_a_flood_of_calls_is_released_before_the_window_closes() -> None:
    throttle = Throttle()
    released = [event for number in range(MAX_WAITING + 2) for event in throttle.push(call(str(number)), 0.0)]
    assert released == [call(str(number)) for number in range(MAX_WAITING + 1)]


EVENTS = st.one_of(
    st.tuples(st.text("ab\n", max_size=3), st.sampled_from(["m", "n"])).map(lambda it: output(*it)),
    st.text("ab", max_size=3).map(delta),
    st.sampled_from("123").map(call),
    st.sampled_from([error(), completed(), thought("t"), result("1")]),
)


def texts(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """The events with neighbouring outputs of one message joined, as a reader would join them."""
    joined: list[tuple[Any, ...]] = []
    for (kind, message), group in itertools.groupby(
        events, lambda event: (event.type, getattr(event, "message_id", None))
    ):
        several = list(group)
        if kind == "agent_output":
            joined.append(
                (kind, message, "\n".join(event.content for event in several if isinstance(event, AgentOutput)))
            )
        elif kind == "agent_output_delta":
            text = "".join(event.content for event in several if isinstance(event, AgentOutputDelta))
            joined.append((kind, message, text))
        else:
            joined += [(kind, event) for event in several]
    return joined


@given(steps=st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 0.01, 0.049, 0.05, 0.2])), max_size=40))
def test_nothing_is_lost_nor_out_of_order_and_deadlines_are_kept(steps: list[tuple[Event, float]]) -> None:
    throttle = Throttle()
    delivered: list[Event] = []
    pushed: list[Event] = []
    oldest_waiting: float | None = None
    now = 0.0
    for event, pause in steps:
        wake = throttle.next_deadline()
        if wake is not None and wake <= now + pause:
            assert oldest_waiting is not None
            assert wake <= oldest_waiting + 0.1
            released = throttle.due(wake)
            assert released
            delivered += released
            oldest_waiting = None
        now += pause
        released = throttle.push(event, now)
        delivered += released
        pushed.append(event)
        if isinstance(event, AgentError | RunCompleted):
            assert released[-1] == event
        waiting = throttle.next_deadline()
        if waiting is None:
            oldest_waiting = None
        elif oldest_waiting is None or released:
            oldest_waiting = now
        assert waiting is None or waiting > now
    delivered += throttle.flush(now)
    assert throttle.next_deadline() is None
    assert texts(delivered) == texts(pushed)


# --- the channel -------------------------------------------------------------------------------------------------


@attrs.define
class Sink:
    """Keeps what it is given, with the time; waits for ``gate`` if there is one."""

    batches: list[tuple[float, list[Event]]] = attrs.field(factory=list)
    gate: trio.Event | None = None

    async def __call__(self, events: list[Event]) -> None:
        self.batches.append((trio.current_time(), events))
        if self.gate is not None:
            await self.gate.wait()

    @property
    def events(self) -> list[Event]:
        return [event for _, batch in self.batches for event in batch]


async def test_the_pump_delivers_at_once_and_again_when_the_window_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    channel, sink = ThrottledChannel(), Sink()
    async with trio.open_nursery() as nursery:
        await nursery.start(channel.run, sink)
        started = trio.current_time()
        await channel.send([output("a"), output("b")])
        await trio.sleep(0.03)
        await channel.send([output("c")])
        await trio.sleep(1)
        channel.close()
    assert [events for _, events in sink.batches] == [[output("a")], [output("b\nc")]]
    assert [time - started for time, _ in sink.batches] == pytest.approx([0.0, 0.1])


async def test_closing_delivers_what_waits(autojump_clock: trio.testing.MockClock) -> None:
    channel, sink = ThrottledChannel(), Sink()
    async with trio.open_nursery() as nursery:
        await nursery.start(channel.run, sink)
        await channel.send([output("a"), output("b")])
        channel.close()
        channel.close()
    assert sink.events == [output("a"), output("b")]
    with pytest.raises(trio.ClosedResourceError):
        await channel.send([output("c")])


async def test_what_was_sent_before_the_pump_runs_is_delivered() -> None:
    channel, sink = ThrottledChannel(), Sink()
    await channel.send([error("1")])
    channel.close()
    await channel.run(sink)
    assert sink.events == [error("1")]


async def test_a_slow_sink_gets_larger_batches_and_holds_up_the_sender_at_the_bound() -> None:
    channel, sink = ThrottledChannel(capacity=10), Sink(gate=trio.Event())
    sent: list[int] = []

    async def send_errors() -> None:
        for number in range(40):
            await channel.send([error(str(number))])
            sent.append(number)
        channel.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run, sink)
        await trio.testing.wait_all_tasks_blocked()
        await channel.send([error("first")])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(send_errors)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == 10
        assert channel.statistics().senders_waiting == 1
        assert channel.statistics().queued == 10
        assert sink.gate is not None
        sink.gate.set()
    assert sink.events == [error("first"), *(error(str(number)) for number in range(40))]
    assert len(sink.batches) < 10


async def test_what_the_sink_raises_leaves_run_and_senders_are_not_held_up_any_more() -> None:
    channel = ThrottledChannel(capacity=1)

    async def sink(events: list[Event]) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("no room")

    await channel.send([error()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, [error()])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="no room"):
            await channel.run(sink)
    for _ in range(5):
        await channel.send([error()])
    assert channel.statistics().queued == 0


async def test_a_cancelled_send_was_not_sent() -> None:
    channel, sink = ThrottledChannel(capacity=1), Sink()
    await channel.send([error("1")])
    with trio.move_on_after(0):
        await channel.send([error("2")])
    channel.close()
    await channel.run(sink)
    assert sink.events == [error("1")]


async def test_cancelling_the_pump_wakes_waiting_senders() -> None:
    channel, sink = ThrottledChannel(capacity=1), Sink(gate=trio.Event())
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(channel.run, sink)
                await trio.testing.wait_all_tasks_blocked()
                await channel.send([error("1")])
                await trio.testing.wait_all_tasks_blocked()
                await channel.send([error("2")])
                nursery.start_soon(channel.send, [error("3")])
                await trio.testing.wait_all_tasks_blocked()
                assert channel.statistics().senders_waiting == 1
                scope.cancel()
