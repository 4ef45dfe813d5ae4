"""The client against a peer that cuts connections where a script says."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import trio

from agentstream.client import Backoff, Client, Retry, connect
from agentstream.errors import Conflict, Forbidden, Gap, NotFound, RateLimited, Unauthorized, Unreachable
from agentstream.model.events import AgentOutput, Event
from agentstream.model.messages import Filters
from agentstream.model.orders import WorkOrderRequest, WorkspaceSource
from tests.client.peer import Peer, Script, Socket, moment, peer

AT_ONCE = Backoff(first=0.0, most=0.0)
REQUEST = WorkOrderRequest(task_prompt="do it", workspace_source=WorkspaceSource(type="fresh"))


def seqs(events: list[Event]) -> list[int | None]:
    return [event.seq for event in events]


async def take(client: Client, count: int, **options: Any) -> list[Event]:
    """The first so many events of ``w``."""
    events: list[Event] = []
    async with client.subscribe("w", **options) as subscription:
        async for event in subscription:
            events.append(event)
            if len(events) == count:
                break
    return events


async def test_events_are_typed_and_the_wire_text_is_at_hand() -> None:
    async def script(socket: Socket) -> None:
        await socket.confirm(0)
        await socket.outputs(1)
        await socket.wait_closed()

    async with peer(script) as server, connect(server.url, "secret") as client:
        async with client.subscribe("w", filters=Filters(include_thinking=False)) as events:
            event = await anext(events)
            assert isinstance(event, AgentOutput)
            assert event.content == "line 1"
            assert '"seq":1' in events.text
    assert server.tokens == ["Bearer secret"] * 2
    assert server.subscribes[0]["filters"]["includeThinking"] is False


async def test_the_form_without_a_context_closes_its_connection_when_it_is_left() -> None:
    async def script(socket: Socket) -> None:
        await socket.confirm(0)
        await socket.outputs(1, 2, 3)
        await socket.wait_closed()

    async with peer(script) as server, connect(server.url) as client:
        async for event in client.subscribe("w"):
            assert event.seq == 1
            break
        gc.collect()
        await server.until(lambda: server.open == 1)


async def test_a_cut_connection_is_resumed_by_seq_and_epoch() -> None:
    async def first(socket: Socket) -> None:
        await socket.confirm(10)
        await socket.outputs(11, 12)
        await socket.cut()

    async def second(socket: Socket) -> None:
        await socket.confirm(14)
        await socket.outputs(12, 13, 14)  # 12 once more: a daemon that repeats must not matter
        await socket.replayed(14)
        await socket.outputs(15)
        await socket.wait_closed()

    retries: list[Retry] = []
    async with (
        peer(first, second) as server,
        connect(server.url, backoff=AT_ONCE, on_retry=retries.append) as client,
    ):
        assert seqs(await take(client, 5)) == [11, 12, 13, 14, 15]
    assert "sinceSeq" not in server.subscribes[0]
    assert (server.subscribes[1]["sinceSeq"], server.subscribes[1]["epoch"]) == (12, "e1")
    assert [retry.failures for retry in retries] == [1]
    assert "lost the connection" in retries[0].reason


async def test_a_quiet_subscription_resumes_from_the_head_it_was_told() -> None:
    async def first(socket: Socket) -> None:
        await socket.confirm(10)
        await socket.close(1001)

    async def second(socket: Socket) -> None:
        await socket.confirm(11)
        await socket.outputs(11)
        await socket.wait_closed()

    async with peer(first, second) as server, connect(server.url, backoff=AT_ONCE) as client:
        assert seqs(await take(client, 1)) == [11]
    assert server.subscribes[1]["sinceSeq"] == 10


async def test_it_keeps_trying_while_the_daemon_is_away() -> None:
    async def first(socket: Socket) -> None:
        server.refusals = [503, 503]
        await socket.confirm(0)
        await socket.outputs(1)
        await socket.cut()

    async def second(socket: Socket) -> None:
        await socket.confirm(2)
        await socket.outputs(2)
        await socket.wait_closed()

    retries: list[Retry] = []
    async with peer(first, second) as server, connect(server.url, backoff=AT_ONCE, on_retry=retries.append) as client:
        assert seqs(await take(client, 2)) == [1, 2]
    assert [retry.failures for retry in retries] == [1, 2, 3]
    assert retries[1].reason == "no, because"


async def test_a_refused_token_is_final() -> None:
    async def first(socket: Socket) -> None:
        server.refusals = [401]
        await socket.confirm(0)
        await socket.cut()

    async with peer(first) as server, connect(server.url, backoff=AT_ONCE) as client:
        with pytest.raises(Unauthorized, match="no, because"):
            await take(client, 1)
        assert len(server.subscribes) == 1


@pytest.mark.parametrize(("status", "expected"), [(401, Unauthorized), (403, Forbidden), (404, NotFound)])
async def test_connect_raises_what_it_is_refused_with(status: int, expected: type[Exception]) -> None:
    async with peer() as server:
        server.refusals = [status]
        with pytest.raises(expected, match="no, because"):
            async with connect(server.url, "wrong"):
                raise AssertionError("connected")


async def test_connect_raises_also_what_is_told_after_the_handshake() -> None:
    async with peer() as server:
        server.farewells = [1008]
        with pytest.raises(Unauthorized, match="no, because"):
            async with connect(server.url, "wrong"):
                raise AssertionError("connected")


async def test_a_token_that_is_refused_after_the_handshake_is_final() -> None:
    async def script(socket: Socket) -> None:
        await socket.close(1008, "token revoked")

    async with peer(script) as server, connect(server.url, backoff=AT_ONCE) as client:
        with pytest.raises(Unauthorized, match="token revoked"):
            await take(client, 1)


async def test_connect_raises_at_once_where_nobody_listens() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(Unreachable, match=rf"no daemon answers at http://127.0.0.1:{port}: Connection refused"):
        async with connect(f"http://127.0.0.1:{port}"):
            raise AssertionError("connected")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n"])
async def test_connect_does_not_hang_on_somebody_who_hangs_up_or_speaks_something_else(answer: bytes) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if answer:
            await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, hang_up, listeners)
        with trio.fail_after(5), pytest.raises(Unreachable, match="before the WebSocket was open"):
            async with connect(f"http://127.0.0.1:{port}"):
                raise AssertionError("connected")
        nursery.cancel_scope.cancel()


async def gap_script(socket: Socket) -> None:
    await socket.confirm(100)
    await socket.send(type="gap", workOrderId="w", fromSeq=6, toSeq=60, reason="retention")
    await socket.outputs(61)
    await socket.wait_closed()


async def test_a_gap_is_raised_as_it_is() -> None:
    async with peer(gap_script) as server:
        with pytest.raises(Gap) as caught:
            async with connect(server.url) as client:
                await take(client, 1, since=5, epoch="e1")
    assert (caught.value.from_seq, caught.value.to_seq, caught.value.reason) == (6, 60, "retention")


async def test_a_gap_is_passed_over_on_request() -> None:
    told: list[Gap] = []
    async with peer(gap_script, gap_script) as server, connect(server.url) as client:
        assert seqs(await take(client, 1, since=5, on_gap="continue")) == [61]
        assert seqs(await take(client, 1, since=5, on_gap=told.append)) == [61]
    assert [gap.to_seq for gap in told] == [60]


async def test_without_following_the_iteration_ends_with_the_replay_whatever_is_cut() -> None:
    async def first(socket: Socket) -> None:
        await socket.confirm(3)
        await socket.outputs(1)
        await socket.cut()

    async def second(socket: Socket) -> None:
        await socket.confirm(3)
        await socket.outputs(2, 3)
        await socket.replayed(3)
        await socket.outputs(4)
        await socket.wait_closed()

    async with peer(first, second) as server, connect(server.url, backoff=AT_ONCE) as client:
        async with client.subscribe("w", follow=False) as events:
            assert seqs([event async for event in events]) == [1, 2, 3]
            assert (events.seq, events.epoch) == (3, "e1")
    assert [message["sinceSeq"] for message in server.subscribes] == [0, 1]


async def test_since_a_time_and_the_last_few() -> None:
    async def script(socket: Socket) -> None:
        await socket.confirm(3)
        await socket.replayed(3)
        await socket.wait_closed()

    async with peer(script, script) as server, connect(server.url) as client:
        assert [event async for event in client.subscribe("w", since=moment(), follow=False)] == []
        assert [event async for event in client.subscribe("w", last=7, follow=False)] == []
    assert server.subscribes[0]["replaySince"] == "2026-01-31T12:00:00.000Z"
    assert server.subscribes[1]["replayCount"] == 7


async def test_a_cancelled_wait_loses_nothing() -> None:
    async def script(socket: Socket) -> None:
        await socket.confirm(0)
        async with server.changed:
            await server.changed.wait()
        await socket.outputs(1)
        await socket.wait_closed()

    async with peer(script) as server, connect(server.url) as client:
        async with client.subscribe("w") as events:
            with trio.move_on_after(0.05) as scope:
                await anext(events)
            assert scope.cancelled_caught
            await server.until(lambda: len(server.subscribes) == 1)
            async with server.changed:
                server.changed.notify_all()
            assert (await anext(events)).seq == 1
    assert len(server.subscribes) == 1


async def test_the_daemons_refusal_of_a_subscription_is_raised_and_ends_it() -> None:
    async def script(socket: Socket) -> None:
        await socket.send(type="error", id=socket.subscribe["id"], code="FORBIDDEN", message="not with this token")
        await socket.wait_closed()

    async with peer(script) as server, connect(server.url) as client:
        async with client.subscribe("w") as events:
            with pytest.raises(Forbidden, match="not with this token"):
                await anext(events)
            assert [event async for event in events] == []


async def test_a_rate_limited_subscription_comes_back() -> None:
    async def first(socket: Socket) -> None:
        await socket.send(type="error", code="RATE_LIMITED", message="slowly", details={"retryAfterSeconds": 0})
        await socket.wait_closed()

    async def second(socket: Socket) -> None:
        await socket.confirm(0)
        await socket.outputs(1)
        await socket.wait_closed()

    async with peer(first, second) as server, connect(server.url, backoff=AT_ONCE) as client:
        assert seqs(await take(client, 1)) == [1]


async def test_two_tasks_may_not_iterate_one_subscription() -> None:
    async def script(socket: Socket) -> None:
        await socket.confirm(0)
        await socket.wait_closed()

    async with peer(script) as server, connect(server.url) as client:
        async with client.subscribe("w") as events, trio.open_nursery() as nursery:
            nursery.start_soon(events.__anext__)
            await server.until(lambda: len(server.subscribes) == 1)
            with pytest.raises(trio.BusyResourceError):
                await anext(events)
            nursery.cancel_scope.cancel()


async def test_each_command_goes_out_as_the_protocol_says() -> None:
    async with peer() as server, connect(server.url) as client:
        server.answer = lambda message: {"type": "submitted", "workOrderId": message["workOrderId"]}
        assert (await client.submit(REQUEST)).startswith("wo-")
        server.answer = lambda message: {"type": "ok"}
        await client.cancel("w", reason="enough")
        await client.send_message("r", "and now the tests")
        await client.interrupt("r")
        await client.close_input("r")
        await client.resolve_approval("q", "deny", message="no", updated_input={"a": 1})
        await client.ping()
    submitted, *rest = [{key: value for key, value in command.items() if key != "id"} for command in server.commands]
    assert (submitted["type"], submitted["taskPrompt"]) == ("submit", "do it")
    assert submitted["workspaceSource"] == {"type": "fresh"}
    assert rest == [
        {"type": "cancel", "workOrderId": "w", "reason": "enough"},
        {"type": "send_message", "runId": "r", "text": "and now the tests"},
        {"type": "interrupt", "runId": "r"},
        {"type": "close_input", "runId": "r"},
        {"type": "resolve_approval", "requestId": "q", "decision": "deny", "message": "no", "updatedInput": {"a": 1}},
    ]


async def test_answers_find_those_who_asked() -> None:
    async with peer() as server, connect(server.url) as client:
        server.answer = lambda message: (
            {"type": "ok"} if message["runId"] == "good" else {"type": "error", "code": "CONFLICT", "message": "over"}
        )
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.interrupt, "good")
            with pytest.raises(Conflict, match="over"):
                await client.interrupt("bad")


def hang_up_once(server: Peer, then: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def answer(message: dict[str, Any]) -> dict[str, Any] | None:
        return then if len(server.commands) > 1 else None

    return answer


async def test_a_command_that_got_no_answer_is_not_repeated() -> None:
    async with peer() as server, connect(server.url, backoff=AT_ONCE) as client:
        server.answer = hang_up_once(server, {"type": "ok"})
        with pytest.raises(Unreachable, match="whether it did what was asked is not known"):
            await client.send_message("r", "once")
        await client.send_message("r", "twice")  # on a connection of its own
    assert [command["text"] for command in server.commands] == ["once", "twice"]


async def test_a_submission_that_got_no_answer_is_repeated_with_the_same_id() -> None:
    async with peer() as server, connect(server.url, backoff=AT_ONCE) as client:
        server.answer = hang_up_once(server, {"type": "submitted", "workOrderId": "w"})
        assert await client.submit(REQUEST) == "w"
    first, second = (command["workOrderId"] for command in server.commands)
    assert first == second


async def test_an_exception_of_the_block_comes_out_as_it_is() -> None:
    async with peer() as server:
        with pytest.raises(ZeroDivisionError):
            async with connect(server.url):
                raise ZeroDivisionError


async def test_leaving_the_client_closes_every_connection() -> None:
    async def script(socket: Socket) -> None:
        await socket.confirm(0)
        await socket.outputs(1)
        await socket.wait_closed()

    scripts: list[Script] = [script, script]
    async with peer(*scripts) as server:
        async with connect(server.url) as client:
            kept = [client.subscribe("w"), client.subscribe("w")]
            for subscription in kept:
                await anext(subscription)
            assert server.open == 3
        await server.until(lambda: server.open == 0)


async def test_a_rate_limited_command_is_told() -> None:
    async with peer() as server, connect(server.url) as client:
        server.answer = lambda message: {"type": "error", "code": "RATE_LIMITED", "message": "slowly"}
        with pytest.raises(RateLimited):
            await client.interrupt("r")
