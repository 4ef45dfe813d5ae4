"""What an agent prints, on its way from the spool to events: lines without secrets, parsed, in pieces that fit the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import trio

from agentstream.agents.base import Moment, Parser
from agentstream.agents.command import LenientParser
from agentstream.model.events import (
    AgentError,
    AgentOutput,
    AgentOutputDelta,
    AgentToolCall,
    AgentToolResult,
    ApprovalRequested,
    ApprovalResolved,
    Event,
)
from agentstream.model.limits import fit
from agentstream.runs.capture import Tail
from agentstream.runs.collect import CollectedText
from agentstream.runs.conversation import Conversation
from agentstream.runs.framing import Line, LineFramer
from agentstream.runs.progress import Progress
from agentstream.runs.spec import RunSpec
from agentstream.runs.throttle import ThrottledChannel

#: Lines parsed between two checkpoints: two hundred ordinary lines take about 2 ms, which others can wait for.
_LINES_PER_TURN: Final = 200
#: Events of a line below this size can't be over the wire's bound: JSON of the same text is about as long.
_SURELY_SMALL: Final = 16 * 1024


class OutputReader:
    """Reads stdout and stderr of one run into its throttled channel; one task each.

    ``note`` is told of what was read, and says whether to read on. ``parsed`` is called when lines were parsed, and the parser's
    summary may be another. Both may be taken away once nothing is read any more.
    """

    def __init__(
        self,
        spec: RunSpec,
        channel: ThrottledChannel,
        progress: Progress,
        conversation: Conversation,
        *,
        redact: Callable[[bytes], bytes] | None,
        note: Callable[[bytes], bool],
        parsed: Callable[[], None],
    ) -> None:
        self.stdout = CollectedText(spec.limits.max_collected_bytes)
        self.stderr = CollectedText(spec.limits.max_collected_bytes)
        self.parser: Parser = (
            spec.adapter.parser(spec.request, approval_seconds=spec.limits.approval_timeout)
            if spec.adapter is not None
            else LenientParser(spec.request)
        )
        self._spec = spec
        self._channel = channel
        self._progress = progress
        self._conversation = conversation
        self._redact = redact
        self.note = note
        self.parsed = parsed
        options = spec.options
        self._unwanted = frozenset[type[Event]](
            kind
            for kind, asked_for in (
                (AgentToolCall, options.emit_tool_calls),
                (AgentToolResult, options.emit_tool_results),
                (AgentOutput, options.emit_output),
                (AgentOutputDelta, options.emit_output),
            )
            if not asked_for
        )

    async def read_stdout(self, tail: Tail) -> None:
        """Until the end, or until it was too much."""
        framer = LineFramer(max_line_bytes=self._spec.limits.max_line_bytes)
        while data := await tail.read_chunk():
            if not self.note(data):
                return
            await self._parse(framer.push(data))
        await self._parse(framer.finish())

    async def read_stderr(self, tail: Tail) -> None:
        """Likewise; each line is an `AgentError`."""
        framer = LineFramer(max_line_bytes=self._spec.limits.max_line_bytes)
        while data := await tail.read_chunk():
            if not self.note(data):
                return
            await self._pass_stderr(framer.push(data))
        await self._pass_stderr(framer.finish())

    async def close(self) -> None:
        """Nothing more will be printed: what the parser has left."""
        moment = _now()
        await self._channel.send(self._wanted(self.parser.close(moment), moment, size=_SURELY_SMALL + 1))

    async def _parse(self, lines: list[Line]) -> None:
        for start in range(0, len(lines), _LINES_PER_TURN):
            moment = _now()
            turn = self._clean(lines[start : start + _LINES_PER_TURN])
            self.stdout.add(b"\n".join(turn) + b"\n")
            wanted: list[Event] = []
            for data in turn:
                wanted += self._wanted(self.parser.parse(data, moment), moment, size=len(data))
            await self._channel.send(wanted)
            self.parsed()
            await self._give_way(start, lines)

    async def _pass_stderr(self, lines: list[Line]) -> None:
        for start in range(0, len(lines), _LINES_PER_TURN):
            moment = _now()
            turn = self._clean(lines[start : start + _LINES_PER_TURN])
            self.stderr.add(b"\n".join(turn) + b"\n")
            wanted: list[Event] = []
            for data in turn:
                if text := data.decode(errors="replace").strip():
                    event = AgentError(**self._spec.envelope(), message=text, code="STDERR", source="stderr")
                    wanted += self._wanted([event], moment, size=len(data))
            await self._channel.send(wanted)
            await self._give_way(start, lines)

    @staticmethod
    async def _give_way(start: int, lines: Sequence[Line]) -> None:
        # After the last turn reading on does so: the agent that prints a line now and then shouldn't pay twice.
        if start + _LINES_PER_TURN < len(lines):
            await trio.lowlevel.checkpoint()

    def _clean(self, lines: Sequence[Line]) -> list[bytes]:
        """The lines without secrets. Nearly always there is none: one search for all of them tells."""
        data = [line.data for line in lines]
        if self._redact is None or self._redact(joined := b"\n".join(data)) == joined:
            return data
        return [self._redact(one) for one in data]

    def _wanted(self, events: list[Event], at: Moment, *, size: int) -> list[Event]:
        """What the options ask for, in pieces that fit the wire."""
        wanted: list[Event] = []
        for event in events:
            self._progress.observe(event, at.monotonic)
            match event:
                case ApprovalRequested():
                    self._conversation.opened(event)
                case ApprovalResolved():
                    self._conversation.closed(event.request_id)
            if type(event) not in self._unwanted:
                wanted += fit(event) if size > _SURELY_SMALL else (event,)
        return wanted


def _now() -> Moment:
    return Moment(datetime.now(UTC), trio.current_time())
