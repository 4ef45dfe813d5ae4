"""SIGHUP and a second SIGTERM, on real daemons: what changes, what stays, and that nobody is dropped."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from agentstream.config import load
from agentstream.reload import changes
from agentstream.server.tokens import TokenStore
from agentstream.settings import AgentSettings
from tests.end_to_end.house import PATIENCE, Daemon


def bearer(daemon: Daemon) -> list[Subprotocol]:
    """How a page shows its token."""
    return [Subprotocol(f"bearer.{daemon.token}")]


def reload(daemon: Daemon, expected: str = '"reloaded"') -> str:
    """SIGHUP, and wait until the daemon told what came of it."""
    daemon.errors.clear()
    daemon.signal(signal.SIGHUP)
    return daemon.logged(expected)


def test_differences_are_named_and_values_are_not(tmp_path: Path) -> None:
    old = load({"runs.workspace_roots": (str(tmp_path),)}, {"HOME": str(tmp_path)})
    new = attrs.evolve(
        old,
        server=attrs.evolve(old.server, port=1),
        log=attrs.evolve(old.log, level="debug"),
        agents={"demo": AgentSettings(env={"KEY": "hidden"})},
    )
    assert list(changes(old, new)) == ["server.port", "log.level", "agents.demo"]
    assert list(changes(new, new)) == []


def test_new_settings_hold_for_new_runs_and_nobody_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[agents.command]\nenv = {GREETING = 'old'}\n")
    with Daemon(tmp_path, "--config", str(file)) as daemon, daemon.subscriber() as watcher:
        watcher.subscribe("long")
        watcher.subscribe("next")
        daemon.submit("echo $GREETING; while [ ! -e go ]; do sleep 0.05; done; echo $GREETING", id="long")
        watcher.until("agent_output")
        file.write_text(
            "[agents.command]\nenv = {GREETING = 'new'}\n[limits]\nopen_files = 99\n[server]\nport = 1\n"
            "allowed_origins = ['https://friend.example']\n[journal]\nretention_events = 5\n"
        )
        told = reload(daemon)
        assert "limits.open_files" in told
        assert "agents.command" in told
        # --port was a flag, and a flag wins; the journal's settings wait.
        assert '"at_restart":["journal.retention_events"]' in told
        daemon.submit("echo $GREETING; ulimit -n", id="next")
        watcher.until_ended("next")
        (daemon.root / "go").touch()
        watcher.until_ended("long")
        said = {
            key: "\n".join(e["content"] for e in watcher.events("agent_output") if e["workOrderId"] == key)
            for key in ("long", "next")
        }
        assert said == {"long": "old\nold", "next": "new\n99"}
        # A page of that origin is let in now, over HTTP and over WebSocket.
        friend = {"Origin": "https://friend.example", "Authorization": f"Bearer {daemon.token}"}
        connection = http.client.HTTPConnection(daemon.address.removeprefix("http://"), timeout=PATIENCE)
        connection.request("GET", "/api/v1/work-orders", headers=friend)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        connection.close()
        url = daemon.address.replace("http", "ws", 1) + "/ws"
        with connect(url, origin=Origin("https://friend.example"), subprotocols=bearer(daemon)) as page:
            page.send('{"type": "ping"}')
            assert '"pong"' in page.recv(PATIENCE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[server]\nprot = 1\n", "did you mean server.port"),
        ("[agents.hal]\ncommand = ['hal']\n", "no such agent type"),
        ("not toml", "not TOML"),
        ("[server]\nallowed_hosts = ['a b']\n", "is no NAME"),
    ],
)
def test_wrong_settings_change_nothing(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[agents.command]\nenv = {GREETING = 'old'}\n")
    with Daemon(tmp_path, "--config", str(file)) as daemon, daemon.subscriber() as watcher:
        file.write_text(content)
        assert reason in reload(daemon, "the reload failed")
        watcher.subscribe("w")
        daemon.submit("echo $GREETING", id="w")
        watcher.until_ended("w")
        assert [event["content"] for event in watcher.events("agent_output")] == ["old"]


def test_tokens_need_no_reload(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        store = TokenStore(daemon.data)
        made = store.create("ci", "read")
        assert daemon.http("GET", "/api/v1/work-orders", token=made)[0] == 200
        store.revoke("ci")
        assert daemon.http("GET", "/api/v1/work-orders", token=made)[0] == 401


def certificate(directory: Path, name: str) -> bytes:
    """Make ``cert.pem`` and ``key.pem`` for loopback; the certificate as bytes."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return ssl.PEM_cert_to_DER_cert((directory / "cert.pem").read_text())


def test_a_renewed_certificate_is_shown_to_new_connections_and_the_old_ones_stay(tmp_path: Path) -> None:
    first = certificate(tmp_path, "first")
    file = tmp_path / "a.toml"
    file.write_text(f"[server]\ntls_cert = '{tmp_path}/cert.pem'\ntls_key = '{tmp_path}/key.pem'\n")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def ask(connection: http.client.HTTPSConnection) -> bytes | None:
        connection.request("GET", "/health")
        with connection.getresponse() as answer:
            assert answer.status == 200
            answer.read()
        assert isinstance(connection.sock, ssl.SSLSocket)
        return connection.sock.getpeercert(binary_form=True)

    with Daemon(tmp_path, "--config", str(file)) as daemon:
        assert daemon.address.startswith("https://")
        address = daemon.address.removeprefix("https://")
        old = http.client.HTTPSConnection(address, timeout=PATIENCE, context=context)
        assert ask(old) == first
        (tmp_path / "key.pem").write_text("half a key")
        reload(daemon, "the reload failed")
        assert ask(old) == first
        fresh = http.client.HTTPSConnection(address, timeout=PATIENCE, context=context)
        assert ask(fresh) == first
        fresh.close()
        second = certificate(tmp_path, "second")
        reload(daemon)
        fresh = http.client.HTTPSConnection(address, timeout=PATIENCE, context=context)
        assert ask(fresh) == second
        assert ask(old) == first
        old.close()
        fresh.close()


def test_a_second_signal_ends_the_grace(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[runs]\nshutdown_grace_seconds = 1000\n")
    with Daemon(tmp_path, "--config", str(file)) as daemon, daemon.subscriber() as watcher:
        watcher.subscribe("s")
        daemon.submit("echo up; sleep 2000", id="s")
        watcher.until("agent_output")
        daemon.signal(signal.SIGTERM)
        daemon.logged('"stopping"')
        # Meanwhile nobody new comes in, and the run goes on.
        host, _, port = daemon.address.removeprefix("http://").partition(":")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), 5).close()
            except OSError:
                break
        assert daemon.process is not None
        assert daemon.process.poll() is None
        assert watcher.events("run_canceled") == []
        daemon.signal(signal.SIGTERM)
        watcher.until_ended("s")
        assert len(watcher.events("run_canceled")) == 1
        assert daemon.wait() == 0


def test_a_run_may_finish_within_the_grace(tmp_path: Path) -> None:
    with Daemon(tmp_path, env={"AGENTSTREAM_RUNS_SHUTDOWN_GRACE_SECONDS": "1000"}) as daemon:
        with daemon.subscriber() as watcher:
            watcher.subscribe("s")
            daemon.submit("echo up; while [ ! -e go ]; do sleep 0.05; done; echo done", id="s")
            watcher.until("agent_output")
            daemon.signal(signal.SIGTERM)
            daemon.logged('"stopping"')
            (daemon.root / "go").touch()
            assert watcher.until_ended("s")["status"] == "succeeded"
        assert daemon.wait() == 0


def test_a_hangup_that_the_parent_ignores_stays_ignored(tmp_path: Path) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    with Daemon(tmp_path, prefix=[sys.executable, "-c", ignoring]) as daemon:
        daemon.signal(signal.SIGHUP)
        assert daemon.http("GET", "/health")[0] == 200
        assert daemon.stop() == 0
        assert not any("reload" in line for line in daemon.errors)
