"""The commands that talk to a daemon, against a real one, as child processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.cli import program
from tests.end_to_end.house import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def agentstream(daemon: Daemon, command: str, *args: str) -> tuple[int, str, str]:
    return program.run(command, *args, "--data-dir", str(daemon.data), home=daemon.root)


def start(daemon: Daemon, command: str, *args: str) -> subprocess.Popen[str]:
    return program.start(command, *args, "--data-dir", str(daemon.data), home=daemon.root)


def submit(daemon: Daemon, script: str, *args: str) -> tuple[int, str, str]:
    return agentstream(daemon, "submit", script, "--workspace", str(daemon.root), "--agent", "command", *args)


def events_over_http(daemon: Daemon, work_order_id: str) -> list[dict[str, Any]]:
    _, answer = daemon.http("GET", f"/api/v1/work-orders/{work_order_id}/events?sinceSeq=0&limit=1000")
    items: list[dict[str, Any]] = answer["data"]["items"]
    return items


def test_submit_prints_the_id_and_watch_shows_it_to_its_end(daemon: Daemon) -> None:
    status, out, err = submit(daemon, "echo hello", "--id", "first")
    assert (status, out, err) == (0, "first\n", "")
    status, out, err = agentstream(daemon, "watch", "first")
    assert (status, err) == (0, "")
    for part in ("● queued echo hello", "▶ run 1 command", "hello", "✔ completed", "● succeeded"):
        assert part in out
    # The same again, from history alone.
    assert agentstream(daemon, "watch", "first") == (0, out, "")


def test_wishes_are_part_of_the_work_order(daemon: Daemon) -> None:
    wishes = ("--permission-mode", "plan", "--allow-tool", "Read", "--deny-tool", "Bash", "--model", "small")
    assert submit(daemon, "look", "--id", "wishes", *wishes)[0] == 0
    status, out, _ = agentstream(daemon, "show", "wishes", "--json")
    order = json.loads(out)["request"]
    assert status == 0
    assert (order["permissionMode"], order["model"]) == ("plan", "small")
    assert (order["allowedTools"], order["disallowedTools"]) == (["Read"], ["Bash"])


def test_watch_as_json_is_what_went_over_the_wire(daemon: Daemon) -> None:
    submit(daemon, "echo one; echo two", "--id", "wire")
    status, out, _ = agentstream(daemon, "watch", "wire", "--json")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == events_over_http(daemon, "wire")
    first = json.loads(out.splitlines()[0])["seq"]
    _, later, _ = agentstream(daemon, "watch", "wire", "--json", "--since", str(first))
    assert later.splitlines() == out.splitlines()[1:]


@pytest.mark.parametrize(("script", "expected"), [("true", 0), ("exit 3", 1)])
def test_submit_and_watch_ends_with_the_runs_status(daemon: Daemon, script: str, expected: int) -> None:
    status, out, _ = submit(daemon, script, "--watch", "--json")
    assert status == expected
    assert json.loads(out.splitlines()[-1])["type"] == "work_order_updated"


def test_submitting_the_same_id_with_another_prompt_is_told(daemon: Daemon) -> None:
    submit(daemon, "true", "--id", "mine")
    assert submit(daemon, "true", "--id", "mine")[0] == 0
    status, _, err = submit(daemon, "false", "--id", "mine")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "mine" in err


def test_a_workspace_outside_the_roots_is_told(daemon: Daemon, tmp_path: Path) -> None:
    status, _, err = agentstream(daemon, "submit", "true", "--workspace", str(tmp_path), "--agent", "command")
    assert status == 1
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1


def test_cancel_stops_a_run_and_its_watcher_ends_with_130(daemon: Daemon) -> None:
    submit(daemon, "echo ready; sleep 600", "--id", "long")
    with start(daemon, "watch", "long", "--json") as watcher:
        assert watcher.stdout is not None
        for line in watcher.stdout:
            if json.loads(line).get("content") == "ready":
                break
        assert agentstream(daemon, "cancel", "long") == (0, "", "")
        rest, err = watcher.communicate(timeout=program.PATIENCE)
    assert (watcher.returncode, err) == (130, "")
    assert json.loads(rest.splitlines()[-1])["status"] == "canceled"
    assert "canceled" in agentstream(daemon, "list", "--status", "canceled")[1]


def test_ctrl_c_ends_watching_and_leaves_the_run_alone(daemon: Daemon) -> None:
    submit(daemon, "echo ready; sleep 600", "--id", "kept")
    with start(daemon, "watch", "kept", "--json") as watcher:
        assert watcher.stdout is not None
        for line in watcher.stdout:
            if json.loads(line).get("content") == "ready":
                break
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=program.PATIENCE)
    assert (watcher.returncode, err) == (130, "")
    assert daemon.http("GET", "/api/v1/work-orders/kept")[1]["data"]["status"] == "running"
    agentstream(daemon, "cancel", "kept")


def test_a_reader_that_had_enough_ends_watching_quietly(daemon: Daemon) -> None:
    submit(daemon, "while true; do echo again; sleep 0.02; done", "--id", "endless")
    with start(daemon, "watch", "endless") as watcher:
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        watcher.stdout.readline()
        watcher.stdout.close()
        assert watcher.stderr.read() == ""
        assert watcher.wait(timeout=program.PATIENCE) == 1
    agentstream(daemon, "cancel", "endless")


def test_watching_all_shows_each_with_its_name(daemon: Daemon) -> None:
    submit(daemon, "echo ready; sleep 600", "--id", "there-before")
    with start(daemon, "watch", "--all", "--since", "0") as watcher:
        assert watcher.stdout is not None
        submit(daemon, "echo news", "--id", "new-one")
        for line in watcher.stdout:
            if "new-one" in line and "succeeded" in line:
                break
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=program.PATIENCE) == 130
    agentstream(daemon, "cancel", "there-before")


def test_list_and_show(daemon: Daemon) -> None:
    submit(daemon, "echo the result; exit 4", "--id", "shown", "--watch")
    status, out, _ = agentstream(daemon, "list", "--limit", "200")
    assert status == 0
    row = next(line for line in out.splitlines() if line.startswith("shown "))
    assert "failed" in row
    assert "echo the result" in row
    status, out, _ = agentstream(daemon, "show", "shown")
    assert status == 0
    for part in ("shown", "failed", str(daemon.root), "run 1 failed", "exit"):
        assert part in out
    listed = json.loads(agentstream(daemon, "list", "--json", "--status", "failed")[1])
    assert "shown" in [item["id"] for item in listed["items"]]
    shown = json.loads(agentstream(daemon, "show", "shown", "--json")[1])
    assert [run["status"] for run in shown["runs"]] == ["failed"]


def test_logs_are_what_the_agent_printed_byte_by_byte(daemon: Daemon) -> None:
    submit(daemon, r"printf 'a\033[1mb\n'; printf 'trouble\n' >&2", "--id", "logged", "--watch")
    run_id = json.loads(agentstream(daemon, "show", "logged", "--json")[1])["runs"][0]["id"]
    assert agentstream(daemon, "logs", run_id) == (0, "a\x1b[1mb\n", "")
    assert agentstream(daemon, "logs", run_id, "--stderr") == (0, "trouble\n", "")


@pytest.mark.parametrize(
    "args", [("watch", "nobody"), ("show", "nobody"), ("cancel", "nobody"), ("logs", "nobody"), ("approve", "nobody")]
)
def test_what_does_not_exist_is_told(daemon: Daemon, args: tuple[str, str]) -> None:
    status, out, err = agentstream(daemon, *args)
    assert (status, out) == (1, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert "nobody" in err


def test_agents_are_listed(daemon: Daemon) -> None:
    status, out, _ = agentstream(daemon, "agents")
    assert status == 0
    row = next(line for line in out.splitlines() if line.startswith("demo"))
    assert "ready" in row
    assert "demo" in [item["agentType"] for item in json.loads(agentstream(daemon, "agents", "--json")[1])["items"]]


def test_a_wrong_token_is_told_by_each_way_in(daemon: Daemon) -> None:
    for command in (["list"], ["watch", "--all"], ["cancel", "x"]):
        status, _, err = agentstream(daemon, *command, "--token", "agentstream_wrong")
        assert status == 1
        assert len(err.splitlines()) == 1
        assert "AGENTSTREAM_TOKEN" in err


def test_a_token_of_smaller_scope_is_told(daemon: Daemon) -> None:
    _, out, _ = program.run("token", "--data-dir", str(daemon.data), "create", "looker", home=daemon.root)
    submit(daemon, "true", "--id", "looked-at", "--watch")
    assert agentstream(daemon, "watch", "looked-at", "--token", out.strip())[0] == 0
    status, _, err = agentstream(daemon, "cancel", "looked-at", "--token", out.strip())
    assert status == 1
    assert len(err.splitlines()) == 1


class Terminal:
    """A child on a pseudo-terminal, and what it drew."""

    def __init__(self, daemon: Daemon, *args: str) -> None:
        self.keyboard, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentstream", *args, "--data-dir", str(daemon.data)],
            cwd=daemon.root,
            env={**program.environment(daemon.root), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            # The terminal must be the child's own, with the child in its foreground.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inside)
        self.drawn = ""

    def until(self, text: str) -> None:
        """Read on until the text was drawn."""
        deadline = time.monotonic() + program.PATIENCE
        while text not in self.drawn:
            if not select.select([self.keyboard], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} was not drawn: {self.drawn}")
            try:
                self.drawn += os.read(self.keyboard, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended without {text!r}: {self.drawn}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=program.PATIENCE)
        os.close(self.keyboard)

    def wait(self) -> int:
        """The exit status; what is drawn meanwhile is read."""
        reader = threading.Thread(target=self._drain)
        reader.start()
        status = self.process.wait(timeout=program.PATIENCE)
        reader.join(timeout=program.PATIENCE)
        return status

    def _drain(self) -> None:
        try:
            while piece := os.read(self.keyboard, 65536):
                self.drawn += piece.decode(errors="replace")
        except OSError:
            pass  # the child's end is closed


def ask_for_approval(daemon: Daemon, work_order_id: str) -> None:
    """The demo agent asks where it is told to by name."""
    daemon.submit(
        "ask me",
        id=work_order_id,
        agentType="demo",
        permissionMode="default",
        env={"DEMO_SCENARIO": "approval", "DEMO_PACE": "0"},
    )


@pytest.mark.parametrize(("key", "expected"), [(b"y", "allow"), (b"n", "deny")])
def test_a_permission_request_is_answered_by_a_key(daemon: Daemon, key: bytes, expected: str) -> None:
    work_order_id = f"asks-{expected}"
    ask_for_approval(daemon, work_order_id)
    ended = threading.Event()
    with Terminal(daemon, "watch", work_order_id) as terminal:
        terminal.until("[y/n]")

        # A key counts only once the question stands there, and there are several: press until it is over.
        def press() -> None:
            while not ended.wait(0.1):
                os.write(terminal.keyboard, key)

        presser = threading.Thread(target=press)
        presser.start()
        try:
            assert terminal.wait() in (0, 1)
        finally:
            ended.set()
            presser.join()
    assert ("allowed" if expected == "allow" else "denied") in terminal.drawn
    resolved = [event for event in events_over_http(daemon, work_order_id) if event["type"] == "approval_resolved"]
    assert {event["decision"] for event in resolved} == {expected}


def test_approve_and_deny_answer_from_another_terminal(daemon: Daemon) -> None:
    for command, decision in (("approve", "allow"), ("deny", "deny")):
        work_order_id = f"by-{command}"
        ask_for_approval(daemon, work_order_id)
        with start(daemon, "watch", work_order_id, "--json") as watcher:
            assert watcher.stdout is not None
            for line in watcher.stdout:
                event = json.loads(line)
                if event["type"] == "approval_requested":
                    assert agentstream(daemon, command, event["requestId"], "--message", "as you like")[0] == 0
                if event["type"] == "approval_resolved":
                    assert event["decision"] == decision
                    break
            watcher.kill()
        agentstream(daemon, "cancel", work_order_id)


def test_a_live_terminal_shows_header_and_lines_and_ctrl_c_leaves_it_whole(daemon: Daemon) -> None:
    submit(daemon, "echo hello there; sleep 600", "--id", "live")
    with Terminal(daemon, "watch", "live") as terminal:
        terminal.until("hello there")
        terminal.until("0 tool calls")
        os.write(terminal.keyboard, b"\x03")
        assert terminal.wait() == 130
    assert "Traceback" not in terminal.drawn
    assert terminal.drawn.rindex("\x1b[?25h") > terminal.drawn.rindex("\x1b[?25l")  # the cursor is back
    agentstream(daemon, "cancel", "live")


def test_a_live_terminal_shows_all_in_panels(daemon: Daemon) -> None:
    submit(daemon, "echo from the left; sleep 600", "--id", "left")
    submit(daemon, "echo from the right; sleep 600", "--id", "right")
    with Terminal(daemon, "watch", "--all") as terminal:
        terminal.until("left")
        terminal.until("right")
        os.write(terminal.keyboard, b"\x03")
        assert terminal.wait() == 130
    for work_order_id in ("left", "right"):
        agentstream(daemon, "cancel", work_order_id)
