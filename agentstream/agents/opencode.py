"""opencode: ``opencode run --format json``. Pure.

Found by running it (tests/recordings/opencode): a tool is told only when it has finished, call and result in one line, with
times; the exit status of a shell command is in its metadata; there is no last line, so exit status 0 and a last step that
ended with ``stop`` is success; cost and tokens are per step; it is silent while it tries again, and takes 5 s to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from agentstream.agents.api_errors import code_of_failure
from agentstream.agents.base import Exit, Moment, Outcome, RunRequest, Summary
from agentstream.agents.content import count, mapping, maybe_string, number, readable, string
from agentstream.agents.endings import died
from agentstream.agents.one_shot import OneShotAdapter, OneShotParser
from agentstream.agents.plan import Plan
from agentstream.model.events import AgentPlan, Event, Usage


class OpencodeParser(OneShotParser):
    """One run's lines."""

    tools: ClassVar = {
        "bash": "Bash",
        "write": "Write",
        "edit": "Edit",
        "patch": "Edit",
        "apply_patch": "Edit",
        "read": "Read",
        "grep": "Grep",
        "glob": "Glob",
        "webfetch": "WebFetch",
        "websearch": "WebSearch",
    }

    def __init__(self, request: RunRequest, *, preview_limit: int | None = 500) -> None:
        super().__init__(request, preview_limit=preview_limit)
        self._plan = Plan()

    def read(self, item: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """Every line names the session."""
        if (session_id := maybe_string(item, "sessionID")) is not None:
            self.session(at, out, session_id)
        super().read(item, at, out)

    def step_start(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The agent works (again)."""
        self.working()

    def text(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A whole text."""
        text = string(line["part"], "text")
        self._summary.result_text = text
        self.say(text, at, out, message_id=maybe_string(line["part"], "messageID"))

    def reasoning(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A whole thought."""
        self.think(string(line["part"], "text"), at, out, message_id=maybe_string(line["part"], "messageID"))

    def tool_use(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """A call and its result."""
        part = line["part"]
        state = mapping(part.get("state"))
        name, call_id = string(part, "tool"), maybe_string(part, "callID")
        arguments = mapping(state.get("input"))
        self.call(call_id, self.tools.get(name, "Other"), name, arguments, at, out)
        failed = state.get("status") != "completed" or mapping(state.get("metadata")).get("exit") not in (None, 0)
        text = readable(state.get("error") if state.get("status") == "error" else state.get("output"))
        time = mapping(state.get("time"))
        begun, ended = number(time.get("start")), number(time.get("end"))
        duration = None if begun is None or ended is None else max(0, round(ended - begun))
        self.result(call_id, not failed, text, at, out, duration_ms=duration)
        if name == "todowrite" and self._plan.replace(arguments.get("todos")):
            out.append(
                AgentPlan(
                    timestamp=at.wall, work_order_id=self.work_order_id, run_id=self.run_id, items=self._plan.items()
                )
            )

    def step_finish(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """Tokens and money of one call of the model; the last one has the reason ``stop``."""
        part = line["part"]
        self._summary.turns = (self._summary.turns or 0) + 1
        tokens, old = mapping(part.get("tokens")), self._summary.usage or Usage(total_cost_usd=0.0)
        cache = mapping(tokens.get("cache"))
        if part.get("reason") == "stop":
            self.finish()
        self.total(
            Usage(
                input_tokens=old.input_tokens + count(tokens.get("input")),
                output_tokens=old.output_tokens + count(tokens.get("output")) + count(tokens.get("reasoning")),
                cache_read_tokens=(old.cache_read_tokens or 0) + count(cache.get("read")),
                cache_creation_tokens=(old.cache_creation_tokens or 0) + count(cache.get("write")),
                total_cost_usd=(old.total_cost_usd or 0.0) + (number(part.get("cost")) or 0.0),
            ),
            at,
            out,
        )

    def an_error(self, line: dict[str, Any], at: Moment, out: list[Event]) -> None:
        """The run fails."""
        error = mapping(line.get("error"))
        data = mapping(error.get("data"))
        text = maybe_string(data, "message") or maybe_string(error, "name") or "an error without a message"
        if error.get("name") == "MessageAbortedError":
            self.failed("ABORTED", text, at, out)
        else:
            self.failed(code_of_failure(text, data.get("statusCode")), text, at, out)

    readers: ClassVar = {
        "step_start": step_start,
        "text": text,
        "reasoning": reasoning,
        "tool_use": tool_use,
        "step_finish": step_finish,
        "error": an_error,
    }


class OpencodeAdapter(OneShotAdapter):
    """How opencode is started."""

    agent_type = "opencode"
    label = "opencode"
    program = "opencode"
    parser_class = OpencodeParser
    variables = ("OPENCODE_*", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY")
    quiet: ClassVar = {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_SHARE": "1"}
    login_file = ".local/share/opencode/auth.json"
    keys = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY")
    cost = True

    def options(self, request: RunRequest, prompt: str, env: Mapping[str, str]) -> list[str]:
        """Its configuration decides what is allowed, unless the request allows everything."""
        model = [f"--model={request.model}"] if request.model else []
        session = [f"--session={request.resume_session_id}"] if request.resume_session_id else []
        allowed = ["--auto"] if request.permission_mode == "bypassPermissions" else []
        return ["run", "--format=json", *allowed, *model, *session, prompt]

    def outcome(self, summary: Summary, exit: Exit, stderr_tail: str) -> Outcome:  # noqa: A002 - the process's exit
        """A step that ended with ``stop`` may have been followed by trouble: here the exit status counts as well."""
        if summary.finished and summary.error_code is None and exit.code not in (None, 0):
            return died(exit, stderr_tail)
        return super().outcome(summary, exit, stderr_tail)
