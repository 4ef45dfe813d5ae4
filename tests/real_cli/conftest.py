"""Tests with a real agent program: they run in a child pytest inside a loopback-only namespace, and are reported here.

A process can't enter a network namespace with all its threads once it has some, so the tests can't be moved; they are run where
they belong instead. The first test of a file starts one child for all the selected ones of that file; it sends each report over a
pipe, and the outer pytest replays it as its own when the test's turn comes. So a test here is written like any other, its body,
its daemon, its model server and its agent all see the same 127.0.0.1, and ``-k``, ``-x``, ``-n`` and the summary work as ever.

Rejected: wrapping only the agent (the model server would be outside), and one child per test (a second each).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from agentstream.agents.base import RunRequest
from tests.support import sandbox
from tests.support.messages_api import MessagesAPI, Script, Turn

#: The file descriptor that the child writes its reports to.
_REPORTS: Final = "TEST_REPORTS"
_CHILDREN: Final = pytest.StashKey["dict[Path, _Child]"]()


class _Child:
    """The pytest in the namespace."""

    def __init__(self, items: Sequence[pytest.Item]) -> None:
        reports, write_end = os.pipe()
        self._reports = os.fdopen(reports, "rb")
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._process = subprocess.Popen(
            sandbox.command(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-p",
                    "no:xdist",
                    *(i.nodeid for i in items),
                ]
            ),
            cwd=sandbox.CHECKOUT,
            env={**os.environ, _REPORTS: str(write_end)},
            pass_fds=[write_end],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        os.close(write_end)

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """The reports of one test, as they come."""
        with contextlib.suppress(EOFError):
            while True:
                data = pickle.load(self._reports)
                report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
                if report.nodeid != item.nodeid:
                    continue  # Another worker of xdist was given that test.
                yield report
                if report.when == "teardown":
                    return
        self._output.seek(0)
        printed = self._output.read().decode(errors="replace")[-20_000:]
        yield pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=f"the pytest in the namespace ended before this test did; it printed:\n{printed}",
            when="call",
        )

    def end(self) -> None:
        """Stop it, if it still runs."""
        self._process.terminate()
        self._process.wait()
        self._reports.close()
        self._output.close()


class _Relay:
    """Inside: the plugin that sends each report out."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        descriptor = int(os.environ[_REPORTS])
        os.set_inheritable(descriptor, False)
        self._reports = os.fdopen(descriptor, "wb")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of each test."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        pickle.dump(data, self._reports)  # not JSON: a skip's place is a tuple and has to stay one
        self._reports.flush()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a namespace the tests are skipped, for the reason that the system gives."""
    if sandbox.inside():
        if _REPORTS in os.environ:
            config.pluginmanager.register(_Relay(config))
        return
    ours = [item for item in items if item.get_closest_marker("real_cli")]
    if ours and (reason := sandbox.unavailable()):
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))


def _child_of(item: pytest.Item) -> _Child:
    children = item.session.stash.setdefault(_CHILDREN, {})
    if item.path not in children:
        ours = [i for i in item.session.items if i.get_closest_marker("real_cli") and not i.get_closest_marker("skip")]
        children[item.path] = _Child([i for i in ours if i.path == item.path])
    return children[item.path]


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Outside: replay what the child reports. Inside, and for all other tests: as usual."""
    if sandbox.inside() or not item.get_closest_marker("real_cli") or item.get_closest_marker("skip"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _child_of(item).reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """After ``-x`` or Ctrl-C the child is still busy."""
    for child in session.stash.get(_CHILDREN, {}).values():
        child.end()


@pytest.fixture(scope="session")
def claude() -> Path:
    """The real Claude Code CLI."""
    found = sandbox.find_claude()
    if found is None:
        pytest.skip(
            "the Claude Code CLI is not installed: "
            f"npm install --ignore-scripts --prefix .tools {sandbox.CLAUDE_PACKAGE}, or set TEST_CLAUDE"
        )
    return found


@attrs.frozen
class Stage:
    """Where one run plays: a workspace, a home without an account, and a model that speaks what the test wrote for it."""

    directory: Path
    _models: ExitStack

    @property
    def workspace(self) -> Path:
        """The agent's working directory."""
        return self.directory / "workspace"

    @property
    def home(self) -> Path:
        """The agent's home directory."""
        return self.directory / "home"

    def twin(self, name: str) -> Stage:
        """Another one beside it, as new."""
        return make_stage(self.directory / name, self._models)

    def model(self, *turns: Turn, subagents: Mapping[str, Sequence[Turn]] | None = None) -> MessagesAPI:
        """A running model server; it is stopped after the test."""
        script = Script(turns=turns, subagents=subagents or {}, workspace=str(self.workspace))
        return self._models.enter_context(MessagesAPI(script))

    def environment(self, api: MessagesAPI, **extra: str) -> dict[str, str]:
        """For the CLI, complete."""
        return {**sandbox.claude_environment(self.home, api.url), **extra}

    def request(self, api: MessagesAPI, env: Mapping[str, str] | None = None, **more: Any) -> RunRequest:
        """A run of the CLI here, with this model."""
        options: dict[str, Any] = {"prompt": "make hello", "permission_mode": "bypassPermissions", **more}
        # Its own id: somebody may run the same test on this machine at the same time.
        options.setdefault("run_id", f"run-{secrets.token_hex(8)}")
        return RunRequest(cwd=str(self.workspace), env=self.environment(api, **(env or {})), **options)


def make_stage(directory: Path, models: ExitStack) -> Stage:
    """A fresh one below ``directory``."""
    stage = Stage(directory, models)
    stage.workspace.mkdir(parents=True)
    stage.home.mkdir()
    return stage


@pytest.fixture
def stage(claude: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A `Stage`, with the CLI as ``claude`` on the ``PATH``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(claude)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    with ExitStack() as models:
        yield make_stage(tmp_path, models)
