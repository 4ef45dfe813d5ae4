"""``agentstream run`` as a user has it: a child process, its output, its exit status, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from agentstream.agents.demo import program_command
from tests.cli import program
from tests.pictures.terminal import Terminal


def alive(pid: int) -> bool:
    """A process that is neither gone nor a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_run_that_succeeds_is_status_0_and_plain_lines(tmp_path: Path) -> None:
    status, out, err = program.run("run", "echo hello; echo over >&2", "--agent", "command", home=tmp_path)
    assert (status, err) == (0, "")
    assert "▶ run 1 command" in out
    assert "hello" in out
    assert "! stderr over" in out
    assert "✔ completed" in out
    assert "\x1b" not in out


def test_a_run_that_fails_is_status_1(tmp_path: Path) -> None:
    status, out, _ = program.run("run", "exit 7", "--agent", "command", home=tmp_path)
    assert status == 1
    assert "✘ failed" in out
    assert "exit status 7" in out


def test_json_is_one_event_a_line(tmp_path: Path) -> None:
    status, out, _ = program.run("run", "echo hello", "--agent", "command", "--json", home=tmp_path)
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["type"] == "run_started"
    assert events[-1]["type"] == "run_completed"
    assert "hello" in [event.get("content") for event in events]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_agent_and_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    script = "sleep 600 & echo $! > pid; echo ready; setsid sleep 600 & echo $! > pid2; wait"
    with program.start("run", script, "--agent", "command", "--json", home=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("content") == "ready":
                break
        process.send_signal(number)
        rest, err = process.communicate(timeout=program.PATIENCE)
    assert (process.returncode, err) == (130, "")
    assert json.loads(rest.splitlines()[-1])["type"] == "run_canceled"
    for name in ("pid", "pid2"):
        file = tmp_path / name
        assert not file.exists() or not alive(int(file.read_text() or 0))


def test_a_reader_that_had_enough_stops_the_agent(tmp_path: Path) -> None:
    script = "echo $$ > pid; while true; do echo again; sleep 0.05; done"
    with program.start("run", script, "--agent", "command", home=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "again" not in process.stdout.readline():
            pass
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=program.PATIENCE) == 1
    assert not alive(int((tmp_path / "pid").read_text()))


def test_settings_may_replace_the_program(tmp_path: Path) -> None:
    settings = tmp_path / "a.toml"
    settings.write_text('[agents.command]\ncommand = ["/bin/echo", "instead of"]\n')
    status, out, _ = program.run(
        "run", "the script", "--agent", "command", "--config", str(settings), "--json", home=tmp_path
    )
    assert status == 0
    assert '"content":"instead of the script"' in out


def test_wishes_reach_the_agent(tmp_path: Path) -> None:
    claude = tmp_path / "claude"
    claude.write_text('#!/bin/sh\necho "$@" >&2\n')
    claude.chmod(0o755)
    settings = tmp_path / "a.toml"
    settings.write_text(f'[agents.claude-code]\ncommand = ["{claude}"]\n')
    wishes = ["--model", "opus", "--permission-mode", "plan", "--allow-tool", "Read", "--allow-tool", "Bash(git log *)"]
    wishes += ["--deny-tool", "WebFetch", "--resume", "5f0c"]
    _, out, _ = program.run("run", "look", *wishes, "--config", str(settings), "--json", home=tmp_path)
    (given,) = [event["message"] for event in map(json.loads, out.splitlines()) if event.get("code") == "STDERR"]
    assert "--model=opus" in given
    assert "--permission-mode=plan" in given
    assert "--allowedTools=Read,Bash(git log *)" in given
    assert "--disallowedTools=WebFetch" in given
    assert "--resume=5f0c" in given


def test_questions_are_answered_by_a_key(tmp_path: Path) -> None:
    asking = ("--input-format=stream-json", "--permission-prompt-tool=stdio", "--scenario=approval", "--pace=0")
    claude = tmp_path / "claude"
    # Whatever options Claude Code would get.
    claude.write_text(f"#!/bin/sh\nexec {shlex.join((*program_command(), *asking))}\n")
    claude.chmod(0o755)
    command = [sys.executable, "-m", "agentstream", "run", "say hello"]
    env = {**program.environment(tmp_path), "TERM": "xterm", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with Terminal(command, columns=100, rows=40, env=env, cwd=tmp_path) as terminal:
        terminal.until("[y/n]")
        assert "? allow Write" in terminal.text
        # A key counts only once the question stands there, and there are two.
        deadline = time.monotonic() + program.PATIENCE
        while "✔ completed" not in terminal.text and time.monotonic() < deadline:
            terminal.press("y")
            terminal.film(0.1)
        assert terminal.text.count("✓ allowed") == 2
    assert (tmp_path / "demo" / "hello.sh").exists()


def test_limits_and_sandbox_of_the_settings_hold_here_too(tmp_path: Path) -> None:
    settings = tmp_path / "a.toml"
    settings.write_text("[limits]\nopen_files = 77\n")
    arguments = ["--agent", "command", "--config", str(settings), "--json"]
    _, out, _ = program.run("run", "ulimit -n", *arguments, home=tmp_path)
    assert '"content":"77"' in out

    settings.write_text("[sandbox]\nenabled = true\n")
    workspace = tmp_path / "work"
    workspace.mkdir()
    script = f"echo in > inside; echo out > {tmp_path}/outside"
    status, _, err = program.run("run", script, *arguments, home=tmp_path, cwd=workspace)
    assert not (tmp_path / "outside").exists()
    # Where no sandbox can be made nothing is started at all.
    assert (workspace / "inside").exists() or (status == 1 and "sandbox" in err)


def test_secrets_of_the_environment_are_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "what"
    file.write_text("the key is s3cret-s3cret-s3cret")
    _, out, _ = program.run("run", "cat what", "--agent", "command", home=tmp_path, MY_API_KEY="s3cret-s3cret-s3cret")
    assert "the key is [redacted:MY_API_KEY]" in out


def test_an_agent_that_is_not_installed_says_what_to_do(tmp_path: Path) -> None:
    settings = tmp_path / "a.toml"
    settings.write_text('[agents.claude-code]\ncommand = ["/no/such/claude"]\n')
    status, out, err = program.run("run", "x", "--config", str(settings), home=tmp_path)
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "/no/such/claude" in err
    assert "install it" in err


def test_what_an_agent_prints_is_no_command_for_the_terminal(tmp_path: Path) -> None:
    status, out, _ = program.run("run", r"printf '\033]0;owned\007\n'", "--agent", "command", home=tmp_path)
    assert status == 0
    assert "␛]0;owned␇" in out
    assert "\x1b" not in out
