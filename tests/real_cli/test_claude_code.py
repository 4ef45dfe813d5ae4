"""Claude Code, the real one, through the driver: what it does arrives as events, and each way to end is told apart.

Every scenario runs twice, with a callback and without one, and both results have to be equal (promise 8).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs
import pytest
import trio

from agentstream import ClaudeCodeDriver, ClaudeCodeSubscriptionDriver
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentOutputDelta,
    AgentPlan,
    AgentRateLimit,
    AgentSession,
    AgentStatus,
    AgentThinking,
    AgentToolCall,
    AgentToolResult,
    Event,
    FileChanged,
    PlanItem,
    ProgressUpdate,
    RunCompleted,
    RunFailed,
    RunStarted,
)
from agentstream.model.result import ExecutionResult
from agentstream.runs.driver import Driver
from tests.real_cli.conftest import Stage
from tests.support.messages_api import MessagesAPI, Turn, fail, say, thinking, tool

pytestmark = pytest.mark.real_cli

E = TypeVar("E", bound=Event)
#: Seconds. A run takes one or two; this only keeps a hung one from holding up the suite.
_PATIENCE: Final = 60
_ONE_RETRY: Final = {"CLAUDE_CODE_MAX_RETRIES": "1"}
#: Of 2026, far enough away to be in the future, and a whole second, as the API tells it.
_RESET: Final = 1_900_000_000


@attrs.frozen(kw_only=True)
class Played:
    """What became of a scenario."""

    result: ExecutionResult
    #: What the callback got.
    events: list[Event]
    api: MessagesAPI

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


async def play(
    stage: Stage,
    *turns: Turn,
    driver: Driver | None = None,
    env: Mapping[str, str] | None = None,
    subagents: Mapping[str, Sequence[Turn]] | None = None,
    files: Mapping[str, bytes] | None = None,
    **request: Any,
) -> Played:
    """Run it with a callback and, in a twin of the stage, without one; the results must be equal."""
    driver = driver or ClaudeCodeDriver()
    quiet, events = stage.twin("quiet"), list[Event]()
    for place in (stage, quiet):
        for name, content in (files or {}).items():
            (place.workspace / name).parent.mkdir(exist_ok=True)
            (place.workspace / name).write_bytes(content)
    api, quiet_api = stage.model(*turns, subagents=subagents), quiet.model(*turns, subagents=subagents)
    results: dict[str, ExecutionResult] = {}

    async def streaming() -> None:
        results["streaming"] = await driver.run(stage.request(api, env, **request), on_event=events.append)

    async def without() -> None:
        results["without"] = await driver.run(quiet.request(quiet_api, env, **request))

    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streaming)
            nursery.start_soon(without)
    assert _comparable(results["streaming"], stage) == _comparable(results["without"], quiet)
    return Played(result=results["streaming"], events=events, api=api)


#: How many there are depends on the clock.
_UNCOUNTED: Final = (ProgressUpdate, FileChanged, AgentOutputDelta)


def _comparable(result: ExecutionResult, stage: Stage) -> dict[str, Any]:
    """All of a result but clocks, random ids, the stage's paths and the model server's port."""
    return {
        **attrs.asdict(
            result,
            filter=lambda field, _: field.name not in {"duration_ms", "session_id", "stdout", "events", "error"},
        ),
        "error": re.sub(r":\d+\)", ":PORT)", (result.error or "").replace(str(stage.directory), "")),
        "events": [type(event) for event in result.events if not isinstance(event, (*_UNCOUNTED, AgentError))],
        # Some come from stderr: two pipes have no common order.
        "errors": sorted(str(event.code) for event in result.events if isinstance(event, AgentError)),
    }


# --- what it does --------------------------------------------------------------------------------------------------


async def test_text_tools_a_failing_tool_and_a_written_file_arrive_live_and_in_order(stage: Stage) -> None:
    played = await play(
        stage,
        say("I'll look first.", tool("Bash", command="ls -la && echo hi", description="look")),
        say("Now writing.", tool("Write", file_path="$WORKSPACE/hello.py", content="print('hello')\n")),
        say(tool("Read", file_path="$WORKSPACE/hello.py")),
        say(tool("Bash", command="python3 hello.py; exit 3")),
        say(tool("Edit", file_path="$WORKSPACE/hello.py", old_string="'hello'", new_string="'world'")),
        say("All done."),
    )
    told = [
        getattr(event, "content", None) or getattr(event, "tool", None) or type(event).__name__
        for event in played.events
        if isinstance(event, AgentOutput | AgentToolCall | AgentToolResult)
    ]
    done = "AgentToolResult"
    assert told == [
        *("I'll look first.", "Bash", done, "Now writing.", "Write", done),
        *("Read", done, "Bash", done, "Edit", done, "All done."),
    ]
    assert isinstance(played.events[0], RunStarted)
    assert isinstance(played.events[-1], RunCompleted)
    (session,) = played.of(AgentSession)
    assert session.session_id == played.result.session_id
    assert session.agent_version is not None
    assert "Bash" in (session.tools or [])
    assert [result.success for result in played.of(AgentToolResult)] == [True, True, True, False, True]
    assert "hello" in played.of(AgentToolResult)[3].content_preview
    changes = {(event.path, event.action) for event in played.of(FileChanged)}
    assert ("hello.py", "created") in changes
    assert (stage.workspace / "hello.py").read_text() == "print('world')\n"
    progress = [event.percentage for event in played.of(ProgressUpdate)]
    assert progress == sorted(progress)
    assert progress[-1] == 100
    assert played.result.success
    assert played.result.exit_code == 0
    assert played.result.result_text == "All done."
    assert played.result.turns == 6
    assert played.result.usage is not None
    assert (played.result.usage.input_tokens, played.result.usage.output_tokens) == (300, 120)
    assert (played.result.total_cost_usd or 0) > 0


async def test_thinking_and_deltas(stage: Stage) -> None:
    played = await play(
        stage, say(thinking("Let me think. " * 8), "A sentence that comes in pieces. " * 8), include_deltas=True
    )
    assert [event.content for event in played.of(AgentThinking)] == ["Let me think. " * 8]
    (output,) = played.of(AgentOutput)
    deltas = played.of(AgentOutputDelta)
    assert "".join(delta.content for delta in deltas) == output.content
    assert played.events.index(deltas[-1]) < played.events.index(output)


async def test_what_a_sub_agent_does_carries_the_call_that_started_it(stage: Stage) -> None:
    played = await play(
        stage,
        say("Delegating.", tool("Task", description="Look", prompt="SUB-ONE", subagent_type="general-purpose")),
        say("The sub-agent said 42."),
        subagents={"SUB-ONE": [say(tool("Bash", command="echo from-sub-agent")), say("Sub: 42.")]},
    )
    task, inner = played.of(AgentToolCall)
    assert (task.tool_name, inner.tool_name) == ("Task", "Bash")
    assert inner.parent_tool_use_id == task.tool_use_id
    results = {result.tool_use_id: result for result in played.of(AgentToolResult)}
    assert results[inner.tool_use_id].parent_tool_use_id == task.tool_use_id
    assert results[task.tool_use_id].parent_tool_use_id is None
    assert "Sub: 42." in results[task.tool_use_id].content_preview
    # The result line's usage leaves sub-agents out; the run's does not.
    assert played.result.usage is not None
    assert played.result.usage.output_tokens == 80


@pytest.mark.parametrize("todo", [True, False], ids=["TodoWrite", "TaskCreate"])
async def test_the_plan(stage: Stage, todo: bool) -> None:
    if todo:
        first = {"content": "Write it", "status": "in_progress", "activeForm": "Writing it"}
        second = {"content": "Run it", "status": "pending", "activeForm": "Running it"}
        turns = [say(tool("TodoWrite", todos=[first, second])), say("Done.")]
    else:
        # One after the other: what is called together may end in any order.
        turns = [say(tool("TaskCreate", subject=name, description=name)) for name in ("Write it", "Run it")]
        turns += [say(tool("TaskUpdate", taskId="1", status="in_progress")), say("Done.")]
    played = await play(stage, *turns, env={"CLAUDE_CODE_ENABLE_TASKS": "0"} if todo else {})
    assert played.of(AgentPlan)[-1].items == [
        PlanItem(content="Write it", status="in_progress"),
        PlanItem(content="Run it", status="pending"),
    ]


async def test_an_image_is_told_without_its_bytes(stage: Stage) -> None:
    played = await play(
        stage, say(tool("Read", file_path="$WORKSPACE/dot.png")), say("A dot."), files={"dot.png": _png(64, 64)}
    )
    (result,) = played.of(AgentToolResult)
    assert result.success
    assert "image" in result.content_preview.lower()
    assert "iVBOR" not in repr(played.events)


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes((x * y) % 256 for x in range(width * 3)) for y in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def test_a_huge_result_is_told_with_its_length(stage: Stage) -> None:
    big = b"".join(b"line %d %s\n" % (number, b"x" * 90) for number in range(20_000))
    played = await play(
        stage,
        say(tool("Read", file_path="$WORKSPACE/big.txt", limit=2)),
        say(tool("Edit", file_path="$WORKSPACE/big.txt", old_string="line 7 ", new_string="LINE 7 ")),
        say(tool("Bash", command="seq 1 300000")),
        say("Done."),
        files={"big.txt": big},
    )
    assert len(played.result.stdout) > 2_000_000
    assert all(result.success for result in played.of(AgentToolResult))
    assert all(len(result.content_preview) <= 503 for result in played.of(AgentToolResult))
    assert played.result.malformed_lines == 0


async def test_hooks_are_told(stage: Stage) -> None:
    settings = b'{"hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "echo from-the-hook"}]}]}}'
    played = await play(stage, say("Done."), files={".claude/settings.json": settings})
    assert {event.kind for event in played.of(AgentStatus)} == {"hook"}
    assert played.result.success


# --- how it ends ---------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Ending:
    """A scenario and the ending that must be told."""

    turns: Sequence[Turn]
    #: None: a success.
    code: str | None = None
    #: Must be in the error's message.
    words: str = ""
    env: Mapping[str, str] = attrs.field(factory=dict)
    request: Mapping[str, Any] = attrs.field(factory=dict)
    #: API_RETRY errors on the way.
    retries: int = 0
    text: str | None = None


_REJECTED: Final = {
    "anthropic-ratelimit-unified-status": "rejected",
    "anthropic-ratelimit-unified-reset": str(_RESET),
    "anthropic-ratelimit-unified-representative-claim": "five_hour",
    "retry-after": "3600",
}

ENDINGS: Final[Mapping[str, Ending]] = {
    "finished": Ending(turns=[say("Fine.")], text="Fine."),
    "max turns": Ending(
        turns=[say("One.", tool("Bash", command="echo one")), say("Two.")], request={"max_turns": 1}, code="MAX_TURNS"
    ),
    "refused": Ending(turns=[say("I can't.", stop_reason="refusal")], code="REFUSED"),
    "401": Ending(turns=[fail(401, forever=True)], env=_ONE_RETRY, code="AUTHENTICATION_FAILED", retries=1),
    "credit": Ending(
        turns=[fail(400, message="Your credit balance is too low to access the Anthropic API.")],
        code="CREDIT_EXHAUSTED",
    ),
    "bad request": Ending(turns=[fail(400, message="prompt is odd")], code="INVALID_REQUEST", words="prompt is odd"),
    "429, come back in an hour": Ending(
        turns=[fail(429, headers={"retry-after": "3600"}, forever=True)], code="RATE_LIMITED"
    ),
    "429 with retry-after, then fine": Ending(
        turns=[fail(429, headers={"retry-after": "1"}), say("Fine.")], retries=1, text="Fine."
    ),
    "529 for ever": Ending(turns=[fail(529, forever=True)], env=_ONE_RETRY, code="OVERLOADED", retries=1),
    "529 once": Ending(turns=[fail(529), say("Fine.")], retries=1, text="Fine."),
    "500 for ever": Ending(turns=[fail(500, forever=True)], env=_ONE_RETRY, code="API_ERROR", retries=1),
    "500 once": Ending(turns=[fail(500), say("Fine.")], retries=1, text="Fine."),
    "cut in the middle": Ending(turns=[say("Lost. " * 500, cut_after=2000), say("Fine.")], text="Fine."),
    "an error in the stream": Ending(
        turns=[say("Half.", stream_error="overloaded_error", message="Overloaded")], code="OVERLOADED"
    ),
    "network gone": Ending(
        turns=[], env={**_ONE_RETRY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, code="NETWORK", retries=1
    ),
    "no such session": Ending(
        turns=[], request={"resume_session_id": "00000000-0000-4000-8000-000000000000"}, code="SESSION_NOT_FOUND"
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_endings_are_told_apart(stage: Stage, name: str) -> None:
    ending = ENDINGS[name]
    played = await play(stage, *ending.turns, env=ending.env, **ending.request)
    assert (played.result.success, played.result.error_code) == (ending.code is None, ending.code)
    retries = [event for event in played.of(AgentError) if event.code == "API_RETRY"]
    assert len(retries) == ending.retries
    last = played.events[-1]
    if ending.code is None:
        assert isinstance(last, RunCompleted)
        assert played.result.result_text == ending.text
        assert "Lost." not in "".join(event.content for event in played.of(AgentOutput))
    else:
        assert isinstance(last, RunFailed)
        assert last.error_code == ending.code
        assert ending.words in last.error


async def test_a_rate_limit_of_a_subscription_tells_when_it_resets(stage: Stage) -> None:
    played = await play(
        stage,
        fail(429, headers=_REJECTED),
        driver=ClaudeCodeSubscriptionDriver(),
        env={"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up"},
    )
    (limit,) = played.of(AgentRateLimit)
    assert limit.status == "rejected"
    assert limit.kind == "five_hour"
    assert limit.resets_at is not None
    assert limit.resets_at.timestamp() == _RESET
    assert played.result.error_code == "RATE_LIMITED"
    # The key in the environment would win over the subscription: the driver has to take it away.
    asked = played.api.asked()[-1].headers
    assert asked["authorization"] == "Bearer sk-ant-oat01-made-up"
    assert "x-api-key" not in asked
