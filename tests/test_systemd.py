"""The daemon as systemd meets it: a real notify socket, and sockets that are handed over."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentstream.systemd import Notifier
from tests.end_to_end.house import PATIENCE, Daemon

ACTIVATE = shutil.which("systemd-socket-activate")

Notice = dict[str, str]


class Manager:
    """systemd's end of the notify socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.seen: list[Notice] = []

    def until(self, wanted: Callable[[Notice], bool]) -> Notice:
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            text = self.socket.recv(65536).decode()
            notice = dict(line.partition("=")[::2] for line in text.splitlines())
            self.seen.append(notice)
            if wanted(notice):
                return notice
        raise AssertionError(f"systemd was told only {self.seen}")

    def drain(self) -> None:
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(65536)

    def until_key(self, key: str) -> Notice:
        return self.until(lambda notice: key in notice)


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@agentstream-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    yield made
    made.socket.close()


def test_systemd_hears_of_a_whole_life(tmp_path: Path, address: str, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    with Daemon(tmp_path, env=env) as daemon:
        assert manager.until_key("READY")["STATUS"].startswith("0 running")
        # The watchdog is fed again and again, from the event loop, and tells what goes on.
        for _ in range(3):
            assert manager.until_key("WATCHDOG")["WATCHDOG"] == "1"
        daemon.submit("sleep 1000", id="w")
        manager.until(lambda notice: notice.get("STATUS", "").startswith("1 running"))

        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.signal(signal.SIGHUP)
        notice = manager.until_key("RELOADING")
        assert before <= int(notice["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.until_key("READY")["READY"] == "1"

        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGTERM)
        # A grace longer than TimeoutStopSec is asked for.
        assert manager.until_key("STOPPING")["EXTEND_TIMEOUT_USEC"] == "35000000"
        # It is fed to the end: systemd's watchdog does not stop with STOPPING=1.
        manager.until_key("WATCHDOG")
        assert daemon.wait() == 0


def test_the_watchdog_is_not_fed_for_somebody_else(tmp_path: Path) -> None:
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_seconds is None
    assert Notifier({"WATCHDOG_USEC": "1000000"}).watchdog_seconds == 1.0


def test_a_stopped_daemon_feeds_no_watchdog(tmp_path: Path) -> None:
    """What the watchdog is for: a loop that hangs is silent. SIGSTOP is the surest way to hang one."""
    manager = Manager(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
    with Daemon(tmp_path, env=env) as daemon:
        manager.until_key("WATCHDOG")
        assert daemon.process is not None
        daemon.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOWAIT)
        manager.drain()
        # Ten times the interval.
        manager.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            manager.socket.recv(65536)
        daemon.signal(signal.SIGCONT)
        manager.until_key("WATCHDOG")
    manager.socket.close()


# --- socket activation ---------------------------------------------------------------------------------------------------

#: Does what systemd does: leaves a listening socket as descriptor 3 and says so, then becomes the daemon.
HAND_OVER = """
import os, socket, sys
kind, address, *command = sys.argv[1:]
if kind == "tcp":
    sock = socket.create_server((address, 0))
else:
    sock = socket.socket(socket.AF_UNIX); sock.bind(address); sock.listen()
os.dup2(sock.fileno(), 3); os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execvp(command[0], command)
"""


def test_a_handed_over_port_is_served_and_told(tmp_path: Path) -> None:
    with Daemon(tmp_path, prefix=[sys.executable, "-c", HAND_OVER, "tcp", "127.0.0.2"]) as daemon:
        assert daemon.address.startswith("http://127.0.0.2:")
        assert daemon.http("GET", "/api/v1/work-orders")[0] == 200
        assert (daemon.data / "url").read_text().strip() == daemon.address
        with daemon.subscriber() as watcher:
            watcher.subscribe("s")
            daemon.submit("env | grep -c -e LISTEN_ -e NOTIFY_", id="s")
            watcher.until_ended("s")
            assert [event["content"] for event in watcher.events("agent_output")] == ["0"]


def test_a_handed_over_unix_socket_is_served(tmp_path: Path) -> None:
    path = tmp_path / "handed"
    with Daemon(tmp_path, prefix=[sys.executable, "-c", HAND_OVER, "unix", str(path)]) as daemon:
        assert daemon.address == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_handed_over_address_is_no_way_around_the_rules(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="without TLS would send tokens in the clear"):
        Daemon(tmp_path, prefix=[sys.executable, "-c", HAND_OVER, "tcp", "0.0.0.0"]).start()
    with pytest.raises(AssertionError, match="--no-auth on"):
        Daemon(tmp_path, "--no-auth", prefix=[sys.executable, "-c", HAND_OVER, "tcp", "0.0.0.0"]).start()


@pytest.mark.skipif(ACTIVATE is None, reason="needs systemd-socket-activate (Debian's package systemd)")
def test_the_first_connection_starts_it(tmp_path: Path) -> None:
    assert ACTIVATE is not None
    path = tmp_path / "activated"
    flags = ["--data-dir", str(tmp_path / "data"), "--workspace-root", str(tmp_path)]
    with subprocess.Popen(
        [ACTIVATE, "--listen", str(path), sys.executable, "-m", "agentstream", "serve", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            assert b"Listening on" in process.stderr.readline()
            assert not (tmp_path / "data").exists()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(str(path))
                client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.1 200")
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
