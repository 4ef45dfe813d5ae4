"""Settings come from where the operator said, and what is wrong is told with where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from agentstream import config
from agentstream.config import child_environment, find_daemon, load
from agentstream.errors import ConfigError
from agentstream.settings import SECTIONS, AgentSettings, ServerSettings, Settings, check_exposure, show


def settings(
    toml: str | None = None, environ: dict[str, str] | None = None, *, tmp: Path, **overrides: Any
) -> Settings:
    path = None
    if toml is not None:
        path = tmp / "agentstream.toml"
        path.write_text(toml)
    return load(
        {name.replace("__", "."): value for name, value in overrides.items()},
        {"HOME": str(tmp), **(environ or {})},
        path,
    )


# --- where values come from ----------------------------------------------------------------------------------------


def test_nothing_needs_to_be_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings(tmp=tmp_path)
    assert (found.server.host, found.server.port, found.server.auth) == ("127.0.0.1", 7171, True)
    assert found.server.data_dir == tmp_path / ".local/state/agentstream"
    assert found.runs.workspace_roots == (tmp_path,)
    check_exposure(found.server)


def test_xdg_state_home_is_used_and_ignored_when_relative(tmp_path: Path) -> None:
    assert settings(tmp=tmp_path, environ={"XDG_STATE_HOME": "/state"}).server.data_dir == Path("/state/agentstream")
    found = settings(tmp=tmp_path, environ={"XDG_STATE_HOME": "state"})
    assert found.server.data_dir == tmp_path / ".local/state/agentstream"


def test_file_then_variables_then_flags_and_each_tells_its_origin(tmp_path: Path) -> None:
    found = settings(
        "[server]\nport = 1\nhost = '127.0.0.2'\nbehind_proxy = true",
        {"AGENTSTREAM_SERVER_PORT": "2", "AGENTSTREAM_SERVER_HOST": "127.0.0.3"},
        tmp=tmp_path,
        server__port=3,
        server__unix=None,
    )
    assert (found.server.port, found.server.host, found.server.behind_proxy) == (3, "127.0.0.3", True)
    shown = {line.name: line for line in show(found)}
    assert shown["server.port"].origin == "command line"
    assert shown["server.host"].origin == "AGENTSTREAM_SERVER_HOST"
    assert shown["server.behind_proxy"].origin == str(tmp_path / "agentstream.toml")
    assert shown["server.unix"].origin == "default"


def test_every_setting_is_documented_and_shown(tmp_path: Path) -> None:
    lines = list(show(settings(tmp=tmp_path)))
    assert len(lines) == sum(len(attrs.fields(cls)) for cls in SECTIONS.values())
    assert all(line.help.endswith(".") for line in lines)


def test_the_file_may_be_named_by_a_variable_or_lie_in_its_usual_place(tmp_path: Path) -> None:
    usual = tmp_path / ".config/agentstream/config.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text("[server]\nport = 5")
    assert settings(tmp=tmp_path).server.port == 5
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 6")
    assert settings(tmp=tmp_path, environ={"AGENTSTREAM_CONFIG": str(other)}).server.port == 6


def test_paths_of_a_file_are_relative_to_it_and_tilde_is_home(tmp_path: Path) -> None:
    found = settings("[runs]\nworkspace_roots = ['work', '~/home', '/abs']", tmp=tmp_path)
    assert found.runs.workspace_roots == (tmp_path / "work", tmp_path / "home", Path("/abs"))


def test_variables_are_text_and_read_by_type(tmp_path: Path) -> None:
    found = settings(
        tmp=tmp_path,
        environ={
            "AGENTSTREAM_SERVER_AUTH": "false",
            "AGENTSTREAM_SERVER_ALLOWED_HOSTS": "a.example,b.example:8080",
            "AGENTSTREAM_SERVER_ALLOWED_ORIGINS": '["https://a.example"]',
            "AGENTSTREAM_RUNS_TIMEOUT_SECONDS": "none",
            "AGENTSTREAM_RUNS_APPROVAL_SECONDS": "1.5",
            "AGENTSTREAM_AGENTS": '{"claude-code": {"command": ["/opt/claude"], "env": {"A": "1"}}}',
        },
    )
    assert found.server.auth is False
    assert found.server.allowed_hosts == ("a.example", "b.example:8080")
    assert found.server.allowed_origins == ("https://a.example",)
    assert found.runs.timeout_seconds is None
    assert found.runs.approval_seconds == 1.5
    assert found.agents == {"claude-code": AgentSettings(command=("/opt/claude",), env={"A": "1"})}


def test_an_agents_command_and_environment_come_from_its_table_and_the_values_are_not_shown(tmp_path: Path) -> None:
    found = settings("[agents.claude-code]\ncommand = ['claude', '-x']\nenv = {KEY = 'hidden'}", tmp=tmp_path)
    assert found.agents["claude-code"].command == ("claude", "-x")
    assert "hidden" not in repr(list(show(found)))


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[server]\nprot = 1", "server.prot: no such setting; did you mean server.port?"),
        ("[sever]\nport = 1", "no section [sever]; did you mean server?"),
        ("server = 5", "server: expected a table, got 5"),
        ("[server]\nport = '1'", "server.port: expected an integer, got '1'"),
        ("[server]\nport = true", "server.port: expected an integer, got True"),
        ("[server]\nport = 65536", "server.port: expected a value <= 65535, got 65536"),
        ("[server]\nport = -1", "server.port: expected a value >= 0, got -1"),
        ("[server]\nauth = 1", "server.auth: expected true or false, got 1"),
        ("[server]\nallowed_hosts = 'a'", "server.allowed_hosts: expected a list, got 'a'"),
        ("[server]\nallowed_hosts = [1]", "server.allowed_hosts: expected a string"),
        ("[server]\nunix = ''", "server.unix: expected a path, got ''"),
        ("[runs]\ntimeout_seconds = 0", "runs.timeout_seconds: expected a value > 0, got 0"),
        ("[runs]\nrestart_policy = 'pray'", "runs.restart_policy: expected one of fail, retry, resume, got 'pray'"),
        ("[agents]\nclaude-code = 'x'", "agents.claude-code: expected a table"),
        ("[agents.claude-code]\ncomand = ['x']", "no such setting; did you mean agents.claude-code.command?"),
        ("[agents.claude-code]\ncommand = 'x'", "agents.claude-code.command: expected a list"),
        ("not toml", "not TOML"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(toml: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(toml, tmp=tmp_path)
    assert message in caught.value.message
    assert str(tmp_path / "agentstream.toml") in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AGENTSTREAM_SERVER_PROT", "1", "no such setting; did you mean AGENTSTREAM_SERVER_PORT?"),
        (
            "AGENTSTREAM_SERVER_PORT",
            "many",
            "server.port: expected an integer, got 'many' (from AGENTSTREAM_SERVER_PORT)",
        ),
        ("AGENTSTREAM_SERVER_PORT", "70000", "(from AGENTSTREAM_SERVER_PORT)"),
        ("AGENTSTREAM_SERVER_AUTH", "maybe", "expected true or false"),
        ("AGENTSTREAM_SERVER_REQUESTS_PER_SECOND", "nan", "server.requests_per_second: expected a value > 0, got nan"),
        ("AGENTSTREAM_AGENTS", "{", "AGENTSTREAM_AGENTS: not JSON"),
        ("AGENTSTREAM_CONFIG", "/does/not/exist.toml", "/does/not/exist.toml: No such file"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(tmp=tmp_path, environ={name: value})
    assert message in caught.value.message


def test_a_wrong_agent_environment_is_told_without_its_values(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings("[agents.demo]\nenv = {KEY = 5, OTHER = 'hidden'}", tmp=tmp_path)
    assert "hidden" not in caught.value.message


def test_an_unknown_flag_or_agent_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean server\.port"):
        settings(tmp=tmp_path, server__porti=1)
    with pytest.raises(ConfigError, match=r"agents\.claude: no such agent type; did you mean claude-code\?"):
        config.check_agents(settings("[agents.claude]\ncommand = ['x']", tmp=tmp_path), ["claude-code", "demo"])


def test_the_file_system_root_is_no_workspace_root_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(ConfigError, match="workspace_roots"):
        settings(tmp=tmp_path)
    assert settings(tmp=tmp_path, runs__workspace_roots=["/srv"]).runs.workspace_roots == (Path("/srv"),)


# --- how open the door is ----------------------------------------------------------------------------------------------


def server(**values: Any) -> ServerSettings:
    return ServerSettings(data_dir=Path("/data"), **values)


@pytest.mark.parametrize(
    "allowed",
    [
        server(),
        server(auth=False),
        server(host="localhost", auth=False),
        server(host="127.0.0.53", auth=False),
        server(host="::1", auth=False),
        server(host="0.0.0.0", unix=Path("/run/s"), auth=False),
        server(host="0.0.0.0", tls_cert=Path("c"), tls_key=Path("k")),
        server(host="192.0.2.1", behind_proxy=True),
    ],
)
def test_doors_that_may_open(allowed: ServerSettings) -> None:
    check_exposure(allowed)


@pytest.mark.parametrize(
    ("refused", "advice"),
    [
        (server(host="0.0.0.0"), "server.tls_cert"),
        (server(host="127.example.com"), "server.tls_cert"),
        (server(host=""), "server.tls_cert"),
        (server(host="::", auth=False, tls_cert=Path("c"), tls_key=Path("k")), "--no-auth"),
        (server(host="192.0.2.1", auth=False, behind_proxy=True), "--no-auth"),
        (server(tls_cert=Path("c")), "set both"),
    ],
)
def test_doors_that_stay_shut_say_what_to_do(refused: ServerSettings, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        check_exposure(refused)


# --- the environment of children -------------------------------------------------------------------------------------


def test_a_child_gets_the_allow_list_and_what_its_adapter_names() -> None:
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "XDG_CONFIG_HOME": "/c",
        "https_proxy": "p",
        "ANTHROPIC_API_KEY": "k",
        "CLAUDE_CODE_OAUTH_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "no",
        "LD_PRELOAD": "no",
        "AGENTSTREAM_TOKEN": "no",
        "AGENTSTREAM_RUN_ID": "no",
    }
    assert child_environment(environ, ["ANTHROPIC_*", "CLAUDE_CODE_OAUTH_TOKEN"]).keys() == {
        "PATH",
        "LC_ALL",
        "XDG_CONFIG_HOME",
        "https_proxy",
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
    }
    assert "AGENTSTREAM_TOKEN" not in child_environment(environ, ["*"])


# --- finding the daemon --------------------------------------------------------------------------------------------------


def test_the_data_directory_tells_where_the_daemon_is(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    environ = {"HOME": str(tmp_path)}
    assert find_daemon(data_dir=tmp_path, environ=environ).url == "http://127.0.0.1:7171"
    config.announce(tmp_path, "http://127.0.0.1:4321")
    found = find_daemon(data_dir=tmp_path, environ=environ)
    assert (found.url, found.token) == ("http://127.0.0.1:4321", "secret")
    assert "secret" not in repr(found)
    config.retract(tmp_path, "http://127.0.0.1:1")
    assert (tmp_path / "url").exists()
    config.retract(tmp_path, "http://127.0.0.1:4321")
    assert not (tmp_path / "url").exists()


def test_flags_win_over_variables_and_those_over_the_directory(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("file\n")
    environ = {"AGENTSTREAM_URL": "http://localhost:2/", "AGENTSTREAM_TOKEN": "variable"}
    found = find_daemon(url="http://localhost:1", data_dir=tmp_path, environ=environ)
    assert (found.url, found.token) == ("http://localhost:1", "variable")
    found = find_daemon(token="flag", data_dir=tmp_path, environ=environ)
    assert (found.url, found.token) == ("http://localhost:2", "flag")
    found = find_daemon(environ={"AGENTSTREAM_SERVER_DATA_DIR": str(tmp_path), "AGENTSTREAM_URL": "http://127.0.0.1:3"})
    assert found.token == "file"


def test_the_token_of_this_machine_is_not_sent_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("file\n")
    assert find_daemon(url="https://evil.example", data_dir=tmp_path, environ={"HOME": "/"}).token is None
    assert find_daemon(url=f"unix:{tmp_path}/s", data_dir=tmp_path, environ={"HOME": "/"}).token == "file"


@pytest.mark.parametrize("url", ["localhost:7171", "ftp://x", "http://", "unix:", "http:///path"])
def test_what_is_no_address_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
        find_daemon(url=url, data_dir=tmp_path, environ={"HOME": "/"})
