"""The sandbox: real bubblewrap, and an agent that tries."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from agentstream.agents.base import Launch, RunRequest
from agentstream.agents.registry import registry
from agentstream.errors import ConfigError, ExecutionCancelled
from agentstream.model.result import ExecutionResult
from agentstream.runs.driver import Driver
from agentstream.runs.process import find_processes
from agentstream.runs.sandbox import Sandbox, open_sandbox
from agentstream.settings import SandboxSettings


def _why_not() -> str | None:
    try:
        open_sandbox(SandboxSettings(enabled=True), hidden=[])
    except ConfigError as error:
        return error.message
    return None


TROUBLE = _why_not()
needs_bwrap = pytest.mark.skipif(TROUBLE is not None, reason=f"no bubblewrap: {TROUBLE}")


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below /tmp, which is private in the sandbox anyway."""
    path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    for name in ("work", "data/workspaces/one", "state", "elsewhere"):
        (path / name).mkdir(parents=True)
    (path / "data" / "token").write_text("secret")
    yield path
    shutil.rmtree(path)


async def shut_in(
    home: Path, script: str, *, workspace: str = "work", env: Mapping[str, str] | None = None, **settings: Any
) -> ExecutionResult:
    sandbox = open_sandbox(SandboxSettings(enabled=True, **settings), hidden=[home / "data"])
    driver = Driver(registry().get("command"), environ={"PATH": os.environ["PATH"]}, sandbox=sandbox)
    return await driver.run(RunRequest(prompt=script, cwd=str(home / workspace), env=env or {}))


@needs_bwrap
async def test_only_the_workspace_can_be_written(home: Path) -> None:
    script = "echo in > file; for d in /etc /var/tmp $HOME_DIR $HOME_DIR/elsewhere; do touch $d/out && echo wrote $d; done; pwd"
    result = await shut_in(home, script, env={"HOME_DIR": str(home)})
    assert result.stdout == f"{home}/work\n"
    assert result.stderr.count("Read-only file system") == 4
    assert (home / "work" / "file").read_text() == "in\n"


@needs_bwrap
async def test_what_the_operator_named_can_be_written_too(home: Path) -> None:
    script = "touch $HOME_DIR/elsewhere/file && echo yes"
    result = await shut_in(
        home, script, env={"HOME_DIR": str(home)}, writable=(home / "elsewhere", home / "does-not-exist")
    )
    assert result.stdout == "yes\n"


@needs_bwrap
async def test_the_daemons_data_are_not_there_save_for_a_workspace_below(home: Path) -> None:
    script = "cat $HOME_DIR/data/token; ls $HOME_DIR/data; echo hi > file"
    result = await shut_in(home, script, workspace="data/workspaces/one", env={"HOME_DIR": str(home)})
    assert result.stdout == "workspaces\n"
    assert (home / "data/workspaces/one/file").read_text() == "hi\n"
    hidden = await shut_in(home, "cat $HOME_DIR/data/token", env={"HOME_DIR": str(home)})
    assert (hidden.success, hidden.stdout) == (False, "")


@needs_bwrap
async def test_data_below_the_workspace_are_hidden_too(home: Path) -> None:
    result = await shut_in(home, "ls data; touch new", workspace=".")
    assert result.success
    assert result.stdout == ""


@needs_bwrap
async def test_tmp_and_run_are_private(home: Path) -> None:
    mine = Path("/tmp") / f"sandbox-test-{os.getpid()}"
    mine.touch()
    try:
        result = await shut_in(home, "ls -A /tmp /run; touch $TMPDIR/x && echo ok", env={"TMPDIR": "/var/tmp"})
    finally:
        mine.unlink()
    assert mine.name not in result.stdout
    assert result.stdout.splitlines() == ["/run:", "", "/tmp:", "ok"]


@needs_bwrap
async def test_there_is_no_network_unless_asked_for(home: Path) -> None:
    script = (
        "python3 -c 'import socket,sys; socket.create_connection((\"127.0.0.1\", int(sys.argv[1])), 5); print(1)' $PORT"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        env = {"PORT": str(server.getsockname()[1])}
        assert (await shut_in(home, script, env=env)).stdout == ""
        assert (await shut_in(home, script, env=env, network=True)).stdout == "1\n"


@needs_bwrap
async def test_other_processes_can_not_be_seen_or_reached(home: Path) -> None:
    script = f"kill -0 {os.getpid()} && echo reached; ls /proc | grep -c '^{os.getpid()}$'"
    assert (await shut_in(home, script)).stdout == "0\n"


@needs_bwrap
async def test_variables_of_a_work_order_do_not_reach_bubblewrap_itself(home: Path) -> None:
    (home / "work" / "bwrap").write_text("#!/bin/sh\ntouch ../escaped\n")
    (home / "work" / "bwrap").chmod(0o755)
    env = {"LD_PRELOAD": str(home / "work" / "evil.so"), "PATH": f"{home}/work:{os.environ['PATH']}"}
    result = await shut_in(home, 'echo "$LD_PRELOAD"', env=env)
    assert result.stdout == f"{home}/work/evil.so\n"
    assert not (home / "escaped").exists()
    launch = Sandbox(program="/usr/bin/bwrap").shut_in(
        Launch(argv=("x",), env={"LD_AUDIT": "a", "OTHER": "b"}), workspace="/w"
    )
    assert launch.env == {"OTHER": "b"}


@needs_bwrap
async def test_an_agent_keeps_its_own_state_and_a_work_order_can_not_name_another(home: Path) -> None:
    def run(env: Mapping[str, str]) -> Launch:
        sandbox = Sandbox(program="/usr/bin/bwrap")
        adapter = registry({"claude-code": ["/bin/true"]}).get("claude-code")
        driver = Driver(adapter, environ={"HOME": str(home)}, sandbox=sandbox)
        return driver.prepare(RunRequest(prompt="x", cwd=str(home / "work"), env=env)).launch

    binds = " ".join(run({}).argv)
    assert f"--bind-try {home}/.claude {home}/.claude" in binds
    assert "--bind-try /etc /etc" not in " ".join(run({"CLAUDE_CONFIG_DIR": "/etc"}).argv)


@needs_bwrap
@pytest.mark.parametrize("ends", ["by itself", "at once"])
async def test_signals_reach_the_agent_inside_and_nothing_is_left(home: Path, ends: str) -> None:
    trap = "trap 'echo bye; exit 3' INT" if ends == "by itself" else "trap '' INT TERM"
    seen: list[str] = []
    sandbox = open_sandbox(SandboxSettings(enabled=True), hidden=[])
    driver = Driver(registry().get("command"), environ={"PATH": os.environ["PATH"]}, sandbox=sandbox)
    run_id = f"sandboxed-{ends.replace(' ', '-')}-{os.getpid()}"
    up = trio.Event()

    def on_event(event: Any) -> None:
        if event.type == "agent_output":
            seen.append(event.content)
            up.set()

    request = RunRequest(
        prompt=f"{trap}; setsid sleep 1000 & echo up; while :; do sleep 0.1; done",
        cwd=str(home / "work"),
        run_id=run_id,
    )
    prepared = driver.prepare(request, on_event)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await up.wait()
                prepared.executor.cancel()

            nursery.start_soon(cancel)
            with pytest.raises(ExecutionCancelled):
                await prepared.execute()
    assert ("bye" in "\n".join(seen)) is (ends == "by itself")
    assert run_id not in find_processes().values()


@needs_bwrap
async def test_the_exit_status_comes_through(home: Path) -> None:
    result = await shut_in(home, "exit 7")
    assert (result.exit_code, result.error_code) == (7, "EXIT_STATUS")


def test_without_bubblewrap_the_daemon_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install bubblewrap"):
        open_sandbox(SandboxSettings(enabled=True), hidden=[])
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'no user namespaces' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    with pytest.raises(ConfigError, match="no user namespaces"):
        open_sandbox(SandboxSettings(enabled=True), hidden=[])
