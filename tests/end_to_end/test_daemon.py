"""The whole product as a user meets it: the daemon is a child process, the subscriber is not made with trio-websocket."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from agentstream.runs.process import find_processes
from tests.end_to_end.house import PATIENCE, Daemon, Subscriber


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path)


def test_a_demo_run_arrives_live_and_in_order(daemon: Daemon) -> None:
    with daemon, daemon.subscriber() as watcher:
        confirmed = watcher.subscribe("demo-1")
        assert confirmed["filters"]["includeToolCalls"] is True
        daemon.submit(
            "Make something small",
            agentType="demo",
            id="demo-1",
            workspaceSource={"type": "fresh"},
            env={"DEMO_PACE": "0"},
        )
        watcher.until_ended("demo-1")
        types = watcher.types()
        assert types[:4] == ["subscription_confirmed", "work_order_created", "work_order_updated", "run_started"]
        assert types[-2:] == ["run_completed", "work_order_updated"]
        assert {"agent_session", "agent_tool_call", "agent_tool_result", "agent_output", "file_changed"} <= set(types)
        # Every call has its result, after it.
        calls = [event["toolUseId"] for event in watcher.events("agent_tool_call")]
        results = [event["toolUseId"] for event in watcher.events("agent_tool_result")]
        assert calls == results
        for call in calls:
            kinds = [event["type"] for event in watcher.events() if event.get("toolUseId") == call]
            assert kinds == ["agent_tool_call", "agent_tool_result"]
        seqs = [event["seq"] for event in watcher.events()]
        assert seqs == sorted(set(seqs))
        progress = [event["percentage"] for event in watcher.events("progress_update")]
        assert progress == sorted(progress)
        assert progress[-1] == 100


def test_filters_and_work_orders_are_kept_apart(daemon: Daemon) -> None:
    with daemon, daemon.subscriber() as all_of_it, daemon.subscriber() as quiet, daemon.subscriber() as elsewhere:
        all_of_it.subscribe("a")
        quiet.subscribe("a", filters={"includeOutput": False, "includeProgress": False})
        elsewhere.subscribe("b")
        daemon.submit("echo one; echo two > file", id="a")
        all_of_it.until_ended("a")
        quiet.until_ended("a")
        assert [event["content"] for event in all_of_it.events("agent_output")] == ["one"]
        assert quiet.events("agent_output", "progress_update") == []
        assert len(quiet.events("file_changed")) == 1
        daemon.submit("echo three", id="b")
        elsewhere.until_ended("b")
        # Creation is told to everybody; nothing else of another work order is.
        assert {event["type"] for event in elsewhere.events() if event["workOrderId"] == "a"} == {"work_order_created"}


def test_cancel_over_websocket_leaves_nothing(daemon: Daemon) -> None:
    with daemon, daemon.subscriber() as watcher:
        watcher.subscribe("c")
        daemon.submit("echo up; setsid sleep 1000 & sleep 1000", id="c")
        run_id = watcher.until("agent_output")["runId"]
        assert run_id in find_processes().values()
        watcher.send(type="cancel", workOrderId="c", reason="enough", id="q1")
        watcher.until_ended("c")
        [canceled] = watcher.events("run_canceled")
        assert canceled["reason"] == "enough"
        assert run_id not in find_processes().values()
        if not any(message["type"] == "ok" for message in watcher.seen):
            assert watcher.until("ok")["id"] == "q1"


def test_bad_messages_are_told_and_lose_nothing(daemon: Daemon) -> None:
    with daemon, daemon.subscriber() as watcher:
        watcher.socket.send("not json")
        assert watcher.until("error")["code"] == "PARSE_ERROR"
        watcher.send(type="subscribe", workOrderId="")
        assert watcher.until("error")["code"] == "INVALID_MESSAGE"
        watcher.send(type="cancel", workOrderId="nothing", id="x")
        error = watcher.until("error")
        assert (error["code"], error["id"]) == ("NOT_FOUND", "x")
        watcher.send(type="ping", id="p")
        assert watcher.until("pong")["id"] == "p"


def test_who_has_no_token_stays_outside(daemon: Daemon) -> None:
    with daemon:
        status, answer = daemon.http("GET", "/api/v1/work-orders", token="wrong")
        assert (status, answer["error"]["code"]) == (401, "UNAUTHORIZED")
        with daemon.subscriber(token="wrong") as stranger:
            assert stranger.receive()["code"] == "UNAUTHORIZED"
            with pytest.raises(ConnectionClosed) as closed:
                stranger.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert daemon.http("GET", "/health", token="wrong")[0] == 200
        assert (daemon.data / "token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stopping_tells_subscribers_and_ends_runs(daemon: Daemon, number: int) -> None:
    with daemon, daemon.subscriber() as watcher:
        watcher.subscribe("s")
        daemon.submit("echo up; sleep 1000", id="s")
        run_id = watcher.until("agent_output")["runId"]
        daemon.signal(number)
        watcher.until_ended("s")
        with pytest.raises(ConnectionClosed) as closed:
            watcher.until(lambda _: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert daemon.wait() == 0
        assert run_id not in find_processes().values()


def test_replay_after_kill_9(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with daemon, daemon.subscriber() as watcher:
        confirmed = watcher.subscribe("k")
        daemon.submit("for i in $(seq 100000); do echo line $i; done; sleep 1000", id="k")
        for _ in range(5):
            watcher.until("agent_output")
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        seen = watcher.events()
    run_id = seen[-1]["runId"]
    with Daemon(tmp_path) as again, again.subscriber() as watcher:
        watcher.subscribe("k", sinceSeq=0, epoch=confirmed["epoch"])
        watcher.until("replay_complete")
        replayed = watcher.events()
        assert replayed[: len(seen)] == seen
        assert replayed[-1]["status"] == "failed"
        [failed] = watcher.events("run_failed")
        assert failed["errorCode"] == "INTERRUPTED"
        assert run_id not in find_processes().values()


def test_the_log_has_a_line_for_each_change_and_nothing_of_what_was_said(daemon: Daemon) -> None:
    with daemon, daemon.subscriber() as watcher:
        watcher.subscribe("w")
        daemon.submit("echo an-answer; echo a-complaint >&2; exit 3", id="w", env={"GREETING": "a-greeting"})
        run_id = watcher.until("run_failed")["runId"]
        watcher.until_ended("w")
        daemon.stop()
        lines = [json.loads(line) for line in daemon.errors]
    about = [line for line in lines if line.get("work_order_id") == "w"]
    assert [(line["event"], line["level"], line.get("run_id")) for line in about] == [
        ("work order queued", "info", None),
        ("run started", "info", run_id),
        ("run ended", "info", run_id),
    ]
    assert about[-1]["status"] == "failed"
    assert [line["event"] for line in lines if line not in about] == ["listening", "stopping", "stopped"]
    everything = "".join(daemon.errors)
    assert [text for text in ("an-answer", "a-complaint", "a-greeting", daemon.token) if text in everything] == []


def test_one_data_directory_takes_one_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path):
        with pytest.raises(AssertionError, match="another agentstream daemon uses"):
            Daemon(tmp_path).start()


def test_an_address_that_is_taken_is_told_with_what_to_do(tmp_path: Path) -> None:
    with Daemon(tmp_path / "a") as first:
        port = first.address.rpartition(":")[2]
        with pytest.raises(AssertionError, match="stop who listens there, or choose another one"):
            Daemon(tmp_path / "b", "--port", port).start()


def test_a_stopped_subscriber_delays_nobody(daemon: Daemon) -> None:
    with daemon, daemon.subscriber() as slow, daemon.subscriber() as quick:
        slow.subscribe("f")
        quick.subscribe("f")
        daemon.submit("seq 1 200000", id="f")
        quick.until_ended("f")
        slow.until_ended("f")
        numbers = [int(line) for event in slow.events("agent_output") for line in event["content"].split("\n")]
        assert numbers == list(range(1, 200_001))


def test_nothing_of_the_daemon_is_left(daemon: Daemon) -> None:
    with daemon:
        assert daemon.process is not None
        pid = daemon.process.pid
        assert daemon.stop() == 0
    assert not Path(f"/proc/{pid}").exists() or os.waitpid(pid, os.WNOHANG) == (0, 0)


__all__ = ["PATIENCE", "Subscriber"]
