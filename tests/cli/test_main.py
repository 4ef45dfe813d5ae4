"""Parsing, and the commands that need no daemon."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agentstream.cli import main

COMMANDS = {
    *("serve", "run", "submit", "watch", "list", "show", "cancel", "logs", "approve", "deny", "agents", "token"),
    *("config", "systemd"),
}


def invoke(*args: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(args), env=env or {}, catch_exceptions=False)


def test_the_commands_are_those_of_the_protocol() -> None:
    assert set(main.list_commands(click.Context(main))) == COMMANDS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (
            "serve",
            [
                "--config",
                "--host",
                "--port",
                "--unix",
                "--data-dir",
                "--workspace-root",
                "--no-auth",
                "--behind-proxy",
                "--demo",
            ],
        ),
        ("run", ["--agent", "--cwd", "--json"]),
        ("submit", ["--workspace", "--agent", "--id", "--watch", "--url", "--token", "--data-dir"]),
        ("watch", ["--all", "--since", "--json"]),
        ("logs", ["--stderr"]),
    ],
)
def test_the_flags_are_those_of_the_protocol(command: str, flags: list[str]) -> None:
    output = invoke(command, "--help").output
    assert not [flag for flag in flags if flag not in output]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["watch"], "give either the ID of a work order, or --all"),
        (["watch", "w", "--all"], "give either the ID of a work order, or --all"),
        (["submit", "do it"], "--workspace"),
        (["submit", " ", "--workspace", "."], "say what the agent should do"),
        (["submit", "x", "--workspace", ".", "--id", "not this"], "expected letters, digits"),
        (["run", "x", "--cwd", "/nowhere/at/all"], "does not exist"),
        (["serve", "--port", "70000"], "65535"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_status_2(args: list[str], expected: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert expected in result.output


def test_no_daemon_says_how_to_start_one(tmp_path: Path) -> None:
    for args in (["list"], ["watch", "w"], ["cancel", "w"], ["submit", "x", "--workspace", str(tmp_path)]):
        result = invoke(*args, "--url", f"unix:{tmp_path}/none")
        assert result.exit_code == 1
        assert result.output.startswith("Error: no daemon answers at unix:")
        assert "agentstream serve" in result.output
        assert len(result.output.splitlines()) == 1


def test_an_address_that_is_none_is_told() -> None:
    result = invoke("list", "--url", "localhost:7171")
    assert result.exit_code == 1
    assert "http://HOST:PORT" in result.output


def test_an_unknown_agent_is_told(tmp_path: Path) -> None:
    result = invoke("run", "x", "--agent", "hal", "--cwd", str(tmp_path))
    assert result.exit_code == 1
    assert "hal" in result.output
    assert "claude-code" in result.output


# --- token -----------------------------------------------------------------------------------------------------------


def test_tokens_are_printed_made_listed_and_revoked(tmp_path: Path) -> None:
    directory = ["--data-dir", str(tmp_path / "data")]
    own = invoke("token", *directory).output.strip()
    assert own == (tmp_path / "data" / "token").read_text().strip()
    assert invoke("token", *directory).output.strip() == own

    made = invoke("token", *directory, "create", "ci", "--scope", "control", "--days", "30").output.strip()
    assert made
    listed = invoke("token", *directory, "list").output
    assert "ci" in listed
    assert "control" in listed
    assert made not in listed

    assert invoke("token", *directory, "create", "ci").exit_code == 1
    assert invoke("token", *directory, "revoke", "ci").exit_code == 0
    assert "ci" not in invoke("token", *directory, "list").output
    missing = invoke("token", *directory, "revoke", "ci")
    assert (missing.exit_code, missing.output) == (1, "Error: no token named ci\n")


def test_a_revoked_own_token_says_how_to_get_another(tmp_path: Path) -> None:
    directory = ["--data-dir", str(tmp_path / "data")]
    invoke("token", *directory)
    name = invoke("token", *directory, "list").output.split()[0]
    invoke("token", *directory, "revoke", name)
    result = invoke("token", *directory)
    assert result.exit_code == 1
    assert "agentstream token create NAME --scope admin" in result.output


# --- config ----------------------------------------------------------------------------------------------------------


def test_config_show_names_the_origin_of_each_value(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[server]\nport = 7272\n")
    output = invoke("config", "show", "--config", str(file), env={"AGENTSTREAM_LOG_LEVEL": "debug"}).output
    assert f"server.port = 7272  # {file}" in output
    assert 'log.level = "debug"  # AGENTSTREAM_LOG_LEVEL' in output
    assert 'server.host = "127.0.0.1"  # default' in output


def test_config_show_as_json_is_one_object_a_line(tmp_path: Path) -> None:
    lines = invoke("config", "show", "--json").output.splitlines()
    assert len(lines) > 20
    assert all(line.startswith('{"name":') for line in lines)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[server]\nport = 1\n", None),
        ("[server]\nprot = 1\n", "did you mean server.port"),
        ("[agents.claude-cod]\ncommand = ['x']\n", "did you mean claude-code"),
        ("[server]\nhost = '0.0.0.0'\n", "without TLS"),
    ],
)
def test_config_check_says_whether_serve_would_start(tmp_path: Path, content: str, expected: str | None) -> None:
    file = tmp_path / "a.toml"
    file.write_text(content)
    result = invoke("config", "check", "--config", str(file))
    assert result.exit_code == (0 if expected is None else 1)
    assert (expected or "the settings are right") in result.output
    assert len(result.output.splitlines()) == 1


def test_serve_refuses_an_open_door_before_it_starts(tmp_path: Path) -> None:
    result = invoke("serve", "--host", "0.0.0.0", "--no-auth", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "--no-auth" in result.output
