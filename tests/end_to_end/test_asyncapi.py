"""What really goes over the WebSocket is what the AsyncAPI document of the same daemon says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.end_to_end.house import Daemon
from tests.support.schema import problems


def check(message: dict[str, Any], document: dict[str, Any], operation: str) -> list[str]:
    """What is wrong with one message of a direction: ``fromClient`` or ``toClient``."""
    allowed = {entry["$ref"].rpartition("/")[2] for entry in document["operations"][operation]["messages"]}
    kind = message["type"]
    if kind not in allowed:
        return [f"{kind} is no message {operation}"]
    return problems(message, document["components"]["messages"][kind]["payload"], document, kind)


def test_recorded_messages_are_those_of_the_document(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    with Daemon(tmp_path) as daemon, daemon.subscriber() as watcher:

        def send(**message: Any) -> None:
            sent.append(message)
            watcher.send(**message)

        _, document = daemon.http("GET", "/asyncapi.json")
        everything = {"includeRaw": True, "includeDeltas": True, "includeThinking": True}
        send(type="subscribe", workOrderId="*", filters=everything, id="1")
        send(type="ping", id="2")
        send(type="auth", token=daemon.token, id="3")
        body = {
            "taskPrompt": "make something",
            "workspaceSource": {"type": "fresh"},
            "agentType": "demo",
            "env": {"DEMO_PACE": "0"},
        }
        send(type="submit", **body, id="shown")
        watcher.until_ended("shown")
        local = {"type": "local", "path": str(daemon.root)}
        send(type="submit", taskPrompt="echo up; sleep 1000", workspaceSource=local, agentType="command", id="stopped")
        run_id = watcher.until(lambda m: m["type"] == "agent_output" and m["workOrderId"] == "stopped")["runId"]
        for message in (
            {"type": "interrupt", "runId": run_id},
            {"type": "send_message", "runId": run_id, "text": "hello"},
            {"type": "close_input", "runId": run_id},
            {"type": "resolve_approval", "requestId": "none", "decision": "allow"},
            {"type": "cancel", "workOrderId": "stopped", "reason": "enough"},
        ):
            send(**message, id=message["type"])
        watcher.until_ended("stopped")
        send(type="submit", taskPrompt="echo bad >&2; exit 3", workspaceSource=local, agentType="command", id="failing")
        watcher.until_ended("failing")
        send(type="unsubscribe", workOrderId="*", id="4")
        watcher.until("unsubscription_confirmed")
        send(type="subscribe", workOrderId="shown", sinceSeq=0, epoch="another", id="5")
        watcher.until("replay_complete")
    # Read back from its JSON, as a client in any language would.
    document = json.loads(json.dumps(document))
    wrong = [text for message in watcher.seen for text in check(message, document, "toClient")]
    wrong += [text for message in sent for text in check(message, document, "fromClient")]
    assert wrong == []
    seen = {message["type"] for message in watcher.seen}
    assert seen >= {
        *("subscription_confirmed", "unsubscription_confirmed", "pong", "ok", "error", "submitted", "gap"),
        *("replay_complete", "work_order_created", "work_order_updated", "run_started", "run_completed", "run_failed"),
        *("run_canceled", "agent_session", "agent_tool_call", "agent_tool_result", "agent_output", "agent_error"),
        *("file_changed", "progress_update"),
    }
