"""What a client of ``/ws`` sees, over real sockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
import trio_websocket
from websockets.asyncio.client import connect as foreign_connect
from websockets.exceptions import ConnectionClosed as ForeignClosed
from websockets.sync.client import connect as blocking_connect
from wsproto.handshake import H11Handshake

from agentstream.model.events import AgentError, AgentOutput, AgentOutputDelta, Event, WorkOrderCreated
from agentstream.model.orders import WorkOrder, WorkOrderRequest
from agentstream.server.websocket import WebSocketLimits
from tests.support.orchestration import Orchestration
from tests.support.service import PATIENCE, Service, open_service, until


def now() -> datetime:
    return datetime.now(UTC)


def outputs(work_order_id: str, texts: Sequence[str]) -> list[Event]:
    return [AgentOutput(work_order_id=work_order_id, run_id="r", timestamp=now(), content=text) for text in texts]


async def publish(service: Service, work_order_id: str, count: int, start: int = 0) -> None:
    await service.journal.append(outputs(work_order_id, [str(n) for n in range(start, start + count)]))


# --- subscribing ---------------------------------------------------------------------------------------------------


async def test_live_events_arrive_in_order_with_their_seq(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        confirmed = await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", id="1")
        assert confirmed["id"] == "1"
        assert confirmed["epoch"] == service.journal.epoch
        assert confirmed["seq"] == 0
        assert confirmed["filters"]["includeOutput"] is True
        await publish(service, "other", 2)
        await publish(service, "w", 3)
        heard = [await peer.expect("agent_output") for _ in range(3)]
        assert [(one["seq"], one["content"]) for one in heard] == [(3, "0"), (4, "1"), (5, "2")]


async def test_confirmation_then_replay_then_complete_then_live(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await publish(service, "w", 2000)
        await publish(service, "other", 10)
        await service.caught_up()
        async with service.connect() as peer:
            await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", sinceSeq=0)
            heard = await peer.until("replay_complete")
            assert [one["seq"] for one in heard] == [*range(1, 2001), 2010]
            await publish(service, "w", 1)
            assert (await peer.expect("agent_output"))["seq"] == 2011


async def test_replay_joins_live_while_events_pour_in(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, trio.open_nursery() as nursery:
        await publish(service, "w", 3000)

        async def pour() -> None:
            for start in range(3000, 9000, 20):
                await publish(service, "w", 20, start)

        nursery.start_soon(pour)
        async with service.connect() as peer:
            await peer.ask("subscribe", "subscription_confirmed", workOrderId="*", sinceSeq=0)
            contents: list[int] = []
            complete = 0
            while len(contents) < 9000 or not complete:
                message = await peer.hear()
                if message["type"] == "replay_complete":
                    complete += 1
                    assert message["seq"] == len(contents)
                else:
                    contents.append(int(message["content"]))
            assert contents == list(range(9000))
            assert complete == 1


async def test_a_connection_keeps_nothing_of_its_handshake(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as first, service.connect() as second:
        for peer in (first, second):
            await peer.ask("subscribe", "subscription_confirmed", workOrderId="w")
        gc.collect()
        kept = [one for one in gc.get_objects() if isinstance(one, H11Handshake) and not one.client]
        assert kept == []


async def test_replay_count_and_time(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        await publish(service, "w", 10)
        await service.caught_up()
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", replayCount=3)
        assert [one["seq"] for one in await peer.until("replay_complete")] == [8, 9, 10, 10]
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", replaySince="2020-01-01T00:00:00Z")
        assert len(await peer.until("replay_complete")) == 11
        error = await peer.ask("subscribe", "error", workOrderId="w", replayCount=3, sinceSeq=0, id="x")
        assert (error["code"], error["id"]) == ("INVALID_MESSAGE", "x")


async def test_filters_and_their_replacement(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer, service.connect() as other:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", filters={"includeOutput": False})
        await other.ask("subscribe", "subscription_confirmed", workOrderId="w")
        events = [
            *outputs("w", ["a"]),
            AgentError(work_order_id="w", run_id="r", timestamp=now(), message="m", code="X", source="agent"),
        ]
        await service.journal.append(events)
        await peer.expect("agent_error")
        assert [(await other.hear())["type"] for _ in range(2)] == ["agent_output", "agent_error"]
        confirmed = await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", includeOutput=True)
        assert confirmed["filters"]["includeOutput"] is True
        await publish(service, "w", 1)
        await peer.expect("agent_output")


async def test_nothing_comes_after_unsubscribing(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w")
        await peer.ask("unsubscribe", "unsubscription_confirmed", workOrderId="w")
        await publish(service, "w", 1)
        await service.caught_up()
        await peer.ask("ping", "pong", id="p")


async def test_a_new_work_order_is_told_to_everybody(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer, service.connect() as subscriber:
        await subscriber.ask("subscribe", "subscription_confirmed", workOrderId="*")
        submitted = {"taskPrompt": "x", "workspaceSource": {"type": "fresh"}, "agentType": "demo", "id": "mine"}
        await peer.say("submit", **submitted)
        heard = {one["type"]: one for one in [await peer.hear(), await peer.hear()]}
        assert heard["work_order_created"]["workOrderId"] == "mine"
        assert heard["submitted"] == {**heard["submitted"], "workOrderId": "mine", "id": "mine"}
        await subscriber.expect("work_order_created")


async def test_deltas_go_to_who_asked_for_them_and_are_not_replayed(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", includeDeltas=True)
        assert service.deltas == [("w", True)]
        delta = AgentOutputDelta(work_order_id="w", run_id="r", timestamp=now(), content="h")
        await service.journal.append([delta, *outputs("w", ["hello"])])
        assert "seq" not in await peer.expect("agent_output_delta")
        await peer.expect("agent_output")
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", includeDeltas=True, sinceSeq=0)
        assert [one["type"] for one in await peer.until("replay_complete")] == ["agent_output", "replay_complete"]
        await peer.ask("unsubscribe", "unsubscription_confirmed", workOrderId="w")
        assert service.deltas == [("w", True), ("w", False)]


async def test_another_epoch_is_a_gap_and_replays_everything_there_is(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        await publish(service, "w", 2)
        await service.caught_up()
        for asked in ({"sinceSeq": 1, "epoch": "of old"}, {"sinceSeq": 77}):
            await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", **asked)
            gap = await peer.expect("gap")
            assert (gap["reason"], gap["toSeq"]) == ("epoch", asked["sinceSeq"])
            assert [one["seq"] for one in await peer.until("replay_complete")] == [1, 2, 2]


async def test_a_rate_limit_is_told(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w", maxEventsPerSecond=0.001)
        last = AgentError(work_order_id="w", run_id="r", timestamp=now(), message="m", code="X", source="agent")
        await service.journal.append([*outputs("w", ["a", "b", "c"]), last])
        assert (await peer.expect("agent_output"))["content"] == "a"
        skipped = await peer.expect("events_skipped")
        assert (skipped["count"], skipped["fromSeq"], skipped["toSeq"]) == (2, 2, 3)
        await peer.expect("agent_error")


# --- who may come in -----------------------------------------------------------------------------------------------


async def test_every_place_for_a_token(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        async with service.connect() as peer:
            await peer.ask("ping", "pong")
        async with service.connect(None, path=f"/ws?token={service.token}") as peer:
            await peer.ask("ping", "pong")
        async with service.connect(None, subprotocols=["bearer." + service.token]) as peer:
            assert peer.websocket.subprotocol == "bearer." + service.token
            await peer.ask("ping", "pong")
        async with service.connect(None) as peer:
            assert (await peer.ask("auth", "ok", token=service.token, id="a"))["id"] == "a"
            await peer.ask("ping", "pong")


@pytest.mark.parametrize("how", ["header", "query", "message", "other message", "garbage", "again"])
async def test_a_wrong_token_is_told_and_closed_with_1008(tmp_path: Path, how: str) -> None:
    async with open_service(tmp_path) as service:
        token = {"header": "wrong", "again": service.token}.get(how)
        async with service.connect(token, path="/ws?token=wrong" if how == "query" else "/ws") as peer:
            if how in ("message", "again"):
                await peer.say("auth", token="wrong")
            elif how == "other message":
                await peer.say("subscribe", workOrderId="*")
            elif how == "garbage":
                await peer.websocket.send_message("garbage")
            assert (await peer.expect("error"))["code"] == "UNAUTHORIZED"
            assert await peer.closed() == 1008


async def test_who_does_not_answer_when_its_token_is_gone_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.server.websocket._CLOSE_SECONDS", 0.05)
    async with open_service(tmp_path) as service:
        token = service.tokens.create("gone", "read")
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        await stream.send_all(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        await until(lambda: service.broadcaster.statistics().subscribers == 1)
        service.tokens.revoke("gone")
        service.websocket.recheck()
        await until(lambda: service.broadcaster.statistics().subscribers == 0)
        with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await stream.aclose()
        # It was its connection that went, and nobody else's.
        async with service.connect() as peer:
            await peer.ask("ping", "pong")


async def test_silence_instead_of_a_token_is_closed_with_1008(tmp_path: Path) -> None:
    limits = WebSocketLimits(auth_seconds=0.05)
    async with open_service(tmp_path, limits=limits) as service, service.connect(None) as peer:
        await peer.expect("error")
        assert await peer.closed() == 1008


async def test_a_foreign_origin_hears_nothing_but_1008(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        async with service.connect(headers=[("origin", "https://evil.example")]) as peer:
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await peer.websocket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1008
        async with service.connect(headers=[("origin", f"http://127.0.0.1:{service.port}")]) as peer:
            await peer.ask("ping", "pong")


async def test_without_authentication_no_token_is_needed(tmp_path: Path) -> None:
    async with open_service(tmp_path, auth=False) as service, service.connect(None) as peer:
        await peer.ask("ping", "pong")


async def test_a_reader_may_not_control(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect(service.reader) as peer:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w")
        error = await peer.ask("cancel", "error", workOrderId="w", id="c")
        assert (error["code"], error["id"]) == ("FORBIDDEN", "c")


# --- what goes wrong -----------------------------------------------------------------------------------------------


async def test_an_error_is_answered_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        for text, code in [
            ("no json", "PARSE_ERROR"),
            ("[]", "PARSE_ERROR"),
            ('{"type":"nonsense","id":"7"}', "INVALID_MESSAGE"),
            ('{"type":"subscribe","workOrderId":"","id":"7"}', "INVALID_MESSAGE"),
            ('{"type":"subscribe","workOrderId":"' + "w" * 200 + '","id":"7"}', "INVALID_MESSAGE"),
            ('{"type":"cancel","id":"7"}', "INVALID_MESSAGE"),
            ('{"type":"cancel","workOrderId":"nobody","id":"7"}', "NOT_FOUND"),
        ]:
            await peer.websocket.send_message(text)
            error = await peer.expect("error")
            assert error["code"] == code
            assert error.get("id") == ("7" if "7" in text else None)
        await peer.websocket.send_message(b"binary")
        assert (await peer.expect("error"))["code"] == "INVALID_MESSAGE"
        await peer.ask("ping", "pong")


class Faulty(Orchestration):
    async def submit(self, request: WorkOrderRequest) -> tuple[WorkOrder, bool]:
        raise RuntimeError("inside")


async def test_a_fault_of_ours_is_answered_without_telling_our_inside(tmp_path: Path) -> None:
    async with open_service(tmp_path, orchestration_class=Faulty) as service, service.connect() as peer:
        error = await peer.ask("submit", "error", taskPrompt="x", workspaceSource={"type": "fresh"}, id="s")
        assert (error["code"], error["id"]) == ("INTERNAL_ERROR", "s")
        assert "inside" not in error["message"]
        await peer.ask("ping", "pong")


async def test_too_many_messages_are_refused_one_by_one(tmp_path: Path) -> None:
    limits = WebSocketLimits(messages_per_second=0.001, message_burst=2)
    async with open_service(tmp_path, limits=limits) as service, service.connect() as peer:
        await peer.ask("ping", "pong")
        await peer.ask("ping", "pong")
        error = await peer.ask("ping", "error", id="third")
        assert (error["code"], error["id"]) == ("RATE_LIMITED", "third")


async def test_subscriptions_are_bounded(tmp_path: Path) -> None:
    limits = WebSocketLimits(message_burst=2000)
    async with open_service(tmp_path, limits=limits) as service, service.connect() as peer:
        for number in range(1000):
            await peer.say("subscribe", workOrderId=f"w{number}")
        for _ in range(1000):
            await peer.expect("subscription_confirmed")
        assert (await peer.ask("subscribe", "error", workOrderId="one more"))["code"] == "TOO_LARGE"


async def test_a_slow_request_delays_neither_pings_nor_other_requests(tmp_path: Path) -> None:
    release = trio.Event()
    order: list[str] = []

    class Slow(Orchestration):
        async def send_message(self, run_id: str, text: str) -> None:
            if run_id == "slow":
                await release.wait()
            order.append(text)

    async with open_service(tmp_path, orchestration_class=Slow) as service, service.connect() as peer:
        await peer.say("send_message", runId="slow", text="first", id="1")
        await peer.say("send_message", runId="slow", text="second", id="2")
        assert (await peer.ask("send_message", "ok", runId="quick", text="third", id="3"))["id"] == "3"
        await peer.ask("ping", "pong")
        with trio.fail_after(PATIENCE):
            await peer.websocket.ping()
        release.set()
        assert [(await peer.expect("ok"))["id"] for _ in range(2)] == ["1", "2"]
        assert order == ["third", "first", "second"]


async def test_what_was_asked_for_is_done_though_the_client_hung_up(tmp_path: Path) -> None:
    begun, release, done = trio.Event(), trio.Event(), trio.Event()

    class Slow(Orchestration):
        async def interrupt(self, run_id: str) -> None:
            begun.set()
            await release.wait()
            done.set()

    async with open_service(tmp_path, orchestration_class=Slow) as service:
        async with service.connect() as peer:
            await peer.say("interrupt", runId="r")
            with trio.fail_after(PATIENCE):
                await begun.wait()
        await until(lambda: not service.broadcaster.statistics().subscribers)
        release.set()
        with trio.fail_after(PATIENCE):
            await done.wait()


async def test_a_dead_peer_is_found_and_a_quiet_one_is_kept(tmp_path: Path) -> None:
    limits = WebSocketLimits(ping_interval=0.1, ping_timeout=0.5)
    async with open_service(tmp_path, limits=limits) as service, service.connect() as quiet:
        dead = await trio.open_tcp_stream("127.0.0.1", service.port)
        await dead.send_all(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %b\r\n\r\n"
            % (service.port, service.token.encode())
        )
        await until(lambda: service.broadcaster.statistics().subscribers == 2)
        await until(lambda: service.broadcaster.statistics().subscribers == 1)
        await quiet.ask("ping", "pong")
        await dead.aclose()


async def test_the_end_of_the_daemon_is_told_after_the_last_events(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer, service.connect(None) as unknown:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="*")
        await publish(service, "w", 5000)
        await service.caught_up()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.door.close, 10)
            heard = [await peer.expect("agent_output") for _ in range(5000)]
            assert heard[-1]["seq"] == 5000
            assert await peer.closed() == 1001
            assert await unknown.closed() == 1001


# --- a client that is not ours -------------------------------------------------------------------------------------


async def _foreign(work: Any) -> Any:
    """Run asyncio code in a thread of its own."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(lambda: asyncio.run(work()))


async def test_a_foreign_client_gets_events_and_its_pings_answered(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        await publish(service, "w", 300)
        await service.caught_up()

        async def work() -> list[dict[str, Any]]:
            headers = {"Authorization": f"Bearer {service.token}"}
            async with foreign_connect(service.url, additional_headers=headers) as client:
                await client.send('{"type":"subscribe","workOrderId":"w","sinceSeq":0}')
                heard = [orjson.loads(await client.recv()) for _ in range(302)]
                await (await client.ping())
                return heard

        heard = await _foreign(work)
        assert [one["type"] for one in heard[:2]] == ["subscription_confirmed", "agent_output"]
        assert [one["seq"] for one in heard[1:]] == [*range(1, 301), 300]


async def test_a_foreign_client_whose_message_is_too_large_learns_it(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        # The one with threads: where the peer closes while much is to be sent, asyncio's transport may fail in its abort().
        def work() -> int | None:
            with blocking_connect(
                service.url, additional_headers={"Authorization": f"Bearer {service.token}"}
            ) as client:
                try:
                    client.send("x" * (4 * 1024 * 1024))
                    client.recv()
                except ForeignClosed as closed:
                    return closed.rcvd.code if closed.rcvd else None
            return None

        with trio.fail_after(PATIENCE):
            assert await trio.to_thread.run_sync(work) == 1009


async def test_a_foreign_client_closes_cleanly(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:

        async def work() -> int | None:
            headers = {"Authorization": f"Bearer {service.token}"}
            client = await foreign_connect(service.url, additional_headers=headers)
            await client.send('{"type":"subscribe","workOrderId":"*"}')
            await client.close(1000)
            return client.close_code

        assert await _foreign(work) == 1000
        await until(lambda: not service.broadcaster.statistics().subscribers)


async def test_created_events_reach_a_subscriber_of_something_else(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service, service.connect() as peer:
        await peer.ask("subscribe", "subscription_confirmed", workOrderId="w")
        created = WorkOrderCreated(work_order_id="v", timestamp=now(), task_prompt="p", status="queued")
        await service.journal.append([created, *outputs("v", ["no"]), *outputs("w", ["yes"])])
        await peer.expect("work_order_created")
        assert (await peer.expect("agent_output"))["content"] == "yes"
