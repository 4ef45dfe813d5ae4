"""The other programs, each against the recordings of its real self, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentstream.agents.base import Adapter, Exit
from agentstream.agents.registry import registry
from agentstream.errors import Conflict, InvalidMessage
from agentstream.model import wire
from agentstream.model.events import AgentOutput, AgentRaw, AgentToolCall, AgentToolResult, AgentUsage
from agentstream.model.limits import fit
from tests.agents.conftest import Recording, check, moment, play, recordings, request
from tests.agents.spoiling import spoilt

TYPES = {
    "codex": "openai-codex",
    "gemini": "gemini-cli",
    "opencode": "opencode",
    "qwen": "qwen-code",
    "pi": "pi",
    "copilot": "copilot-cli",
}
ALL = [recording for cli in TYPES for recording in recordings(cli)]
by_case = pytest.mark.parametrize("recording", ALL, ids=lambda recording: f"{recording.cli}-{recording.case}")
by_cli = pytest.mark.parametrize("cli", TYPES)


def adapter(cli: str) -> Adapter:
    return registry().get(TYPES[cli])


@by_case
def test_a_recording_becomes_the_reviewed_events_summary_and_outcome(recording: Recording) -> None:
    check(adapter(recording.cli), recording)


@by_case
def test_no_line_of_the_real_program_is_unknown_and_each_call_has_one_result(recording: Recording) -> None:
    parser = adapter(recording.cli).parser(request())
    events = play(parser, recording.lines)
    assert not [event for event in events if isinstance(event, AgentRaw)]
    assert parser.summary.malformed_lines == parser.summary.in_flight == 0
    calls = [event.tool_use_id for event in events if isinstance(event, AgentToolCall)]
    assert calls == list(dict.fromkeys(calls))
    assert sorted(calls) == sorted(event.tool_use_id for event in events if isinstance(event, AgentToolResult))


@by_case
def test_how_it_ended_is_found_out(recording: Recording) -> None:
    parser = adapter(recording.cli).parser(request())
    play(parser, recording.lines)
    outcome = adapter(recording.cli).outcome(parser.summary, recording.exit, recording.meta["stderr"])
    expected = {
        "basic": (None,),
        "resume_1": (None,),
        "resume_2": (None,),
        "err_429_once": (None,),
        "err_401_always": ("AUTHENTICATION_FAILED",),
        "bad_flag": ("INVALID_USAGE",),
        # Codex catches SIGINT and exits with status 1, without a last line.
        "cancel_SIGINT_pid": ("KILLED", "CRASHED"),
    }[recording.case]
    assert outcome.error_code in expected


@by_cli
def test_it_is_started_as_it_was_recorded(cli: str) -> None:
    """Every option of ours was accepted by the real program; ``--name=value`` and ``--name value`` are the same to it."""
    (recorded,) = (recording for recording in recordings(cli) if recording.case == "resume_2")
    argv = " ".join(recorded.meta["argv"])
    session = (
        next(word for word in recorded.meta["argv"] if "_" in word[:4] or word.count("-") == 4)
        if cli != "copilot"
        else None
    )
    launch = adapter(cli).launch(request(prompt="go on", resume_session_id=session), {})
    words = " ".join(launch.argv).replace("=", " ").replace("--prompt", "-p")
    for word in words.split():
        assert word in argv, word
    assert not launch.stdin
    assert not launch.keep_stdin_open


@by_cli
@pytest.mark.parametrize("prompt", ["--help", "@/etc/passwd"])
def test_a_prompt_is_no_option_and_no_file(cli: str, prompt: str) -> None:
    last = adapter(cli).launch(request(prompt=prompt), {}).argv[-1]
    assert last.removeprefix("--prompt=") == " " + prompt


@by_cli
@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": " "},
        {"prompt": "x" * 200_000},
        {"prompt": "a\0"},
        {"interactive": True},
        {"permission_mode": "plan"},
        {"max_turns": 3},
        {"disallowed_tools": ["Bash"]},
        {"allowed_tools": ["Read"]},
        {"system_prompt": "be brief"},
        {"model": "m\0"},
    ],
)
def test_what_it_does_not_have_is_refused_rather_than_ignored(cli: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        adapter(cli).launch(request(**changes), {})


@by_cli
def test_it_is_quiet_and_the_request_wins(cli: str) -> None:
    env = adapter(cli).launch(request(env={"NO_COLOR": "0", "X": "y"}), {"PATH": "/bin"}).env
    assert (env["PATH"], env["NO_COLOR"], env["X"]) == ("/bin", "0", "y")


@by_cli
def test_it_takes_no_messages_while_it_works(cli: str) -> None:
    ours = adapter(cli)
    with pytest.raises(Conflict):
        ours.message("hi")
    with pytest.raises(Conflict):
        ours.interrupt()
    with pytest.raises(Conflict):
        ours.approval("q", "allow", message=None, updated_input={})


@by_cli
def test_its_login_is_told_without_the_secret(cli: str) -> None:
    ours: Any = adapter(cli)
    assert ours.login({}, {}) is None
    key = ours.keys[0]
    assert ours.login({key: "made-up-secret"}, {}) == f"API key ({key})"
    assert ours.login_hint() is None
    for path in ours.login_files({"HOME": "/home/user"}):
        assert path.startswith("/home/user/.")
        assert ours.login({}, {path: '{"token": "made-up-secret"}'}) == f"login of {path}"
        assert ours.login({}, {path: "{}"}) is None
        assert ours.login({}, {path: "broken"}) is None


@by_cli
def test_exit_status_0_without_the_last_line_is_no_success(cli: str) -> None:
    ours = adapter(cli)
    assert ours.outcome(ours.parser(request()).summary, Exit(code=0), "").error_code == "NO_RESULT"


@by_cli
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_line_hurts(cli: str, data: st.DataObject) -> None:
    basic = next(recording for recording in recordings(cli) if recording.case == "basic")
    ours = adapter(cli)
    parser = ours.parser(request())
    for event in play(parser, data.draw(st.lists(spoilt(basic.lines), max_size=6))):
        for piece in fit(event):
            wire.event_body(piece)
    ours.outcome(parser.summary, Exit(code=1), "")


# --- what is special to one -------------------------------------------------------------------------------------------


def test_codex_cached_tokens_are_not_counted_twice() -> None:
    usage = {"input_tokens": 300, "cached_input_tokens": 30, "output_tokens": 120}
    (event,) = (
        adapter("codex").parser(request()).parse(orjson.dumps({"type": "turn.completed", "usage": usage}), moment(0))
    )
    assert isinstance(event, AgentUsage)
    assert (event.input_tokens, event.cache_read_tokens, event.output_tokens) == (270, 30, 120)


def test_gemini_text_is_whole_in_one_output_and_not_lost_at_the_end() -> None:
    parser = adapter("gemini").parser(request())
    pieces = [{"type": "message", "role": "assistant", "content": text, "delta": True} for text in ("a ", "b")]
    events = play(parser, [orjson.dumps(piece) for piece in pieces])
    assert [event.content for event in events if isinstance(event, AgentOutput)] == ["a b"]


@pytest.mark.parametrize(
    ("code", "stderr", "expected"),
    [(41, "Please set an Auth method", "NOT_LOGGED_IN"), (42, "Error resuming session: x", "SESSION_NOT_FOUND")],
)
def test_gemini_exit_statuses(code: int, stderr: str, expected: str) -> None:
    ours = adapter("gemini")
    assert ours.outcome(ours.parser(request()).summary, Exit(code=code), stderr).error_code == expected


def test_opencode_needs_its_exit_status_besides_the_last_step() -> None:
    ours = adapter("opencode")
    parser = ours.parser(request())
    play(parser, [b'{"type":"step_finish","sessionID":"s","part":{"reason":"stop"}}'])
    assert ours.outcome(parser.summary, Exit(code=0), "").success
    assert ours.outcome(parser.summary, Exit(code=1), "boom").error_code == "CRASHED"


def test_pi_takes_a_provider_before_the_model_and_shows_no_base64() -> None:
    argv = adapter("pi").launch(request(model="openai/gpt-5"), {}).argv
    assert argv[4:8] == ("--provider", "openai", "--model", "gpt-5")
    image = {"content": [{"type": "image", "data": "QUJD", "mimeType": "image/png"}]}
    line = {"type": "tool_execution_end", "toolCallId": "t", "toolName": "read", "result": image}
    (event,) = adapter("pi").parser(request()).parse(orjson.dumps(line), moment(0))
    assert isinstance(event, AgentToolResult)
    assert event.content_preview == "[image image/png, 3 bytes]"
