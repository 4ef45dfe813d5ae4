"""The demo agent as a real process: what it prints, what it does to the workspace, how it ends; then its adapter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from agentstream.agents import demo_program
from agentstream.agents.base import Exit, Launch, Moment, RunRequest, Summary
from agentstream.agents.demo import DemoAdapter
from agentstream.errors import InvalidMessage
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentOutputDelta,
    AgentPlan,
    AgentRaw,
    AgentSession,
    AgentToolCall,
    AgentToolResult,
    ApprovalRequested,
    Event,
)

PROGRAM = str(Path(demo_program.__file__))
Line = dict[str, Any]


class Conversation:
    """A demo agent whose lines are read one by one. `faulthandler_timeout` bounds every wait."""

    def __init__(self, cwd: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", PROGRAM, "--pace", "0", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin = self.process.stdin
        self._stdout = self.process.stdout

    def say(self, text: str) -> None:
        self.send({"type": "user", "message": {"role": "user", "content": text}})

    def send(self, line: Line) -> None:
        self._stdin.write(json.dumps(line) + "\n")
        self._stdin.flush()

    def until(self, kind: str, subtype: str | None = None) -> list[Line]:
        """Lines up to the first of this kind, which is the last of them."""
        lines = []
        for text in self._stdout:
            line = json.loads(text)
            lines.append(line)
            if line["type"] == kind and subtype in (None, line.get("subtype")):
                return lines
        raise AssertionError(f"no {kind} among {lines}")

    def close_input(self) -> None:
        self._stdin.close()

    def end(self) -> int:
        if not self._stdin.closed:
            self._stdin.close()
        self._stdout.close()
        return self.process.wait()


@pytest.fixture
def conversation(tmp_path: Path) -> Iterator[Conversation]:
    talk = Conversation(tmp_path, "--input-format", "stream-json", "--scenario", "approval")
    yield talk
    talk.process.kill()
    talk.end()


def run(cwd: Path, *options: str, prompt: str = "count words") -> tuple[list[Line], int]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM, "--pace", "0", *options],
        input=prompt,
        stdout=subprocess.PIPE,
        cwd=cwd,
        text=True,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]], done.returncode


def blocks(lines: list[Line], kind: str) -> list[Line]:
    return [
        block
        for line in lines
        if line["type"] in ("assistant", "user")
        for block in line["message"]["content"]
        if block["type"] == kind
    ]


# --- the files scenario ------------------------------------------------------------------------------------------


def test_it_does_the_work_that_it_tells_of(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine\n")
    lines, status = run(tmp_path)
    assert status == 0
    assert lines[0]["type"] == "system"
    assert lines[0]["subtype"] == "init"
    assert lines[0]["cwd"] == str(tmp_path)
    result = lines[-1]
    assert (result["type"], result["subtype"], result["is_error"]) == ("result", "success", False)
    # The fix is in the file, so the tests pass for anybody who runs them.
    again = subprocess.run(
        [sys.executable, "-B", "-m", "unittest", "test_words"], cwd=tmp_path / "demo", capture_output=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "demo/top.txt").exists()
    assert (tmp_path / "notes.md").read_text() == "mine\n"


def test_every_call_has_its_result_and_exactly_one_failed(tmp_path: Path) -> None:
    lines, _ = run(tmp_path)
    calls = blocks(lines, "tool_use")
    results = blocks(lines, "tool_result")
    assert [call["id"] for call in calls] == [result["tool_use_id"] for result in results]
    assert {call["name"] for call in calls} == set(demo_program.TOOLS)
    failed = [result for result in results if result["is_error"]]
    assert len(failed) == 1
    assert failed[0]["content"].startswith("Exit code 1\n")
    assert "FAIL: test_case_does_not_matter" in failed[0]["content"]


def test_it_says_everywhere_that_it_is_a_demo(tmp_path: Path) -> None:
    lines, _ = run(tmp_path)
    assert lines[0]["model"] == "demo"
    assert lines[0]["apiKeySource"] == "none"
    assert all("Demo" in block["text"] for block in blocks(lines, "text"))
    assert all(line["message"]["model"] == "demo" for line in lines if line["type"] == "assistant")
    assert lines[-1]["total_cost_usd"] == 0


def test_one_block_per_line_and_one_session(tmp_path: Path) -> None:
    lines, _ = run(tmp_path, "--resume", "the-session")
    assert {line["session_id"] for line in lines} == {"the-session"}
    assert all(len(line["message"]["content"]) == 1 for line in lines if line["type"] == "assistant")


def test_it_runs_twice_in_the_same_workspace(tmp_path: Path) -> None:
    run(tmp_path)
    lines, status = run(tmp_path)
    assert status == 0
    assert sum(result["is_error"] for result in blocks(lines, "tool_result")) == 1


def test_partial_messages_joined_are_the_text(tmp_path: Path) -> None:
    lines, _ = run(tmp_path, "--include-partial-messages", "--scenario", "approval")
    deltas = [
        line["event"]["delta"]["text"]
        for line in lines
        if line["type"] == "stream_event" and line["event"]["type"] == "content_block_delta"
    ]
    assert "".join(deltas) == "".join(block["text"] for block in blocks(lines, "text"))


def test_an_unwritable_workspace_gives_failed_results_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file where the directory should be")
    lines, status = run(tmp_path)
    assert status == 0
    assert any("File exists" in result["content"] for result in blocks(lines, "tool_result") if result["is_error"])


# --- the scenarios for tests and benchmarks --------------------------------------------------------------------------


def test_numbers_prints_so_many_lines_in_order(tmp_path: Path) -> None:
    lines, _ = run(tmp_path, "--scenario", "numbers", "--count", "250")
    assert [block["text"] for block in blocks(lines, "text")] == [f"Demo: line {n}" for n in range(1, 251)]


def test_calls_makes_so_many_calls(tmp_path: Path) -> None:
    lines, _ = run(tmp_path, "--scenario", "calls", "--count", "20")
    assert len(blocks(lines, "tool_use")) == len(blocks(lines, "tool_result")) == 20


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_without_a_prompt_it_complains_on_stderr_only(tmp_path: Path) -> None:
    lines, status = run(tmp_path, prompt=" \n")
    assert (lines, status) == ([], 1)


def test_sigint_gives_an_error_result_and_kills_the_command(tmp_path: Path) -> None:
    talk = Conversation(tmp_path, "--scenario", "long", "wait")
    lines = talk.until("assistant")
    while not blocks(lines, "tool_use"):
        lines = talk.until("assistant")
    talk.process.send_signal(signal.SIGINT)
    rest = talk.until("result")
    assert blocks(rest, "tool_result")[0]["is_error"] is True
    assert (rest[-1]["subtype"], rest[-1]["is_error"]) == ("error_during_execution", True)
    assert talk.end() == 1
    assert working_in(tmp_path) == []


def working_in(directory: Path) -> list[str]:
    """Processes whose working directory this is: what is left of the agent's commands."""
    left = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if entry.readlink() == directory:
                left.append(entry.parent.name)
    return left


# --- the control protocol --------------------------------------------------------------------------------------------


def ask(talk: Conversation) -> Line:
    return talk.until("control_request")[-1]


def answer(talk: Conversation, request: Line, **response: Any) -> None:
    body = {"subtype": "success", "request_id": request["request_id"], "response": response}
    talk.send({"type": "control_response", "response": body})


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Conversation]:
    talk = Conversation(
        tmp_path, "--input-format", "stream-json", "--permission-prompt-tool", "stdio", "--scenario", "approval"
    )
    talk.say("go on")
    yield talk
    talk.process.kill()
    talk.end()


def test_what_is_allowed_is_done_and_what_is_denied_is_not(asking: Conversation, tmp_path: Path) -> None:
    write = ask(asking)
    assert (write["request"]["subtype"], write["request"]["tool_name"]) == ("can_use_tool", "Write")
    assert not (tmp_path / "demo").exists()
    answer(asking, write, behavior="allow", updatedInput={**write["request"]["input"], "content": "echo changed\n"})
    bash = ask(asking)
    assert (tmp_path / "demo/hello.sh").read_text() == "echo changed\n"
    answer(asking, bash, behavior="deny", message="Not today.")
    lines = asking.until("result")
    assert blocks(lines, "tool_result")[-1] == {
        "type": "tool_result",
        "tool_use_id": bash["request"]["tool_use_id"],
        "content": "Not today.",
        "is_error": True,
    }
    denials = cast("list[Line]", lines[-1]["permission_denials"])
    assert [denial["tool_name"] for denial in denials] == ["Bash"]
    assert lines[-1]["subtype"] == "success"


def test_a_denial_with_interrupt_ends_the_turn(asking: Conversation) -> None:
    answer(asking, ask(asking), behavior="deny", message="Stop.", interrupt=True)
    assert asking.until("result")[-1]["subtype"] == "error_during_execution"


def test_an_interrupt_while_asking_takes_the_question_back(asking: Conversation) -> None:
    question = ask(asking)
    asking.send({"type": "control_request", "request_id": "i1", "request": {"subtype": "interrupt"}})
    lines = asking.until("result")
    kinds = [line["type"] for line in lines]
    assert kinds == ["control_response", "control_cancel_request", "user", "user", "result"]
    assert lines[1]["request_id"] == question["request_id"]


def test_a_closed_stdin_denies_and_the_run_goes_on(asking: Conversation) -> None:
    ask(asking)
    asking.close_input()
    lines = asking.until("result")
    assert [result["is_error"] for result in blocks(lines, "tool_result")] == [True, True]
    assert lines[-1]["subtype"] == "success"
    assert asking.end() == 0


def test_initialize_is_answered_before_the_first_turn(conversation: Conversation) -> None:
    conversation.send({"type": "control_request", "request_id": "a", "request": {"subtype": "initialize"}})
    reply = conversation.until("control_response")
    assert len(reply) == 1
    assert reply[0]["response"]["request_id"] == "a"


def test_follow_up_messages_get_turns_of_their_own(conversation: Conversation, tmp_path: Path) -> None:
    conversation.say("first")
    conversation.until("result")
    conversation.say("please remember this")
    lines = conversation.until("result")
    assert (lines[0]["type"], lines[0]["subtype"]) == ("system", "init")
    assert "please remember this" in (tmp_path / "demo/notes.md").read_text()
    conversation.close_input()
    assert conversation.end() == 0


def test_an_interrupted_run_takes_a_follow_up(tmp_path: Path) -> None:
    talk = Conversation(tmp_path, "--input-format", "stream-json", "--scenario", "long")
    talk.say("wait")
    lines = talk.until("assistant")
    while not blocks(lines, "tool_use"):
        lines = talk.until("assistant")
    talk.send({"type": "control_request", "request_id": "i1", "request": {"subtype": "interrupt"}})
    stopped = talk.until("result")
    assert stopped[0]["type"] == "control_response"
    assert stopped[-1]["subtype"] == "error_during_execution"
    talk.say("go on")
    assert talk.until("result")[-1]["subtype"] == "success"
    assert talk.end() == 0


def test_a_message_during_a_turn_joins_it(asking: Conversation, tmp_path: Path) -> None:
    question = ask(asking)
    asking.say("and this too")
    answer(asking, question, behavior="allow", updatedInput=question["request"]["input"])
    for _ in range(2):
        question = ask(asking)
        answer(asking, question, behavior="allow", updatedInput=question["request"]["input"])
    asking.until("result")
    asking.close_input()
    assert "and this too" in (tmp_path / "demo/notes.md").read_text()
    assert asking.end() == 0


# --- its adapter -----------------------------------------------------------------------------------------------------


def launch(cwd: Path, **fields: Any) -> Launch:
    request = RunRequest(prompt=fields.pop("prompt", "count words"), cwd=str(cwd), **fields)
    return DemoAdapter().launch(request, {"PATH": os.environ["PATH"]})


def events_of(cwd: Path, **fields: Any) -> tuple[list[Event], Summary]:
    """Start it as the daemon would, but with both ends of stdin given at once."""
    start = launch(cwd, env={"DEMO_PACE": "0", **fields.pop("env", {})}, **fields)
    done = subprocess.run(start.argv, input=start.stdin, env=start.env, cwd=cwd, stdout=subprocess.PIPE, check=False)
    parser = DemoAdapter().parser(RunRequest(prompt="", cwd=str(cwd), work_order_id="w", run_id="r"))
    at = Moment(datetime.now(UTC), 0.0)
    events = [event for line in done.stdout.split(b"\n")[:-1] for event in parser.parse(line, at)]
    assert parser.close(at) == []
    outcome = DemoAdapter().outcome(parser.summary, Exit(code=done.returncode), "")
    assert outcome.success, outcome
    return events, parser.summary


def test_its_lines_are_claude_codes(tmp_path: Path) -> None:
    events, summary = events_of(tmp_path)
    kinds = Counter(type(event) for event in events)
    assert AgentRaw not in kinds
    assert AgentError not in kinds
    assert kinds[AgentSession] == 1
    assert kinds[AgentToolCall] == kinds[AgentToolResult] > 10
    assert [event.success for event in events if isinstance(event, AgentToolResult)].count(False) == 1
    assert [len(event.items) for event in events if isinstance(event, AgentPlan)] == [5] * 6
    assert (summary.finished, summary.error_code, summary.malformed_lines) == (True, None, 0)
    assert summary.total_cost_usd == 0
    assert summary.result_text is not None
    assert summary.result_text.startswith("## Demo")


def test_a_workspace_that_shadows_the_standard_library_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the workspace')\n")
    (tmp_path / "agentstream").mkdir()
    (tmp_path / "agentstream/__init__.py").write_text("raise SystemExit('imported from the workspace')\n")
    _, summary = events_of(tmp_path)
    assert summary.finished


def test_variables_of_the_request_choose_the_scenario(tmp_path: Path) -> None:
    events, _ = events_of(tmp_path, env={"DEMO_SCENARIO": "numbers", "DEMO_COUNT": "3"})
    said = [event.content for event in events if isinstance(event, AgentOutput)]
    assert said == ["Demo: line 1", "Demo: line 2", "Demo: line 3"]


def test_it_asks_only_where_asking_was_asked_for(tmp_path: Path) -> None:
    quiet, _ = events_of(tmp_path, ask_approvals=True)
    assert not any(isinstance(event, ApprovalRequested) for event in quiet)
    # Its stdin ends at once here, which denies.
    asking, _ = events_of(tmp_path, ask_approvals=True, permission_mode="default")
    assert [event.tool_name for event in asking if isinstance(event, ApprovalRequested)] == ["Write", "Bash"]


def test_deltas_and_resume_reach_the_program(tmp_path: Path) -> None:
    events, summary = events_of(tmp_path, include_deltas=True, resume_session_id="s-1", interactive=True)
    assert any(isinstance(event, AgentOutputDelta) for event in events)
    assert summary.session_id == "s-1"


def test_an_empty_prompt_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(InvalidMessage, match="taskPrompt"):
        launch(tmp_path, prompt=" ")


def test_it_needs_no_login_and_inherits_nothing() -> None:
    adapter = DemoAdapter()
    assert (adapter.agent_type, adapter.variables, adapter.login_files({"HOME": "/home/user"})) == ("demo", (), ())
    assert adapter.login({}, {}) == "none needed"
    assert "no model" in adapter.label
