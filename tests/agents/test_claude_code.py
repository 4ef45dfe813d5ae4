"""How Claude Code is started, talked to and logged in."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from agentstream.agents.base import Adapter, Launch
from agentstream.agents.claude_code import MAX_ARGUMENT, ClaudeCodeAdapter
from agentstream.agents.claude_code_subscription import ClaudeCodeSubscriptionAdapter
from agentstream.errors import InvalidMessage
from tests.agents.conftest import Recording, recordings, request

ADAPTER: Adapter = ClaudeCodeAdapter()
SUBSCRIPTION: Adapter = ClaudeCodeSubscriptionAdapter()
SECRET = "sk-made-up-secret"
FILE = "/home/user/.claude/.credentials.json"
CREDENTIALS = json.dumps({"claudeAiOauth": {"accessToken": SECRET, "refreshToken": SECRET, "subscriptionType": "max"}})


def launch(**changes: Any) -> Launch:
    return ADAPTER.launch(request(**changes), {})


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_prompt_goes_over_stdin_whatever_its_length_and_its_first_character() -> None:
    for prompt in ("--help", "-", "x" * 1_000_000, "zero \0 and 🎉"):
        started = launch(prompt=prompt)
        assert started.stdin == prompt.encode()
        assert started.argv == ("claude", "-p", "--output-format=stream-json", "--verbose")
        assert not started.keep_stdin_open


def test_half_a_surrogate_pair_in_a_prompt_is_replaced() -> None:
    assert launch(prompt="a\ud83d").stdin == b"a?"
    assert orjson.loads(launch(prompt="a\ud83d", interactive=True).stdin)["message"]["content"] == "a?"


def test_every_option_is_one_argument() -> None:
    argv = launch(
        model="opus",
        max_turns=7,
        permission_mode="acceptEdits",
        allowed_tools=["Bash(git log:*)", "Edit"],
        disallowed_tools=["WebFetch"],
        system_prompt="--be brief",
        resume_session_id="s-1",
        include_deltas=True,
    ).argv
    assert argv[4:] == (
        "--include-partial-messages",
        "--model=opus",
        "--max-turns=7",
        "--permission-mode=acceptEdits",
        "--allowedTools=Bash(git log:*),Edit",
        "--disallowedTools=WebFetch",
        "--append-system-prompt=--be brief",
        "--resume=s-1",
    )


def test_a_conversation_begins_with_the_prompt_as_a_message_and_keeps_stdin_open() -> None:
    started = launch(interactive=True)
    assert started.keep_stdin_open
    assert "--input-format=stream-json" in started.argv
    assert started.stdin == ADAPTER.message("do it")
    assert "--permission-prompt-tool=stdio" not in started.argv


def test_permissions_are_asked_over_stdin() -> None:
    started = launch(ask_approvals=True)
    assert started.keep_stdin_open
    assert {"--input-format=stream-json", "--permission-prompt-tool=stdio"} <= set(started.argv)


def test_another_program_takes_its_place() -> None:
    assert ClaudeCodeAdapter(("nice", "/opt/claude")).launch(request(), {}).argv[:3] == ("nice", "/opt/claude", "-p")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": " \n"}, "taskPrompt"),
        ({"model": "a\0b"}, "model"),
        ({"system_prompt": "é" * (MAX_ARGUMENT // 2)}, "systemPrompt"),
        ({"allowed_tools": ["Bash", " "]}, "allowedTools"),
    ],
)
def test_what_can_not_be_passed_on_is_refused_with_the_fields_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        launch(**changes)
    assert caught.value.message.startswith(f"{field}: expected")


# --- the environment -------------------------------------------------------------------------------------------------


def test_the_request_wins_over_the_quiet_variables_and_they_over_the_base() -> None:
    base = {"PATH": "/bin", "DISABLE_TELEMETRY": "0", "CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli"}
    env = ADAPTER.launch(request(env={"DISABLE_AUTOUPDATER": "0", "X": "y"}), base).env
    assert env == {
        "PATH": "/bin",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "0",
        "X": "y",
    }


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_FOUNDRY_API_KEY",
        "ANTHROPIC_BEDROCK_BASE_URL",
        "ANTHROPIC_VERTEX_PROJECT_ID",
        "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "CLAUDE_CODE_USE_FOUNDRY",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_SECRET_ACCESS_KEY",
    ],
)
def test_the_subscription_never_gets_a_key_whoever_gives_it(name: str) -> None:
    assert name not in SUBSCRIPTION.launch(request(env={name: SECRET}), {name: SECRET}).env
    assert name in ADAPTER.launch(request(env={name: SECRET}), {}).env


def test_the_subscription_keeps_what_it_needs() -> None:
    kept = {
        "CLAUDE_CODE_OAUTH_TOKEN": "t",
        "CLAUDE_CONFIG_DIR": "/c",
        "ANTHROPIC_BASE_URL": "http://h",
        "ANTHROPIC_MODEL": "m",
    }
    assert kept.items() <= SUBSCRIPTION.launch(request(env=kept), {}).env.items()


# --- the login -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "files", "login"),
    [
        ({}, {}, None),
        ({"ANTHROPIC_API_KEY": ""}, {}, None),
        ({"ANTHROPIC_API_KEY": SECRET}, {FILE: CREDENTIALS}, "API key (ANTHROPIC_API_KEY)"),
        (
            {"ANTHROPIC_API_KEY": SECRET, "ANTHROPIC_AUTH_TOKEN": SECRET},
            {},
            "API key (ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN)",
        ),
        ({"CLAUDE_CODE_OAUTH_TOKEN": SECRET}, {}, "subscription (CLAUDE_CODE_OAUTH_TOKEN)"),
        ({}, {FILE: CREDENTIALS}, f"subscription (max, {FILE})"),
        ({}, {FILE: "not JSON"}, None),
        ({}, {FILE: "[]"}, None),
        ({}, {FILE: '{"claudeAiOauth": {"accessToken": ""}}'}, None),
        ({"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_API_KEY": SECRET}, {}, "Amazon Bedrock"),
        ({"CLAUDE_CODE_USE_VERTEX": "0"}, {}, None),
        (
            {
                "ANTHROPIC_AUTH_TOKEN": SECRET,
                "ANTHROPIC_BASE_URL": f"https://me:{SECRET}@gate.example:8443/{SECRET}?k={SECRET}",
            },
            {},
            "API key (ANTHROPIC_AUTH_TOKEN), through the gateway https://gate.example:8443",
        ),
        (
            {"ANTHROPIC_API_KEY": SECRET, "ANTHROPIC_BASE_URL": f"http://[{SECRET}"},
            {},
            "API key (ANTHROPIC_API_KEY), through the gateway of ANTHROPIC_BASE_URL",
        ),
    ],
)
def test_the_login_is_told_in_words_and_never_its_secret(
    env: dict[str, str], files: dict[str, str], login: str | None
) -> None:
    assert ADAPTER.login(env, files) == login
    assert SECRET not in (login or "")


def test_a_subscription_is_not_replaced_by_a_key() -> None:
    key = {"ANTHROPIC_API_KEY": SECRET}
    assert SUBSCRIPTION.login(key, {}) is None
    assert SUBSCRIPTION.login(key, {FILE: CREDENTIALS}) == f"subscription (max, {FILE})"
    assert (
        SUBSCRIPTION.login({**key, "CLAUDE_CODE_OAUTH_TOKEN": SECRET}, {}) == "subscription (CLAUDE_CODE_OAUTH_TOKEN)"
    )
    assert "setup-token" in (SUBSCRIPTION.login_hint() or "")
    # The key may be in settings that only the program reads.
    assert ADAPTER.login_hint() is None


def test_the_credentials_are_where_the_program_keeps_them() -> None:
    assert ADAPTER.login_files({"HOME": "/home/user"}) == (FILE,)
    assert ADAPTER.login_files({"HOME": "/home/user", "CLAUDE_CONFIG_DIR": "/etc/claude"}) == (
        "/etc/claude/.credentials.json",
    )
    assert ADAPTER.login_files({}) == ()


# --- the conversation ------------------------------------------------------------------------------------------------


def sent(recording: Recording) -> list[dict[str, Any]]:
    return [item["msg"] for item in recording.meta["stdin_sent"]]


TALKS = [recording for recording in recordings("claude") if recording.meta["stdin_sent"]]


@pytest.mark.parametrize("recording", TALKS, ids=lambda recording: recording.case)
def test_what_is_written_is_what_the_real_program_accepted(recording: Recording) -> None:
    for accepted in sent(recording):
        match accepted:
            case {"type": "user", "message": {"content": str(text)}}:
                ours = ADAPTER.message(text)
                accepted.pop("uuid", None)
            case {"type": "control_request", "request": {"subtype": "interrupt"}}:
                ours = ADAPTER.interrupt()
                accepted["request_id"] = orjson.loads(ours)["request_id"]
            case {"type": "control_response", "response": {"request_id": request_id, "response": answer}}:
                ours = ADAPTER.approval(
                    request_id,
                    answer["behavior"],
                    message=answer.get("message"),
                    updated_input=answer.get("updatedInput"),
                )
                # Ending the turn is done by an interrupt, for which a denial needs no flag of its own.
                answer.pop("interrupt", None)
            case _:
                continue
        assert ours.endswith(b"\n")
        assert ours.count(b"\n") == 1
        assert orjson.loads(ours) == accepted


def test_a_message_is_one_line_whatever_is_in_it() -> None:
    assert ADAPTER.message("a\nb\r\n\u2028").count(b"\n") == 1


def test_a_denial_always_says_something_to_the_model() -> None:
    answer = orjson.loads(ADAPTER.approval("q", "deny", message=None, updated_input={"a": 1}))["response"]["response"]
    assert answer == {"behavior": "deny", "message": "The user denied this tool call."}


def test_allowing_needs_the_input() -> None:
    with pytest.raises(ValueError, match="updated_input"):
        ADAPTER.approval("q", "allow", message=None, updated_input=None)
