"""`StreamingExecutor` with real child processes, nice ones and nasty ones."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from agentstream.agents.base import RunRequest
from agentstream.errors import ExecutionCancelled
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentToolCall,
    AgentToolResult,
    Event,
    FileChanged,
    ProgressUpdate,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunStarted,
)
from agentstream.model.limits import MAX_EVENT_BYTES
from agentstream.model.orders import StreamingOptions
from agentstream.model.result import ExecutionResult
from agentstream.model.wire import event_body
from agentstream.runs.driver import driver_for
from agentstream.runs.executor import StreamingExecutor
from agentstream.runs.process import RUN_ID_VARIABLE, find_processes
from agentstream.runs.spec import RunLimits

#: Far more than anything here takes; only a hang meets it.
PATIENCE = 60
#: Seconds that only our processes sleep for, whoever else runs these tests on this machine.
NAP = f"1000.{os.getpid()}"


def python(code: str) -> tuple[str, list[str]]:
    return sys.executable, ["-I", "-S", "-c", textwrap.dedent(code)]


def shell(code: str) -> tuple[str, list[str]]:
    return "/bin/sh", ["-c", code]


def executor(run_id: str, on_event: object = None, **options: object) -> StreamingExecutor:
    return StreamingExecutor("wo", run_id, on_event, **options)  # type: ignore[arg-type]


def outputs(events: Sequence[Event]) -> str:
    return "\n".join(event.content for event in events if isinstance(event, AgentOutput))


@pytest.fixture
def run_id(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}-{os.getpid()}"


@pytest.fixture(autouse=True)
def _nothing_is_left(run_id: str) -> object:
    yield
    left = [pid for pid, found in find_processes().items() if found == run_id]
    assert left == []


# --- what it is for --------------------------------------------------------------------------------------------------


async def test_a_plain_command_streams_its_text_and_its_exit_status_decides(run_id: str) -> None:
    result = await executor(run_id).execute(*shell("echo one; echo two >&2; echo three; exit 3"))
    assert not result.success
    assert (result.exit_code, result.signal, result.error_code) == (3, None, "EXIT_STATUS")
    assert (result.stdout, result.stderr) == ("one\nthree\n", "two\n")
    assert outputs(result.events) == "one\nthree"
    [error] = [event for event in result.events if isinstance(event, AgentError)]
    assert (error.message, error.source) == ("two", "stderr")
    assert isinstance(result.events[0], RunStarted)
    assert isinstance(result.events[-1], RunFailed)


async def test_stream_json_becomes_typed_events_in_order(run_id: str) -> None:
    lines = r"""
        {"type":"text","text":"hello"}
        {"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls"}}
        {"type":"tool_result","tool_use_id":"t1","content":"a b"}
        {"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s","total_cost_usd":0.5}
    """
    code = f"print({textwrap.dedent(lines).strip()!r})"
    result = await executor(run_id).execute(*python(code))
    kinds = [event.type for event in result.events if not isinstance(event, ProgressUpdate)]
    assert kinds[:4] == ["run_started", "agent_output", "agent_tool_call", "agent_tool_result"]
    assert kinds[-1] == "run_completed"
    assert (result.success, result.result_text, result.session_id, result.total_cost_usd) == (True, "done", "s", 0.5)


async def test_events_arrive_while_the_agent_works(run_id: str, tmp_path: Path) -> None:
    """The agent goes on only after its first line was delivered."""
    gate = tmp_path / "gate"

    def opened(event: Event) -> None:
        if isinstance(event, AgentOutput) and event.content == "first":
            gate.touch()

    with trio.fail_after(PATIENCE):
        result = await executor(run_id, opened).execute(
            *shell(f"echo first; while [ ! -e {gate} ]; do sleep 0.01; done; echo second")
        )
    assert outputs(result.events) == "first\nsecond"


@pytest.mark.parametrize("kind", ["sync", "async", "none"])
async def test_the_result_is_the_same_with_and_without_a_callback(run_id: str, kind: str) -> None:
    seen: list[Event] = []

    async def later(event: Event) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(event)

    callback = {"sync": seen.append, "async": later, "none": None}[kind]
    result = await executor(run_id, callback).execute(*shell("echo a; echo b >&2; sleep 0.01; echo c"))
    if callback is not None:
        assert tuple(seen) == result.events
    assert (result.stdout, result.stderr, outputs(result.events)) == ("a\nc\n", "b\n", "a\nc")


async def test_options_leave_events_out_but_not_out_of_the_result(run_id: str) -> None:
    options = StreamingOptions(emit_output=False, emit_tool_calls=False, emit_tool_results=False)
    lines = (
        '{"type":"text","text":"x"}\n{"type":"tool_use","id":"t","name":"Read","input":{}}\n'
        '{"type":"tool_result","tool_use_id":"t","content":"y"}'
    )
    result = await executor(run_id, options=options).execute(*python(f"print({lines!r})"))
    assert not any(isinstance(event, AgentOutput | AgentToolCall | AgentToolResult) for event in result.events)
    assert result.stdout == lines + "\n"
    progress = [event for event in result.events if isinstance(event, ProgressUpdate)]
    assert progress[-1].tool_call_count == 1
    assert progress[-1].percentage == 100


async def test_stdin_reaches_the_program_whatever_its_size(run_id: str) -> None:
    prompt = "x" * 300_000
    result = await executor(run_id).execute(*shell("wc -c"), stdin=prompt)
    assert result.stdout.split() == ["300000"]


async def test_stdin_is_empty_by_default(run_id: str) -> None:
    assert (await executor(run_id).execute(*shell("cat; echo end"))).stdout == "end\n"


async def test_the_environment_is_the_one_given_and_names_the_run(run_id: str) -> None:
    result = await executor(run_id).execute("/usr/bin/env", env={"A": "1"})
    assert set(result.stdout.split()) == {"A=1", f"{RUN_ID_VARIABLE}={run_id}"}


async def test_file_changes_are_told_before_the_end(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("1")
    result = await executor(run_id).execute(*shell("echo 22 > old; echo 333 > new"), cwd=tmp_path)
    changes = {
        event.path: (event.action, event.size_bytes) for event in result.events if isinstance(event, FileChanged)
    }
    assert changes == {"old": ("modified", 3), "new": ("created", 4)}
    assert isinstance(result.events[-1], RunCompleted)


async def test_a_relative_directory_is_the_callers(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (await executor(run_id).execute(*shell("pwd"), cwd="below")).stdout == f"{tmp_path / 'below'}\n"
    result = await driver_for("command").run(RunRequest(prompt="pwd", cwd="below"))
    assert result.stdout == f"{tmp_path / 'below'}\n"


async def test_progress_never_falls_and_is_100_only_at_the_end(run_id: str) -> None:
    options = StreamingOptions(progress_interval_ms=100)
    result = await executor(run_id, options=options).execute(*shell("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"))
    percentages = [event.percentage for event in result.events if isinstance(event, ProgressUpdate)]
    assert percentages == sorted(percentages)
    assert percentages[-1] == 100
    assert max(percentages[:-1]) < 100


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancel_ends_the_run_and_tells_it_last(run_id: str) -> None:
    seen: list[Event] = []
    runner = executor(run_id, seen.append)

    def stop(event: Event) -> None:
        seen.append(event)
        if isinstance(event, AgentOutput):
            runner.cancel("enough")

    runner._on_event = stop
    with trio.fail_after(PATIENCE), pytest.raises(ExecutionCancelled, match="cancelled") as caught:
        await runner.execute(*shell(f"echo started; sleep {NAP}"))
    result = caught.value.result
    assert result.cancelled
    assert outputs(result.events) == "started"
    assert isinstance(seen[-1], RunCanceled)
    assert seen[-1].reason == "enough"


async def test_output_that_comes_while_the_agent_stops_is_still_read(run_id: str) -> None:
    runner = executor(run_id)

    def stop(event: Event) -> None:
        if isinstance(event, AgentOutput):
            runner.cancel()

    runner._on_event = stop
    with trio.fail_after(PATIENCE), pytest.raises(ExecutionCancelled) as caught:
        await runner.execute(*shell("trap 'echo last words; exit 0' INT; echo ready; while :; do sleep 0.05; done"))
    assert outputs(caught.value.result.events) == "ready\nlast words"


async def test_cancel_before_the_start_starts_nothing(run_id: str, tmp_path: Path) -> None:
    runner = executor(run_id)
    runner.cancel("changed my mind")
    runner.cancel()
    with pytest.raises(ExecutionCancelled, match="cancelled: changed my mind"):
        await runner.execute(*shell(f"touch {tmp_path}/started"))
    assert not (tmp_path / "started").exists()


async def test_cancel_twice_and_after_the_end_is_harmless(run_id: str) -> None:
    runner = executor(run_id)
    result = await runner.execute(*shell("echo x"))
    runner.cancel()
    runner.cancel("again")
    assert result.success


async def test_a_surrounding_cancellation_cleans_up_the_same_way_and_propagates(run_id: str) -> None:
    seen: list[Event] = []
    with trio.fail_after(PATIENCE):
        with trio.CancelScope() as scope:

            def stop(event: Event) -> None:
                seen.append(event)
                if isinstance(event, AgentOutput):
                    scope.cancel()

            await executor(run_id, stop).execute(*shell(f"echo started; (setsid sleep {NAP} &) ; sleep {NAP}"))
            pytest.fail("the cancellation was swallowed")
    assert scope.cancelled_caught
    assert isinstance(seen[-1], RunCanceled)


async def test_a_callback_that_blocks_for_ever_does_not_outlive_a_surrounding_cancellation(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.runs.executor._CLEANUP_PATIENCE", 1.0)
    blocked = trio.Event()

    async def block(event: Event) -> None:
        blocked.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: executor(run_id, block).execute(*shell(f"sleep {NAP}")))
        await blocked.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_callback_that_raises_stops_the_run_and_reaches_the_caller(run_id: str, kind: str) -> None:
    class Mine(Exception):
        pass

    def fail(event: Event) -> None:
        if isinstance(event, AgentOutput):
            raise Mine("no more")

    async def fail_later(event: Event) -> None:
        fail(event)

    with trio.fail_after(PATIENCE), pytest.raises(Mine, match="no more"):
        await executor(run_id, fail if kind == "sync" else fail_later).execute(*shell(f"echo x; sleep {NAP}"))


async def test_a_run_that_takes_too_long_is_stopped_and_says_so(run_id: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await executor(run_id).execute(*shell(f"echo begun; sleep {NAP}"), timeout=0.5)
    assert result.timed_out
    assert (result.success, result.error_code) == (False, "TIMEOUT")
    assert isinstance(result.events[-1], RunFailed)


async def test_a_silent_run_is_stopped_and_says_so(run_id: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await executor(run_id, limits=RunLimits(idle_timeout=0.3)).execute(*shell(f"echo begun; sleep {NAP}"))
    assert (result.timed_out, result.error_code) == (True, "IDLE_TIMEOUT")


# --- nasty agents ------------------------------------------------------------------------------------------------


async def test_4_mb_and_exit_while_the_event_loop_is_blocked(run_id: str) -> None:
    count = 40_000

    def stall(event: Event) -> None:
        if isinstance(event, RunStarted):
            # The whole program stands still, as a debugger or a swapping machine makes it; the agent doesn't.
            nursery.start_soon(block)

    async def block() -> None:
        await trio.lowlevel.checkpoint()
        time.sleep(5)  # noqa: ASYNC251 - blocking the event loop is what is tested

    async with trio.open_nursery() as nursery:
        result = await executor(run_id, stall).execute(
            *python(f"import sys\nfor i in range({count}): sys.stdout.write(f'line {{i:06}} ' + 'x' * 88 + '\\n')")
        )
    lines = outputs(result.events).splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(count))


@pytest.mark.parametrize(
    "code",
    [
        "trap '' TERM INT HUP; echo up; while :; do sleep 0.2; done",
        f"echo up; setsid sleep {NAP} & nohup sleep {NAP} >/dev/null 2>&1 & wait",
        f"(setsid sh -c 'trap \"\" TERM; sleep {NAP} & wait' &) ; echo up; sleep {NAP}",
        f"env -i setsid sh -c '(sleep {NAP} &)'; echo up; sleep {NAP}",
    ],
    ids=["ignores signals", "other sessions", "double fork", "empty environment"],
)
async def test_nothing_survives_a_cancel(run_id: str, code: str, tmp_path: Path) -> None:
    runner = executor(run_id)
    before = _sleeps()

    def stop(event: Event) -> None:
        if isinstance(event, AgentOutput):
            runner.cancel()

    runner._on_event = stop
    with trio.fail_after(PATIENCE), pytest.raises(ExecutionCancelled):
        await runner.execute(*shell(code), cwd=tmp_path)
    assert _sleeps() - before == set()


async def test_what_a_normal_exit_leaves_behind_is_ended_too(run_id: str) -> None:
    before = _sleeps()
    with trio.fail_after(PATIENCE):
        result = await executor(run_id).execute(*shell(f"nohup sleep {NAP} & setsid sleep {NAP} & echo done"))
    assert result.success
    assert _sleeps() - before == set()


async def test_a_grandchild_that_holds_stdout_does_not_hold_up_the_end(run_id: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await executor(run_id).execute(*shell(f"(trap '' TERM HUP; sleep {NAP}) & echo done"))
    assert (result.success, result.stdout) == (True, "done\n")


async def test_somebody_kills_the_supervisor(run_id: str) -> None:
    before = _sleeps()
    runner = executor(run_id)

    def kill(event: Event) -> None:
        if isinstance(event, AgentOutput):
            assert runner._run is not None
            os.kill(int(event.content), signal.SIGKILL)

    runner._on_event = kill
    with trio.fail_after(PATIENCE):
        result = await runner.execute(*shell(f"setsid sleep {NAP} & echo $PPID; sleep {NAP}"))
    assert (result.success, result.signal) == (False, "SIGKILL")
    assert _sleeps() - before == set()


async def test_200_mb_in_bounded_memory(run_id: str) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with trio.fail_after(PATIENCE * 3):
        result = await executor(run_id, options=StreamingOptions(emit_output=False)).execute(
            *python("import sys\nline = 'x' * 999 + '\\n'\nfor _ in range(200): sys.stdout.write(line * 1000)")
        )
    assert result.success
    assert result.truncated
    assert len(result.stdout) < 11 * 1024 * 1024
    assert "bytes left out" in result.stdout
    # Kilobytes: 10 MiB of each stream, twice while they are joined, and what Python keeps.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


async def test_a_line_of_30_mb_is_split_into_events_that_fit(run_id: str) -> None:
    size = 30 * 1024 * 1024
    seen: list[Event] = []
    with trio.fail_after(PATIENCE * 3):
        result = await executor(run_id, seen.append).execute(*python(f"print('y' * {size})"))
    assert result.success
    pieces = [event for event in seen if isinstance(event, AgentOutput)]
    assert sum(len(event.content) for event in pieces) == size
    assert max(len(event_body(event)) for event in pieces) < MAX_EVENT_BYTES


async def test_binary_output_is_no_reason_to_fail(run_id: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await executor(run_id).execute(
            *python(
                "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 100)\nsys.stderr.buffer.write(b'\\xff\\n')"
            )
        )
    assert result.success
    for event in result.events:
        event_body(event)


async def test_an_agent_that_exits_at_once(run_id: str) -> None:
    result = await executor(run_id).execute("/bin/true")
    assert (result.success, result.stdout, result.exit_code) == (True, "", 0)


async def test_an_agent_that_is_killed(run_id: str) -> None:
    result = await executor(run_id).execute(*shell("kill -9 $$"))
    assert (result.success, result.exit_code, result.signal, result.error_code) == (False, None, "SIGKILL", "KILLED")


async def test_a_missing_program_is_told_clearly(run_id: str) -> None:
    result = await executor(run_id).execute("no-such-program-anywhere")
    _assert_never_started(result, "'no-such-program-anywhere' was not found")


async def test_a_missing_workspace_is_told_clearly(run_id: str, tmp_path: Path) -> None:
    result = await executor(run_id).execute("/bin/true", cwd=tmp_path / "nowhere")
    _assert_never_started(result, "nowhere does not exist")


async def test_a_program_that_may_not_be_executed_is_told_clearly(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    result = await executor(run_id).execute(str(tmp_path / "script"))
    _assert_never_started(result, "may not be executed")


def _assert_never_started(result: ExecutionResult, text: str) -> None:
    assert (result.success, result.exit_code, result.error_code) == (False, None, "SPAWN_FAILED")
    last = result.events[-1]
    assert isinstance(last, RunFailed)
    assert text in last.error


async def test_output_beyond_its_bound_stops_the_run(run_id: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await executor(run_id, limits=RunLimits(max_output_bytes=100_000)).execute(*shell("yes"))
    assert result.error_code == "OUTPUT_LIMIT"


async def test_raw_output_is_kept_where_the_caller_wants_it(run_id: str, tmp_path: Path) -> None:
    await executor(run_id, run_directory=tmp_path / "raw").execute(*shell("echo out; echo err >&2"))
    assert (tmp_path / "raw" / "stdout").read_text() == "out\n"
    assert (tmp_path / "raw" / "stderr").read_text() == "err\n"
    assert (tmp_path / "raw" / "stdout").stat().st_mode & 0o077 == 0


async def test_pipes_serve_callers_without_a_disk(run_id: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await executor(run_id, capture="pipe").execute(
            *shell(f"(trap '' TERM HUP; sleep {NAP}) & for i in $(seq 5000); do echo line $i; done")
        )
    assert outputs(result.events).splitlines() == [f"line {number}" for number in range(1, 5001)]


async def test_secrets_are_replaced_before_anybody_sees_them(run_id: str) -> None:
    result = await executor(run_id, redact=lambda line: line.replace(b"s3cret", b"[redacted]")).execute(
        *shell("echo my s3cret; echo s3cret >&2")
    )
    assert (result.stdout, result.stderr) == ("my [redacted]\n", "[redacted]\n")
    assert "s3cret" not in repr(result.events)


async def test_an_executor_runs_once(run_id: str) -> None:
    runner = executor(run_id)
    await runner.execute("/bin/true")
    with pytest.raises(RuntimeError, match="once"):
        await runner.execute("/bin/true")


def _sleeps() -> set[int]:
    """Our processes that sleep for `NAP`, zombies left out: also those that carry no run id."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"sleep\0{NAP}".encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found
