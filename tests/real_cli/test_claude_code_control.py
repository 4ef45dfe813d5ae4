"""Claude Code, the real one, while it runs: stopped, stalled, talked to, asked for permission, resumed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
import pytest
import trio

from agentstream import ClaudeCodeDriver, ClaudeCodeSubscriptionDriver
from agentstream.errors import AgentUnavailable, ExecutionCancelled
from agentstream.model.events import (
    AgentOutput,
    AgentStatus,
    AgentToolCall,
    AgentToolResult,
    ApprovalRequested,
    ApprovalResolved,
    Event,
    FileChanged,
    RunCanceled,
    RunFailed,
)
from agentstream.model.result import ExecutionResult
from agentstream.runs.driver import Driver, PreparedRun
from agentstream.runs.spec import RunLimits
from tests.real_cli.conftest import Stage
from tests.real_cli.processes import marked
from tests.support.messages_api import hold, say, tool

pytestmark = pytest.mark.real_cli

E = TypeVar("E", bound=Event)
#: Seconds; only keeps a hung test from holding up the suite.
_PATIENCE: Final = 60


class Watched:
    """A run in the background of a test, with its events so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.result: ExecutionResult | None = None
        #: What `ExecutionCancelled` said.
        self.cancellation = ""
        self.run: PreparedRun
        self._changed = trio.Event()

    def on_event(self, event: Event) -> None:
        """The run's callback."""
        self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    async def seen(self, kind: type[E], accept: Callable[[E], bool] = lambda _: True) -> E:
        """Wait for the first such event."""
        with trio.fail_after(_PATIENCE):
            while True:
                for event in self.of(kind):
                    if accept(event):
                        return event
                await self._changed.wait()

    async def said(self, content: str) -> None:
        """Wait until the agent said it."""
        await self.seen(AgentOutput, lambda event: content in event.content)

    async def execute(self) -> None:
        """Run it to its end."""
        with trio.fail_after(_PATIENCE):
            try:
                self.result = await self.run.execute()
            except ExecutionCancelled as error:
                self.cancellation = str(error)
                self.result = error.result


def prepare(stage: Stage, *turns: Any, driver: Driver | None = None, **request: Any) -> Watched:
    """A run that is ready to start."""
    watched = Watched()
    asked = stage.request(stage.model(*turns), **request)
    watched.run = (driver or ClaudeCodeDriver()).prepare(asked, watched.on_event)
    return watched


def agents(run_id: str) -> list[int]:
    """The CLI itself."""
    return [pid for pid, command in marked(run_id) if command.startswith("claude ") or "/claude " in command]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    with trio.fail_after(_PATIENCE):
        while not condition():  # noqa: ASYNC110 - the kernel sets no trio.Event
            await trio.sleep(0.02)


# --- stopped -------------------------------------------------------------------------------------------------------


async def test_nothing_is_left_of_a_stopped_run_and_its_session_can_be_resumed(stage: Stage) -> None:
    watched = prepare(stage, say("Sleeping.", tool("Bash", command="sleep 300 & setsid sleep 300", timeout=400_000)))
    run_id = watched.run.request.run_id

    def asleep() -> list[int]:
        return [pid for pid, command in marked(run_id) if command == "sleep 300"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.execute)
        await until(lambda: len(asleep()) == 2)
        watched.run.executor.cancel("enough")
    assert list(marked(run_id)) == []
    assert watched.result is not None
    assert watched.result.cancelled
    assert "cancelled" in watched.cancellation
    assert isinstance(watched.events[-1], RunCanceled)
    assert watched.events[-1].reason == "enough"
    assert watched.events[-1].session_id == watched.result.session_id
    # Each call got its result, if only a failed one.
    assert [result.success for result in watched.of(AgentToolResult)] == [False]

    api = stage.model(say("I remember."))
    resumed = await ClaudeCodeDriver().run(
        stage.request(api, prompt="Go on.", resume_session_id=watched.result.session_id)
    )
    assert resumed.success
    assert resumed.session_id == watched.result.session_id
    assert "make hello" in str(api.asked()[0].body["messages"])


async def test_4_mb_right_before_the_exit_arrive_though_the_event_loop_is_blocked(stage: Stage) -> None:
    (stage.workspace / "big.txt").write_bytes(b"".join(b"line %d %s\n" % (n, b"x" * 90) for n in range(10_000)))
    edits = [
        tool("Edit", file_path="$WORKSPACE/big.txt", old_string=f"line {n} ", new_string=f"LINE {n} ")
        for n in range(1, 5)
    ]
    api = stage.model(say(tool("Read", file_path="$WORKSPACE/big.txt", limit=2)), say(*edits), say("Done."))
    request = stage.request(api)
    blocked = False

    def on_event(event: Event) -> None:
        nonlocal blocked
        if isinstance(event, AgentToolCall) and event.tool == "Edit" and not blocked:
            blocked = True
            deadline = time.monotonic() + _PATIENCE
            while agents(request.run_id):  # nothing of ours runs until the CLI has printed everything and is gone
                assert time.monotonic() < deadline
                time.sleep(0.02)

    result = await ClaudeCodeDriver().run(request, on_event=on_event)
    assert blocked
    assert result.success
    assert result.result_text == "Done."
    assert len(result.stdout) > 4_000_000
    assert result.malformed_lines == 0
    assert len([event for event in result.events if isinstance(event, AgentToolResult) and event.success]) == 5


async def test_what_a_tool_left_behind_dies_with_a_run_that_ended_well(stage: Stage) -> None:
    watched = prepare(
        stage, say(tool("Bash", command="nohup setsid sleep 300 >/dev/null 2>&1 & echo started")), say("Done.")
    )
    await watched.execute()
    assert list(marked(watched.run.request.run_id)) == []
    assert watched.result is not None
    assert watched.result.success


@attrs.frozen
class _Death:
    signal: signal.Signals
    code: str


@pytest.mark.parametrize("death", [_Death(signal.SIGKILL, "KILLED"), _Death(signal.SIGSEGV, "CRASHED")], ids=str)
async def test_a_cli_that_is_killed_or_crashes(stage: Stage, death: _Death) -> None:
    watched = prepare(stage, say("Thinking.", hold(stage.directory / "never")), include_deltas=True)
    run_id = watched.run.request.run_id
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.execute)
        await watched.seen(Event, lambda event: event.type == "agent_output_delta")
        (agent,) = agents(run_id)
        os.kill(agent, death.signal)
    assert watched.result is not None
    assert watched.result.error_code == death.code
    assert isinstance(watched.events[-1], RunFailed)
    assert death.signal.name in watched.events[-1].error
    assert list(marked(run_id)) == []


@pytest.mark.parametrize(("limit", "code"), [("timeout_seconds", "TIMEOUT"), ("idle_timeout_seconds", "IDLE_TIMEOUT")])
async def test_limits_of_time(stage: Stage, limit: str, code: str) -> None:
    # Long enough for the CLI to start and answer, even on a busy machine; the model then never goes on.
    request: dict[str, Any] = {limit: 4.0}
    watched = prepare(stage, say("Thinking.", hold(stage.directory / "never")), **request)
    await watched.execute()
    assert watched.result is not None
    assert watched.result.error_code == code
    assert list(marked(watched.run.request.run_id)) == []


# --- talked to -----------------------------------------------------------------------------------------------------


async def test_a_conversation_follow_up_interrupt_and_close(stage: Stage) -> None:
    watched = prepare(
        stage,
        say("First."),
        say("Sleeping.", tool("Bash", command="sleep 300", timeout=400_000)),
        say("Third."),
        interactive=True,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.execute)
        await watched.said("First.")
        await watched.run.executor.send_message("And now sleep.")
        call = await watched.seen(AgentToolCall)
        await until(lambda: any(command == "sleep 300" for _, command in marked(watched.run.request.run_id)))
        await watched.run.executor.interrupt()
        stopped = await watched.seen(AgentToolResult, lambda event: event.tool_use_id == call.tool_use_id)
        assert not stopped.success
        await watched.run.executor.send_message("Enough of that.")
        await watched.said("Third.")
        watched.run.executor.close_input()
    assert watched.result is not None
    assert watched.result.success
    assert watched.result.result_text == "Third."


@pytest.mark.parametrize("interactive", [False, True])
async def test_a_task_in_the_background_brings_a_further_turn(stage: Stage, interactive: bool) -> None:
    # Its end is told to the model, after a first result line: with closed input the CLI waits for it by itself, with open
    # input the executor must not close it too early.
    watched = prepare(
        stage,
        say(tool("Bash", command="until [ -e go ]; do sleep 0.05; done; touch gone", run_in_background=True)),
        say("Not done yet."),
        say("Now it is done."),
        interactive=interactive,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.execute)
        await watched.said("Not done yet.")
        if interactive:
            watched.run.executor.close_input()
        (stage.workspace / "go").touch()
    assert watched.result is not None
    assert watched.result.success
    assert watched.result.result_text == "Now it is done."
    assert (stage.workspace / "gone").exists()


# --- asked for permission ------------------------------------------------------------------------------------------


async def test_approvals_allow_with_another_input_deny_and_answer_a_question(stage: Stage) -> None:
    question = {
        "question": "Which?",
        "header": "Pick",
        "options": [{"label": "A", "description": "a"}, {"label": "B", "description": "b"}],
        "multiSelect": False,
    }
    watched = prepare(
        stage,
        say(tool("Write", file_path="$WORKSPACE/a.txt", content="as the model wants it")),
        say(tool("Bash", command="touch b.txt")),
        say(tool("AskUserQuestion", questions=[question])),
        say("Done."),
        permission_mode="default",
        ask_approvals=True,
    )
    executor = watched.run.executor
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.execute)
        write = await watched.seen(ApprovalRequested, lambda event: event.tool_name == "Write")
        assert executor.approvals == [write]
        await executor.resolve_approval(
            write.request_id, "allow", updated_input={**write.input, "content": "as the operator wants it"}
        )
        bash = await watched.seen(ApprovalRequested, lambda event: event.tool_name == "Bash")
        await executor.resolve_approval(bash.request_id, "deny", message="Not in my house.")
        ask = await watched.seen(ApprovalRequested, lambda event: event.tool_name == "AskUserQuestion")
        await executor.resolve_approval(
            ask.request_id, "allow", updated_input={**ask.input, "answers": {"Which?": "B"}}
        )
    assert [event.decision for event in watched.of(ApprovalResolved)] == ["allow", "deny", "allow"]
    assert (stage.workspace / "a.txt").read_text() == "as the operator wants it"
    assert not (stage.workspace / "b.txt").exists()
    written, denied, answered = watched.of(AgentToolResult)
    assert written.success
    assert not denied.success
    assert "Not in my house." in denied.content_preview
    assert '"Which?"="B"' in answered.content_preview
    assert "a.txt" in {event.path for event in watched.of(FileChanged)}
    assert watched.result is not None
    assert watched.result.success
    assert executor.approvals == []


async def test_an_approval_that_nobody_gives_expires_and_the_run_goes_on(stage: Stage) -> None:
    watched = prepare(
        stage,
        say(tool("Bash", command="touch b.txt")),
        say("Without it, then."),
        driver=ClaudeCodeDriver(limits=RunLimits(approval_timeout=0.5)),
        permission_mode="default",
        ask_approvals=True,
    )
    await watched.execute()
    (resolved,) = watched.of(ApprovalResolved)
    assert resolved.decision == "deny"
    assert "nobody answered" in (resolved.message or "")
    assert not (stage.workspace / "b.txt").exists()
    assert watched.result is not None
    assert watched.result.result_text == "Without it, then."


# --- resumed, logged in --------------------------------------------------------------------------------------------


async def test_a_session_goes_on_and_can_be_compacted(stage: Stage) -> None:
    first = await ClaudeCodeDriver().run(stage.request(stage.model(say("One."))))
    api = stage.model(say("Two."))
    second = await ClaudeCodeDriver().run(stage.request(api, prompt="Go on.", resume_session_id=first.session_id))
    assert second.session_id == first.session_id
    assert "One." in str(api.asked()[0].body["messages"])
    watched = prepare(stage, say("A summary."), prompt="/compact", resume_session_id=first.session_id)
    await watched.execute()
    assert "compaction" in {event.kind for event in watched.of(AgentStatus)}


def test_the_login_is_known_before_the_start_and_no_secret_is_told(stage: Stage) -> None:
    api = stage.model()
    keyless = stage.environment(api, ANTHROPIC_API_KEY="")
    subscribed = {**stage.environment(api), "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up"}
    key = ClaudeCodeDriver().is_available(stage.environment(api))
    token = ClaudeCodeSubscriptionDriver().is_available(subscribed)
    assert key
    assert token
    assert key.login != token.login
    assert "sk-" not in f"{key.login}{token.login}"
    assert not ClaudeCodeSubscriptionDriver().is_available(keyless)
    with pytest.raises(AgentUnavailable):
        ClaudeCodeSubscriptionDriver().prepare(attrs.evolve(stage.request(api), env=keyless))
