"""Claude Code, the real one, through the daemon: over HTTP and WebSocket, with a client that shares no code with us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.end_to_end.house import Daemon
from tests.real_cli.conftest import Stage
from tests.real_cli.processes import marked
from tests.support.messages_api import MessagesAPI, fail, say, tool

pytestmark = pytest.mark.real_cli

#: Seconds; only keeps a hung test from holding up the suite.
_PATIENCE: Final = 60.0


def serve(stage: Stage, api: MessagesAPI, **env: str) -> Daemon:
    """A daemon for the stage's workspace."""
    environment = stage.environment(api, **env)
    return Daemon(stage.directory / "daemon", "--workspace-root", str(stage.workspace), env=environment)


def submit(daemon: Daemon, stage: Stage, **fields: Any) -> str:
    """A work order for Claude Code in the stage's workspace."""
    workspace = {"type": "local", "path": str(stage.workspace)}
    order = {"permissionMode": "bypassPermissions", "agentType": "claude-code", "workspaceSource": workspace}
    return daemon.submit("make hello", **{**order, **fields})


def call(daemon: Daemon, method: str, path: str, body: Any = None) -> Any:
    """The data of a call that must succeed."""
    status, answer = daemon.http(method, f"/api/v1{path}", body)
    assert status < 300, answer
    return answer["data"]


def program(daemon: Daemon | None, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user of the daemon."""
    environment = {**os.environ, **env}
    if daemon is not None:
        environment |= {"AGENTSTREAM_URL": daemon.address, "AGENTSTREAM_TOKEN": daemon.token}
    command = [sys.executable, "-m", "agentstream", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False)


def is_event(kind: str, **fields: Any) -> Callable[[dict[str, Any]], bool]:
    """For `Subscriber.until`."""
    return lambda message: message["type"] == kind and all(message.get(name) == fields[name] for name in fields)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_reaches_its_subscribers_live_in_order_and_filtered(stage: Stage) -> None:
    api = stage.model(
        say("I'll look first.", tool("Bash", command="ls; echo hi")),
        say("Now writing.", tool("Write", file_path="$WORKSPACE/hello.py", content="print('hello')\n")),
        say(tool("Bash", command="python3 hello.py; exit 3")),
        say("All done."),
    )
    with (
        serve(stage, api) as daemon,
        daemon.subscriber() as everything,
        daemon.subscriber() as no_output,
        daemon.subscriber() as another,
        daemon.subscriber() as deltas,
    ):
        everything.subscribe("wo-1")
        no_output.subscribe("wo-1", filters={"includeOutput": False, "includeProgress": False})
        another.subscribe("wo-2")
        deltas.subscribe("wo-1", includeDeltas=True)
        submit(daemon, stage, id="wo-1")
        for subscriber in (everything, no_output, deltas):
            subscriber.until_ended("wo-1")
        another.send(type="ping")
        another.until("pong")

        order_of_things = everything.types(without=["progress_update", "agent_usage", "agent_status", "file_changed"])
        calls, result, output = "agent_tool_call", "agent_tool_result", "agent_output"
        assert order_of_things == [
            *("subscription_confirmed", "work_order_created", "work_order_updated"),
            *("run_started", "agent_session"),
            *(output, calls, result, output, calls, result, calls, result, output),
            *("run_completed", "work_order_updated"),
        ]
        assert [event["success"] for event in everything.events(result)] == [True, True, False]
        assert ("hello.py", "created") in {(e["path"], e["action"]) for e in everything.events("file_changed")}
        assert everything.events("progress_update")[-1]["percentage"] == 100
        sequence = [event["seq"] for event in everything.seen if "seq" in event and "runId" in event]
        assert sequence == sorted(set(sequence))

        assert not {"agent_output", "progress_update"} & set(no_output.types())
        assert [e["seq"] for e in no_output.events(calls)] == [e["seq"] for e in everything.events(calls)]
        assert set(another.types()) <= {"subscription_confirmed", "work_order_created", "pong"}
        said = "".join(event["content"] for event in deltas.events("agent_output"))
        pieces = [event for event in deltas.seen if event["type"] == "agent_output_delta"]
        assert "".join(event["content"] for event in pieces) == said
        assert "agent_output_delta" not in everything.types()

        (run,) = call(daemon, "GET", "/runs?workOrderId=wo-1")["items"]
        assert (run["status"], run["result"], run["turns"]) == ("succeeded", "All done.", 4)
        assert run["totalCostUsd"] > 0
        with daemon.subscriber() as late:
            late.subscribe("wo-1", sinceSeq=0)
            late.until("replay_complete")
            replayed = [event for event in late.seen if "runId" in event]
        assert replayed == [event for event in everything.seen if "runId" in event]


def test_a_cancelled_run_leaves_nothing_and_goes_on_in_a_further_run(stage: Stage) -> None:
    api = stage.model(
        say("Sleeping.", tool("Bash", command="sleep 300 & setsid sleep 300", timeout=400_000)), say("I remember.")
    )
    with serve(stage, api) as daemon, daemon.subscriber() as subscriber:
        subscriber.subscribe("wo-1")
        submit(daemon, stage, id="wo-1")
        run_id = subscriber.until("run_started")["runId"]
        until(lambda: [command for _, command in marked(run_id)].count("sleep 300") == 2)
        call(daemon, "DELETE", "/work-orders/wo-1")
        assert list(marked(run_id)) == []
        session_id = subscriber.until("run_canceled")["sessionId"]
        subscriber.until(is_event("work_order_updated", status="canceled"))

        call(daemon, "POST", "/work-orders/wo-1/runs", {"resume": True, "taskPrompt": "Go on."})
        completed = subscriber.until("run_completed")
        assert (completed["sessionId"], completed["result"]) == (session_id, "I remember.")
        assert "make hello" in str(api.asked()[-1].body["messages"])


def test_approvals_from_a_socket_over_http_and_from_the_command_line(stage: Stage) -> None:
    api = stage.model(
        say(tool("Write", file_path="$WORKSPACE/a.txt", content="a")),
        say(tool("Bash", command="touch b.txt")),
        say(tool("Bash", command="touch c.txt")),
        say("Done."),
    )
    with serve(stage, api) as daemon, daemon.subscriber() as subscriber:
        subscriber.subscribe("wo-1")
        submit(daemon, stage, id="wo-1", permissionMode="default")
        first = subscriber.until(is_event("approval_requested", toolName="Write"))["requestId"]
        # Still open for somebody who comes later.
        assert [request["requestId"] for request in call(daemon, "GET", "/approvals")["items"]] == [first]
        subscriber.send(type="resolve_approval", id="1", requestId=first, decision="allow")
        second = subscriber.until(is_event("approval_requested", toolName="Bash"))["requestId"]
        call(daemon, "POST", f"/approvals/{second}", {"decision": "deny", "message": "Not in my house."})
        third = subscriber.until(is_event("approval_requested", toolName="Bash"))["requestId"]
        approved = program(daemon, "approve", third)
        assert approved.returncode == 0, approved.stderr
        subscriber.until(is_event("run_completed", result="Done."))
        assert [event["decision"] for event in subscriber.events("approval_resolved")] == ["allow", "deny", "allow"]
        written, denied, touched = subscriber.events("agent_tool_result")
        assert (written["success"], denied["success"], touched["success"]) == (True, False, True)
        assert "Not in my house." in denied["contentPreview"]
        assert not (stage.workspace / "b.txt").exists()
        assert (stage.workspace / "c.txt").exists()


def test_a_conversation_over_the_wire(stage: Stage) -> None:
    api = stage.model(
        say("First."),
        say("Sleeping.", tool("Bash", command="sleep 300", timeout=400_000)),
        say("Third."),
    )
    with serve(stage, api) as daemon, daemon.subscriber() as subscriber:
        subscriber.subscribe("wo-1")
        submit(daemon, stage, id="wo-1", interactive=True)
        run_id = subscriber.until("run_started")["runId"]
        subscriber.until(is_event("agent_output", content="First."))
        subscriber.send(type="send_message", id="1", runId=run_id, text="And now sleep.")
        subscriber.until(is_event("ok", id="1"))
        until(lambda: any(command == "sleep 300" for _, command in marked(run_id)))
        call(daemon, "POST", f"/runs/{run_id}/interrupt")
        subscriber.until(is_event("agent_tool_result", success=False))
        call(daemon, "POST", f"/runs/{run_id}/messages", {"text": "Enough of that."})
        subscriber.until(is_event("agent_output", content="Third."))
        subscriber.send(type="close_input", id="2", runId=run_id)
        assert subscriber.until("run_completed")["result"] == "Third."


def test_what_is_worth_it_is_tried_again_and_a_rate_limit_waits_until_it_resets(stage: Stage) -> None:
    resets_at = int(time.time()) + 4
    rejected = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(resets_at),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "retry-after": "3600",
    }
    api = stage.model(fail(429, headers=rejected), say("Fine."))
    login = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up"}
    with serve(stage, api, **login) as daemon, daemon.subscriber() as subscriber:
        subscriber.subscribe("wo-1")
        submit(daemon, stage, id="wo-1", maxAttempts=2)
        assert subscriber.until("run_failed")["errorCode"] == "RATE_LIMITED"
        scheduled = subscriber.until("run_retry_scheduled")
        assert scheduled["retryAt"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(resets_at))
        subscriber.until(is_event("work_order_updated", status="succeeded"))
        assert time.time() >= resets_at
        assert [event["runNumber"] for event in subscriber.events("run_started")] == [1, 2]


def test_kill_9_of_the_daemon_leaves_no_agent(stage: Stage) -> None:
    api = stage.model(say("Sleeping.", tool("Bash", command="sleep 300 & setsid sleep 300", timeout=400_000)))
    with serve(stage, api) as daemon, daemon.subscriber() as subscriber:
        subscriber.subscribe("wo-1")
        submit(daemon, stage, id="wo-1")
        run_id = subscriber.until("run_started")["runId"]
        until(lambda: [command for _, command in marked(run_id)].count("sleep 300") == 2)
        daemon.signal(signal.SIGKILL)
        until(lambda: not list(marked(run_id)))


def test_the_command_line_runs_it_and_tells_which_login_it_has(stage: Stage) -> None:
    api = stage.model(say(tool("Bash", command="echo from-the-tool")), say("Done."), fail(400, message="odd"))
    environment = stage.environment(api)
    run = ("run", "make hello", "--cwd", str(stage.workspace))
    ran = program(None, *run, "--json", **environment)
    assert ran.returncode == 0, ran.stderr
    types = [json.loads(line)["type"] for line in ran.stdout.splitlines()]
    assert (types[0], types[-1]) == ("run_started", "run_completed")
    failed = program(None, *run, **environment)
    assert failed.returncode == 1
    assert "odd" in failed.stdout + failed.stderr
    with serve(stage, api) as daemon:
        listed = program(daemon, "agents")
        assert "API key (ANTHROPIC_API_KEY), through the gateway" in " ".join(listed.stdout.split())
        assert "sk-fake" not in listed.stdout + json.dumps(call(daemon, "GET", "/agents"))
