"""How far a run is, guessed from what the agent does. Pure; the time is an argument.

No agent tells how far it is, so this is an estimate, made of the best there is: the agent's own plan (items done of all), or
else the number of tool calls and the time, through a function that comes ever nearer to its end without reaching it. Two things
are certain and clients rely on them: the percentage never falls, and it is 100 only when the run is complete.

The phase follows the kinds of tool calls. It goes back and forth, as a real agent does; the percentage doesn't.

| what is seen | phase |
| --- | --- |
| a tool that reads or searches | Reading |
| a plan with new items; thinking or a planning tool while nothing was changed yet | Planning |
| a tool that writes; a shell command after the end seemed near | Implementing |
| a shell command that runs tests | Testing |
| text after tools, with none in flight and no plan item open | Finalizing, until the next tool |

Ticking off a plan's items and thinking between two edits are not Planning: the phase would flicker with every call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from agentstream.model.events import (
    AgentOutput,
    AgentPlan,
    AgentThinking,
    AgentToolCall,
    AgentToolResult,
    Event,
    Phase,
    PlanItem,
    ToolName,
)

_READING: Final = frozenset[ToolName]({"Read", "Grep", "Glob", "WebFetch", "WebSearch"})
_WRITING: Final = frozenset[ToolName]({"Write", "Edit"})
#: The agents' own names for to-do lists and plans, in lower case without underscores.
_PLANNING: Final = frozenset(
    {"todowrite", "todoread", "taskcreate", "taskupdate", "tasklist", "updateplan", "writetodos", "enterplanmode"}
    | {"exitplanmode"}
)
#: A guess from calls and time alone ends here: it has no way to know the end.
_GUESS_LIMIT: Final = 95.0
#: So many tool calls, or so many seconds, make 63% of the guess's way.
_TYPICAL_CALLS: Final = 25.0
_TYPICAL_SECONDS: Final = 600.0
#: How much of a shell command is looked at, in characters.
_COMMAND_LIMIT: Final = 4_000

# A test runner where a command can stand: at the beginning, after an operator, a quote or a wrapper such as "uv run". Words stop at
# the characters at which a command may begin, and quantifiers are possessive, so that the search is linear in a hostile command.
_TESTS: Final = re.compile(
    r"""
    (?:^|[;&|(\n'"`])[ \t]*+
    (?:\w++=[^\s;&|('"`]*+[ \t]++|(?:sudo|time|env|exec|command|npx|bunx|uvx|bundle[ ]exec|xvfb-run)[ \t]++|timeout[ ]\w+[ \t]++
      |(?:uv|poetry|pdm|pipenv|hatch|rye)[ ]run[ \t]++|[^\s;&|('"`]*python[\d.]*[ ]-m[ \t]++)*+
    (?:[^\s;&|('"`]*/)?
    (?: (?:pytest|py\.test|tox|nox|unittest|jest|vitest|mocha|ava|karma|rspec|phpunit|ctest|gotestsum|bats|busted|prove|stestr)\b
      | (?:npm|pnpm|yarn|bun|deno|cargo|go|make|just|dotnet|mvn|mvnw|gradle|gradlew|swift|mix|zig|bazel|rake|flutter|dart|sbt
          |lein|cabal|stack|composer|meson|ninja|rails|playwright|cypress|node|rebar3|dune)
        [ \t]++ (?:-[^\s;&|('"`]*+[ \t]++|run[ \t]++)*+ -{0,2}(?:test|tests|check|nextest|t)\b
    )
    """,
    re.VERBOSE,
)


@attrs.frozen(kw_only=True)
class ProgressEstimate:
    """The fields of a `ProgressUpdate`. Times in seconds, rounded to milliseconds."""

    percentage: int
    current_phase: Phase
    tool_call_count: int
    elapsed_seconds: float
    #: None while there is nothing to reckon from.
    estimated_remaining_seconds: float | None


class Progress:
    """The estimate of one run that started at ``now`` (monotonic seconds, as in all its methods)."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._phase: Phase = "Starting"
        self._percentage = 0
        self._calls = 0
        self._in_flight = 0
        self._plan: Sequence[PlanItem] = ()
        self._done = 0
        #: What the whole run would take if all plan items took as long as those that are done.
        self._whole_seconds: float | None = None
        self._complete = False

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._phase

    def observe(self, event: Event, now: float) -> None:
        """Take an event of the run into account. Kinds that tell nothing are ignored."""
        match event:
            case AgentToolCall():
                self._calls += 1
                self._in_flight += 1
                self._phase = self._phase_of_call(event)
            case AgentToolResult():
                self._in_flight = max(0, self._in_flight - 1)
            case AgentPlan():
                self._observe_plan(event.items, now)
            case AgentThinking() if self._phase in ("Starting", "Reading"):
                self._phase = "Planning"
            case AgentOutput() if self._calls and not self._in_flight and self._done == len(self._plan):
                self._phase = "Finalizing"
            case _:
                pass

    def update(self, now: float) -> ProgressEstimate:
        """The estimate as of ``now``."""
        elapsed = max(0.0, now - self._started)
        remaining: float | None = None
        if self._complete:
            self._percentage = 100
            remaining = 0.0
        else:
            self._percentage = max(self._percentage, min(99, int(self._guess(elapsed))))
            if self._whole_seconds is not None:
                remaining = max(0.0, self._whole_seconds - elapsed)
        return ProgressEstimate(
            percentage=self._percentage,
            current_phase=self._phase,
            tool_call_count=self._calls,
            elapsed_seconds=round(elapsed, 3),
            estimated_remaining_seconds=None if remaining is None else round(remaining, 3),
        )

    def complete(self, now: float) -> ProgressEstimate:
        """The run has completed: the only way to 100."""
        self._complete = True
        self._phase = "Finalizing"
        return self.update(now)

    def _phase_of_call(self, call: AgentToolCall) -> Phase:
        if call.tool in _READING:
            return "Reading"
        if call.tool in _WRITING:
            return "Implementing"
        if call.tool == "Bash":
            if runs_tests(call.input):
                return "Testing"
            return "Implementing" if self._phase in ("Starting", "Testing", "Finalizing") else self._phase
        if call.tool_name.lower().replace("_", "") in _PLANNING:
            return "Planning" if self._phase in ("Starting", "Reading") else self._phase
        return "Implementing" if self._phase == "Finalizing" else self._phase

    def _observe_plan(self, items: Sequence[PlanItem], now: float) -> None:
        if {item.content for item in items} - {item.content for item in self._plan}:
            self._phase = "Planning"
        done = sum(item.status == "completed" for item in items)
        if (done, len(items)) != (self._done, len(self._plan)):
            started = 0 < done < len(items)
            self._whole_seconds = max(0.0, now - self._started) * len(items) / done if started else None
        self._plan = items
        self._done = done

    def _guess(self, elapsed: float) -> float:
        if self._plan:
            return 99 * self._done / len(self._plan)
        return _GUESS_LIMIT * -math.expm1(-self._calls / _TYPICAL_CALLS - elapsed / _TYPICAL_SECONDS)


def runs_tests(tool_input: Mapping[str, Any]) -> bool:
    """Whether a shell tool's input looks like running tests. ``command`` is a string, or a list of arguments."""
    command = tool_input.get("command")
    if isinstance(command, list):
        command = "\n".join(str(part) for part in command[:20])
    return isinstance(command, str) and _TESTS.search(command[:_COMMAND_LIMIT]) is not None
