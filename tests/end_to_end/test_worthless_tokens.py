"""A token that is revoked or expires ends what came in with it, on a real daemon, and nothing else."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from agentstream.server.tokens import TokenStore
from tests.end_to_end.house import PATIENCE, Daemon, Subscriber

REASON = "the token was revoked or has expired"


def command(daemon: Daemon, *words: str) -> str:
    """``agentstream token ...``: what it prints."""
    argv = [sys.executable, "-m", "agentstream", "token", "--data-dir", str(daemon.data), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.strip()


def farewell(watcher: Subscriber) -> str:
    """Read on to the end: the code of the last error; the connection was closed with 1008 and the reason."""
    with pytest.raises(ConnectionClosed) as closed:
        watcher.until(lambda _: False)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, REASON)
    assert watcher.seen[-1]["type"] == "error"
    return str(watcher.seen[-1]["code"])


def test_revoking_a_token_ends_its_connections_and_no_others(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        token = command(daemon, "create", "gone", "--scope", "read").splitlines()[-1]
        with (
            daemon.subscriber(token=token) as gone,
            daemon.subscriber(token=token) as idle,
            daemon.subscriber() as stays,
        ):
            gone.subscribe("w")
            stays.subscribe("w")
            daemon.submit("while :; do echo again; sleep 0.02; done", id="w")
            gone.until("agent_output")
            daemon.submit("echo once", id="quiet")
            stays.subscribe("quiet")
            stays.until_ended("quiet")
            stream = http.client.HTTPConnection(daemon.address.removeprefix("http://"), timeout=PATIENCE)
            stream.request(
                "GET", f"/api/v1/work-orders/quiet/events?token={token}", headers={"Accept": "text/event-stream"}
            )
            events = stream.getresponse()
            assert events.readline().startswith(b"retry:")
            command(daemon, "revoke", "gone")
            assert farewell(gone) == farewell(idle) == "UNAUTHORIZED"
            # The answer ends as answers do: an EventSource comes back, and is told 401.
            assert b"agent_output" in events.read()
            stream.close()
            after = stays.seen[-1].get("seq", 0)
            stays.until(lambda message: message["type"] == "agent_output" and message["seq"] > after + 5)
            stays.send(type="cancel", workOrderId="w")
            stays.until_ended("w")
            # The name is free again; who holds the old token is not the one who gets it.
            command(daemon, "create", "gone", "--scope", "read")
            assert daemon.http("GET", "/api/v1/work-orders", token=token)[0] == 401


def test_a_token_that_expires_ends_an_idle_connection(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        token = TokenStore(daemon.data).create("short", "read")
        with daemon.subscriber(token=token) as watcher:
            watcher.subscribe("*")
            # Only now, so that however slow this machine is, it is valid when it is shown.
            file = daemon.data / "tokens.json"
            content = json.loads(file.read_text())
            expires_at = datetime.now(UTC) + timedelta(seconds=2)
            content["tokens"][-1]["expiresAt"] = expires_at.isoformat()
            file.write_text(json.dumps(content))
            assert farewell(watcher) == "UNAUTHORIZED"
            assert datetime.now(UTC) >= expires_at


def test_a_connection_whose_token_is_gone_commands_nothing_any_more(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        store = TokenStore(daemon.data)
        with daemon.subscriber(token=store.create("gone", "control")) as gone:
            gone.send(type="ping")
            gone.until("pong")
            store.revoke("gone")
            # At once, not only when the daemon comes round to looking.
            body = {"taskPrompt": "true", "workspaceSource": {"type": "fresh"}, "agentType": "command"}
            gone.send(type="submit", id="late", **body)
            assert farewell(gone) == "UNAUTHORIZED"
        assert daemon.http("GET", "/api/v1/work-orders/late")[0] == 404
